"""The tables of the report: the winner beside the start, every trial, and where the run came from."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from evolve.charts import Axis, drawable, fixed, range_bar, short
from evolve.journal import RunState, TrialState
from evolve.page import Html, tag
from evolve.space import Gene, Space
from evolve.wording import belief_words, duration, measured_words, moment, origin_words

EDGE = 0.02  # of a range, on the scale on which it is searched


def winner_table(state: RunState, space: Space) -> Html:
    """The best configuration, gene by gene beside the start's, and the metrics of its best epoch."""
    best = state.best()
    if best is None:
        return tag("p", "No trial has finished yet.", class_="soft")
    heads = ("gene", "start", "best", "change", "place in its range")
    kinds = (None, "num", "num", "num wide", "wide")
    head = tag("tr", *(tag("th", name, class_=kind) for name, kind in zip(heads, kinds, strict=True)))
    rows = [_winner_row(gene, best) for gene in space.genes]
    metrics = [f"{name} {short(value)}" for name, value in best.metrics.items()]
    words = f"Trial {best.id}, {origin_words(best.origin)}, fitness {fixed(best.fitness)}."
    found = state.measured()
    if found is not None:
        words += f" {belief_words(found) if found.confirmed else measured_words(found.found)}"
    measured = f" Its best epoch: {', '.join(metrics)}." if metrics else ""
    measured += edge_words(space, best)
    table = tag("table", tag("thead", head), tag("tbody", *rows))
    return tag("div", tag("p", words + measured, class_="note"), tag("div", table, class_="plain"))


def edge_words(space: Space, best: TrialState) -> str:
    """Which genes of the winner lie at a bound, so that a wider range may hold better ones; empty for none.

    0 and 1 are no such bounds: off is off, and a probability or a share can't be more.
    """
    names = []
    for gene in space.genes:
        value = drawable(best.config.get(gene.name))
        if gene.choices or value is None or not gene.low <= value <= gene.high:
            continue
        unit = Axis(gene.low, gene.high, log=gene.logarithmic).place(value)
        if min(unit, 1 - unit) < EDGE and (gene.low if unit < 0.5 else gene.high) not in (0, 1):
            names.append(gene.name)
    if not names:
        return ""
    return f" At the edge of the range: {', '.join(names)}; a wider one may hold better values."


def _winner_row(gene: Gene, best: TrialState) -> Html:
    start, value = drawable(gene.first), drawable(best.config.get(gene.name))
    if start is None:  # a word among words has no place in a range
        chosen = best.config.get(gene.name)
        change = "none" if chosen == gene.first else "–"
        cells = ((gene.first, "num"), (chosen, "num"), (change, "num soft wide"), ("", "wide"))
        row = (tag("td", str(text), class_=kind) for text, kind in cells)
        return tag("tr", tag("th", gene.name, scope="row"), *row)
    return tag(
        "tr",
        tag("th", gene.name, scope="row"),
        tag("td", short(start, 5), class_="num"),
        tag("td", tag("b", short(value, 5)), class_="num"),
        tag("td", _change(start, value, gene.logarithmic), class_="num soft wide"),
        tag("td", range_bar(Axis(gene.low, gene.high, log=gene.logarithmic), start, value), class_="wide"),
    )


def _value(value: object) -> str:
    return value if isinstance(value, str) else short(drawable(value), 5)


def _change(start: float, value: float | None, log: bool) -> str:
    """By how much a gene moved: a factor on a log scale, a difference otherwise."""
    if value is None or value == start:
        return "–" if value is None else "none"
    if log and start > 0:
        return f"× {short(value / start, 3)}"
    return f"{'+' if value > start else '−'}{short(abs(value - start), 3)}"


def trials_table(state: RunState, space: Space) -> Html:
    """Every trial, fittest first, then the running ones, then the failed ones with their reasons."""
    if not state.trials:
        return tag("p", "No trial has been asked yet.", class_="soft")
    best = state.best()
    heads = [
        _head("trial"),
        _head("fitness", "num", first="descending", sort="descending" if best is not None else None),
        _head("status"),
        _head("origin"),
        *(_head(name, "num") for name in ("epochs", "time", *space.names)),
    ]
    rows = [_trial_row(trial, space, trial is best) for trial in sorted(state.trials.values(), key=_rank)]
    table = tag("table", tag("thead", tag("tr", *heads)), tag("tbody", *rows), class_="sortable")
    return tag("div", table, class_="scroll", tabindex="0", role="region", aria_label="table of trials")


def _rank(trial: TrialState) -> tuple[int, float]:
    fitness = drawable(trial.fitness)
    if fitness is not None:
        return 0, -fitness
    return (1 if trial.status == "running" else 2), 0.0


def _head(name: str, css: str | None = None, *, first: str | None = None, sort: str | None = None) -> Html:
    """A head that sorts its column; `first`: direction of the first click, `sort`: of the page as made."""
    button = tag("button", name, type="button")
    return tag("th", button, scope="col", class_=css, data_first=first, aria_sort=sort)


def _trial_row(trial: TrialState, space: Space, winner: bool) -> Html:
    failed = trial.status not in ("running", "stopped") and drawable(trial.fitness) is None
    why = failed or trial.status == "stopped"
    reason = tag("span", trial.reason or "no reason given", class_="reason") if why else None
    retried = f", attempt {trial.attempt + 1}" if trial.attempt else ""
    seconds = drawable(trial.seconds)
    return tag(
        "tr",
        tag("th", trial.id, scope="row"),
        tag("td", fixed(trial.fitness), class_="num"),
        tag("td", trial.status + retried, reason, data_v=trial.status if reason or retried else None),
        tag("td", origin_words(trial.origin)),
        tag("td", trial.epochs, class_="num"),
        tag("td", "–" if seconds is None else duration(seconds), class_="num", data_v=_plain(seconds)),
        *(tag("td", _value(trial.config.get(name)), class_="num") for name in space.names),
        class_="winner" if winner else "failed-row" if failed else None,
    )


def _plain(number: float | None) -> str | None:
    return None if number is None else f"{number:.6g}"


def provenance_list(header: Mapping[str, Any]) -> Html:
    """Where the run came from: the journal's first event without its space and box shapes."""
    items = [("run", str(header.get("name"))), ("begun", moment(header.get("time")))]
    for key, value in header.items():
        if key not in ("event", "version", "name", "time", "space", "shapes"):
            items.extend(_flat(key, value))
    return tag("dl", *(tag("div", tag("dt", name), tag("dd", text)) for name, text in items))


def _flat(name: str, value: object) -> Iterator[tuple[str, str]]:
    """Nested mappings as dotted names, in their order."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _flat(f"{name}.{key}", item)
    elif isinstance(value, str):
        yield name, value
    else:
        yield name, "–" if value is None else json.dumps(value)
