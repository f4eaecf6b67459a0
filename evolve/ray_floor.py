"""Where trials run: which of Tune's is which of ours, how many there is room for, and what became of each."""

import json
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ray

from evolve.control import requested_stop
from evolve.ledger import Ledger
from evolve.ray_session import nodes
from evolve.resources import Resources
from evolve.stored_trial import kept_reason
from evolve.trainable import WORKER_DIED, Assignment, Outcome
from evolve.watchdog import Watchdog

LOOK_S = 1.0  # between two looks at requests to stop and at silent trials
CLEAN_S = 120.0  # that a worker may take to tidy up after a trial
SPARED = 8  # trials that ended last and are kept whole
COUNT_S = 5.0  # between two looks at what the cluster holds


class WorkerRetiredError(RuntimeError):
    """A worker ends after its trial, rather than carry something over into the next."""


class Floor:
    """Where trials run: which of Tune's is which of ours, how many there is room for, and who has fallen silent."""

    def __init__(self, ledger: Ledger, resources: Resources) -> None:
        """Count the room.

        Raises:
            EvolveError: Not even one trial fits.
        """
        self.ledger = ledger
        self.now = False
        self._resources = resources
        self._placed: dict[str, int] = {}
        self._running: dict[int, Any] = {}
        self._silent: dict[int, str] = {}
        self._cleaning: dict[str, tuple[Any, float]] = {}
        self._ended: deque[Any] = deque()
        epochs = (t.seconds / t.epochs for t in ledger.state.finished if t.seconds and t.epochs)
        self._watchdog = Watchdog(resources.silence_s, max(epochs, default=0.0))
        self._slots = resources.slots(nodes())
        self._looked_at = self._counted_at = time.monotonic()

    def has_room(self) -> bool:
        """Whether one more trial can run now; nodes may come and go."""
        now = time.monotonic()
        if now - self._counted_at > COUNT_S:
            self._counted_at = now
            self._slots = self._resources.room(nodes())
        # A worker that still tidies up is not free: its next trial would ask for a new worker, and Tune would give up
        # one that is just starting for it.
        return self.ledger.active + len(self._cleaning) < self._slots

    def place(self, trial_id: str, assignment: Assignment) -> None:
        """Tune's `trial_id` is this attempt from now on."""
        self._placed[trial_id] = assignment.trial

    def started(self, trial: Any) -> None:
        """A worker begins with an attempt."""
        number = self._placed.get(trial.trial_id)
        if number is not None:
            self._running[number] = trial
            self._watchdog.started(number)

    def take(self, trial_id: str, result: dict[str, Any]) -> bool:
        """Write down what an attempt reported, an epoch or its outcome; whether the attempt ends with that."""
        number = self._placed.get(trial_id)
        if number is None:
            return self.ledger.stopping  # it has come back already
        self._watchdog.heard(number)
        if "outcome" in result:
            self._cleaning[trial_id] = self._running[number], time.monotonic()
            self.leave(trial_id)
            self.ledger.ended(number, Outcome(**json.loads(result["outcome"])))
        elif not self._goes_on(number, result):
            self.leave(trial_id)
            return True
        return self.ledger.stopping

    def _goes_on(self, number: int, result: dict[str, Any]) -> bool:
        if "epoch_metrics" not in result or "epoch" not in result:
            return True
        return self.ledger.reported(number, int(result["epoch"]), dict(result["epoch_metrics"]))

    def leave(self, trial_id: str) -> int | None:
        """An attempt is over; our number of the trial, None if it had come back already."""
        number = self._placed.pop(trial_id, None)
        if number is not None:
            self._running.pop(number, None)
            self._watchdog.ended(number)
        return number

    def done_with(self, trial: Any) -> None:
        """Tune keeps all its trials to the end; this leaves of one that ended what is small: half of 30 kB each."""
        self._cleaning.pop(trial.trial_id, None)
        self._ended.append(trial)
        while len(self._ended) > SPARED:  # Tune still looks at those that ended just now
            old = self._ended.popleft()
            old.run_metadata.metric_analysis, old.run_metadata.metric_n_steps = {}, {}
            old.run_metadata.last_result, old.evaluated_params = {}, {}

    def failed(self, trial: Any) -> None:
        """An attempt failed, or never began, since its worker was of no more use."""
        number = self.leave(trial.trial_id)
        if number is not None:
            if _never_began(trial):
                self.ledger.put_back(number)
            else:
                reason = self._silent.pop(number, None) or _reason(trial)
                self.ledger.failed(number, reason, out_of_memory="OutOfMemoryError" in reason)
        self.done_with(trial)

    def look(self, trials: Sequence[Any] = ()) -> None:
        """Now and then: was the run asked to stop, is a trial silent, is everything on the disk?

        Args:
            trials: Tune's own, all of them. It says nothing of one whose worker could not be used again.
        """
        now = time.monotonic()
        if now - self._looked_at < LOOK_S:
            return
        for trial in trials:
            if trial.status == "ERROR" and trial.trial_id in self._placed:
                self.failed(trial)
        self._looked_at = now
        self.ledger.sync()
        request = requested_stop(self.ledger.folder)
        if request:
            self.ledger.stopping = True
            self.now = self.now or request == "now"
        for number in self._watchdog.hung():
            trial = self._running.get(number)
            if trial is not None and number not in self._silent and _kill(trial):
                self._silent[number] = f"it was silent for {self._watchdog.patience_s:.0f} s, so it was ended"
        for trial_id, (trial, since) in list(self._cleaning.items()):
            if now - since > CLEAN_S and _kill(trial):
                del self._cleaning[trial_id]


def _kill(trial: Any) -> bool:
    """End the worker of a trial of Tune's; whether there was one."""
    actor = trial.temporary_state.ray_actor
    if actor is not None:
        ray.kill(actor, no_restart=True)
    return actor is not None


def _never_began(trial: Any) -> bool:
    """Whether Tune had no worker for it: one that was retired, or that did not let go of its last trial."""
    return any("WorkerRetiredError" in line or "reset_config()" in line for line in _error_lines(trial))


def _error_lines(trial: Any) -> list[str]:
    try:
        return Path(trial.error_file).read_text(encoding="utf-8").strip().splitlines()
    except (OSError, TypeError):
        return []


def _reason(trial: Any) -> str:
    """Why an attempt failed: what it wrote itself, else what Ray knows of a worker that never came to run it."""
    note = kept_reason(Path(json.loads(trial.config["assignment"])["folder"]))
    if note != WORKER_DIED:
        return note
    lines = _error_lines(trial)
    if any("OutOfMemoryError" in line for line in lines):
        return "OutOfMemoryError: Ray ended the worker, since its node ran low on memory"
    if not lines or any(sign in line for line in lines for sign in ("actor died", "is unavailable")):
        return note
    return lines[-1].strip()[:300]
