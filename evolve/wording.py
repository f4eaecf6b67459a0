"""How commands, report and export say times, durations, origins, how far a run is and what a fitness is worth."""

import time
from typing import TYPE_CHECKING, Any

from evolve.confirm import Measured
from evolve.racing import START, Standing

if TYPE_CHECKING:
    from evolve.run_state import RunState


def moment(seconds: object) -> str:
    """Unix seconds as a date and time in UTC, so that one journal reads the same everywhere.

    >>> moment(0.0)
    '1970-01-01 00:00 UTC'
    """
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 <= seconds < 2e11:
        return "an unknown time"
    return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(seconds))


def duration(seconds: float) -> str:
    """A span of time, short.

    >>> duration(42.4), duration(600), duration(9000), duration(400000)
    ('42 s', '10 min', '2.5 h', '4.6 days')
    """
    for limit, unit, name, digits in ((90, 1, "s", 0), (5400, 60, "min", 0), (172800, 3600, "h", 1)):
        if seconds < limit:
            return f"{seconds / unit:.{digits}f} {name}"
    return f"{seconds / 86400:.1f} days"


def progress_words(state: "RunState", going: str = "running") -> str:
    """How many trials have come to which end, of how many, and how many epochs they took where those are limited.

    Args:
        state: of the run.
        going: what to say of those that have not ended.
    """
    confirmed = sum(trial.fitness is not None for trial in state.confirming)
    parts = [
        f"{len(state.finished)} finished",
        f"{confirmed} of {state.planned} confirming" if state.planned else "",
        f"{len(state.cut)} stopped early" if state.ladder else "",
        f"{len(state.failed)} failed",
        f"{len(state.running)} {going}",
    ]
    epochs = ""
    if state.epoch_budget is not None:
        epochs = f"; {sum(trial.epochs for trial in state.searched)} of {state.epoch_budget} epochs"
    return f"{', '.join(filter(None, parts))}, of {state.budget}{epochs}"


def measured_words(standing: Standing) -> str:
    """What is known of a configuration's fitness, and how surely.

    >>> measured_words(Standing(trial=3, mean=0.41, low=0.4, margin=0.02, runs=3))
    'Mean of 3 trainings under different seeds: 0.4100 ± 0.0200 (90 % interval).'
    """
    if standing.margin is None:
        return "One training; no configuration was trained twice, so nothing is known of the noise."
    interval = f"{standing.mean:.4f} ± {standing.margin:.4f} (90 % interval)"
    if standing.runs == 1:
        return f"One training: {interval}, by the noise of others that were trained again."
    return f"Mean of {standing.runs} trainings under different seeds: {interval}."


def belief_words(measured: Measured) -> str:
    """What the fitness of the best was measured on, and how far it is to be believed.

    >>> found = Standing(trial=3, mean=0.44, low=0.44, margin=None, runs=1)
    >>> words = belief_words(Measured(found, 30, found, 30, 12, None))
    >>> words.startswith("Not confirmed: fitness 0.4400 after one training of 30 epochs")
    True
    """
    standing, found = measured.standing, measured.found
    stays = standing.trial == START
    kept = ""
    if stays and measured.rivals > 1:
        kept = "The start stays: no other configuration's mean is a standard error of the difference above its own. "
    many = found.runs > 1
    chosen = f"{found.runs} trainings" if many else "one training"
    if measured.seeds is None:
        told = f"fitness {found.mean:.4f} after {chosen} of {measured.found_epochs} epochs{' each' if many else ''}"
        luck = ""
        if not stays:
            best = f"{', the' if many else ' is the'} best of {measured.rivals} configurations"
            luck = f"{best}, so a new training will rather give less"
        return f"{kept}Not confirmed: {told}{luck}. `beagle confirm` trains the best again under new seeds."
    margin = "" if standing.margin is None else f" ± {standing.margin:.4f} (90 % interval)"
    failed = f" {standing.failures} more failed." if standing.failures else ""
    start = ""
    if measured.start is not None and measured.start.trial != standing.trial:
        start = f" The start, trained alike: {measured.start.mean:.4f}."
    again = "one training" if standing.runs == 1 else f"the mean of {standing.runs} trainings"
    seeds = (
        f"{'a new seed' if len(measured.seeds) == 1 else 'new seeds'} ({', '.join(map(str, measured.seeds))})"
    )
    return (
        f"{kept}Confirmed: fitness {standing.mean:.4f}{margin}, {again} of "
        f"{measured.epochs} epochs under {seeds}.{failed}{start} "
        f"The search had chosen it for {found.mean:.4f} after {chosen} of {measured.found_epochs} epochs."
    )


def origin_words(origin: dict[str, Any]) -> str:
    """How the search made a trial.

    >>> origin_words({"kind": "crossover", "parents": [3, 8]})
    'crossover of 3, 8'
    """
    parents = origin.get("parents")
    names = ", ".join(str(parent) for parent in parents) if isinstance(parents, list) else ""
    kind = str(origin.get("kind") or "unknown")
    return f"{kind} of {names}" if names else kind
