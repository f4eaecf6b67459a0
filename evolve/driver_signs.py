"""Who drives a run in an object store: signs of life for people, and for a second driver that need not begin.

They keep nobody out, the numbers of the segments do (`evolve.segments`). A driver puts the object `driver.json` every
few seconds, and deletes it at its end.
"""

import json
import logging
import os
import socket
import threading
import time
from pathlib import Path
from typing import Any

import psutil

from evolve.aside import write_aside
from evolve.object_store import ObjectStore
from evolve.run_state import JournalError
from evolve.segments import BLOCK, SegmentWriter
from evolve.store_url import StoreError

logger = logging.getLogger(__name__)

DRIVER, STOP = "driver.json", "stop"
BEAT_S = 5.0  # between two signs of life of a driver
WATCH_S = 30.0  # without one until a driver of before is taken for dead


class Sign(threading.Thread):
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
        """Until it is stopped; a store that fails for a while is looked at again."""
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
            write_aside(self._folder / STOP, request)

    def stop(self) -> None:
        """No more signs: nobody drives the run now."""
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


def wait_for_end(store: ObjectStore) -> None:
    """Watch whether a driver of before still gives signs; at once where there is none, or it is known to be dead.

    Raises:
        JournalError: It does.
        StoreError: The store does not answer.
    """
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


def who_am_i() -> str:
    """This process, for people."""
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
