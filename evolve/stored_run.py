"""A run that is kept in an object store: where this machine works on it, and who drives it.

The store is what counts. A driver works in a *spool*, a folder of its own machine that looks like any run folder and
holds what was not sent yet; a command that only reads makes a *mirror*. Either can be thrown away. The file `.store`
in them says which store they belong to, so whoever is handed a folder finds it.
"""

import hashlib
import logging
import os
import shutil
import tempfile
from pathlib import Path

from evolve.aside import write_aside
from evolve.driver_signs import Sign, wait_for_end, who_am_i
from evolve.object_store import ObjectStore
from evolve.run_state import JournalError
from evolve.segments import SegmentLog, SegmentWriter
from evolve.store_url import StoreError, StoreUrl

logger = logging.getLogger(__name__)

MARK, JOURNAL = ".store", "journal.jsonl"
CACHE_VARIABLE, SCRATCH_VARIABLE = "BEAGLE_CACHE", "BEAGLE_SCRATCH"
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
    write_aside(folder / JOURNAL, lines)
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
            write_aside(folder / MARK, f"{url}\n".encode())
    except OSError as error:
        raise StoreError(
            f"{folder} can't be made ({error.strerror}): set {CACHE_VARIABLE} to a folder with room"
        ) from error
    return folder


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
            wait_for_end(store)
            self._writer = SegmentWriter(SegmentLog(store), who_am_i())
            tail = self._level(self._writer.content.lines)
            self._sign = Sign(store, path.parent, self._writer)
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
        write_aside(self._path, lines)
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
