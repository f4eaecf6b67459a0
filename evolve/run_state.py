"""The state of a run, folded from the events of its journal."""

import logging
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from evolve.confirm import Confirmation, Measured
from evolve.ladder import Ladder
from evolve.racing import START, Standing, standings
from evolve.trial_state import DRIVER_RESTARTED, Event, JournalError, Metrics, Status, TrialState

# A trial's state has its own file for its size.
__all__ = ["DRIVER_RESTARTED", "Event", "JournalError", "Metrics", "RunState", "Status", "TrialState", "fold"]

logger = logging.getLogger(__name__)

VERSION = 1


@dataclass
class RunState:
    """The state of a run, a fold over its events.

    Attributes:
        header: the `run` event: name, seed, space, search, settings, resources, provenance, shapes.
        budget: trials the run may ask in all: the header's, or the newest resume's; trainings that confirm are added.
            Where the search had enough before, what it had asked by then.
        trials: id to state, in the order of the asks.
        resumes: how often the run was taken up again.
        stopped: reason of the newest stop, None while the run goes on.
        enough: why the search ended before its budget; None where it did not, or goes on since with a larger one.
        had_enough: number of the trial that would have come next when it did so, the newest time.
        updated_at: unix seconds of the newest event.
        resources: what each trial gets: the header's, or the newest resume's.
        patience: trials without a better configuration after which the search ends; None for all of its budget.
        epoch_budget: epochs of all its trials after which the search ends; None for as many as they take.
        confirmations: rounds of confirming, in their order.
    """

    header: Event
    budget: int
    trials: dict[int, TrialState] = field(default_factory=dict)
    resumes: int = 0
    stopped: str | None = None
    enough: str | None = None
    had_enough: int = 0
    updated_at: float = 0.0
    resources: dict[str, Any] = field(default_factory=dict)
    patience: int | None = None
    epoch_budget: int | None = None
    confirmations: list[Confirmation] = field(default_factory=list)
    _confirming: int = field(default=0, repr=False)
    _judged: dict[int, list[TrialState]] = field(default_factory=dict, repr=False)
    _open: dict[int, TrialState] = field(default_factory=dict, repr=False)
    _best: TrialState | None = field(default=None, repr=False)
    _repeated: bool = field(default=False, repr=False)  # whether a configuration was tried more than once

    @property
    def name(self) -> str:
        """Name of the run."""
        return str(self.header["name"])

    @property
    def running(self) -> list[TrialState]:
        """Trials asked and not told, in the order of the asks: what a resume must run again."""
        return list(self._open.values())

    @property
    def told(self) -> int:
        """How many trials have ended, with a fitness or without."""
        return len(self.trials) - len(self._open)

    @property
    def finished(self) -> list[TrialState]:
        """Trials of the search told with a fitness, in the order of the asks."""
        return [trial for trial in self.searched if trial.fitness is not None]

    @property
    def searched(self) -> list[TrialState]:
        """All trials but those that confirm, in the order of the asks."""
        return [trial for trial in self.trials.values() if trial.confirms is None]

    @property
    def asked(self) -> int:
        """How many trials the search has asked."""
        return len(self.trials) - self._confirming

    @property
    def confirming(self) -> list[TrialState]:
        """Trials that confirm, in the order of the asks."""
        return [trial for trial in self.trials.values() if trial.confirms is not None]

    @property
    def planned(self) -> int:
        """Trainings that confirm, asked or to be asked: their share of the budget."""
        return sum(each.trainings for each in self.confirmations)

    @property
    def failed(self) -> list[TrialState]:
        """Trials that failed, in the order of the asks."""
        ended = (trial for trial in self.trials.values() if trial.status not in ("running", "stopped"))
        return [trial for trial in ended if trial.fitness is None]

    @property
    def cut(self) -> list[TrialState]:
        """Trials that the ladder ended, in the order of the asks."""
        return [trial for trial in self.trials.values() if trial.status == "stopped"]

    @property
    def ladder(self) -> Ladder | None:
        """Where trials are judged; None where all are trained to their end."""
        return Ladder.from_header(self.header)

    def at_rung(self, epochs: int) -> list[TrialState]:
        """Trials that were judged at a rung, in the order in which they were."""
        return list(self._judged.get(epochs, ()))

    def standings(self) -> list[Standing]:
        """Configurations with a fitness, the one to be exported first; see `evolve.racing`."""
        ended = [trial for trial in self.searched if trial.status not in ("running", "stopped")]
        runs = [
            (trial.id if trial.replicates_of is None else trial.replicates_of, trial.fitness)
            for trial in ended
        ]
        # The order of the asks, so that of equals the earlier leads; a first trial may still be running.
        return [each for each in standings(sorted(runs, key=lambda run: run[0])) if self._ended(each.trial)]

    def _ended(self, trial: int) -> bool:
        return self.trials[trial].fitness is not None

    def confirmed(self) -> list[Standing]:
        """Configurations whose every training of the newest confirmation ended, the one to be exported first.

        The fitness by which the search found a configuration does not count here: it was chosen for being high.
        """
        if not self.confirmations:
            return []
        last = self.confirmations[-1]
        runs = [trial for trial in self.confirming if last.counts(trial)]
        done = {
            first
            for first in last.of
            if sum(trial.status != "running" for trial in runs if trial.confirms == first) >= last.seeds
        }
        return standings((int(t.confirms or 0), t.fitness) for t in runs if t.confirms in done)

    def best(self) -> TrialState | None:
        """The first trial of the configuration that leads (see `evolve.racing`); None before the first that finished.

        Where configurations were confirmed, one of them, by what was measured then. Without repeated trials it is
        the fittest trial, the earlier one of equals.
        """
        confirmed = self.confirmed()
        if confirmed:
            return self.trials[confirmed[0].trial]
        if not self._repeated:
            return self._best
        ranked = self.standings()
        return self.trials[ranked[0].trial] if ranked else None

    def measured(self, of: TrialState | None = None) -> Measured | None:
        """What is known of the fitness of a configuration, and from how many trainings of which length.

        Args:
            of: a finished trial of it; None for the best.

        Returns:
            None without any finished trial.
        """
        best = self.best() if of is None else of
        if best is None:
            return None
        first = best.id if best.replicates_of is None else best.replicates_of
        search = {each.trial: each for each in self.standings()}
        confirmed = {each.trial: each for each in self.confirmed()}
        tables = confirmed or search
        known = (search[first], best.epochs, len(search), tables.get(START))
        if first not in confirmed:
            return Measured(search[first], best.epochs, *known)
        last = self.confirmations[-1]
        seeds = [t.seed for t in self.confirming if t.confirms == first and last.counts(t)]
        return Measured(confirmed[first], last.epochs, *known, tuple(seeds))

    def apply(self, event: Event) -> None:
        """Take in one more event, in the journal's order (a live driver keeps its state so).

        Raises:
            JournalError: the event does not follow from those before it.
        """
        kind = event["event"]
        if kind == "ask":
            self._ask(event)
        elif kind in ("report", "rung", "retry", "tell"):
            self._of_a_trial(event)
        elif kind == "enough":
            self.budget = self.asked + self.planned
            self.enough, self.had_enough = str(event.get("reason", "")), len(self.trials)
        elif kind == "resume":
            self._resume(event)
        elif kind == "stop":
            self.stopped = str(event.get("reason", ""))
        elif kind == "confirm":
            self.confirmations.append(Confirmation.from_event(event))
            self.budget += self.confirmations[-1].trainings
        elif kind == "run":
            raise JournalError(f"a journal must hold one run, but a second begins: {event.get('name')!r}")
        else:
            logger.warning("event %r of the journal is unknown here and left out", kind)
        self.updated_at = float(event.get("time", self.updated_at))

    def _resume(self, event: Event) -> None:
        if int(event["trials"]) > self.budget:
            self.enough = None
        self.budget = int(event["trials"])
        self.resumes += 1
        self.stopped = None
        self.resources = {**self.resources, **event.get("resources", {})}
        if "patience" in event:
            self.patience = _limit(event, "patience")
        if "epoch_budget" in event:
            self.epoch_budget = _limit(event, "epoch_budget")

    def _of_a_trial(self, event: Event) -> None:
        kind = event["event"]
        trial = self.trials.get(event["trial"])
        if trial is None:
            raise JournalError(f"a {kind} must follow an ask, but trial {event['trial']} was never asked")
        {
            "report": trial._report,
            "rung": trial._rung,
            "retry": trial._retry,
            "tell": trial._tell,
        }[kind](event)
        if kind == "rung":
            self._judged.setdefault(int(event["epochs"]), []).append(trial)
        elif kind == "tell":
            self._close(trial)

    def _ask(self, event: Event) -> None:
        number = event["trial"]
        if number in self.trials:
            raise JournalError(f"a trial must be asked once, but trial {number} is asked again")
        asked_at = float(event.get("time", 0.0))
        trial = TrialState(number, event["config"], event["origin"], asked_at=asked_at)
        self.trials[number] = self._open[number] = trial
        self._confirming += trial.confirms is not None

    def _close(self, trial: TrialState) -> None:
        """Count a trial as ended: both are kept, so that a long run's driver need not look through it again."""
        del self._open[trial.id]
        if trial.confirms is not None:
            return
        self._repeated |= trial.replicates_of is not None
        if trial.fitness is not None:
            best = self._best
            if best is None or best.fitness is None or (trial.fitness, -trial.id) > (best.fitness, -best.id):
                self._best = trial


def fold(events: Iterable[Event], state: RunState | None = None, first: int = 1) -> RunState:
    """Fold the events of a journal, in its order, into the state of the run.

    Args:
        events: All events, or those after the ones that `state` holds already.
        state: Where an earlier fold ended; it is gone on with in place.
        first: The journal's line of the first of the events.

    Raises:
        JournalError: the first event is no run event of this version, or an event does not follow from those
            before it or lacks a key (its number, from 1, is the journal's line).
    """
    for number, event in enumerate(events, start=first):
        try:
            if state is None:
                state = _begin(event)
            else:
                state.apply(event)
        except JournalError as error:
            raise JournalError(f"journal, line {number}: {error}") from error
        except (KeyError, TypeError, ValueError) as error:
            kind = event.get("event")
            raise JournalError(f"journal, line {number}: {kind} event is damaged ({error!r})") from error
    if state is None:
        raise JournalError("a journal must begin with a run event, but it is empty")
    return state


def _begin(event: Event) -> RunState:
    if event.get("event") != "run":
        raise JournalError(f"a journal must begin with a run event, but got {event.get('event')!r}")
    if event.get("version") != VERSION:
        raise JournalError(f"the journal's version must be {VERSION}, but got {event.get('version')!r}")
    return RunState(
        header=event,
        budget=int(event["trials"]),
        updated_at=float(event.get("time", 0.0)),
        resources=dict(event.get("resources") or {}),
        patience=_limit(event, "patience"),
        epoch_budget=_limit(event, "epoch_budget"),
    )


def _limit(event: Event, name: str) -> int | None:
    """Of a header or a resume; None and 0 are for no limit."""
    return int(event.get(name) or 0) or None
