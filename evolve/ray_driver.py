"""The door to Ray Tune: trials are placed and retried by Ray Tune, and remembered by the ledger.

Tune's own snapshots lose trials when its driver is killed, so nothing here relies on them: a resumed run replays the
journal and opens a new Tuner for what is still to do. Workers find their last checkpoint in the trial's own folder.
"""

import json
import logging
import os
import shutil
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ray import tune
from ray.tune import Callback
from ray.tune.search import Searcher

from evolve.journal import Journal, RunState
from evolve.ledger import Ledger, OnEvent
from evolve.ray_session import connected
from evolve.space import EvolveError
from evolve.trainable import WORKER_DIED, Assignment, Objective, Outcome, failure_reason, run_trial

logger = logging.getLogger(__name__)

# One no-op snapshot at the start and one at the end are enough: the journal remembers, not Tune.
TUNE_ENVIRONMENT = {
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",
    "TUNE_GLOBAL_CHECKPOINT_S": "86400",
    "TUNE_WARN_INSUFFICENT_RESOURCE_THRESHOLD_S": "86400",
}


@dataclass(frozen=True)
class Resources:
    """What each trial gets, and how many run at once.

    Attributes:
        cpus: CPUs per trial, and its number of threads; over 0.
        gpus: GPUs per trial; a fraction lets trials share one.
        concurrent: Most trials at once; None takes what the cluster holds.
        retries: How often a trial whose worker died or raised is started again.
        address: Ray cluster to join; None starts one on this machine.
    """

    cpus: float = 1.0
    gpus: float = 0.0
    concurrent: int | None = None
    retries: int = 2
    address: str | None = None

    def __post_init__(self) -> None:
        if self.cpus <= 0:
            raise EvolveError(f"cpus > 0 must hold, but got {self.cpus:g}")
        if self.gpus < 0 or (self.gpus > 1 and self.gpus != int(self.gpus)):
            raise EvolveError(f"gpus must be a fraction of one or a whole number, but got {self.gpus:g}")
        if self.concurrent is not None and self.concurrent < 1:
            raise EvolveError(f"concurrent >= 1 must hold, but got {self.concurrent}")
        if self.retries < 0:
            raise EvolveError(f"retries >= 0 must hold, but got {self.retries}")

    def to_dict(self) -> dict[str, Any]:
        """The same as plain data."""
        return asdict(self)

    def slots(self, available: dict[str, float]) -> int:
        """How many trials run at once on a cluster of `available` resources ("CPU", "GPU").

        Raises:
            EvolveError: Not even one trial fits.
        """
        fits = int(available.get("CPU", 0.0) / self.cpus + 1e-9)
        if self.gpus:
            fits = min(fits, int(available.get("GPU", 0.0) / self.gpus + 1e-9))
        if fits < 1:
            has = f"{available.get('CPU', 0):g} CPUs and {available.get('GPU', 0):g} GPUs"
            raise EvolveError(
                f"a trial asks for {self.cpus:g} CPUs and {self.gpus:g} GPUs, but the cluster has {has}: ask for less"
            )
        return min(fits, self.concurrent or fits)


def run_evolution(folder: Path, objective: Objective, on_event: OnEvent | None = None) -> RunState:
    """Run, or go on with, the evolution whose journal stands in `folder`, until its budget is used up.

    Args:
        folder: The run folder, with a journal that holds at least the run's header.
        objective: An importable function that trains one configuration.
        on_event: Called in this process after every event of the journal.

    Returns:
        The run's state at the end.

    Raises:
        EvolveError: Another driver holds the run, the cluster is too small, or the journal can't be written.
        KeyboardInterrupt: It was interrupted; running trials are left open for a resume.
    """
    folder = folder.resolve()  # workers have another current folder
    with Journal(folder / "journal.jsonl") as journal:
        ledger = Ledger(folder, journal, on_event)
        if not ledger.complete:
            header = ledger.state.header["resources"]
            _drive(ledger, objective, Resources(**header))
        if ledger.fault:
            raise ledger.fault
        if not ledger.complete:
            ledger.stop("interrupted")
            raise KeyboardInterrupt
        return ledger.state


def _drive(ledger: Ledger, objective: Objective, resources: Resources) -> None:
    os.environ.update(TUNE_ENVIRONMENT)
    # Signals last, since Ray sets handlers of its own when it starts.
    cluster = connected(resources.address, ledger.folder, resources.cpus)
    with cluster as available, quiet_tune(), terminated_as_interrupted():
        slots = min(resources.slots(available), ledger.remaining)
        storage = ledger.folder / "ray"
        tuner = tune.Tuner(
            tune.with_resources(_trainable(objective), {"cpu": resources.cpus, "gpu": resources.gpus}),
            tune_config=tune.TuneConfig(
                search_alg=LedgerSearcher(ledger),
                num_samples=-1,
                max_concurrent_trials=slots,
                trial_dirname_creator=lambda trial: f"{_number(trial):04d}",
                # A fresh process really frees a GPU's memory; on CPUs a reused one saves importing torch again.
                reuse_actors=resources.gpus == 0,
            ),
            run_config=tune.RunConfig(
                name=f"session-{ledger.state.resumes}",
                storage_path=str(storage.resolve()),
                failure_config=tune.FailureConfig(max_failures=resources.retries),
                callbacks=[LedgerCallback(ledger)],
                verbose=0,
            ),
        )
        tuner.fit()
        shutil.rmtree(storage, ignore_errors=True)  # the journal holds all of it


def _trainable(objective: Objective) -> Any:
    def beagle_trial(config: dict[str, Any]) -> None:
        def report(epoch: int, metrics: dict[str, float]) -> None:
            tune.report({"epoch": epoch, "epoch_metrics": metrics})

        outcome = run_trial(Assignment(**config["assignment"]), objective, report)
        tune.report({"outcome": json.dumps(outcome.to_dict())})  # as text, since Tune flattens nested results

    return beagle_trial


class LedgerSearcher(Searcher):
    """Tune's questions, answered by the ledger. Hooks never raise: that would end the whole experiment."""

    def __init__(self, ledger: Ledger) -> None:
        super().__init__()
        self._ledger = ledger
        self._numbers: dict[str, int] = {}

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """The next trial for Tune's `trial_id`, or FINISHED."""
        assignment = self._ledger.next_assignment()
        if assignment is None:
            return str(Searcher.FINISHED)
        self._numbers[trial_id] = assignment.trial
        return {"assignment": assignment.to_dict()}

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Take in a trial's outcome. Without one it was interrupted and stays open; errors go to the callback."""
        number = self._numbers.pop(trial_id, None)
        if number is not None and result and "outcome" in result:
            self._ledger.ended(number, Outcome(**json.loads(result["outcome"])))

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the journal is the searcher's memory."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing, as `save`."""

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Tune pickles its configuration into the storage folder; nothing reads it back


class LedgerCallback(Callback):
    """What Tune's loop tells of running trials, written down."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        """One epoch of a trial."""
        if "epoch_metrics" in result and "epoch" in result:
            self._ledger.reported(_number(trial), int(result["epoch"]), dict(result["epoch_metrics"]))

    def on_trial_recover(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A trial failed and Tune starts it again."""
        self._ledger.retried(_number(trial), _reason(trial))

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A trial failed for good; Tune calls this before it asks for another."""
        self._ledger.ended(_number(trial), Outcome(None, reason=_reason(trial)))

    def __getstate__(self) -> dict[str, Any]:
        return {}


def _number(trial: Any) -> int:
    return int(trial.config["assignment"]["trial"])


def _reason(trial: Any) -> str:
    """Why an attempt failed: what it wrote itself, else what Ray knows of a worker that never came to run it."""
    note = failure_reason(Path(trial.config["assignment"]["folder"]))
    if note != WORKER_DIED:
        return note
    try:
        lines = Path(trial.error_file).read_text(encoding="utf-8").strip().splitlines()
    except (OSError, TypeError):
        return note
    return note if not lines or any("actor died" in line for line in lines) else lines[-1].strip()[:300]


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
