"""The rules: what makes a row or image faulty, and what is done about it. ``check`` and ``load`` both come here."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dataset.dataset import one_line
from dataset.images import ImageFacts
from dataset.polygons import Rings
from dataset.sources import Fault, RawImage, RawSet

# Four decimals, the fewest that tools write, can put an edge this far over the border of an image by rounding alone.
_OVERHANG = 1e-4
_NO_AREA = 1e-7  # sides below this, normalised, vanish in float32 beside their centre

_PLURALS = {
    "bad row": "bad rows",
    "box outside the image": "boxes outside the image",
    "class out of range": "classes out of range",
    "duplicate row": "duplicate rows",
    "image listed twice": "images listed twice",
    "image without labels": "images without labels",
    "missing image": "missing images",
    "said size differs from the image's": "said sizes differ from the image's",
    "same image in two splits": "images that stand in two splits",
    "unreadable image": "unreadable images",
    "unreadable label file": "unreadable label files",
    "zero-area box": "zero-area boxes",
}
_EXAMPLES = 3


@dataclass(frozen=True, eq=False)
class Mended:
    """The images that can be used, with clean labels.

    Attributes:
        images: The usable images.
        labels: For each, (n, 5) class, cx, cy, w, h, normalised and within the image.
        outlines: For each, the normalised rings of its n labels; empty when none has any.
        faults: What was wrong.
        crowds: For each, (k, 5) like the labels: where detections do not count.
    """

    images: tuple[RawImage, ...]
    labels: tuple[NDArray[np.float32], ...]
    outlines: tuple[tuple[Rings, ...], ...]
    faults: tuple[Fault, ...]
    crowds: tuple[NDArray[np.float32], ...] = ()


def mend(raw: RawSet, facts: Mapping[Path, ImageFacts]) -> Mended:
    """Drop, clip or refuse what is faulty.

    Args:
        raw: What a reader found.
        facts: Facts of the images that exist.
    """
    faults: list[Fault] = []
    images = tuple(image for image in raw.images if _is_readable(image, facts, faults))
    if not images:
        return Mended((), (), (), tuple(faults))
    sizes = np.array(
        [(facts[image.path].width, facts[image.path].height) for image in images], dtype=np.float64
    )
    for image, (width, height) in zip(images, sizes.astype(int).tolist(), strict=True):
        said = image.said_wh or (width, height)
        if said != (width, height):
            detail = f"{said[0]}x{said[1]}, but {image.path.name} is {width}x{height}"
            what = f"said size differs from the image's: {detail}"
            faults.append(Fault(image.label, None, what, "the image's is used"))
    rows = np.concatenate([image.rows for image in images])
    if raw.pixels:
        rows[:, 1:] /= np.repeat(np.tile(sizes, 2), [len(image.rows) for image in images], axis=0)
    owners = np.repeat(np.arange(len(images)), [len(image.rows) for image in images])
    kept, keep = _mend_rows(raw, images, owners, rows, faults)
    ends = np.searchsorted(owners[keep], np.arange(1, len(images)))
    labels = tuple(np.split(kept, ends))
    for image, found in zip(images, labels, strict=True):
        if not len(found) and not len(image.regions):
            faults.append(Fault(image.path, None, "image without labels", "kept as background"))
    kept_here = np.split(keep, np.searchsorted(owners, np.arange(1, len(images))))
    outlines = tuple(
        _mend_outlines(image, here, size if raw.pixels else np.ones(2))
        for image, here, size in zip(images, kept_here, sizes, strict=True)
    )
    crowds = tuple(
        _mend_crowds(image, len(raw.names), size if raw.pixels else np.ones(2))
        for image, size in zip(images, sizes, strict=True)
    )
    return Mended(images, labels, outlines, tuple(faults), crowds)


def _mend_crowds(image: RawImage, classes: int, unit: NDArray[np.float64]) -> NDArray[np.float32]:
    """Regions (k, 5) class, cx, cy, w, h within the image; those without a class or an area go without a word."""
    rows = image.regions[np.isfinite(image.regions).all(axis=1)]
    corners = (rows[:, 1:] / np.tile(unit, 2)).clip(0.0, 1.0)
    keep = ~_has_no_area(corners) & (rows[:, 0] >= 0) & (rows[:, 0] < classes)
    label, low, high = rows[keep, :1], corners[keep, :2], corners[keep, 2:]
    return np.concatenate([label, (low + high) / 2, high - low], axis=1).astype(np.float32)


def _mend_outlines(image: RawImage, keep: NDArray[np.bool_], unit: NDArray[np.float64]) -> tuple[Rings, ...]:
    """The outlines of the rows of an image that are kept, normalised and within the image."""
    if not image.outlines:
        return ()
    return tuple(
        tuple((ring / unit).clip(0.0, 1.0) for ring in rings)
        for rings, kept in zip(image.outlines, keep.tolist(), strict=True)
        if kept
    )


def _is_readable(image: RawImage, facts: Mapping[Path, ImageFacts], faults: list[Fault]) -> bool:
    known = facts.get(image.path)
    if known is None or not known.width:
        what = "missing image" if known is None else "unreadable image"
        faults.append(Fault(image.path, None, what, "left out"))
        return False
    return True


def _mend_rows(
    raw: RawSet,
    images: tuple[RawImage, ...],
    owners: NDArray[np.intp],
    rows: NDArray[np.float64],
    faults: list[Fault],
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Clean rows (M', 5) class, cx, cy, w, h, and which of the M rows they are."""
    marks = [mark for image in images for mark in image.marks]
    keep = np.ones(len(rows), dtype=np.bool_)

    def report(which: NDArray[np.bool_], what: str, action: str) -> None:
        for index in np.flatnonzero(which & keep).tolist():
            label, mark = images[owners[index]].label, marks[index]
            place = f"annotations[{mark}]" if raw.listed else ""
            detail = what.format(label=f"{rows[index, 0]:g}", place=place).strip().removesuffix(":")
            line = None if raw.listed or mark < 0 else mark
            faults.append(Fault(label, line, detail, action, fatal=action == "refused"))
        if action != "clipped":
            keep[which] = False

    classes, corners = rows[:, 0], rows[:, 1:]
    limits = f"0..{len(raw.names) - 1}" if raw.names else "an empty list of names"
    known = (classes >= 0) & (classes < len(raw.names)) & (classes == np.floor(classes))
    broken = np.any(~np.isfinite(rows), axis=1, keepdims=True)[:, 0]
    with np.errstate(invalid="ignore", over="ignore"):  # broken rows are dropped, but stay in the arrays
        inside = np.clip(corners, 0.0, 1.0)
        middle, sides = (inside[:, :2] + inside[:, 2:]) / 2, inside[:, 2:] - inside[:, :2]
        xywh = np.concatenate([classes[:, None], middle, sides], axis=1).astype(np.float32)
        overhang = np.asarray((np.abs(corners - inside) > _OVERHANG).any(axis=1))
        report(broken, "bad row: a name or number is missing or impossible {place}", "dropped")
        report(~known, "class out of range: {label} is not in " + limits + " {place}", "refused")
        report(_has_no_area(corners), "zero-area box: {place}", "dropped")
        report(_has_no_area(inside), "box outside the image: nothing of it lies inside {place}", "dropped")
    report(_is_repeated(owners, xywh), "duplicate row: {place}", "dropped")
    report(overhang, "box outside the image: {place}", "clipped")
    return xywh[keep], keep


def _has_no_area(xyxy: NDArray[np.float64]) -> NDArray[np.bool_]:
    return np.asarray(((xyxy[:, 2:] - xyxy[:, :2]) <= _NO_AREA).any(axis=1))


def _is_repeated(owners: NDArray[np.intp], rows: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Which rows say what an earlier row of the same image says."""
    repeated = np.ones(len(rows), dtype=np.bool_)
    _, first = np.unique(np.column_stack([owners, rows]), axis=0, return_index=True)
    repeated[first] = False
    return repeated


def find_leaks(images: Sequence[RawImage], facts: Mapping[Path, ImageFacts]) -> list[Fault]:
    """Images whose content stands in more than one split: a detector is then judged on what it has learnt."""
    by_content: dict[str, list[RawImage]] = defaultdict(list)
    for image in images:
        by_content[facts[image.path].digest].append(image)
    faults = []
    for same in by_content.values():
        for image in same[1:]:
            other = next((one for one in same if one.split != image.split), None)
            if other is not None and image.split != same[0].split:
                what = f"same image in two splits: {image.split}, and {other.split} as {other.path.name}"
                faults.append(Fault(image.path, None, what, "kept; leave it out of one"))
    return faults


def summarise(faults: Sequence[Fault], root: Path) -> tuple[str, ...]:
    """One line for each kind of fault: how many, what is done, and the first places (relative to ``root``)."""
    groups: dict[tuple[str, str], list[Fault]] = defaultdict(list)
    for fault in faults:
        groups[(fault.what.partition(":")[0], fault.action)].append(fault)
    lines = []
    for (what, action), found in groups.items():
        places = [fault.place.removeprefix(f"{root}/") for fault in found[:_EXAMPLES]]
        places += ["…"] * (len(found) > _EXAMPLES)
        count = f"1 {what}" if len(found) == 1 else f"{len(found)} {_PLURALS.get(what, what)}"
        lines.append(one_line(f"{count}, {action}: {', '.join(places)}"))
    return tuple(lines)
