"""What the report shows, taken from the events of a journal."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from evolve.charts import drawable
from evolve.journal import Event, RunState, TrialState, fold
from evolve.space import Gene, Space

ELITE_SHARE = 0.2


@dataclass(frozen=True)
class Scored:
    """A trial told with a fitness that can be drawn."""

    trial: TrialState
    fitness: float


@dataclass(frozen=True)
class View:
    """What the sections of the page are made from.

    Attributes:
        state: the folded journal.
        space: genes of the run.
        told: trials of the search that ended, well or not, in the order of their ends.
        scored: those of them with a fitness, in the same order.
        start: the start configuration's trial, None before it has a fitness.
        best: the fittest trial, None before the first.
        seconds: of the wall clock, pauses between sessions left out.
    """

    state: RunState
    space: Space
    told: tuple[TrialState, ...]
    scored: tuple[Scored, ...]
    start: Scored | None
    best: Scored | None
    seconds: float


def build_view(events: Sequence[Event]) -> View:
    """Fold a journal's events into what the page shows; errors as `write_report`."""
    state = fold(events)
    ended = sorted((t for t in state.searched if t.status != "running"), key=lambda t: t.told_at or 0.0)
    scored = tuple(Scored(t, fitness) for t in ended if (fitness := drawable(t.fitness)) is not None)
    best = state.best()
    return View(
        state=state,
        space=Space.from_dict(state.header["space"]),
        told=tuple(ended),
        scored=scored,
        start=next((s for s in scored if s.trial.origin.get("kind") == "start"), None),
        best=next((s for s in scored if s.trial is best), None),
        seconds=sum(_sessions(events)),
    )


def _sessions(events: Iterable[Event]) -> Iterator[float]:
    """Seconds of each session: from its run or resume event to its last."""
    first = last = 0.0
    for event in events:
        now = drawable(event.get("time"))
        if now is None:
            continue
        if event["event"] in ("run", "resume"):
            yield last - first
            first = now
        last = max(now, first)
    yield last - first


def box_shapes(state: RunState) -> dict[str, Any]:
    """What the header says of box shapes and anchors; empty where it says nothing."""
    shapes = state.header.get("shapes")
    return shapes if isinstance(shapes, dict) else {}


def anchor_metric(shapes: dict[str, Any], side: str, key: str) -> float | None:
    """One figure of the anchors before or after their fit, None where it is not known."""
    metrics = shapes.get(side)
    return drawable(metrics.get(key)) if isinstance(metrics, dict) else None


def elite(view: View) -> list[Scored]:
    """The best fifth of the trials with a fitness, three at least."""
    ranked = sorted(view.scored, key=lambda scored: -scored.fitness)
    return ranked[: max(round(ELITE_SHARE * len(ranked)), 3)]


def place_of(gene: Gene, value: object) -> float | None:
    """Where a value lies in its gene's range, in [0, 1]; None where it has no place. A journal may hold any."""
    if gene.choices:
        return gene.encode(value) if isinstance(value, str | int | float) and value in gene.choices else None
    number = drawable(value)
    return None if number is None else gene.encode(min(max(number, gene.low), gene.high))
