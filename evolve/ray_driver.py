"""The door to Ray Tune: it places trials, and the ledger remembers them.

Tune's own snapshots lose trials when its driver is killed, so nothing here relies on them: a resumed run replays the
journal and opens a new Tuner for what is still to do. Nor does Tune retry: an attempt that failed is handed out again
by the ledger, as a new trial of Tune's with the same folder, where the worker finds the last checkpoint.
"""

import json
import logging
import os
import signal
import tempfile
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import ray
from ray import tune
from ray.tune import Callback, Stopper
from ray.tune.search import Searcher

from evolve.control import forget_stop, requested_stop
from evolve.journal import Journal, RunState
from evolve.ledger import Ledger, OnEvent, trial_folder
from evolve.object_store import StoreError
from evolve.ray_session import connected, nodes
from evolve.resources import Resources
from evolve.stored_run import store_of
from evolve.stored_trial import bring, run_stored, store_variables
from evolve.trainable import (
    FAILURE_NOTE,
    WORKER_DIED,
    Assignment,
    Objective,
    Outcome,
    Report,
    failure_reason,
    run_trial,
)
from evolve.watchdog import Watchdog
from evolve.worker_state import BetweenTrials, ProcessState, clean_up

__all__ = ["Resources", "run_evolution", "session_with_room"]

logger = logging.getLogger(__name__)

# One no-op snapshot at the start and one at the end are enough: the journal remembers, not Tune.
TUNE_ENVIRONMENT = {
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",
    "TUNE_GLOBAL_CHECKPOINT_S": "86400",
    "TUNE_MAX_PENDING_TRIALS_PG": "10000",  # the searcher itself hands out no more than there is room for
    "TUNE_WARN_INSUFFICENT_RESOURCE_THRESHOLD_S": "86400",
}
LOOK_S = 1.0  # between two looks at requests to stop and at silent trials
CLEAN_S = 120.0  # that a worker may take to tidy up after a trial
SPARED = 8  # trials that ended last and are kept whole
COUNT_S = 5.0  # between two looks at what the cluster holds


class WorkerRetiredError(RuntimeError):
    """A worker ends after its trial, rather than carry something over into the next."""


def run_evolution(
    folder: Path,
    objective: Objective,
    on_event: OnEvent | None = None,
    between_trials: BetweenTrials | None = None,
) -> RunState:
    """Run, or go on with, the evolution whose journal stands in `folder`, until its budget is used up.

    Args:
        folder: The run folder, with a journal that holds at least the run's header.
        objective: An importable function that trains one configuration.
        on_event: Called in this process after every event of the journal.
        between_trials: Importable; called in a worker after each trial to free what the objective's frameworks hold.

    Returns:
        The run's state at the end, or where it was asked to stop (`evolve.control`).

    Raises:
        EvolveError: Another driver holds the run, the cluster is too small, or the journal can't be written.
        KeyboardInterrupt: It was interrupted; running trials are left open for a resume.
    """
    folder = folder.resolve()  # workers have another current folder
    with Journal(folder / "journal.jsonl") as journal:
        forget_stop(folder)  # one for a driver of before
        ledger = Ledger(folder, journal, on_event)
        try:
            if not ledger.complete:
                _drive(ledger, _trainable(objective, between_trials, ledger), Resources.of(ledger.state))
        finally:
            if ledger.fault:
                raise ledger.fault  # whatever Tune made of it
        if not ledger.complete:
            ledger.stop("asked to stop" if ledger.stopping else "interrupted")
            if not ledger.stopping:
                raise KeyboardInterrupt
        forget_stop(folder)
        return ledger.state


@contextmanager
def session_with_room(resources: Resources) -> Iterator[None]:
    """Join or start Ray, and see whether a trial fits, before a run is begun; evolutions inside use this session.

    Raises:
        EvolveError: No cluster answers, or not even one trial fits.
    """
    with connected(resources.address, resources.cpus):
        resources.slots(nodes())
        yield


def _drive(ledger: Ledger, trainable: Any, resources: Resources) -> None:
    os.environ.update(TUNE_ENVIRONMENT)
    # Signals last, since Ray sets handlers of its own when it starts.
    # Tune's own files are of no use to anyone, and would stumble over a run folder without room.
    with (
        connected(resources.address, resources.cpus),
        tempfile.TemporaryDirectory(prefix="beagle-tune-", ignore_cleanup_errors=True) as storage,
        quiet_tune(),
        terminated_as_interrupted(),
    ):
        floor = Floor(ledger, resources)
        tuner = tune.Tuner(
            tune.with_resources(trainable, {"cpu": resources.cpus, "gpu": resources.gpus}),
            tune_config=tune.TuneConfig(
                search_alg=LedgerSearcher(floor),
                num_samples=-1,
                trial_dirname_creator=lambda trial: f"{_number(trial):04d}-{trial.trial_id}",
                reuse_actors=True,
            ),
            run_config=tune.RunConfig(
                name=f"session-{ledger.state.resumes}",
                storage_path=storage,
                failure_config=tune.FailureConfig(max_failures=0),
                callbacks=[LedgerCallback(floor)],
                stop=LedgerStopper(floor),
                verbose=0,
            ),
        )
        tuner.fit()


def _trainable(objective: Objective, between_trials: BetweenTrials | None, ledger: Ledger) -> Any:
    # What all trials have in common travels once, since Tune keeps several copies of every trial's configuration.
    settings = dict(ledger.state.header.get("settings", {}))
    store = store_of(ledger.folder)
    variables = store_variables(str(store.url)) if store else {}

    def beagle_trial(config: dict[str, Any]) -> None:
        def report(epoch: int, metrics: dict[str, float]) -> None:
            tune.report({"epoch": epoch, "epoch_metrics": metrics})

        def run(assignment: Assignment, report: Report) -> Outcome:
            return run_trial(assignment, objective, report)

        before = ProcessState.taken()
        assignment = Assignment(**json.loads(config["assignment"]), settings=settings)
        if assignment.store:
            os.environ.update({name: text for name, text in variables.items() if name not in os.environ})
            outcome = run_stored(assignment, report, run)
        else:
            outcome = run(assignment, report)
        tune.report({"outcome": json.dumps(outcome.to_dict())})  # as text, since Tune flattens nested results
        reason = clean_up(before, between_trials)
        if reason or outcome.out_of_memory:
            raise WorkerRetiredError(reason or "memory ran out")

    return beagle_trial


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

    def heard(self, trial: Any) -> int | None:
        """An attempt reported something; our number of the trial, None for one that has come back already."""
        number = self._placed.get(trial.trial_id)
        if number is not None:
            self._watchdog.heard(number)
        return number

    def leave(self, trial_id: str) -> int | None:
        """An attempt is over; our number of the trial, None if it had come back already."""
        number = self._placed.pop(trial_id, None)
        if number is not None:
            self._running.pop(number, None)
            self._watchdog.ended(number)
        return number

    def cleans_up(self, trial: Any) -> None:
        """An attempt has told its outcome; its worker tidies up, and must not be at it for ever."""
        self._cleaning[trial.trial_id] = trial, time.monotonic()

    def done_with(self, trial: Any) -> None:
        """Tune keeps all its trials to the end; this leaves of one that ended what is small: half of 30 kB each."""
        self._cleaning.pop(trial.trial_id, None)
        self._ended.append(trial)
        while len(self._ended) > SPARED:  # Tune still looks at those that ended just now
            old = self._ended.popleft()
            old.run_metadata.metric_analysis, old.run_metadata.metric_n_steps = {}, {}
            old.run_metadata.last_result, old.evaluated_params = {}, {}

    def why(self, number: int, trial: Any) -> str:
        """Why an attempt failed, in one line."""
        return self._silent.pop(number, None) or _reason(trial, self.ledger.folder)

    def look(self) -> None:
        """Now and then: was the run asked to stop, is a trial silent, is everything on the disk?"""
        now = time.monotonic()
        if now - self._looked_at < LOOK_S:
            return
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


class LedgerSearcher(Searcher):
    """Tune's questions, answered by the ledger. Hooks never raise: that would end the whole experiment."""

    def __init__(self, floor: Floor) -> None:
        super().__init__()
        self._floor = floor

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """The next trial for Tune's `trial_id`, None for not now, or FINISHED."""
        floor, ledger = self._floor, self._floor.ledger
        floor.look()  # Tune's loop rests while there is nothing to run, and asks all the same
        assignment = ledger.next_assignment() if not ledger.over and floor.has_room() else None
        if assignment is None:
            return str(Searcher.FINISHED) if ledger.over else None
        floor.place(trial_id, assignment)
        values = assignment.to_dict()
        del values["settings"]
        return {"trial": assignment.trial, "assignment": json.dumps(values)}

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """A trial that ends without an outcome was stopped, and stays open; errors go to the callback."""
        if not error:
            self._floor.leave(trial_id)

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the journal is the searcher's memory."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing, as `save`."""

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Tune pickles its configuration into the storage folder; nothing reads it back


class LedgerCallback(Callback):
    """What Tune's loop tells of running trials, written down."""

    def __init__(self, floor: Floor) -> None:
        self._floor = floor

    def on_step_end(self, iteration: int, trials: list[Any], **info: Any) -> None:
        """A turn of Tune's loop: at least ten a second."""
        self._floor.look()

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A worker begins with a trial."""
        self._floor.started(trial)

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        """One epoch of a trial, or its outcome."""
        number = self._floor.heard(trial)
        if number is None:
            return
        if "outcome" in result:
            self._floor.leave(trial.trial_id)
            self._floor.cleans_up(trial)
            self._floor.ledger.ended(number, Outcome(**json.loads(result["outcome"])))
        elif "epoch_metrics" in result and "epoch" in result:
            self._floor.ledger.reported(number, int(result["epoch"]), dict(result["epoch_metrics"]))

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Tune is about to put a trial away."""
        self._floor.done_with(trial)

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """An attempt failed, or its worker retired; Tune calls this before it asks for another."""
        number = self._floor.leave(trial.trial_id)
        if number is not None:
            reason = self._floor.why(number, trial)
            memory = "OutOfMemoryError" in reason
            self._floor.ledger.failed(number, reason, out_of_memory=memory)
        self._floor.done_with(trial)

    def __getstate__(self) -> dict[str, Any]:
        return {}


class LedgerStopper(Stopper):
    """Ends trials at their next report when the run was asked to stop, and all at once when it can't go on."""

    def __init__(self, floor: Floor) -> None:
        self._floor = floor

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        """Whether this trial ends here, its checkpoint written."""
        return self._floor.ledger.stopping

    def stop_all(self) -> bool:
        """Whether every trial ends now."""
        return self._floor.now or self._floor.ledger.fault is not None

    def __getstate__(self) -> dict[str, Any]:
        return {}


def _kill(trial: Any) -> bool:
    """End the worker of a trial of Tune's; whether there was one."""
    actor = trial.temporary_state.ray_actor
    if actor is not None:
        ray.kill(actor, no_restart=True)
    return actor is not None


def _number(trial: Any) -> int:
    return int(trial.config["trial"])


def _reason(trial: Any, run_folder: Path) -> str:
    """Why an attempt failed: what it wrote itself, else what Ray knows of a worker that never came to run it."""
    folder = trial_folder(run_folder, _number(trial))
    try:
        bring(run_folder, (folder / FAILURE_NOTE).relative_to(run_folder))
    except StoreError as error:
        logger.warning("why trial %d failed can't be read: %s", _number(trial), error)
    note = failure_reason(folder)
    if note != WORKER_DIED:
        return note
    try:
        lines = Path(trial.error_file).read_text(encoding="utf-8").strip().splitlines()
    except (OSError, TypeError):
        return note
    if any("OutOfMemoryError" in line for line in lines):
        return "OutOfMemoryError: Ray ended the worker, since its node ran low on memory"
    if not lines or any(sign in line for line in lines for sign in ("actor died", "is unavailable")):
        return note
    return lines[-1].strip()[:300]


@contextmanager
def quiet_tune() -> Iterator[None]:
    """Within it Ray's loggers keep still: what they say stands in the journal and in the trial's log."""
    loggers = [logging.getLogger(name) for name in ("ray", "ray.tune", "ray.train")]
    before = [each.level for each in loggers]
    for each in loggers:
        each.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for each, level in zip(loggers, before, strict=True):
            each.setLevel(level)


@contextmanager
def terminated_as_interrupted() -> Iterator[None]:
    """Within it SIGTERM stops the run as Ctrl-C does, since Tune saves and stops on SIGINT alone."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    interrupt = signal.getsignal(signal.SIGINT)
    try:
        yield
    finally:
        with suppress(ValueError, TypeError):
            signal.signal(signal.SIGTERM, before)
            signal.signal(signal.SIGINT, interrupt)
