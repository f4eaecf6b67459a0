"""A run's state as the service shows it."""

import math
from collections.abc import Mapping
from typing import Any

from cluster.service_models import AnchorsOfRun, Evolution, GeneInfo, State, Summary, TrialInfo, Winner
from cluster.spec import JobInfo
from evolve.journal import RunState, TrialState
from evolve.wording import belief_words


def state_of(state: RunState, driver: str | None, job: JobInfo | None) -> tuple[State, str | None]:
    """How a run that has begun stands, and why; a job that runs is about to drive it, or to do so again."""
    if driver is not None:
        return "running", None
    if state.told >= state.budget:
        return "finished", state.enough
    if state.stopped is not None:
        return "stopped", state.stopped or None
    if job is not None and job.status == "running":
        return "running", None
    if job is not None and job.status == "queued":
        return "waiting", job.detail or "its job is queued"
    return "interrupted", "nobody drives it: `beagle resume` goes on"


def trial_info(trial: TrialState) -> TrialInfo:
    """One trial as the service shows it."""
    return TrialInfo(
        id=trial.id,
        state=trial.status,
        fitness=trial.fitness,
        epoch=trial.epochs,
        config=dict(trial.config),
        origin=trial.origin,
        attempt=trial.attempt,
        asked=trial.asked_at,
        seconds=trial.seconds,
        reason=trial.reason,
        updated=trial.told_at or trial.reported_at or trial.asked_at,
    )


def gene_info(data: Mapping[str, Any]) -> GeneInfo:
    """One gene of a journal's header."""
    return GeneInfo(
        name=str(data["name"]),
        low=data.get("low"),
        high=data.get("high"),
        start=data.get("start"),
        log=bool(data.get("log", False)),
        integer=bool(data.get("integer", False)),
        choices=data.get("choices"),
    )


def winner_of(state: RunState) -> Winner | None:
    """The leading configuration with the interval of its mean; None before the first that finished."""
    best, measured = state.best(), state.measured()
    if best is None or measured is None:
        return None
    mean, margin = measured.standing.mean, measured.standing.margin
    return Winner(
        trial=best.id,
        fitness=mean,
        low=None if margin is None else mean - margin,
        high=None if margin is None else mean + margin,
        runs=measured.standing.runs,
        epochs=measured.epochs,
        confirmed=measured.confirmed,
        words=belief_words(measured),
        config=dict(best.config),
    )


def fitness_of_start(state: RunState) -> float | None:
    """Of the default configuration, measured as the winner was where it was so; None before its first training."""
    measured = state.measured()
    if measured is not None and measured.start is not None:
        return measured.start.mean
    first = next(iter(state.trials.values()), None)
    return None if first is None else first.fitness


def anchors_of(state: RunState) -> AnchorsOfRun | None:
    """Anchors of all trials, where the header says them."""
    levels = (state.header.get("settings") or {}).get("anchors")
    shapes = state.header.get("shapes")
    if not isinstance(levels, list) or not isinstance(shapes, dict):
        return None
    before, after = (shapes.get(side) or {} for side in ("before", "after"))
    return AnchorsOfRun(levels=levels, bpr_before=before.get("bpr"), bpr_after=after.get("bpr"))


def finite_metrics(row: Mapping[str, Any]) -> dict[str, float | None]:
    """Metrics that JSON can hold."""
    return {
        name: value
        for name, value in row.items()
        if value is None or (isinstance(value, int | float) and math.isfinite(value))
    }


def only_summary(whole: Evolution) -> Summary:
    """The part of it that stands in the list."""
    return Summary(**{name: getattr(whole, name) for name in Summary.model_fields})


def broken_summary(run_id: str, reason: str) -> Summary:
    """A run whose journal can't be believed still stands in the list."""
    return Summary(
        id=run_id, name=run_id, state="failed", reason=reason, data="", model="", created=0.0, updated=0.0,
        planned=0, asked=0, finished=0, failed=0, cut=0, running=0, epochs=0, best=None, start_fitness=None,
        job=None,
    )  # fmt: skip
