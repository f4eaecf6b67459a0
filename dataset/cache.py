"""Keeps what was read, so that the many trials of a search read a data set once.

One entry a data set, in the user's cache folder and never in the data folder. An entry holds for as long as a
digest over the content of every label file is the same and every image has the length and time of change that it had.
Entries are written aside and moved into place, so that processes that start at once see a whole entry or none.
"""

import hashlib
import json
import logging
import os
import tempfile
import zipfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dataset.dataset import Split
from dataset.images import ImageFacts
from dataset.parallel import map_threads
from dataset.polygons import Polygons
from dataset.sources import Fault, Survey

_VERSION = 3
_PACKED = ("points", "rings", "labels", "images")  # of outlines

logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Examined:
    """A data set that has been read and judged, the faulty ones included.

    Attributes:
        name: Its name.
        source: Absolute path it was read from.
        root: Folder that notes are relative to.
        names: Class names.
        splits: The splits, with clean labels.
        faults: All that is wrong.
        notes: What was decided.
        fingerprint: See ``Dataset``.
        facts: Every image that exists, the unreadable ones included.
    """

    name: str
    source: Path
    root: Path
    names: tuple[str, ...]
    splits: Mapping[str, Split]
    faults: tuple[Fault, ...]
    notes: tuple[str, ...]
    fingerprint: str
    facts: Mapping[Path, ImageFacts]


@dataclass(frozen=True, eq=False)
class Entry:
    """What the cache remembers: facts of images always, the whole result when its key is the same."""

    key: str
    facts: Mapping[Path, ImageFacts]
    examined: Examined


def cache_folder() -> Path:
    """The user's cache folder: BEAGLE_CACHE, or ~/.cache/beagle. It may not exist yet."""
    named = os.environ.get("BEAGLE_CACHE")
    return Path(named).expanduser().absolute() if named else Path.home() / ".cache" / "beagle"


def build_key(survey: Survey) -> str:
    """A digest over all that a result depends on but the images: lists, names, and each label file's content."""
    digest = hashlib.sha256(f"{_VERSION}\0{survey!r}".encode(errors="surrogateescape"))
    labels = dict.fromkeys(item.label for item in survey.items if item.label)
    paths = [*labels, *(path for _, path in survey.files)]
    for content in map_threads(_digest_file, paths):
        digest.update(content)
    return digest.hexdigest()


def _digest_file(path: Path) -> bytes:
    try:
        with path.open("rb", buffering=0) as file:
            return hashlib.sha256(file.read()).digest()
    except OSError:
        return b"unreadable"


def place_entry(source: Path) -> Path:
    """Where the entry of a data set lies."""
    where = hashlib.sha256(os.fsencode(source)).hexdigest()[:16]
    return cache_folder() / "labels" / f"{where}.npz"


def read_entry(path: Path) -> Entry | None:
    """An entry, None if there is none or it cannot be read: then it is made again."""
    try:
        # Opened here, since np.load leaves a damaged archive's file open.
        with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
            meta: dict[str, Any] = json.loads(stored["meta"].tobytes())
            if meta["version"] != _VERSION:
                return None
            return _unpack(meta, {name: stored[name] for name in stored.files if name != "meta"})
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, IndexError, EOFError, zipfile.BadZipFile) as error:
        logger.warning("cache entry %s is damaged and is made again: %s", path, error)
        return None


def write_entry(path: Path, entry: Entry) -> None:
    """Write an entry aside and move it into place. A cache that cannot be written costs time and nothing else."""
    arrays = _pack(entry)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.stem}-", delete=False) as file:
            temporary = Path(file.name)
            try:
                np.savez(file, allow_pickle=False, **arrays)
                file.flush()
                os.fsync(file.fileno())
                temporary.replace(path)
            finally:
                temporary.unlink(missing_ok=True)
    except OSError as error:
        logger.warning("the label cache cannot be written at %s: %s", path, error)


def _pack(entry: Entry) -> dict[str, NDArray[Any]]:
    examined = entry.examined
    index = {path: number for number, path in enumerate(entry.facts)}
    splits = list(examined.splits.values())
    labels = [rows for split in splits for rows in split.labels]
    meta: dict[str, Any] = {
        "version": _VERSION,
        "key": entry.key,
        "name": examined.name,
        "source": str(examined.source),
        "root": str(examined.root),
        "names": examined.names,
        "splits": {split.name: len(split) for split in splits},
        "faults": [asdict(fault) | {"file": str(fault.file)} for fault in examined.faults],
        "notes": examined.notes,
        "fingerprint": examined.fingerprint,
        "paths": [str(path) for path in entry.facts],
        "digests": [facts.digest for facts in entry.facts.values()],
    }
    numbers = [(facts.length, facts.mtime_ns, facts.width, facts.height) for facts in entry.facts.values()]
    arrays: dict[str, NDArray[Any]] = {
        "meta": np.frombuffer(json.dumps(meta).encode(), np.uint8),
        "numbers": np.array(numbers, dtype=np.int64).reshape(-1, 4),
        "owners": np.array([index[path] for split in splits for path in split.images], dtype=np.int64),
        "counts": np.array([len(rows) for rows in labels], dtype=np.int64),
        "rows": np.concatenate(labels) if labels else np.zeros((0, 5), np.float32),
    }
    for split in splits:
        if split.crowds is not None:
            arrays[f"{split.name}/crowds"] = np.concatenate(split.crowds)
            arrays[f"{split.name}/crowd_counts"] = np.array(
                [len(rows) for rows in split.crowds], dtype=np.int64
            )
        if split.polygons is not None:
            arrays |= {f"{split.name}/{part}": getattr(split.polygons, part) for part in _PACKED}
    return arrays


def _unpack(meta: dict[str, Any], arrays: dict[str, NDArray[Any]]) -> Entry:
    paths = [Path(path) for path in meta["paths"]]
    known = zip(paths, arrays["numbers"].tolist(), meta["digests"], strict=True)
    facts = {path: ImageFacts(length, mtime, w, h, digest) for path, (length, mtime, w, h), digest in known}
    labels = np.split(arrays["rows"], np.cumsum(arrays["counts"])[:-1])
    splits, start = {}, 0
    for name, count in meta["splits"].items():
        owners = arrays["owners"][start : start + count]
        images = tuple(paths[owner] for owner in owners.tolist())
        sizes = arrays["numbers"][owners, 2:].astype(np.int32)
        parts = [arrays[f"{name}/{part}"] for part in _PACKED if f"{name}/{part}" in arrays]
        polygons = Polygons(*parts) if parts else None
        crowds = None
        if f"{name}/crowds" in arrays:
            ends = np.cumsum(arrays[f"{name}/crowd_counts"])[:-1]
            crowds = tuple(np.split(arrays[f"{name}/crowds"], ends))
        splits[name] = Split(name, images, sizes, tuple(labels[start : start + count]), polygons, crowds)
        start += count
    examined = Examined(
        name=meta["name"],
        source=Path(meta["source"]),
        root=Path(meta["root"]),
        names=tuple(meta["names"]),
        splits=splits,
        faults=tuple(Fault(**(fault | {"file": Path(fault["file"])})) for fault in meta["faults"]),
        notes=tuple(meta["notes"]),
        fingerprint=meta["fingerprint"],
        facts=facts,
    )
    return Entry(meta["key"], facts, examined)
