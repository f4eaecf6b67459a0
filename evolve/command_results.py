"""What a command wrote of how well it does, read while it writes: rows of named numbers, one an epoch.

A program writes its files as it likes: padded headers, a last line that is not whole yet, rows twice after a
resume. All of it is read again at each look (such files are small), so that nothing depends on when one looks.
"""

import csv
import io
import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evolve.command_spec import Results
from evolve.space import EvolveError
from evolve.tracked_results import read_metrics

Row = dict[str, float]
MOST_COLUMNS_SAID = 20


class ResultsError(EvolveError):
    """Results that can't be read, or that lack what the trainer's file names."""


@dataclass(frozen=True)
class Reader:
    """Reads one trial's results.

    Attributes:
        results: What the trainer's file says of them.
        file: The results file; of mlflow the tracking URI.
        log: The command's output.
        tag: What the command's MLflow run is found by.
    """

    results: Results
    file: str
    log: Path
    tag: str = ""

    def rows(self) -> list[Row]:
        """All rows that are whole, as written.

        Raises:
            ResultsError: The file is none of its format.
        """
        kind = self.results.format
        if kind == "mlflow":
            return read_metrics(self.file, self.tag)
        path = Path(self.file) if self.file else self.log
        try:
            text = path.read_bytes().decode("utf-8", errors="replace")
        except FileNotFoundError:
            return []
        except OSError as error:
            raise ResultsError(f"{path}: the results can't be read ({error.strerror})") from error
        readers: dict[str, Callable[[str], list[Row]]] = {
            "csv": read_csv,
            "json": lambda text: read_json(text, self.results.rows),
            "jsonl": read_json_lines,
            "regex": lambda text: read_pattern(text, self.results.pattern),
        }
        return readers[kind](text)

    def epochs(self) -> dict[int, Row]:
        """Epoch (from 0) to what the journal gets of it: fitness where the row has it, and the named metrics.

        Of several rows for one epoch the last counts.

        Raises:
            ResultsError: As `rows`.
        """
        found: dict[int, Row] = {}
        for number, row in enumerate(self.rows()):
            epoch = number
            if self.results.epoch is not None:
                said = row.get(self.results.epoch, math.nan)
                if not math.isfinite(said) or said < self.results.first:
                    continue
                epoch = int(said) - self.results.first
            found[epoch] = judged(row, self.results)
        return dict(sorted(found.items()))

    def check_columns(self) -> None:
        """Refuse results without the columns of the fitness.

        Raises:
            ResultsError: No row has them, with the columns that there are.
        """
        rows = self.rows()
        where = self.file or self.log.name
        if not rows:
            raise ResultsError(f"{where}: the command ended well, but wrote no results there")
        missing = [column for column in self.results.fitness if all(column not in row for row in rows)]
        if missing:
            there = ", ".join(list(rows[-1])[:MOST_COLUMNS_SAID])
            raise ResultsError(f"{where}: the fitness needs {missing[0]!r}, but there is only {there}")


def judged(row: Mapping[str, float], results: Results) -> Row:
    """The fitness of a row and its metrics under the journal's names; without a fitness where a column is missing."""
    metrics = {name: row[column] for name, column in results.metrics.items() if column in row}
    if any(column not in row for column in results.fitness):
        return metrics
    return {
        "fitness": math.fsum(row[column] * weight for column, weight in results.fitness.items()),
        **metrics,
    }


def read_csv(text: str) -> list[Row]:
    r"""Rows of a CSV file; heads and cells may be padded, and what is no number is left out of its row.

    >>> read_csv("  epoch,  map \n   0,  0.5\n  1, 0.")
    [{'epoch': 0.0, 'map': 0.5}]
    """
    whole = text[: text.rfind("\n") + 1]  # a line without its end is still being written
    table = [
        [cell.strip() for cell in line] for line in csv.reader(io.StringIO(whole.replace("\0", ""))) if line
    ]
    if not table:
        return []
    head, *lines = table
    return [_numbers(zip(head, line, strict=False)) for line in lines if line != head]


def read_json(text: str, rows: str = "") -> list[Row]:
    """Rows of a JSON file: a list, or one object; nested names are joined by dots.

    Args:
        text: Of the file; one that is not whole yet has no rows.
        rows: Dotted path of the list within it.

    >>> read_json('{"runs": [{"val": {"map": 0.5}}]}', "runs")
    [{'val.map': 0.5}]
    """
    try:
        value = json.loads(text)
    except ValueError:
        return []
    for key in rows.split(".") if rows else ():
        value = value.get(key) if isinstance(value, dict) else None
    items = value if isinstance(value, list) else [value]
    return [_numbers(_flat(item).items()) for item in items if isinstance(item, dict)]


def read_json_lines(text: str) -> list[Row]:
    """Rows of a file of JSON objects, one a line; other lines are left out."""
    return [row for line in text.splitlines() for row in read_json(line)]


def read_pattern(text: str, pattern: str) -> list[Row]:
    r"""A row for each place where the pattern matches, of its named groups.

    >>> read_pattern("epoch 1 map 0.25", r"epoch (?P<epoch>\d+) map (?P<map>[\d.]+)")
    [{'epoch': 1.0, 'map': 0.25}]
    """
    # Progress bars return to the line's start: what they wrote are lines too.
    plain = text.replace("\r", "\n")
    whole = plain[: plain.rfind("\n") + 1] or plain
    return [_numbers(match.groupdict().items()) for match in re.finditer(pattern, whole, re.MULTILINE)]


def _flat(value: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, item in value.items():
        if isinstance(item, dict):
            flat |= _flat(item, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = item
    return flat


def _numbers(cells: Any) -> Row:
    row: Row = {}
    for name, cell in cells:
        try:
            row[str(name)] = math.nan if isinstance(cell, bool) else float(cell)
        except (TypeError, ValueError):
            continue
    return row


@dataclass(frozen=True)
class Best:
    """What a trial came to.

    Attributes:
        epoch: Of the highest fitness; None where there is none.
        fitness: The same; None for a failure.
        reason: Why it failed.
    """

    epoch: int | None
    fitness: float | None
    reason: str | None = None


def best_epoch(epochs: Mapping[int, Row]) -> Best:
    """The best epoch; a fitness that ended as no finite number is a failure, whatever was before.

    >>> best_epoch({0: {"fitness": 0.1}, 1: {"fitness": 0.3}, 2: {"fitness": 0.2}}).epoch
    1
    """
    told: Sequence[tuple[int, float]] = [(e, row["fitness"]) for e, row in epochs.items() if "fitness" in row]
    if not told:
        return Best(None, None, "no epoch has a fitness")
    last, value = told[-1]
    if not math.isfinite(value):
        return Best(None, None, f"the fitness was {value} in epoch {last}")
    epoch, fitness = max(((e, f) for e, f in told if math.isfinite(f)), key=lambda pair: pair[1])
    return Best(epoch, fitness)
