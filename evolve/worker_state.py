"""What one trial must not leave to the next one in the same process.

A worker is used again, since a fresh one costs seconds of imports. So its state is put back after each trial, and
a worker that can't be put back, or that grows, is given up for a fresh one.
"""

import gc
import logging
import multiprocessing
import os
import random
import threading
import warnings
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import psutil

BetweenTrials = Callable[[], str | None]
"""Frees what the objective's own frameworks hold; says why this process can't be used again, or None."""

GROWTH_FACTOR = 1.5  # of the memory that the process held after its first trial
GROWTH_BYTES = 512 << 20
SPARE_FILES = 64
PATIENCE_S = 3.0


@dataclass(frozen=True)
class ProcessState:
    """Global state of a process that a trial may change: randomness, environment, folder, logging, warnings."""

    randomness: Any
    numpy_randomness: Any
    environment: dict[str, str]
    folder: str
    log_level: int
    log_handlers: tuple[logging.Handler, ...]
    filters: tuple[Any, ...]

    @classmethod
    def taken(cls) -> Self:
        """The state of this process now."""
        root = logging.getLogger()
        return cls(
            random.getstate(),
            np.random.get_state(),  # noqa: NPY002  a trial's libraries may use the global one
            dict(os.environ),
            os.getcwd(),  # noqa: PTH109  put back as text
            root.level,
            tuple(root.handlers),
            tuple(warnings.filters),
        )

    def put_back(self) -> None:
        """Make it this process's state again."""
        random.setstate(self.randomness)
        np.random.set_state(self.numpy_randomness)  # noqa: NPY002
        for name in os.environ.keys() - self.environment.keys():
            del os.environ[name]
        os.environ.update(
            {name: value for name, value in self.environment.items() if os.environ.get(name) != value}
        )
        os.chdir(self.folder)
        root = logging.getLogger()
        root.setLevel(self.log_level)
        for handler in [handler for handler in root.handlers if handler not in self.log_handlers]:
            root.removeHandler(handler)
            handler.close()
        warnings.filters[:] = self.filters  # type: ignore[index]  # the module's own list, typed as read-only


@dataclass(frozen=True)
class Footprint:
    """What a process holds.

    Attributes:
        memory: Resident bytes.
        threads: Python threads alive.
        files: Open file descriptors.
    """

    memory: int
    threads: int
    files: int

    @classmethod
    def taken(cls) -> Self:
        """Of this process, now."""
        process = psutil.Process()
        return cls(process.memory_info().rss, threading.active_count(), process.num_fds())

    def too_large(self, first: "Footprint") -> str | None:
        """Why the process should not go on, compared with what it held after its first trial; None where it may."""
        if self.threads > first.threads:
            return f"{self.threads - first.threads} threads were left running"
        if self.files > first.files + SPARE_FILES:
            return f"{self.files - first.files} files were left open"
        if self.memory > GROWTH_FACTOR * first.memory + GROWTH_BYTES:
            return f"its memory grew from {first.memory >> 20} to {self.memory >> 20} MiB"
        return None


def clean_up(before: ProcessState, between_trials: BetweenTrials | None = None) -> str | None:
    """Leave this process to the next trial as the last one found it.

    Args:
        before: Taken before the trial.
        between_trials: Frees what the objective's frameworks hold.

    Returns:
        Why the process can't be used for another trial; None where it can.
    """
    end_children()
    gc.collect()
    reason = between_trials() if between_trials is not None else None
    before.put_back()
    now = Footprint.taken()
    return reason or now.too_large(_first_footprint(now))


def end_children() -> None:
    """End the processes that a trial left behind, such as readers of images."""
    left = [child for child in psutil.Process().children(recursive=True) if not _serves_python(child)]
    with suppress(psutil.NoSuchProcess):
        for child in left:
            child.terminate()
    _, alive = psutil.wait_procs(left, timeout=PATIENCE_S)
    with suppress(psutil.NoSuchProcess):
        for child in alive:
            child.kill()
    multiprocessing.active_children()  # collects those that Python itself started


def _serves_python(process: Any) -> bool:
    """Whether it is multiprocessing's own, which it would miss."""
    try:
        words = " ".join(process.cmdline())
    except psutil.Error:
        return False
    return "multiprocessing.resource_tracker" in words or "multiprocessing.forkserver" in words


_FIRST: list[Footprint] = []


def _first_footprint(now: Footprint) -> Footprint:
    """The footprint after the first trial of this process."""
    if not _FIRST:
        _FIRST.append(now)
    return _FIRST[0]


_RETIRED: list[str] = []


def retire(reason: str | None) -> None:
    """Remember why this process can't be used for another trial; None where it can."""
    if reason is not None:
        _RETIRED.append(reason)


def retired() -> str:
    """Why this process can't be used again; empty where it can."""
    return _RETIRED[0] if _RETIRED else ""
