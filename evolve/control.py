"""Speaking to a run's driver from another process: who drives the run, and asking it to stop.

The request is a file in the run folder, or an object in the run's store, so it works wherever that can be seen.
"""

import fcntl
import json
import os
import time
from pathlib import Path
from typing import Literal

from evolve.aside import write_aside
from evolve.driver_signs import STOP as REQUEST_NAME
from evolve.driver_signs import driver_in
from evolve.space import EvolveError
from evolve.stored_run import store_of

Stop = Literal["gently", "now"]

LOCK_NAME = "lock"


def ask_to_stop(folder: Path, how: Stop = "gently") -> None:
    """Ask the driver of a run to stop; it looks every second.

    Args:
        folder: The run folder.
        how: "gently" lets each running trial end its epoch, "now" does not.

    Raises:
        EvolveError: The run folder can't be written.
    """
    request = json.dumps({"version": 1, "how": how, "time": time.time()})
    store = store_of(folder)
    if store is not None:
        store.put(REQUEST_NAME, request.encode())
        return
    try:
        write_aside(folder / REQUEST_NAME, request)
    except OSError as error:
        raise EvolveError(f"{folder}: it can't be asked to stop there ({error.strerror})") from error


def requested_stop(folder: Path) -> Stop | None:
    """What the driver of a run is asked; None for nothing. A file that makes no sense is taken as "gently"."""
    try:
        text = (folder / REQUEST_NAME).read_text(encoding="utf-8")
    except OSError:
        return None  # none there, or a file system that is away for the moment
    try:
        return "now" if json.loads(text).get("how") == "now" else "gently"
    except (ValueError, AttributeError):
        return "gently"  # someone's `touch stop`


def forget_stop(folder: Path) -> None:
    """Take a request back: it was met, or it was for a driver of before."""
    store = store_of(folder)
    if store is not None:
        store.delete([REQUEST_NAME])
    (folder / REQUEST_NAME).unlink(missing_ok=True)


def driver_of(folder: Path) -> str | None:
    """Who drives the run, as "PID on HOST"; None where nobody does."""
    store = store_of(folder)
    if store is not None:
        return driver_in(store)
    try:
        handle = os.open(folder / LOCK_NAME, os.O_RDONLY)
    except OSError:
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)  # freed by the close
    except BlockingIOError:
        return lock_holder(handle) or "an unknown process"
    finally:
        os.close(handle)
    return None


def lock_holder(lock: int, tries: int = 5) -> str:
    """What a lock that is held says of its holder, who writes it a moment after taking it; empty if nothing comes."""
    while not (name := os.pread(lock, 200, 0).decode(errors="replace").strip()) and (tries := tries - 1):
        time.sleep(0.05)
    return name
