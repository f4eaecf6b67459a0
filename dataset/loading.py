"""The one way from a source to a data set: survey, read, mend, divide. ``load`` and ``check`` both take it."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from dataset import digits
from dataset.cache import Entry, Examined, build_key, cache_folder, place_entry, read_entry, write_entry
from dataset.dataset import DataError, Dataset, Split
from dataset.formats import read_labels, survey
from dataset.images import gather_facts
from dataset.mending import find_leaks, mend, summarise
from dataset.parallel import MapFiles
from dataset.polygons import pack_polygons
from dataset.sources import UNSPLIT, Fault, RawImage, Survey

_SPLITS = ("train", "val", "test")
_HELD_OUT = 5  # one image in five
DIFFICULT = ("learn", "ignore")
"""What becomes of objects that a VOC file calls difficult."""


def load(
    source: str | Path, *, cache: bool = True, map_files: MapFiles | None = None, difficult: str = "learn"
) -> Dataset:
    """Read a detection data set.

    Faults that can be mended are mended, and each kind has a line in ``notes``; ``dataset.check`` lists them singly.

    Args:
        source: A data.yaml (YOLO), an instances.json (COCO), a folder of VOC, COCO or YOLO files or one that holds
            such a folder, or "digits" for the built-in set.
        cache: Whether to remember what was read in the user's cache folder, and to use what is remembered there.
        map_files: Applies a picklable function to each item of a list and gives the results in order, elsewhere if it
            likes: `evolve.ray_session.ray_map` spreads the reading over a cluster that sees the same files. By
            default processes of this machine read, where there are many files.
        difficult: What becomes of objects that a VOC file calls difficult: "learn" takes them for objects like any
            other, "ignore" does not learn them, and in an evaluation detections of them do not count.

    Raises:
        DataError: There is no such file, it is no data set, it has no usable training image or box, or a class is out
            of range; the message says in which file and line.
    """
    examined = examine(source, cache=cache, map_files=map_files, difficult=difficult)
    fatal = [fault for fault in examined.faults if fault.fatal]
    if fatal:
        more = f" (and {len(fatal) - 1} more such faults)" if len(fatal) > 1 else ""
        raise DataError(f"{fatal[0].place}: {fatal[0].what}{more}")
    return Dataset(
        name=examined.name,
        source=examined.source,
        names=examined.names,
        splits=examined.splits,
        notes=examined.notes + summarise(examined.faults, examined.root),
        fingerprint=examined.fingerprint,
    )


def examine(
    source: str | Path, *, cache: bool = True, map_files: MapFiles | None = None, difficult: str = "learn"
) -> Examined:
    """Read a data set and judge it, without refusing what is faulty; see `load`.

    Raises:
        DataError: It cannot be read at all.
    """
    if difficult not in DIFFICULT:
        raise DataError(f"difficult must be {' or '.join(DIFFICULT)}, but got {difficult!r}")
    try:
        if source == "digits":
            found = replace(survey(digits.build_digits(cache_folder() / digits.FOLDER)), name="digits")
        else:
            found = replace(survey(Path(source).expanduser().absolute()), difficult=difficult)
        return _examine_cached(found, map_files) if cache else _examine(found, None, map_files)
    except OSError as error:
        raise DataError(f"{error.filename or source} cannot be read: {error.strerror}") from error


def _examine_cached(found: Survey, map_files: MapFiles | None) -> Examined:
    place, key = place_entry(found.source), build_key(found)
    entry = read_entry(place)
    if entry and entry.key == key and gather_facts(entry.facts, entry.facts) == entry.facts:
        return entry.examined
    examined = _examine(found, entry, map_files)
    # A missing image may turn up anywhere, which no digest would notice: such a result serves for its facts only.
    is_whole = not any(fault.what == "missing image" for fault in examined.faults)
    write_entry(place, Entry(key if is_whole else "", examined.facts, examined))
    return examined


def _examine(found: Survey, entry: Entry | None, map_files: MapFiles | None) -> Examined:
    raw = read_labels(found, map_files)
    facts = gather_facts((image.path for image in raw.images), entry.facts if entry else {}, map_files)
    mended = mend(raw, facts)
    notes = [*found.notes, *raw.notes]
    images, order = _divide(mended.images, notes)
    splits = {}
    for name in _SPLITS:
        chosen = [index for index, image in enumerate(images) if image.split == name]
        if chosen:
            paths = tuple(images[index].path for index in chosen)
            sizes = np.array([(facts[path].width, facts[path].height) for path in paths], dtype=np.int32)
            labels = tuple(mended.labels[order[index]] for index in chosen)
            # An image without any outline has one empty entry for each of its labels.
            outlines = [mended.outlines[order[index]] for index in chosen]
            packed = pack_polygons(
                found or ((),) * len(rows) for found, rows in zip(outlines, labels, strict=True)
            )
            crowds = tuple(mended.crowds[order[index]] for index in chosen)
            splits[name] = Split(
                name, paths, sizes, labels, packed, crowds if any(map(len, crowds)) else None
            )
    faults = [
        *found.faults,
        *raw.faults,
        *mended.faults,
        *find_leaks(images, facts),
        *_find_empty(found, splits),
    ]
    return Examined(
        name=found.name,
        source=found.source,
        root=found.root,
        names=raw.names,
        splits=splits,
        faults=tuple(faults),
        notes=tuple(notes),
        fingerprint=_fingerprint(raw.names, splits, {path: known.digest for path, known in facts.items()}),
        facts=facts,
    )


def _divide(images: Sequence[RawImage], notes: list[str]) -> tuple[list[RawImage], list[int]]:
    """Give each image a split, so that there is always something to learn from and something to be judged on.

    Returns:
        The images with their splits, and for each its place in `images`.
    """
    order = list(range(len(images)))
    images = [replace(image, split="train") if image.split == UNSPLIT else image for image in images]
    present = {image.split for image in images}
    if "val" in present or "train" not in present:
        return images, order
    if "test" in present:
        notes.append("no val split: test is used as val")
        return [replace(image, split="val") if image.split == "test" else image for image in images], order
    if len(images) == 1:
        notes.append("no val split, and one image alone: it is used as train and as val")
        return [*images, replace(images[0], split="val")], order * 2
    # By the name's hash: the same images on every machine, whatever order a file system lists them in.
    ranked = sorted(order, key=lambda index: _rank(images[index].path))
    held_out = frozenset(ranked[: max(1, round(len(images) / _HELD_OUT))])
    notes.append(f"no val and no test split: {len(held_out)} of {len(images)} images are held out as val")
    return [replace(image, split="val") if i in held_out else image for i, image in enumerate(images)], order


def _rank(path: Path) -> tuple[bytes, str]:
    return hashlib.sha256(path.name.encode(errors="surrogateescape")).digest(), str(path)


def _find_empty(found: Survey, splits: dict[str, Split]) -> list[Fault]:
    if "train" not in splits:
        return [
            Fault(found.source, None, "empty data set: no training image can be read", "refused", fatal=True)
        ]
    if not splits["train"].boxes:
        return [
            Fault(
                found.source,
                None,
                "empty data set: no training image has a usable box",
                "refused",
                fatal=True,
            )
        ]
    return []


def _fingerprint(names: tuple[str, ...], splits: dict[str, Split], digests: dict[Path, str]) -> str:
    digest = hashlib.sha256(json.dumps(names).encode())
    for split in splits.values():
        for path, size, rows in zip(split.images, split.sizes.tolist(), split.labels, strict=True):
            digest.update(json.dumps([split.name, path.name, size, digests[path], len(rows)]).encode())
            digest.update(np.ascontiguousarray(rows, dtype="<f4").tobytes())
        for number, rows in enumerate(split.crowds or ()):
            if len(rows):
                digest.update(json.dumps([split.name, "crowds", number, len(rows)]).encode())
                digest.update(np.ascontiguousarray(rows, dtype="<f4").tobytes())
    return digest.hexdigest()
