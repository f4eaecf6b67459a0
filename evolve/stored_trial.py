"""A trial's files in an object store, for workers on any node: fetched when an attempt begins, saved after epochs.

A save is one small object, `trials/0007/saves/00000003.json`, that names the objects which make up the trial's folder
at that moment. It is put last, so a reader finds the files of one moment or of the one before. Saves are numbered as
the journal's segments are: a worker that was given up for lost finds its number taken by the attempt that followed
it, and ends.
"""

import json
import logging
import os
import secrets
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path, PurePath, PurePosixPath
from types import MappingProxyType
from typing import Any

from evolve.object_store import PATIENCE_S, ObjectStore
from evolve.segments import SegmentLog
from evolve.store_url import StoreError, StoreUrl
from evolve.stored_run import scratch_folder, store_of
from evolve.trainable import (
    FAILURE_NOTE,
    Assignment,
    Outcome,
    Report,
    TrialError,
    claim_folder,
    failure_reason,
)

logger = logging.getLogger(__name__)

SHARE = (
    0.1  # of a trial's time that saving may take; its epochs are saved less often where it would take more
)
LOOKS = 20
SMALL_BYTES, TICK_NS = 1_000_000, 20_000_000
VARIABLES = ("AWS_", "S3_", "GOOGLE_", "GCS", "AZURE_", "FSSPEC_")


class StoredTrial:
    """One attempt's hold on a trial in a store.

    Attributes:
        folder: On this machine, as the trial's folder of the run.
    """

    def __init__(self, store: ObjectStore, trial: int, attempt: int, folder: Path) -> None:
        """Claim the trial, whoever worked on it before, and fetch its files.

        Raises:
            StoreError: The store does not answer, or lacks a file that a save names.
            TrialError: Others claim it again and again.
        """
        self.folder = folder
        self._store, self._place, self._attempt = store, f"trials/{trial:04d}", attempt
        self._token = secrets.token_hex(8)
        self._log = SegmentLog(store, f"{self._place}/saves", ".json")
        self._sent: dict[str, tuple[int, ...]] = {}
        self._claims: set[int] = set()
        self._next, self._files = self._claim()
        self._saved_at, self._took = time.monotonic(), 0.0
        self._sweep()
        self._fetch()

    def _claim(self) -> tuple[int, dict[str, Any]]:
        for _ in range(LOOKS):
            number, save = last_save(self._log, self._store)
            self._files = (
                {} if save is None else {k: v for k, v in save["files"].items() if k != FAILURE_NOTE}
            )
            self._next = number + 1
            if self._publish(claims=True):
                return self._next, self._files
        raise TrialError(f"{self._store.url}/{self._place} is claimed by others again and again")

    def _publish(self, *, claims: bool = False) -> bool:
        save = {
            "version": 1,
            "attempt": self._attempt,
            "writer": self._token,
            "claims": claims,
            "files": self._files,
        }
        if not self._log.put_new(self._next, json.dumps(save).encode()):
            return False
        if claims:
            self._claims.add(self._next)
        self._next += 1
        return True

    def _sweep(self) -> None:
        """Delete what workers of before have left half-done."""
        used = {file["object"] for file in self._files.values()}
        names = self._store.names(self._place)
        self._store.delete(name for name in names if name not in used and f"{self._place}/saves/" not in name)

    def _fetch(self) -> None:
        for name, file in self._files.items():
            path = self.folder / _inside(name)
            try:
                self._store.download(file["object"], path)
            except FileNotFoundError as error:
                raise StoreError(
                    f"{self._store.url}: {file['object']} is missing, though a save names it"
                ) from error
            self._sent[name] = _state(path)

    def save(self, *, always: bool = False) -> None:
        """Send what has changed in the folder, unless that would take more than a tenth of the trial's time.

        Raises:
            StoreError: The store can't be written.
            TrialError: Another attempt has claimed the trial.
        """
        begun = time.monotonic()
        if not always and begun - self._saved_at < self._took * (1 / SHARE - 1):
            return
        here = {str(path.relative_to(self.folder)): path for path in _files(self.folder)}
        files = {name: file for name, file in self._files.items() if name in here}
        for name, path in here.items():
            state = _state(path)
            if self._sent.get(name) != state:
                place = f"{self._place}/{self._next:08d}-{self._token}/{name}"
                self._store.upload(path, place)
                files[name] = {"object": place, "bytes": state[0]}
                self._sent[name] = state
        if files != self._files:
            self._replace(files)
        self._saved_at, self._took = time.monotonic(), time.monotonic() - begun

    def _replace(self, files: dict[str, Any]) -> None:
        before, number = self._files, self._next - 1
        self._files = files
        if not self._publish():
            self._files = before
            raise TrialError(f"another worker goes on with {self._store.url}/{self._place}, so this one ends")
        kept = {file["object"] for file in files.values()}
        self._store.delete(file["object"] for file in before.values() if file["object"] not in kept)
        if number not in self._claims:
            self._log.drop(number)


def run_kept(
    assignment: Assignment,
    report: Report,
    run: Callable[[Assignment, Report], Outcome],
    variables: Mapping[str, str] = MappingProxyType({}),
) -> Outcome:
    """Run one attempt of a trial, whose files are fetched and saved where its run is kept in a store.

    An epoch is reported when its files are safe, but for large ones: those are saved less often.

    Args:
        assignment: With the run's URL, or none.
        report: Called after each epoch.
        run: Runs the attempt in a folder of this machine.
        variables: Of the driver, for the store's library; those that this process has are left as they are.

    Returns:
        How it ended. A store that can't be used halts the run, as a full disk does.

    Raises:
        TrialError: Another attempt has claimed the trial.
        Exception: Whatever `run` raises.
    """
    os.environ.update({name: text for name, text in variables.items() if name not in os.environ})
    url = StoreUrl.parse(assignment.store)
    if url is None:
        return run(assignment, report)
    own = scratch_folder(url) / f"{assignment.trial:04d}"
    own.mkdir(parents=True, exist_ok=True)
    begun = time.monotonic()
    with claim_folder(own):
        shutil.rmtree(own / "trials", ignore_errors=True)
        folder = own / "trials" / f"{assignment.trial:04d}"
        try:
            return _run_saved(url, replace(assignment, folder=str(folder), store=""), report, run)
        except StoreError as error:
            return Outcome(None, reason=str(error), seconds=time.monotonic() - begun, halt=True)
        finally:
            shutil.rmtree(own / "trials", ignore_errors=True)


def _run_saved(
    url: StoreUrl, assignment: Assignment, report: Report, run: Callable[[Assignment, Report], Outcome]
) -> Outcome:
    trial = StoredTrial(
        ObjectStore(url, PATIENCE_S), assignment.trial, assignment.attempt, Path(assignment.folder)
    )

    def save_and_report(epoch: int, metrics: dict[str, float]) -> None:
        trial.save()
        report(epoch, metrics)

    try:
        return run(assignment, save_and_report)
    finally:
        trial.save(always=True)


def kept_reason(folder: Path) -> str:
    """Why the last attempt of a trial ended early, in one line, wherever its worker wrote that down."""
    try:
        bring(folder.parents[1], Path("trials") / folder.name / FAILURE_NOTE)
    except StoreError as error:
        return f"the worker ended, and why can't be read: {error}"
    return failure_reason(folder)


def last_save(log: SegmentLog, store: ObjectStore) -> tuple[int, dict[str, Any] | None]:
    """The newest save of a trial and its number, -1 and None where there is none yet.

    Raises:
        StoreError: It changes faster than it can be read, or is no save.
    """
    for _ in range(LOOKS):
        spans = log.spans()
        if not spans:
            return -1, None
        content = store.get(log.path(spans[-1]))
        if content is not None:
            try:
                save = json.loads(content)
                return spans[-1].last, {**save, "files": dict(save["files"])}
            except (ValueError, KeyError, TypeError) as error:
                raise StoreError(
                    f"{store.url}/{log.path(spans[-1])} is no save of a trial ({error})"
                ) from error
    raise StoreError(f"{store.url}: a trial's saves change faster than they can be read")


def bring(folder: Path, name: str | PurePath) -> Path:
    """A file of a run: where the run is kept in a store, it is fetched from there.

    Args:
        folder: The run's, or its spool or mirror.
        name: Of the file, relative to the run's folder.

    Returns:
        Its path on this machine, whether there is such a file or not.
    """
    path, parts = folder / name, PurePath(name).parts
    store = store_of(folder)
    if store is None:
        return path
    place: str | None = str(name)
    if parts[0] == "trials" and len(parts) > 2:
        _, save = last_save(SegmentLog(store, f"trials/{parts[1]}/saves", ".json"), store)
        files = {} if save is None else save["files"]
        place = files.get(str(PurePath(*parts[2:])), {}).get("object")
    path.unlink(missing_ok=True)
    if place is not None:
        try:
            store.download(place, path)
        except FileNotFoundError:
            logger.info("%s/%s is not there", store.url, place)
    return path


def store_variables() -> dict[str, str]:
    """Variables of this process that tell stores' libraries where they are and who may use them.

    They are handed to workers in what they run, which Ray shows to nobody.
    """
    return {name: value for name, value in os.environ.items() if name.startswith(VARIABLES)}


def _files(folder: Path) -> list[Path]:
    return [
        path
        for path in sorted(folder.rglob("*"))
        if path.is_file()
        and not path.is_symlink()
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    ]


def _state(path: Path) -> tuple[int, ...]:
    """What tells that a file has changed; a small one of just now always has, since clocks of files tick slowly."""
    told = path.stat()
    fresh = told.st_size < SMALL_BYTES and time.time_ns() - told.st_mtime_ns < TICK_NS
    return told.st_size, told.st_mtime_ns, told.st_ino, time.monotonic_ns() if fresh else 0


def _inside(name: str) -> Path:
    """A file's name of a save, which must not lead out of the trial's folder."""
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts:
        raise StoreError(f"a save must name files of its trial, but got {name!r}")
    return Path(path)
