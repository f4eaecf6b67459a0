"""The books of a running evolution: every trial is written down before it starts and before its end counts.

The driver asks the ledger what to run and tells it what happened. It knows no Ray, so the rules of who runs when, and
of what is lost when a process dies (nothing that was written), are tested in milliseconds.
"""

import logging
import math
from collections import deque
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from threadpoolctl import threadpool_limits

from evolve.confirm import confirm_event, confirmation_due, next_confirmation
from evolve.costs import costs_of, objectives_of
from evolve.journal import Event, Journal, JournalError, RunState, TrialState, fold, read_journal
from evolve.judging import ended_curve, judge, stopped_event
from evolve.ladder import best_fitness
from evolve.patience import enough_event
from evolve.run_state import DRIVER_RESTARTED
from evolve.search import SearchError, Trial, search_from_events
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
        self._ladder = self.state.ladder
        self._on_event = on_event
        self._used_up = False
        for trial in self.state.running:
            self._judge(trial)  # where a driver of before died between an epoch and what follows from it
        self._waiting = deque(trial.id for trial in self.state.running)
        self._left_open = set(self._waiting)  # by a driver of before: these were not retried yet

    @property
    def complete(self) -> bool:
        """Whether every trial of the budget, or of a space that holds fewer, was asked and told, and confirmed."""
        told = self._all_asked and self.state.told == len(self.state.trials)
        return told and confirmation_due(self.state) is None

    @property
    def over(self) -> bool:
        """Whether nothing will be handed out any more: all is done, or the run must stop."""
        return self.fault is not None or self.stopping or self.complete

    @property
    def hands_out(self) -> bool:
        """Whether another trial may still be handed out, retries of those that run left aside."""
        coming = self._waiting or not self._all_asked or confirmation_due(self.state) is not None
        return not self.over and bool(coming)

    @property
    def active(self) -> int:
        """Trials that were handed out and have not come back."""
        return len(self.state.trials) - self.state.told - len(self._waiting)

    @property
    def _all_asked(self) -> bool:
        return self._searched and next_confirmation(self.state) is None

    @property
    def _searched(self) -> bool:
        """Whether the search has asked all that it may."""
        state = self.state
        return self._used_up or state.asked >= state.budget - state.planned

    @property
    def remaining(self) -> int:
        """Trials that are still to be run or to be ended."""
        return max(self.state.budget - len(self.state.trials), 0) + len(self.state.running)

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
        # Once more after the search, which may have found that it asks no more.
        return self._next_confirmation() or self._next_search() or self._next_confirmation()

    def _next_confirmation(self) -> TrialState | None:
        """The next training that confirms; a round that is due begins when the search has told all."""
        due = confirmation_due(self.state) if self._searched and not self.state.running else None
        if due is not None:
            self._write(confirm_event(self.state, due))
        event = next_confirmation(self.state)
        if event is None or not self._write(event):
            return None
        self._search.adopt(Trial(event["trial"], event["config"], event["origin"]))
        return self.state.trials[event["trial"]]

    def _next_search(self) -> TrialState | None:
        if self._searched or self._had_enough():
            return None
        try:
            # Small matrices: more threads only wait for each other, and beside busy trials they wait for long.
            with threadpool_limits(1):
                trial = self._search.ask()
        except SearchError as error:
            logger.warning("the run ends early: %s", error)
            self._used_up = True
            return None
        self._write(
            {"event": "ask", "trial": trial.id, "config": dict(trial.config), "origin": dict(trial.origin)}
        )
        return self.state.trials.get(trial.id)

    def _had_enough(self) -> bool:
        """Write that the search ends, where its patience is used up."""
        event = enough_event(self.state)
        return event is not None and self._write(event)

    def reported(self, number: int, epoch: int, metrics: dict[str, float]) -> bool:
        """Write one epoch of a running trial; an epoch that is already written is left as it is.

        Returns:
            Whether the trial goes on; not where it stands below the bar of a rung that it has reached.
        """
        trial = self.state.trials[number]
        self._report(trial, epoch, metrics)
        self._judge(trial)
        return not trial.hopeless

    def _report(self, trial: TrialState, epoch: int, metrics: dict[str, float]) -> None:
        if trial.status == "running" and epoch not in trial.reports:
            event = {"event": "report", "trial": trial.id, "attempt": trial.attempt}
            self._write({**event, "epoch": epoch, "metrics": metrics})

    def _judge(self, trial: TrialState) -> None:
        """Write how a trial stands at each rung that it has reached, and end it where it is hopeless.

        Trials of a configuration that was tried before are never stopped: a mean over those that looked well would
        promise too much.
        """
        ladder = self._ladder
        if ladder is None or trial.status != "running" or self._spared(trial):
            return
        for rung in ladder.judged:
            if rung > trial.epochs or trial.hopeless:
                break
            fitness = best_fitness(trial.reports, rung)
            if rung not in trial.rungs and fitness is not None:
                with threadpool_limits(1):  # as for an ask
                    found = judge(self.state, self._search.space, ladder, trial, fitness, rung)
                if self._write({"event": "rung", "trial": trial.id, **asdict(found)}) and found.goes_on:
                    self._search.climb(trial.id, fitness)
        if trial.hopeless:
            self._cut(trial)

    @staticmethod
    def _spared(trial: TrialState) -> bool:
        return trial.replicates_of is not None or trial.confirms is not None

    def _cut(self, trial: TrialState) -> None:
        """Write the end of a trial that the ladder stops, then tell the search how far it came."""
        event = stopped_event(trial)
        if self._write(event):
            self._search.tell(trial.id, event["curve"][-1], event["curve"], stopped=True)

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

    def put_back(self, number: int) -> None:
        """A trial was handed out and never began: it waits for a worker once more, and nothing is held against it."""
        if self.state.trials[number].status == "running":
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
            self._report(trial, epoch, metrics)  # it has ended by itself, so it is judged no more
        fitness = outcome.fitness if outcome.fitness is not None and math.isfinite(outcome.fitness) else None
        reason = None if fitness is not None else outcome.reason or "the fitness is not a finite number"
        curve = ended_curve(trial, self._ladder, fitness)
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
                **({"curve": curve} if curve else {}),
            }
        )
        if written and trial.confirms is None:
            self._search.measured(number, costs_of(outcome.result))
            self._search.tell(number, fitness, curve)
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
        if trial.confirms is not None:
            # As long as the user wants, whatever the trials had; what is counted in epochs keeps its share.
            settings |= {"seed": trial.seed, "trial_epochs": settings.get("epochs")}
            settings["epochs"] = trial.origin["epochs"]
        elif again:
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
            costs=objectives_of(self.state.header)[1:],  # fitness is measured anyway
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
