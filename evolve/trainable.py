"""What a worker runs: an objective, handed one trial's assignment and a way to report.

The search knows no detector. It is given an *objective*, a function that any process can import. Whatever the
objective leaves in its folder is what a retry continues from, so a retry needs nothing but the same assignment.
"""

import contextlib
import errno
import fcntl
import logging
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from evolve.gene import Value

Report = Callable[[int, dict[str, float]], None]

FAILURE_NOTE = "failure.txt"
LOG_NAME = "log.txt"
WORKER_DIED = "the worker process died (killed, out of memory, or its node was lost)"


class TrialError(RuntimeError):
    """A trial that can't go on for a reason outside its configuration."""


@dataclass(frozen=True)
class Assignment:
    """One trial as a worker receives it: plain data only.

    Attributes:
        trial: The trial's number, from 0.
        config: Gene name to value, in the genes' own units.
        settings: What the run's header says for every trial (data, model, epochs, ...); opaque to evolve.
        folder: Where the trial writes, the same at every attempt.
        cpus: CPUs that this trial may use, hence its number of threads.
        gpus: GPUs that it has, all on one node; a fraction where trials share one.
        attempt: Which attempt this is, from 0.
        micro_batch_halvings: How often its micro-batch is to be halved, since larger ones did not fit into memory.
            The nominal batch stays.
        store: URL of the object store that the run is kept in; empty where all workers see the run's folder.
        costs: What is to be measured of it beside its fitness, names of `evolve.costs.COSTS`.
    """

    trial: int
    config: dict[str, Value]
    settings: dict[str, Any]
    folder: str
    cpus: float = 1.0
    gpus: float = 0.0
    attempt: int = 0
    micro_batch_halvings: int = 0
    store: str = ""
    costs: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """The same as plain data."""
        return asdict(self)


@dataclass(frozen=True)
class Outcome:
    """How a trial ended.

    Attributes:
        fitness: Of the best epoch; None for a failed trial.
        metrics: The best epoch's metrics.
        history: Metrics of every epoch, in order; fills what a dead worker could not report.
        reason: Why it failed, in one line; None where it did not.
        result: What the objective leaves for the export (anchors, path of the best weights, notes).
        seconds: Wall-clock time spent, all attempts together where the objective knows it.
        halt: The reason holds for every trial (the disk is full): the run must stop, and this trial stays open.
        out_of_memory: The reason is that memory ran out, host's or device's: a smaller micro-batch may do.
    """

    fitness: float | None
    metrics: dict[str, float] = field(default_factory=dict)
    history: list[dict[str, float]] = field(default_factory=list)
    reason: str | None = None
    result: dict[str, Any] = field(default_factory=dict)
    seconds: float = 0.0
    halt: bool = False
    out_of_memory: bool = False

    def to_dict(self) -> dict[str, Any]:
        """The same as plain data."""
        return asdict(self)


Objective = Callable[[Assignment, Report], Outcome]


def run_trial(assignment: Assignment, objective: Objective, report: Report) -> Outcome:
    """Run one attempt of a trial in this process.

    A ValueError means that the configuration can't work, so it is an outcome: the same attempt would fail again. A
    full disk is one too, and halts the run: every other trial would fail of it. So is memory that ran out, which a
    smaller micro-batch may mend. Any other exception is left to the caller, which may retry; its last line is kept
    in the trial's folder, since what crosses processes loses it.

    Args:
        assignment: The trial.
        objective: The function to run.
        report: Called with (epoch, metrics) after each epoch, and once more with the last one by an attempt that goes
            on from a checkpoint: the one before may have died in between. A trial that is stopped leaves it by
            SystemExit.

    Returns:
        How the trial ended.

    Raises:
        TrialError: Another process still works in this trial's folder.
    """
    started = time.monotonic()
    try:
        return _attempt(assignment, objective, report, started)
    except OSError as error:  # from the log, too, whose last lines are written when it is closed
        if not disk_is_full(error):
            raise
        return Outcome(None, reason=one_line(error), seconds=time.monotonic() - started, halt=True)


def _attempt(assignment: Assignment, objective: Objective, report: Report, started: float) -> Outcome:
    folder = Path(assignment.folder)
    folder.mkdir(parents=True, exist_ok=True)
    note = folder / FAILURE_NOTE
    with claim_folder(folder), log_to(folder / LOG_NAME):
        note.unlink(missing_ok=True)
        try:
            return objective(assignment, report)
        except Exception as error:
            logging.getLogger(__name__).exception("trial %d failed", assignment.trial)
            halt, memory = disk_is_full(error), memory_ran_out(error)
            if halt or memory or isinstance(error, ValueError):
                seconds = time.monotonic() - started
                return Outcome(
                    None,
                    reason=one_line(error),
                    seconds=seconds,
                    halt=halt,
                    out_of_memory=memory and not halt,
                )
            with contextlib.suppress(OSError):  # the exception counts, not that its note found no room
                note.write_text(one_line(error) + "\n" + traceback.format_exc(), encoding="utf-8")
            raise


def disk_is_full(error: BaseException) -> bool:
    """Whether `error`, or what caused it, is a disk or a quota without room."""
    return any(
        isinstance(cause, OSError) and cause.errno in (errno.ENOSPC, errno.EDQUOT) for cause in _causes(error)
    )


# What frameworks say where they have no class for it; this room imports none of them.
MEMORY_SIGNS = ("out of memory", "alloc_failed", "can't allocate memory", "cannot allocate memory")


def memory_ran_out(error: BaseException) -> bool:
    """Whether `error`, or what caused it, is that the host's or a device's memory ran out."""
    return any(
        isinstance(cause, MemoryError)
        or (isinstance(cause, OSError) and cause.errno == errno.ENOMEM)
        or type(cause).__name__ == "OutOfMemoryError"
        or (isinstance(cause, RuntimeError) and any(sign in str(cause).lower() for sign in MEMORY_SIGNS))
        for cause in _causes(error)
    )


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """The error, what it came from, and so on down to the first."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def failure_reason(folder: Path) -> str:
    """Why the last attempt in `folder` ended early, in one line."""
    try:
        lines = (folder / FAILURE_NOTE).read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return WORKER_DIED
    return lines[0] if lines else "the trial failed and could not write why (is the disk full?)"


def one_line(error: BaseException) -> str:
    """Name and message of `error` on one line of at most 300 characters."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}"[:300] if text else type(error).__name__


@contextlib.contextmanager
def claim_folder(folder: Path, patience_s: float = 60.0) -> Iterator[None]:
    """Hold a trial's folder; the system lets go of it when the process ends, however it ends.

    After a driver's death its orphans live on for a few seconds: a successor waits for them, so that two
    processes never write one checkpoint.

    Args:
        folder: The trial's folder.
        patience_s: How long to wait for another holder.

    Raises:
        TrialError: It was still held when patience ended.
    """
    deadline = time.monotonic() + patience_s
    with (folder / ".claim").open("w") as handle:
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise TrialError(f"{folder} is still in use by another process") from None
                time.sleep(0.2)
        yield


@contextlib.contextmanager
def log_to(path: Path) -> Iterator[None]:
    """Send this process's log records of level INFO and above to `path` too."""
    handler = logging.FileHandler(path, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    root = logging.getLogger()
    level = root.level
    root.addHandler(handler)
    root.setLevel(min(level, logging.INFO) if level else logging.INFO)
    try:
        yield
    finally:
        root.removeHandler(handler)
        root.setLevel(level)
        handler.close()
