"""The state of a run, folded from the events of its journal."""

import logging
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Literal

from evolve.gene import Value
from evolve.racing import Standing, standings
from evolve.space import EvolveError

logger = logging.getLogger(__name__)

VERSION = 1
DRIVER_RESTARTED = "the driver was restarted"
Event = dict[str, Any]
Status = Literal["running", "finished", "failed"]
Metrics = dict[str, float | None]


class JournalError(EvolveError):
    """A journal that cannot be read, written or believed."""


@dataclass
class TrialState:
    """What the journal says of one trial.

    Attributes:
        id: number of the trial, from 0.
        config: decoded gene values.
        origin: how the search made it, {"kind": ..., "parents": [ids]}.
        status: "running" from the ask to the tell, lost workers included.
        attempt: the newest attempt, from 0.
        retries: reason of each attempt after the first.
        failures: attempts that failed; one that a stopped or dead driver left open did not.
        halvings: how often the newest attempt's micro-batch is halved, since memory ran out.
        reports: epoch (from 0, in order of arrival) to metrics; None where a metric was not finite. What a
            newer attempt goes through again replaces the older epochs.
        fitness: of the best epoch; None while running, and for a failure.
        reason: why it failed.
        metrics: of the best epoch, as told.
        epochs: epochs done.
        seconds: as told; None while running.
        asked_at, reported_at, told_at: unix seconds of the ask, the newest report (or retry) and the tell.
        result: what the trainable gave back besides (opaque to this room).
    """

    id: int
    config: dict[str, Value]
    origin: dict[str, Any]
    status: Status = "running"
    attempt: int = 0
    retries: list[str] = field(default_factory=list)
    failures: int = 0
    halvings: int = 0
    reports: dict[int, Metrics] = field(default_factory=dict)
    fitness: float | None = None
    reason: str | None = None
    metrics: Metrics = field(default_factory=dict)
    epochs: int = 0
    seconds: float | None = None
    asked_at: float = 0.0
    reported_at: float | None = None
    told_at: float | None = None
    result: dict[str, Any] = field(default_factory=dict)
    _reporting: int = field(default=0, repr=False)  # the attempt that wrote the newest report

    @property
    def replicates_of(self) -> int | None:
        """The first trial of the same configuration, None for the first itself."""
        first = self.origin.get("replicates_of")
        return None if first is None else int(first)

    def _report(self, event: Event) -> None:
        attempt, epoch = int(event.get("attempt", 0)), int(event["epoch"])
        if self.status != "running" or attempt < self.attempt:
            return  # a worker given up for lost still speaks
        self.attempt = attempt
        if attempt != self._reporting:
            self._reporting = attempt
            self.reports = {old: row for old, row in self.reports.items() if old < epoch}
        self.reports[epoch] = event["metrics"]
        self.epochs = epoch + 1
        self.reported_at = event.get("time")

    def _retry(self, event: Event) -> None:
        if self.status != "running":
            raise JournalError(f"trial {self.id} must be running to be retried, but it is {self.status}")
        self.attempt = int(event["attempt"])
        self.retries.append(str(event.get("reason", "")))
        # Journals of before these keys counted a restarted driver by its reason alone.
        self.failures = int(event.get("failures", self.failures + (self.retries[-1] != DRIVER_RESTARTED)))
        self.halvings = int(event.get("halvings", self.halvings))
        self.reported_at = event.get("time")

    def _tell(self, event: Event) -> None:
        if self.status != "running":
            raise JournalError(f"trial {self.id} must be told once, but it was told {self.status} before")
        status = event["status"]
        if status not in ("finished", "failed"):
            raise JournalError(f"trial {self.id}: status must be finished or failed, but got {status!r}")
        self.status = status
        self.fitness = event.get("fitness") if status == "finished" else None
        self.reason = event.get("reason")
        self.metrics = event.get("metrics") or {}
        self.epochs = int(event.get("epochs") or self.epochs)
        self.seconds = event.get("seconds")
        self.told_at = event.get("time")
        self.result = event.get("result") or {}


@dataclass
class RunState:
    """The state of a run, a fold over its events.

    Attributes:
        header: the `run` event: name, seed, space, search, settings, resources, provenance, shapes.
        budget: trials the run may ask in all: the header's, or the newest resume's.
        trials: id to state, in the order of the asks.
        resumes: how often the run was taken up again.
        stopped: reason of the newest stop, None while the run goes on.
        updated_at: unix seconds of the newest event.
        resources: what each trial gets: the header's, or the newest resume's.
    """

    header: Event
    budget: int
    trials: dict[int, TrialState] = field(default_factory=dict)
    resumes: int = 0
    stopped: str | None = None
    updated_at: float = 0.0
    resources: dict[str, Any] = field(default_factory=dict)
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
        """Trials told with a fitness, in the order of the asks."""
        return [trial for trial in self.trials.values() if trial.fitness is not None]

    @property
    def failed(self) -> list[TrialState]:
        """Trials told without a fitness, in the order of the asks."""
        return [t for t in self.trials.values() if t.status != "running" and t.fitness is None]

    def standings(self) -> list[Standing]:
        """Configurations with a fitness, the best lower bound first; see `evolve.racing`."""
        ended = [trial for trial in self.trials.values() if trial.status != "running"]
        runs = [
            (trial.id if trial.replicates_of is None else trial.replicates_of, trial.fitness)
            for trial in ended
        ]
        # The order of the asks, so that of equals the earlier leads; a first trial may still be running.
        return [each for each in standings(sorted(runs, key=lambda run: run[0])) if self._ended(each.trial)]

    def _ended(self, trial: int) -> bool:
        return self.trials[trial].fitness is not None

    def best(self) -> TrialState | None:
        """The first trial of the configuration with the best lower bound; None before the first that finished.

        Without repeated trials that is the fittest trial, the earlier one of equals.
        """
        if not self._repeated:
            return self._best
        ranked = self.standings()
        return self.trials[ranked[0].trial] if ranked else None

    def apply(self, event: Event) -> None:
        """Take in one more event, in the journal's order (a live driver keeps its state so).

        Raises:
            JournalError: the event does not follow from those before it.
        """
        kind = event["event"]
        if kind == "ask":
            self._ask(event)
        elif kind in ("report", "retry", "tell"):
            trial = self.trials.get(event["trial"])
            if trial is None:
                raise JournalError(f"a {kind} must follow an ask, but trial {event['trial']} was never asked")
            {"report": trial._report, "retry": trial._retry, "tell": trial._tell}[kind](event)
            if kind == "tell":
                self._close(trial)
        elif kind == "resume":
            self.budget = int(event["trials"])
            self.resumes += 1
            self.stopped = None
            self.resources = {**self.resources, **event.get("resources", {})}
        elif kind == "stop":
            self.stopped = str(event.get("reason", ""))
        elif kind == "run":
            raise JournalError(f"a journal must hold one run, but a second begins: {event.get('name')!r}")
        else:
            logger.warning("event %r of the journal is unknown here and left out", kind)
        self.updated_at = float(event.get("time", self.updated_at))

    def _ask(self, event: Event) -> None:
        number = event["trial"]
        if number in self.trials:
            raise JournalError(f"a trial must be asked once, but trial {number} is asked again")
        asked_at = float(event.get("time", 0.0))
        trial = TrialState(number, event["config"], event["origin"], asked_at=asked_at)
        self.trials[number] = self._open[number] = trial

    def _close(self, trial: TrialState) -> None:
        """Count a trial as ended: both are kept, so that a long run's driver need not look through it again."""
        del self._open[trial.id]
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
    )
