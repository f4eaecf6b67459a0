"""The books of a running evolution: every trial is written down before it starts and before its end counts.

The driver asks the ledger what to run and tells it what happened. It knows no Ray, so the rules of who runs when, and
of what is lost when a process dies (nothing that was written), are tested in milliseconds.
"""

import logging
import math
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

from evolve.journal import Event, Journal, JournalError, RunState, TrialState, fold, read_journal
from evolve.run_state import DRIVER_RESTARTED
from evolve.search import SearchError, search_from_events
from evolve.space import EvolveError
from evolve.stored_run import store_of
from evolve.trainable import WORKER_DIED, Assignment, Outcome

logger = logging.getLogger(__name__)

OnEvent = Callable[[Event, RunState], None]

HOPELESS_TRIALS = 4
RETRIES = 2  # of a trial, where the run's header says nothing


class Ledger:
    """One run's books, kept by its only driver.

    Attributes:
        folder: The run folder.
        state: The fold of the journal so far.
        fault: Why the run must stop now (the journal can't be written, or every trial fails); None while all is well.
        stopping: Whether nothing new is to be handed out, since someone asked the run to stop.
    """

    def __init__(self, folder: Path, journal: Journal, on_event: OnEvent | None = None) -> None:
        """Replay the journal; its open trials come first when work is handed out.

        Args:
            folder: The run folder.
            journal: Opened for writing.
            on_event: Called after each event with the event and the state.

        Raises:
            JournalError: The journal is damaged.
        """
        events = read_journal(journal.path)
        self.folder = folder
        self.state = fold(events)
        self.fault: EvolveError | None = None
        self.stopping = False
        self._journal = journal
        store = store_of(folder)
        self._store = str(store.url) if store else ""
        self._search = search_from_events(events)
        self._waiting = deque(trial.id for trial in self.state.running)
        self._left_open = set(self._waiting)  # by a driver of before: these were not retried yet
        self._on_event = on_event
        self._used_up = False

    @property
    def complete(self) -> bool:
        """Whether every trial of the budget, or of a space that holds fewer, was asked and told."""
        return self._all_asked and self.state.told == len(self.state.trials)

    @property
    def over(self) -> bool:
        """Whether nothing will be handed out any more: all is done, or the run must stop."""
        return self.fault is not None or self.stopping or self.complete

    @property
    def active(self) -> int:
        """Trials that were handed out and have not come back."""
        return len(self.state.trials) - self.state.told - len(self._waiting)

    @property
    def _all_asked(self) -> bool:
        return self._used_up or len(self.state.trials) >= self.state.budget

    @property
    def remaining(self) -> int:
        """Trials that are still to be run or to be ended."""
        return max(self.state.budget - len(self.state.trials), 0) + len(self.state.trials) - self.state.told

    def next_assignment(self) -> Assignment | None:
        """The next trial to run, or None when there is none to start now; `over` says whether there will be.

        Trials whose attempt failed and those that a dead driver left open come first, under their own numbers; then
        the search is asked. All that was written is on the disk when the trial is handed out.
        """
        trial = None if self.fault or self.stopping else self._next_trial()
        self.sync()
        return None if trial is None or self.fault else self._assignment(trial)

    def _next_trial(self) -> TrialState | None:
        if self._waiting:
            number = self._waiting.popleft()
            if number in self._left_open:
                self._left_open.remove(number)
                self._retry(number, DRIVER_RESTARTED)
            return self.state.trials[number]
        if self._all_asked:
            return None
        try:
            trial = self._search.ask()
        except SearchError as error:
            logger.warning("the run ends early: %s", error)
            self._used_up = True
            return None
        self._write(
            {"event": "ask", "trial": trial.id, "config": dict(trial.config), "origin": dict(trial.origin)}
        )
        return self.state.trials.get(trial.id)

    def reported(self, number: int, epoch: int, metrics: dict[str, float]) -> None:
        """Write one epoch of a running trial; an epoch that is already written is left as it is."""
        trial = self.state.trials[number]
        if trial.status == "running" and epoch not in trial.reports:
            self._write(
                {
                    "event": "report",
                    "trial": number,
                    "attempt": trial.attempt,
                    "epoch": epoch,
                    "metrics": metrics,
                }
            )

    def failed(self, number: int, reason: str, *, out_of_memory: bool = False) -> None:
        """Write that an attempt failed: the trial waits for its next one, or has used them up and ends.

        The next attempt goes on from the last checkpoint. Where memory ran out, its micro-batch is half as large. A
        worker that dies twice in a row without a word is taken for one that the system killed for its memory.

        Args:
            number: The trial.
            reason: Why, in one line.
            out_of_memory: Whether that was for want of memory, the host's or a device's.
        """
        trial = self.state.trials[number]
        if trial.status != "running":
            return
        if trial.failures >= int(self.state.resources.get("retries", RETRIES)):
            smaller = f" (with 1/{2**trial.halvings} of the micro-batch)" if trial.halvings else ""
            self.ended(number, Outcome(None, reason=reason + smaller))
            return
        died_again = reason == WORKER_DIED and trial.retries[-1:] == [WORKER_DIED]
        halvings = trial.halvings + int(out_of_memory or died_again)
        self._retry(number, reason, failures=trial.failures + 1, halvings=halvings)
        self._waiting.append(number)

    def ended(self, number: int, outcome: Outcome) -> None:
        """Write a trial's end, then tell the search. A second end of the same trial is ignored."""
        trial = self.state.trials[number]
        if trial.status != "running":
            return
        if outcome.out_of_memory:
            self.failed(number, outcome.reason or "memory ran out", out_of_memory=True)
            return
        if outcome.halt:
            self.fault = EvolveError(f"trial {number}: {outcome.reason} (mend it, then `beagle resume`)")
            return
        for epoch, metrics in enumerate(outcome.history):
            self.reported(number, epoch, metrics)
        fitness = outcome.fitness if outcome.fitness is not None and math.isfinite(outcome.fitness) else None
        reason = None if fitness is not None else outcome.reason or "the fitness is not a finite number"
        written = self._write(
            {
                "event": "tell",
                "trial": number,
                "status": "failed" if fitness is None else "finished",
                "fitness": fitness,
                "reason": reason,
                "metrics": outcome.metrics,
                "epochs": len(outcome.history) or len(trial.reports),
                "seconds": outcome.seconds,
                "result": outcome.result,
            }
        )
        if written:
            self._search.tell(number, fitness)
            self._give_up_if_hopeless()

    def stop(self, reason: str) -> None:
        """Write that the driver stops before the budget is used up."""
        self._write({"event": "stop", "reason": reason})
        self.sync()

    def sync(self) -> None:
        """Bring onto the disk what was written: once for the end of one trial and the start of the next."""
        if self.fault is None:
            try:
                self._journal.sync()
            except JournalError as error:
                self.fault = error

    def _retry(self, number: int, reason: str, **counts: int) -> None:
        attempt = self.state.trials[number].attempt + 1
        self._write({"event": "retry", "trial": number, "attempt": attempt, "reason": reason, **counts})

    def _assignment(self, trial: TrialState) -> Assignment:
        settings = dict(self.state.header.get("settings", {}))
        again = int(trial.origin.get("run", 0))
        if again:
            # A configuration that is tried once more shows the noise only under another seed.
            settings["seed"] = int(settings.get("seed") or self.state.header.get("seed") or 0) + again
        return Assignment(
            trial=trial.id,
            config=dict(trial.config),
            settings=settings,
            folder=str(trial_folder(self.folder, trial.id)),
            cpus=float(self.state.resources.get("cpus", 1.0)),
            gpus=float(self.state.resources.get("gpus", 0.0)),
            attempt=trial.attempt,
            micro_batch_halvings=trial.halvings,
            store=self._store,
        )

    def _write(self, event: dict[str, Any]) -> bool:
        """Append and apply; a journal that can't be written is the run's fault, kept for the driver to raise."""
        if self.fault:
            return False
        try:
            written = self._journal.append(event, sync=False)
        except JournalError as error:
            # Raised from a hook of Tune it would be lost in a log, and the run would go on unrecorded.
            self.fault = error
            return False
        self.state.apply(written)
        if self._on_event:
            self._on_event(written, self.state)
        return True

    def _give_up_if_hopeless(self) -> None:
        if self.state.told < HOPELESS_TRIALS or self.state.best() is not None:
            return
        failed = self.state.failed
        if len(failed) >= HOPELESS_TRIALS:
            self.fault = EvolveError(
                f"the first {len(failed)} trials all failed, the last because: {failed[-1].reason} "
                "(mend it, then `beagle resume` or start anew)"
            )


def trial_folder(run_folder: Path, number: int) -> Path:
    """Where trial `number` of a run keeps its files."""
    return run_folder / "trials" / f"{number:04d}"
