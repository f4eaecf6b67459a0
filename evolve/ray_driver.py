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
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from ray import tune
from ray.tune.execution.class_cache import ENV_VARS_TO_PROPAGATE

from evolve.control import forget_stop
from evolve.journal import Journal, RunState
from evolve.ledger import Ledger, OnEvent
from evolve.ray_floor import CLEAN_S, Floor, WorkerRetiredError
from evolve.ray_hooks import LedgerCallback, LedgerSearcher, LedgerStopper
from evolve.ray_session import connected, nodes
from evolve.ray_workers import InOrder, workers_kept
from evolve.resources import Resources
from evolve.stored_trial import run_kept, store_variables
from evolve.trainable import Assignment, Objective, Outcome, Report, run_trial
from evolve.worker_state import BetweenTrials, ProcessState, clean_up, retire, retired

__all__ = ["Resources", "run_evolution", "session_with_room"]

# One no-op snapshot at the start and one at the end are enough: the journal remembers, not Tune.
TUNE_ENVIRONMENT = {
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",
    "TUNE_GLOBAL_CHECKPOINT_S": "86400",
    "TUNE_MAX_PENDING_TRIALS_PG": "10000",  # the searcher itself hands out no more than there is room for
    "TUNE_WARN_INSUFFICENT_RESOURCE_THRESHOLD_S": "86400",
}
CREDENTIALS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SECURITY_TOKEN", "AWS_SESSION_TOKEN")


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
    # Tune would put these into its workers' runtime environment, which Ray writes into its logs.
    ENV_VARS_TO_PROPAGATE.difference_update(CREDENTIALS)
    # Signals last, since Ray sets handlers of its own when it starts.
    # Tune's own files are of no use to anyone, and would stumble over a run folder without room.
    with (
        connected(resources.address, resources.cpus),
        tempfile.TemporaryDirectory(prefix="beagle-tune-", ignore_cleanup_errors=True) as storage,
        quiet_tune(),
        workers_kept(lambda: ledger.hands_out),
        terminated_as_interrupted(),
    ):
        floor = Floor(ledger, resources)
        tuner = tune.Tuner(
            tune.with_resources(trainable, {"cpu": resources.cpus, "gpu": resources.gpus}),
            tune_config=tune.TuneConfig(
                search_alg=LedgerSearcher(floor),
                scheduler=InOrder(),
                num_samples=-1,
                trial_dirname_creator=lambda trial: f"{trial.config['trial']:04d}-{trial.trial_id}",
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
    variables = store_variables()

    def beagle_trial(config: dict[str, Any]) -> None:
        def report(epoch: int, metrics: dict[str, float]) -> None:
            tune.report({"epoch": epoch, "epoch_metrics": metrics})  # returns once the driver has judged it

        def run(assignment: Assignment, report: Report) -> Outcome:
            return run_trial(assignment, objective, report)

        if retired():
            raise WorkerRetiredError(retired())
        # That a stopped trial's thread may take to end, before its worker is given the next one.
        os.environ["TUNE_FUNCTION_THREAD_TIMEOUT_S"] = f"{CLEAN_S:.0f}"
        before = ProcessState.taken()
        values = json.loads(config["assignment"])
        assignment = Assignment(**{**values, "settings": {**settings, **values["settings"]}})
        try:
            outcome = run_kept(assignment, report, run, variables)
        except SystemExit:  # so Tune ends the thread of a trial that was stopped, from within `report`
            retire(clean_up(before, between_trials))
            raise
        tune.report({"outcome": json.dumps(outcome.to_dict())})  # as text, since Tune flattens nested results
        reason = clean_up(before, between_trials)
        if reason or outcome.out_of_memory:
            raise WorkerRetiredError(reason or "memory ran out")

    return beagle_trial


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
