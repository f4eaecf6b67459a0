"""The journal of a run: append-only JSON lines, the single source of truth, with one writer.

An event is written and synced before what it speaks of counts, so a killed driver loses nothing it acted
upon. One process writes (a lock on the file `lock` beside the journal), any number may read. The journal of a run in
an object store lies there in pieces (`evolve.segments`), and the file is what its driver works on.
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

from evolve.control import LOCK_NAME, lock_holder
from evolve.object_store import PATIENCE_S
from evolve.run_state import Event, JournalError, Metrics, RunState, Status, TrialState, fold
from evolve.stored_run import StoredJournal, store_of

logger = logging.getLogger(__name__)

# The state is this module's too for whoever reads a journal; it has its own file for its size.
__all__ = [
    "Event",
    "Journal",
    "JournalError",
    "JournalReader",
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
    *lines, tail = _read(path, 0).split(b"\n")
    if tail:
        logger.warning("%s: line %d is cut short and left out", path, len(lines) + 1)
    return _parse(path, lines, 1)


class JournalReader:
    """Follows a journal that grows: each look reads only what is new, however long the run has become.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder, Journal(Path(folder) / "journal.jsonl") as journal:
    ...     _ = journal.append({"event": "run", "version": 1, "name": "a", "trials": 1, "time": 0.0})
    ...     JournalReader(journal.path).state().budget
    1
    """

    def __init__(self, path: str | Path) -> None:
        """Nothing is read yet."""
        self._path = Path(path)
        self._size = 0
        self._lines = 0
        self._state: RunState | None = None

    @property
    def offset(self) -> int:
        """Bytes that the newest look has taken in: the beginning of the line after them."""
        return self._size

    def state(self) -> RunState:
        """The fold of all whole lines so far: the same object each time, brought up to date.

        Raises:
            JournalError: as `read_journal` and `fold`.
        """
        text = _read(self._path, self._size)
        *lines, tail = text.split(b"\n")
        events = _parse(self._path, lines, self._lines + 1)
        self._state = fold(events, self._state, self._lines + 1)
        self._size += len(text) - len(tail)
        self._lines += len(lines)
        return self._state


def _read(path: Path, start: int) -> bytes:
    try:
        with path.open("rb") as file:
            file.seek(start)
            return file.read()
    except OSError as error:
        raise JournalError(f"{path}: the journal cannot be read ({error.strerror})") from error


def _parse(path: Path, lines: list[bytes], first: int) -> list[Event]:
    events: list[Event] = []
    for number, line in enumerate(lines, start=first):
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
        self._stored: StoredJournal | None = None
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._take_lock()
            self._stored = self._take_over()
            self._file = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
            content = self._cut_partial_line()
            self._size, self._unsynced = len(content), False
            self._clock = _Clock(_last_time(content))
            _sync_folder(self.path.parent)
        except OSError as error:
            self.close()
            raise JournalError(f"{self.path}: the journal cannot be opened ({error.strerror})") from error

    def _take_lock(self) -> None:
        lock = self._lock_file = os.open(self.path.parent / LOCK_NAME, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            _lock_soon(lock)
        except BlockingIOError as error:
            holder = lock_holder(lock) or "unknown"
            self.close()
            raise JournalError(
                f"{self.path}: the run is being written by process {holder}; stop it, or wait for its end"
            ) from error
        os.ftruncate(lock, 0)
        os.pwrite(lock, f"{os.getpid()} on {socket.gethostname()}\n".encode(), 0)

    def _take_over(self) -> StoredJournal | None:
        store = store_of(self.path.parent, PATIENCE_S)
        try:
            return None if store is None else StoredJournal(store, self.path)
        except JournalError:
            self.close()
            raise

    def _cut_partial_line(self) -> bytes:
        content = self.path.read_bytes()
        whole = content.rfind(b"\n") + 1
        if whole < len(content):
            logger.warning("%s: an unfinished last line (%d bytes) is cut", self.path, len(content) - whole)
            os.ftruncate(self._file, whole)
            os.fsync(self._file)
        return content[:whole]

    def append(self, event: Event, *, sync: bool | None = None) -> Event:
        """Write one event as one line; all but reports are on the disk when this returns.

        A process that is killed loses nothing that was appended; a machine that loses power, what was not synced.

        Args:
            event: plain data with a key "event"; "time" (unix seconds, never less than the event's before) is
                added where it is missing, numpy numbers become plain ones, and in reports and tells a number
                that is not finite becomes null.
            sync: False leaves it to a later `sync`, True syncs a report too.

        Returns:
            The event as written, to be applied to a live `RunState`.

        Raises:
            JournalError: the event is no plain data, or could not be written whole (disk full, journal
                closed); the file then ends in the whole line before.
        """
        lossy = event.get("event") in ("report", "tell")
        stamped = {
            "event": event.get("event"),
            "time": event["time"] if "time" in event else self._clock.now(),
        }
        written: Event = {**stamped, **{key: _plain(value, lossy) for key, value in event.items()}}
        try:
            line = json.dumps(written, allow_nan=False).encode() + b"\n"
        except (TypeError, ValueError) as error:
            raise JournalError(f"an event must be plain finite data, but {error}: {event!r:.200}") from error
        with self._thread_lock:
            self._write(line, sync=written["event"] != "report" if sync is None else sync)
        return written

    def sync(self) -> None:
        """Bring onto the disk, and into the run's store where it has one, what was appended without.

        Raises:
            JournalError: it could not be, or another driver has taken the run over.
        """
        with self._thread_lock:
            if self._unsynced and self._file >= 0:
                try:
                    os.fsync(self._file)
                except OSError as error:
                    raise JournalError(f"{self.path}: it could not be synced ({error.strerror})") from error
                self._unsynced = False
            if self._stored is not None:
                self._stored.push()

    def _write(self, line: bytes, *, sync: bool) -> None:
        if self._file < 0:
            raise JournalError(f"{self.path}: the journal is closed")
        try:
            rest = memoryview(line)
            while rest:
                rest = rest[os.write(self._file, rest) :]
            self._unsynced = True
            if sync:
                os.fsync(self._file)
                self._unsynced = False
        except OSError as error:
            os.ftruncate(self._file, self._size)
            raise JournalError(f"{self.path}: an event could not be written ({error.strerror})") from error
        self._size += len(line)
        if self._stored is not None:
            self._stored.add(line)
            if sync:
                self._stored.push()

    def close(self) -> None:
        """Sync, close and give up the lock; a second call does nothing."""
        with self._thread_lock:
            if self._stored is not None:
                self._stored.close()
                self._stored = None
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


def _lock_soon(lock: int, tries: int = 5) -> None:
    """Lock a file; someone who only looks whether it is locked (`driver_of`) holds it for a moment."""
    for left in reversed(range(tries)):
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if not left:
                raise
            time.sleep(0.05)


class _Clock:
    """Unix time that only goes forward: someone may set the system's clock while a run goes on."""

    def __init__(self, least: float) -> None:
        self._started_at = max(time.time(), least)
        self._began = _elapsed()

    def now(self) -> float:
        return self._started_at + _elapsed() - self._began


def _elapsed() -> float:
    """Seconds since some moment, those that the machine slept through among them where the system counts them."""
    boot = getattr(time, "CLOCK_BOOTTIME", None)
    return time.monotonic() if boot is None else time.clock_gettime(boot)


def _last_time(content: bytes) -> float:
    """The time of a journal's last event; 0 where there is none that can be read."""
    last = content[content.rfind(b"\n", 0, len(content) - 1) + 1 :]
    try:
        return float(json.loads(last)["time"])
    except (ValueError, KeyError, TypeError):
        return 0.0


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
