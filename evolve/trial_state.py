"""The state of one trial, folded from the events of its journal."""

from dataclasses import dataclass, field
from typing import Any, Literal

from evolve.gene import Value
from evolve.ladder import Rung
from evolve.search_base import CONFIRM
from evolve.space import EvolveError

DRIVER_RESTARTED = "the driver was restarted"
Event = dict[str, Any]
Status = Literal["running", "finished", "failed", "stopped"]
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
        status: "running" from the ask to the tell, lost workers included; "stopped" where the ladder ended it.
        attempt: the newest attempt, from 0.
        retries: reason of each attempt after the first.
        failures: attempts that failed; one that a stopped or dead driver left open did not.
        halvings: how often the newest attempt's micro-batch is halved, since memory ran out.
        reports: epoch (from 0, in order of arrival) to metrics; None where a metric was not finite. What a
            newer attempt goes through again replaces the older epochs.
        rungs: epochs to how it was judged there.
        curve: the best fitness up to each rung that it reached, once told.
        fitness: of the best epoch of a whole training; None while running, for a failure, and for a stopped one.
        reason: why it failed or was stopped.
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
    rungs: dict[int, Rung] = field(default_factory=dict)
    curve: list[float] = field(default_factory=list)
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

    @property
    def confirms(self) -> int | None:
        """The trial whose configuration this one measures once more, apart from the search; None for all others."""
        return int(self.origin["confirms"]) if self.origin.get("kind") == CONFIRM else None

    @property
    def seed(self) -> int:
        """The seed of a training that confirms; 0 for all others, whose seeds follow from the run's."""
        return int(self.origin.get("seed", 0))

    @property
    def hopeless(self) -> bool:
        """Whether the ladder has ended it, be it told already or not."""
        return any(not rung.goes_on for rung in self.rungs.values())

    def _rung(self, event: Event) -> None:
        rung = Rung(
            int(event["epochs"]),
            float(event["fitness"]),
            event.get("bar"),
            bool(event["goes_on"]),
            event.get("foretold"),
            float(event.get("doubt", 0.0)),
            float(event.get("times", 1.0)),
        )
        if rung.epochs in self.rungs:
            raise JournalError(f"trial {self.id} must be judged once at epoch {rung.epochs}, but it is again")
        self.rungs[rung.epochs] = rung

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
        if status not in ("finished", "failed", "stopped"):
            raise JournalError(
                f"trial {self.id}: status must be finished, failed or stopped, but got {status!r}"
            )
        self.status = status
        self.fitness = event.get("fitness") if status == "finished" else None
        self.reason = event.get("reason")
        self.curve = list(event.get("curve") or ())
        self.metrics = event.get("metrics") or {}
        self.epochs = int(event.get("epochs") or self.epochs)
        self.seconds = event.get("seconds")
        self.told_at = event.get("time")
        self.result = event.get("result") or {}
