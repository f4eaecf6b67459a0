"""A run that is kept in an object store: where this machine works on it, and who drives it.

The store is what counts. A driver works in a *spool*, a folder of its own machine that looks like any run folder and
holds what was not sent yet; a command that only reads makes a *mirror*. Either can be thrown away. The file `.store`
in them says which store they belong to, so whoever is handed a folder finds it.
"""

import hashlib
import json
import logging
import os
import shutil
import socket
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import psutil

from evolve.object_store import ObjectStore, StoreError, StoreUrl
from evolve.run_state import JournalError
from evolve.segments import BLOCK, SegmentLog, SegmentWriter

logger = logging.getLogger(__name__)

MARK, DRIVER, STOP, JOURNAL = ".store", "driver.json", "stop", "journal.jsonl"
CACHE_VARIABLE, SCRATCH_VARIABLE = "BEAGLE_CACHE", "BEAGLE_SCRATCH"
BEAT_S = 5.0  # between two signs of life of a driver
WATCH_S = 30.0  # without one until a driver of before is taken for dead
LOOK_PATIENCE_S = 60.0  # of a command that somebody waits for


def cache_folder() -> Path:
    """Where spools and mirrors lie: BEAGLE_CACHE, or `beagle` in the user's folder of caches."""
    chosen = os.environ.get(CACHE_VARIABLE)
    if chosen:
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "beagle"


def scratch_folder(url: StoreUrl) -> Path:
    """Where workers of this machine keep trials of a run while they run: in BEAGLE_SCRATCH, or the system's own."""
    root = os.environ.get(SCRATCH_VARIABLE) or Path(tempfile.gettempdir()) / f"beagle-{os.getuid()}"
    return Path(root) / _digest(url)


def spool_of(url: StoreUrl) -> Path:
    """The folder in which a driver on this machine works on a run; made where it is missing."""
    return _marked(cache_folder() / "spools" / _digest(url) / url.name, url)


def mirror_of(url: StoreUrl) -> Path:
    """A folder that holds what the store has of a run's journal now, for reading.

    Raises:
        StoreError: The store does not answer, or has no such run.
    """
    store = ObjectStore(url, LOOK_PATIENCE_S)
    lines = SegmentLog(store).read().lines
    if not lines:
        raise StoreError(f"{url} is no run: there is no journal")
    folder = _marked(cache_folder() / "mirrors" / _digest(url) / url.name, url)
    _write(folder / JOURNAL, lines)
    return folder


def holds_run(url: StoreUrl) -> bool:
    """Whether a run was begun there.

    Raises:
        StoreError: The store does not answer.
    """
    return bool(SegmentLog(ObjectStore(url, LOOK_PATIENCE_S)).read().lines)


def store_of(folder: Path, patience_s: float = LOOK_PATIENCE_S) -> ObjectStore | None:
    """The store that a spool or mirror belongs to; None for a folder that is the run itself."""
    try:
        text = (folder / MARK).read_text(encoding="utf-8")
    except OSError:
        return None
    url = StoreUrl.parse(text.strip())
    return None if url is None else ObjectStore(url, patience_s)


def run_label(folder: Path) -> str:
    """A run as a user names it: its URL, or its folder."""
    store = store_of(folder)
    return str(store.url if store else folder)


def publish(folder: Path, *names: str) -> None:
    """Put files of a spool or mirror, where they are there, beside the journal in the store."""
    store = store_of(folder)
    for name in names:
        if store is not None and (folder / name).is_file():
            store.upload(folder / name, name)


def _digest(url: StoreUrl) -> str:
    return hashlib.sha256(str(url).encode()).hexdigest()[:16]


def _marked(folder: Path, url: StoreUrl) -> Path:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not (folder / MARK).exists():
            _write(folder / MARK, f"{url}\n".encode())
    except OSError as error:
        raise StoreError(
            f"{folder} can't be made ({error.strerror}): set {CACHE_VARIABLE} to a folder with room"
        ) from error
    return folder


def _write(path: Path, content: bytes) -> None:
    aside = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}")
    try:
        aside.write_bytes(content)
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)


class StoredJournal:
    """The writer's end of a journal in a store; the spool's file is brought level with it when it is opened."""

    def __init__(self, store: ObjectStore, path: Path) -> None:
        """Take the run over, once no other driver gives a sign of life.

        Lines that a driver of this machine could not send any more are sent, where nothing was written since.

        Raises:
            JournalError: Another driver is at it, or the store can't be used.
        """
        self._store, self._path = store, path
        self._pending = bytearray()
        self._fault: JournalError | None = None
        try:
            _wait_for_end(store)
            self._writer = SegmentWriter(SegmentLog(store), _who())
            tail = self._level(self._writer.content.lines)
            self._sign = _Sign(store, path.parent, self._writer)
        except StoreError as error:
            raise JournalError(str(error)) from error
        self.add(tail)
        self.push()
        self._sign.start()

    def _level(self, lines: bytes) -> bytes:
        """Make the spool's file what the store has; what it holds beyond that."""
        here = self._path.read_bytes() if self._path.exists() else b""
        here = here[: here.rfind(b"\n") + 1]
        if lines and here.startswith(lines):
            return here[len(lines) :]
        if here:
            logger.info("%s: the store's journal takes the place of this machine's", self._path)
        trials = self._path.parent / "trials"
        if not lines and trials.exists():
            shutil.rmtree(trials)  # of a run that was deleted
        _write(self._path, lines)
        return b""

    def add(self, lines: bytes) -> None:
        """Lines that the next push sends."""
        self._pending += lines

    def push(self) -> None:
        """Send what was added since the last one; it is safe when this returns.

        Raises:
            JournalError: Another driver has taken over, or the store can't be written; no later push is tried.
        """
        if self._fault is None and self._pending:
            try:
                self._writer.append(bytes(self._pending))
            except StoreError as error:
                self._fault = JournalError(f"{error} (what could not be sent is kept in {self._path.parent})")
            except JournalError as error:
                self._fault = error
            else:
                self._pending.clear()
        fault = self._fault or self._sign.fault
        if fault is not None:
            raise fault

    def close(self) -> None:
        """Send the rest, and give the run free."""
        try:
            self.push()
        except JournalError as error:
            logger.warning("%s", error)
        self._sign.stop()


class _Sign(threading.Thread):
    """A driver's sign of life, and its ear for requests; it puts segments together when there are many."""

    def __init__(self, store: ObjectStore, folder: Path, writer: SegmentWriter) -> None:
        super().__init__(name="beagle-driver-sign", daemon=True)
        self.fault: JournalError | None = None
        self._store = ObjectStore(store.url, BEAT_S)
        self._folder, self._writer = folder, writer
        self._over = threading.Event()
        self._beats, self._merged = 0, 0
        self._beat()

    def run(self) -> None:
        while not self._over.wait(BEAT_S):
            try:
                self._beat()
                self._listen()
                if self._writer.next_number - self._merged >= BLOCK:
                    self._merged = self._writer.next_number
                    self._writer.log.merge(self._writer.content.openings)
            except (StoreError, OSError, JournalError) as error:
                logger.info("%s", error)

    def _beat(self) -> None:
        told = _read_driver(self._store) if self._beats else None
        if told is not None and told.get("token") != self._writer.token:
            # Another driver shows itself. Which of both is the rightful one, only the segments tell.
            successor = self._writer.successor()
            if successor:
                self.fault = JournalError(
                    f"another driver has taken the run over ({successor}), so this one ends"
                )
                return
        self._beats += 1
        facts = {"version": 1, "token": self._writer.token, "who": self._writer.who, "beat": self._beats}
        content = {**facts, "time": time.time(), "process": _process()}
        self._store.put(DRIVER, json.dumps(content).encode())

    def _listen(self) -> None:
        request = self._store.get(STOP)
        if request is not None:
            _write(self._folder / STOP, request)

    def stop(self) -> None:
        self._over.set()
        if self.is_alive():
            self.join(4 * BEAT_S)
        try:
            told = _read_driver(self._store)
            if told is not None and told.get("token") == self._writer.token:
                self._store.delete([DRIVER])
        except StoreError as error:
            logger.info("%s", error)


def driver_in(store: ObjectStore) -> str | None:
    """Who drives the run of a store, as "PID on HOST"; None where nobody does. It may take a second look."""
    told = _read_driver(store)
    if told is None or _is_dead(told):
        return None
    if abs(time.time() - float(told["time"])) > 3 * BEAT_S:  # or its clock is not ours
        time.sleep(2 * BEAT_S)
        again = _read_driver(store)
        if again is None or again["beat"] == told["beat"]:
            return None
    return str(told["who"])


def _wait_for_end(store: ObjectStore) -> None:
    told = _read_driver(store)
    end = time.monotonic() + WATCH_S
    while told is not None and not _is_dead(told):
        if time.monotonic() > end:
            return
        if end - time.monotonic() > WATCH_S - 1:
            logger.warning(
                "%s: was driven by process %s; looking for %.0f s whether it still is",
                store.url,
                told["who"],
                WATCH_S,
            )
        time.sleep(min(BEAT_S / 2, 1.0))
        again = _read_driver(store)
        if again is not None and again["beat"] != told["beat"]:
            raise JournalError(
                f"{store.url}: the run is being written by process {again['who']}; stop it, or wait for its end"
            )
        told = again


def _read_driver(store: ObjectStore) -> dict[str, Any] | None:
    content = store.get(DRIVER)
    try:
        told = json.loads(content or b"null")
        return (
            told
            if isinstance(told, dict) and {"token", "who", "beat", "time", "process"} <= set(told)
            else None
        )
    except ValueError:
        return None


def _who() -> str:
    return f"{os.getpid()} on {socket.gethostname()}"


def _process() -> dict[str, Any]:
    """This process, so that another one on this machine can see whether it still lives."""
    return {"machine": _machine(), "pid": os.getpid(), "started": psutil.Process().create_time()}


def _machine() -> list[str]:
    """This start of this machine, and the container's own count of processes."""
    facts = [socket.gethostname()]
    try:
        facts.append(Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip())
        facts.append(str(Path("/proc/self/ns/pid").readlink()))
    except OSError:
        facts.append(str(psutil.boot_time()))
    return facts


def _is_dead(told: dict[str, Any]) -> bool:
    """Whether a driver is known to be dead: it was of this machine, and is no more."""
    process = told["process"]
    if process.get("machine") != _machine():
        return False
    try:
        return bool(psutil.Process(process["pid"]).create_time() != process["started"])
    except psutil.Error:
        return True
