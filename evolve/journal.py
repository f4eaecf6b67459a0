"""The journal of a run: append-only JSON lines, the single source of truth, with one writer.

An event is written and synced before what it speaks of counts, so a killed driver loses nothing it acted
upon. One process writes (a lock on the file `lock` beside the journal), any number may read.
"""

import fcntl
import json
import logging
import math
import os
import socket
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from evolve.run_state import Event, JournalError, Metrics, RunState, Status, TrialState, fold

logger = logging.getLogger(__name__)

# The state is this module's too for whoever reads a journal; it has its own file for its size.
__all__ = [
    "Event",
    "Journal",
    "JournalError",
    "Metrics",
    "RunState",
    "Status",
    "TrialState",
    "fold",
    "read_journal",
]


def read_journal(path: str | Path) -> list[Event]:
    """Read all events, in order; takes no lock, so that a live run can be read.

    A last line without its end (the writer was killed, or is at it) is left out with a logged warning.

    Raises:
        JournalError: there is no such file, or a whole line is no JSON object with an event (path and line).
    """
    path = Path(path)
    try:
        *lines, tail = path.read_bytes().split(b"\n")
    except OSError as error:
        raise JournalError(f"{path}: the journal cannot be read ({error.strerror})") from error
    if tail:
        logger.warning("%s: line %d is cut short and left out", path, len(lines) + 1)
    events: list[Event] = []
    for number, line in enumerate(lines, start=1):
        try:
            event = json.loads(line)
        except ValueError as error:
            raise JournalError(f"{path}:{number}: the line is damaged, no JSON ({error})") from error
        if not isinstance(event, dict) or not isinstance(event.get("event"), str):
            raise JournalError(f"{path}:{number}: a line must hold one event, but got {line[:60]!r}")
        events.append(event)
    return events


class Journal:
    """The one writer of a journal.

    Opening makes the folder and the file where they are missing, takes the lock (given up by `close`, and by
    the death of the process, however it dies), and cuts off a last line that an earlier writer left
    unfinished.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder, Journal(Path(folder) / "journal.jsonl") as journal:
    ...     _ = journal.append({"event": "stop", "reason": "example", "time": 0.0})
    ...     read_journal(journal.path)
    [{'event': 'stop', 'time': 0.0, 'reason': 'example'}]
    """

    def __init__(self, path: str | Path) -> None:
        """Open for appending.

        Raises:
            JournalError: another process holds the lock (its pid), or the file cannot be opened.
        """
        self.path = Path(path)
        self._thread_lock = threading.Lock()
        self._file = self._lock_file = -1
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._take_lock()
            self._file = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
            self._size = self._cut_partial_line()
            _sync_folder(self.path.parent)
        except OSError as error:
            self.close()
            raise JournalError(f"{self.path}: the journal cannot be opened ({error.strerror})") from error

    def _take_lock(self) -> None:
        lock = self._lock_file = os.open(self.path.parent / "lock", os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = os.pread(lock, 200, 0).decode(errors="replace").strip() or "unknown"
            self.close()
            raise JournalError(
                f"{self.path}: the run is being written by process {holder}; stop it, or wait for its end"
            ) from error
        os.ftruncate(lock, 0)
        os.pwrite(lock, f"{os.getpid()} on {socket.gethostname()}\n".encode(), 0)

    def _cut_partial_line(self) -> int:
        content = self.path.read_bytes()
        whole = content.rfind(b"\n") + 1
        if whole < len(content):
            logger.warning("%s: an unfinished last line (%d bytes) is cut", self.path, len(content) - whole)
            os.ftruncate(self._file, whole)
            os.fsync(self._file)
        return whole

    def append(self, event: Event) -> Event:
        """Write one event as one line; all but reports are on the disk when this returns.

        Args:
            event: plain data with a key "event"; "time" (unix seconds) is added where it is missing, numpy
                numbers become plain ones, and in reports and tells a number that is not finite becomes null.

        Returns:
            The event as written, to be applied to a live `RunState`.

        Raises:
            JournalError: the event is no plain data, or could not be written whole (disk full, journal
                closed); the file then ends in the whole line before.
        """
        lossy = event.get("event") in ("report", "tell")
        stamped = {"event": event.get("event"), "time": event.get("time", time.time())}
        written: Event = {**stamped, **{key: _plain(value, lossy) for key, value in event.items()}}
        try:
            line = json.dumps(written, allow_nan=False).encode() + b"\n"
        except (TypeError, ValueError) as error:
            raise JournalError(f"an event must be plain finite data, but {error}: {event!r:.200}") from error
        with self._thread_lock:
            self._write(line, sync=written["event"] != "report")
        return written

    def _write(self, line: bytes, *, sync: bool) -> None:
        if self._file < 0:
            raise JournalError(f"{self.path}: the journal is closed")
        try:
            rest = memoryview(line)
            while rest:
                rest = rest[os.write(self._file, rest) :]
            if sync:
                os.fsync(self._file)
        except OSError as error:
            os.ftruncate(self._file, self._size)
            raise JournalError(f"{self.path}: an event could not be written ({error.strerror})") from error
        self._size += len(line)

    def close(self) -> None:
        """Sync, close and give up the lock; a second call does nothing."""
        with self._thread_lock:
            if self._file >= 0:
                os.fsync(self._file)
                os.close(self._file)
            if self._lock_file >= 0:
                os.close(self._lock_file)
            self._file = self._lock_file = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _sync_folder(folder: Path) -> None:
    """Make a new file's name durable: fsync of the file alone does not."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _plain(value: Any, lossy: bool) -> Any:
    """Turn numpy's numbers and arrays into Python's, and non-finite ones into None where that is allowed."""
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    if isinstance(value, dict):
        return {key: _plain(item, lossy) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item, lossy) for item in value]
    if lossy and isinstance(value, float) and not math.isfinite(value):
        return None
    return value
