"""Earlier results, taken into a new search: configurations and what they were worth elsewhere.

Fitnesses of another data set, model or number of epochs cannot be compared with those of this run, but their order
says much. So an earlier result enters the search as a rank with a wide noise, wider the less alike the data sets are,
and the best few are tried early, right after the start.
"""

import csv
import io
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from evolve.gene import EvolveError, SpaceError, Value
from evolve.journal import fold, read_journal
from evolve.space import Space

UNKNOWN_LIKENESS = 0.5
MOST = 200
_MAP50 = ("metrics/mAP_0.5", "metrics/mAP50(B)")
_MAP50_95 = ("metrics/mAP_0.5:0.95", "metrics/mAP50-95(B)")
_QUANTILES = np.linspace(0.05, 0.95, 19)


class WarmStartError(EvolveError):
    """Earlier results that cannot be read or say nothing of this space."""


@dataclass(frozen=True)
class Result:
    """One earlier configuration by name, possibly with other genes than this run's, and its fitness there."""

    values: Mapping[str, Any]
    fitness: float


@dataclass(frozen=True)
class Earlier:
    """Earlier results in this run's space.

    Attributes:
        source: where they came from, as the user gave it.
        results: configurations of this space and their fitness there, the fittest first, at most `MOST`.
        likeness: of the data sets, 0 to 1; `UNKNOWN_LIKENESS` where nothing is known.
        note: what was taken, and how alike the data are, in a line.
    """

    source: str
    results: tuple[tuple[dict[str, Value], float], ...]
    likeness: float
    note: str

    def to_dict(self) -> dict[str, Any]:
        """Plain data for a journal's header."""
        results = [[config, fitness] for config, fitness in self.results]
        return {"source": self.source, "results": results, "likeness": self.likeness, "note": self.note}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Read what `to_dict` wrote."""
        results = tuple((dict(config), float(fitness)) for config, fitness in data["results"])
        return cls(str(data["source"]), results, float(data["likeness"]), str(data["note"]))


def load_earlier(
    source: Path, space: Space, wh_px: ArrayLike | None = None, results: Iterable[Result] | None = None
) -> Earlier:
    """Read earlier results, and say how alike the data sets are.

    Args:
        source: a run folder of ours, an `evolve.csv` of YOLOv5, a `tune_results.csv` or `tune_results.ndjson` of
            Ultralytics; or the name of whatever `results` were read from.
        space: this run's genes. A gene that a result does not name is at its start; one beyond this run's bounds is
            moved to the bound; genes that this run does not search are left out.
        wh_px: (N, 2) box shapes of this run's data at its image size; None where they are not known.
        results: already read, from MLflow for one.

    Raises:
        WarmStartError: the source cannot be read, or holds no result of any gene of this space.
        JournalError: the run's journal is damaged.
    """
    there: NDArray[np.float64] | None = None
    if results is None:
        results, there = _read(Path(source))
    taken: list[tuple[dict[str, Value], float]] = []
    seen: set[tuple[Value, ...]] = set()
    for result in sorted(results, key=lambda each: -each.fitness):
        config = _fitted(result.values, space)
        if config is not None and tuple(config.values()) not in seen and math.isfinite(result.fitness):
            seen.add(tuple(config.values()))
            taken.append((config, result.fitness))
    if not taken:
        raise WarmStartError(
            f"{source}: no result there names a gene of this search ({', '.join(space.names)})"
        )
    alike = None if there is None or wh_px is None else likeness(wh_px, there)
    words = (
        "nothing is known of its data set"
        if alike is None
        else f"its boxes are {alike:.0%} like this data set's in size and shape"
    )
    note = f"{len(taken[:MOST])} earlier results of {source}: {words}"
    known = UNKNOWN_LIKENESS if alike is None else alike
    return Earlier(str(source), tuple(taken[:MOST]), known, note)


def likeness(wh_px: ArrayLike, other_wh_px: ArrayLike) -> float:
    """How alike the boxes of two data sets are: 1 for the same sizes and shapes, towards 0 for others.

    The mean distance between quantiles of the logarithms of area and of aspect, through exp(-distance): boxes twice
    as wide and high everywhere are 50 % alike in size.

    Args:
        wh_px: (N, 2), positive, each data set at its own image size, which is what a detector sees.
        other_wh_px: (M, 2).

    >>> likeness([[10, 20], [30, 30]], [[10, 20], [30, 30]])
    1.0
    """
    first, second = np.asarray(wh_px, dtype=np.float64), np.asarray(other_wh_px, dtype=np.float64)
    if not len(first) or not len(second):
        return UNKNOWN_LIKENESS
    gaps = [
        float(np.mean(np.abs(np.quantile(one, _QUANTILES) - np.quantile(two, _QUANTILES))))
        for one, two in zip(_shape_logs(first), _shape_logs(second), strict=True)
    ]
    return round(math.exp(-(gaps[0] / 2 + gaps[1])), 4)


def _shape_logs(wh: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    logs = np.log(np.maximum(wh, 1e-6))
    return logs.sum(axis=1), logs[:, 0] - logs[:, 1]


def _fitted(values: Mapping[str, Any], space: Space) -> dict[str, Value] | None:
    """A result's configuration in this space, None where it names none of its genes."""
    config = space.start
    known = False
    for gene in space.genes:
        if gene.name not in values:
            continue
        value = values[gene.name]
        try:
            if not gene.choices:
                number = min(max(float(value), gene.low), gene.high)
                value = round(number) if gene.integer else number
            config[gene.name] = gene.check(value)
        except (TypeError, ValueError, SpaceError):
            continue
        known = True
    return space.decode(space.encode(config)) if known else None


def _read(source: Path) -> tuple[list[Result], NDArray[np.float64] | None]:
    """Results of a file or folder, and box shapes where it knows any."""
    journal = source / "journal.jsonl" if source.is_dir() else source
    if journal.name == "journal.jsonl":
        state = fold(read_journal(journal))
        shapes = state.header.get("shapes")
        wh = shapes.get("wh") if isinstance(shapes, dict) else None
        hyp = (state.header.get("settings") or {}).get("hyp") or {}
        found = [Result({**hyp, **trial.config}, trial.fitness or 0.0) for trial in state.finished]
        return found, None if not wh else np.asarray(wh, dtype=np.float64)
    try:
        text = source.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise WarmStartError(f"{source}: earlier results cannot be read ({error})") from error
    return list(
        _rows_of_lines(text, source) if source.suffix == ".ndjson" else _rows_of_table(text, source)
    ), None


def _rows_of_table(text: str, source: Path) -> Iterable[Result]:
    """Rows of an `evolve.csv` (fitness from its two mAPs) or a `tune_results.csv` (a column `fitness`)."""
    rows = list(csv.reader(io.StringIO(text), skipinitialspace=True))
    if len(rows) < 2:
        raise WarmStartError(f"{source}: a table must have a head and a row, but it has {len(rows)} lines")
    head = [name.strip() for name in rows[0]]
    for number, row in enumerate(rows[1:], start=2):
        if len(row) < len(head):
            continue  # cut short by a killed writer, as these programs leave it
        values = {name: _number(cell) for name, cell in zip(head, row, strict=False)}
        fitness = _fitness(values)
        if fitness is None:
            raise WarmStartError(
                f"{source}:{number}: a row must have fitness, or both mAPs, but has {head[:8]}"
            )
        if math.isfinite(fitness):
            yield Result(values, fitness)


def _rows_of_lines(text: str, source: Path) -> Iterable[Result]:
    """Lines of JSON that hold `fitness`, and the genes beside it or in a map of their own."""
    for number, line in enumerate(text.splitlines(), start=1):
        try:
            row = json.loads(line)
        except ValueError:
            if number == len(text.splitlines()):
                return  # a killed writer
            raise WarmStartError(f"{source}:{number}: the line is no JSON") from None
        if not isinstance(row, dict):
            raise WarmStartError(f"{source}:{number}: a line must hold a map, but got {line[:60]!r}")
        values = dict(row)
        for key in ("hyperparameters", "hyp", "params", "config"):
            if isinstance(row.get(key), dict):
                values |= row[key]
        fitness = _fitness(values)
        if fitness is not None and math.isfinite(fitness):
            yield Result(values, fitness)


def _fitness(values: Mapping[str, Any]) -> float | None:
    if isinstance(values.get("fitness"), int | float):
        return float(values["fitness"])
    half, whole = _first(values, _MAP50), _first(values, _MAP50_95)
    return None if half is None or whole is None else 0.1 * half + 0.9 * whole


def _first(values: Mapping[str, Any], names: Sequence[str]) -> float | None:
    return next((float(values[name]) for name in names if isinstance(values.get(name), int | float)), None)


def _number(cell: str) -> float | str:
    try:
        return float(cell)
    except ValueError:
        return cell.strip()
