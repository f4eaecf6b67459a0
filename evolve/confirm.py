"""Confirming: the best of a search are trained again in full, under seeds by which none of them was chosen.

The winner of many noisy trials is partly the luckiest, so its own fitness promises too much. What is trained here was
chosen before, so its mean promises nothing that was not measured.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Self

from evolve.racing import START, Standing
from evolve.search_base import CONFIRM
from evolve.space import EvolveError

if TYPE_CHECKING:
    from evolve.run_state import RunState
    from evolve.trial_state import Event, TrialState

SEEDS = 3
FIRST_SEED = 1000
"""What is added to the run's seed for the first training that confirms: far from those of repeated trials."""


@dataclass(frozen=True)
class Plan:
    """What is to be confirmed at the end of a search, and how.

    Attributes:
        top: so many of the best configurations, >= 1; the start is trained beside them.
        epochs: of each training; None for the length of the run's whole trials.
        seeds: trainings of each configuration, >= 1.
    """

    top: int
    epochs: int | None = None
    seeds: int = SEEDS

    def __post_init__(self) -> None:
        """Refuse what confirms nothing.

        Raises:
            EvolveError: a number is under 1.
        """
        for name in ("top", "epochs", "seeds"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise EvolveError(f"{name} >= 1 must hold for a confirmation, but got {value}")

    def to_dict(self) -> dict[str, Any]:
        """What a journal's header holds."""
        return {"top": self.top, "epochs": self.epochs, "seeds": self.seeds}

    @classmethod
    def from_header(cls, header: Mapping[str, Any]) -> "Plan | None":
        """What a run is to confirm by itself; None for nothing."""
        data = header.get("confirm")
        return cls(**data) if data else None


@dataclass(frozen=True)
class Confirmation:
    """One round of confirming.

    Attributes:
        of: first trials of the configurations.
        epochs: of each training.
        seeds: trainings of each configuration.
        trainings: how many of them were not yet there when it began.
        after: trials of the search that had been told by then.
    """

    of: tuple[int, ...]
    epochs: int
    seeds: int
    trainings: int
    after: int

    @classmethod
    def from_event(cls, event: Mapping[str, Any]) -> Self:
        """Of a journal's `confirm`."""
        return cls(
            tuple(map(int, event["of"])),
            int(event["epochs"]),
            int(event["seeds"]),
            int(event["trainings"]),
            int(event["after"]),
        )

    def counts(self, trial: "TrialState") -> bool:
        """Whether a trial measures one of these configurations at this length."""
        return trial.confirms in self.of and trial.origin.get("epochs") == self.epochs


@dataclass(frozen=True)
class Measured:
    """What is known of the fitness of a run's best configuration.

    Attributes:
        standing: mean, interval and number of the trainings that count.
        epochs: of each of them.
        found_epochs: of the trials of the search.
        found: the same of the trials of the search, by which it was chosen.
        rivals: configurations that the search has measured, among which it was chosen.
        start: the start configuration, measured alike; None where it was not.
        seeds: of the trainings that confirmed it; None where it is not confirmed.
    """

    standing: Standing
    epochs: int
    found: Standing
    found_epochs: int
    rivals: int
    start: Standing | None
    seeds: tuple[int, ...] | None = None

    @property
    def confirmed(self) -> bool:
        """Whether it was trained again under seeds by which it was not chosen."""
        return self.seeds is not None

    def to_dict(self) -> dict[str, Any]:
        """The same as plain data, for machines that read what a run promises."""
        return {
            "confirmed": self.confirmed,
            "epochs": self.epochs,
            **asdict(self.standing),
            "seeds": None if self.seeds is None else list(self.seeds),
            "start": None if self.start is None else asdict(self.start),
            "search": {"epochs": self.found_epochs, "rivals": self.rivals, **asdict(self.found)},
        }


def confirm_event(state: "RunState", plan: Plan) -> "Event":
    """The event that begins a round: which configurations are to be confirmed.

    Raises:
        EvolveError: no trial has a fitness of a whole training.
    """
    ranked = [each.trial for each in state.standings() if not each.failures][: plan.top]
    if not ranked:
        raise EvolveError("a trial must have finished to be confirmed, but none has")
    start = state.trials[START]
    if start.fitness is not None and start.id not in ranked:
        ranked.append(start.id)  # without it nobody could say what the search has gained
    full = int(state.header.get("settings", {}).get("epochs") or state.trials[ranked[0]].epochs)
    wanted = Confirmation(tuple(ranked), plan.epochs or full, plan.seeds, 0, 0)
    missing = sum(max(plan.seeds - _asked(state, wanted, first), 0) for first in ranked)
    return {
        "event": "confirm",
        "of": ranked,
        "epochs": wanted.epochs,
        "seeds": wanted.seeds,
        "trainings": missing,
        "after": sum(trial.status != "running" for trial in state.searched),
    }


def next_confirmation(state: "RunState") -> "Event | None":
    """The ask of the next training of the newest round; None where all were asked.

    One training of each configuration first, then the second of each: so that what is there early compares all.
    """
    if not state.confirmations:
        return None
    last = state.confirmations[-1]
    asked = {first: _asked(state, last, first) for first in last.of}
    first = min(asked, key=lambda each: (asked[each], last.of.index(each)))
    if asked[first] >= last.seeds:
        return None
    number = asked[first]
    seed = int(state.header.get("settings", {}).get("seed") or state.header.get("seed") or 0)
    origin = {
        "kind": CONFIRM,
        "parents": [first],
        "confirms": first,
        "epochs": last.epochs,
        "seed": seed + FIRST_SEED + number,
    }
    return {
        "event": "ask",
        "trial": len(state.trials),
        "config": dict(state.trials[first].config),
        "origin": origin,
    }


def confirmation_due(state: "RunState") -> Plan | None:
    """What the run's header wants confirmed and no round did since the search last told something; else None."""
    plan = Plan.from_header(state.header)
    if plan is None or state.best() is None:
        return None
    told = sum(trial.status != "running" for trial in state.searched)
    return plan if all(each.after < told for each in state.confirmations) else None


def _asked(state: "RunState", round_: Confirmation, first: int) -> int:
    return sum(trial.confirms == first and round_.counts(trial) for trial in state.confirming)
