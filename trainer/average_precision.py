"""COCO's matching of detections to true boxes, and the average precision that follows, on whole tables at once.

The rules are those of the COCO protocol to the letter (ties, crowd regions, the 101 recall points), and tests compare
the figures with pycocotools. What takes a reference implementation a loop over images, classes and detections is here
a few operations on arrays: in one round every image and class matches its next detection.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

IOU_THRESHOLDS = np.linspace(0.5, 0.95, 10)
RECALLS = np.linspace(0.0, 1.0, 101)
MOST = 100
"""Detections per image and class that average precision looks at."""

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class TruthTable:
    """The true boxes of a split, image after image, those of one class in an image together.

    Attributes:
        xyxy: (m, 4) px.
        group: (m,) int64, rising: image · classes + class.
        crowd: (m,) bool: a region of many objects, in which a detection is neither right nor wrong.
        images: How many images there are.
        classes: How many classes there are.
    """

    xyxy: Floats
    group: NDArray[np.int64]
    crowd: Flags
    images: int
    classes: int

    @property
    def counts(self) -> NDArray[np.int64]:
        """(classes,) true boxes that are no crowd."""
        return np.bincount(self.group[~self.crowd] % self.classes, minlength=self.classes)


@dataclass(frozen=True, eq=False)
class Matches:
    """Detections of a split, matched; rows are sorted by class, then by falling confidence.

    Attributes:
        confidence: (n,)
        label: (n,) int64, class, rising.
        image: (n,) int64.
        rank: (n,) int64, place among the detections of its image and class, from 0.
        hit: (10, n) bool: right at each of `IOU_THRESHOLDS`.
        ignored: (10, n) bool: lies in a crowd region, so it does not count.
        source: (n,) int64, row of the detections as they were given, image after image.
    """

    confidence: Floats
    label: NDArray[np.int64]
    image: NDArray[np.int64]
    rank: NDArray[np.int64]
    hit: Flags
    ignored: Flags
    source: NDArray[np.int64]

    def starts(self, classes: int) -> NDArray[np.int64]:
        """(classes + 1,) where each class's rows begin, and the end."""
        return np.searchsorted(self.label, np.arange(classes + 1))


def build_truth(boxes: Sequence[Floats], classes: int, crowds: Sequence[Floats] | None = None) -> TruthTable:
    """Lay the true boxes of all images together.

    Args:
        boxes: Per image (n, 5): xyxy px, class.
        classes: How many classes there are.
        crowds: Per image (k, 5): regions of many objects, likewise.
    """
    crowds = crowds or [np.zeros((0, 5))] * len(boxes)
    images = [*range(len(boxes)), *range(len(boxes))]
    image = np.repeat(np.array(images, np.int64), [len(table) for table in (*boxes, *crowds)])
    rows = np.concatenate([np.zeros((0, 5)), *boxes, *crowds])
    crowd = np.arange(len(rows)) >= sum(map(len, boxes))
    group = image * classes + rows[:, 4].astype(np.int64)
    order = np.argsort(group, kind="stable")
    return TruthTable(rows[order, :4], group[order], crowd[order], len(boxes), classes)


def match(truth: TruthTable, found: Sequence[NDArray[np.float32]]) -> Matches:
    """Match by falling confidence: each detection takes the true box still free that it overlaps most.

    Args:
        truth: The true boxes.
        found: Per image (n, 6): xyxy px, confidence, class.
    """
    rows = np.concatenate([np.zeros((0, 6)), *found]).astype(np.float64)
    image = np.repeat(np.arange(len(found)), [len(table) for table in found])
    group = image * truth.classes + rows[:, 5].astype(np.int64)
    source = np.lexsort((-rows[:, 4], group))  # stable: of equals the first given comes first
    rows, group = rows[source], group[source]
    rank = np.arange(len(rows)) - np.searchsorted(group, group)
    hit, ignored = _match_groups(truth, rows[:, :4], group)
    order = np.lexsort((-rows[:, 4], group % truth.classes))
    return Matches(
        confidence=rows[order, 4],
        label=group[order] % truth.classes,
        image=group[order] // truth.classes,
        rank=rank[order],
        hit=hit[:, order],
        ignored=ignored[:, order],
        source=source[order],
    )


def average_precision(matches: Matches, counts: NDArray[np.int64]) -> Floats:
    """Average precision over the 101 recalls of COCO.

    Args:
        matches: See `match`.
        counts: (classes,) true boxes of each class.

    Returns:
        (classes, 10) by class and IoU threshold, 0 for a class without true boxes or detections.
    """
    result = np.zeros((len(counts), len(IOU_THRESHOLDS)))
    starts = matches.starts(len(counts))
    for label in np.flatnonzero(counts):
        rows = slice(starts[label], starts[label + 1])
        counted = matches.rank[rows] < MOST
        hit, ignored = matches.hit[:, rows][:, counted], matches.ignored[:, rows][:, counted]
        right = np.cumsum(hit & ~ignored, axis=1, dtype=np.float64)
        wrong = np.cumsum(~hit & ~ignored, axis=1, dtype=np.float64)
        precision = right / (right + wrong + np.spacing(1))
        envelope = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
        recall = right / counts[label]
        for place in range(len(IOU_THRESHOLDS)):
            reached = np.searchsorted(recall[place], RECALLS, side="left")
            reached = reached[reached < recall.shape[1]]
            result[label, place] = envelope[place, reached].sum() / len(RECALLS)
    return result


def _match_groups(truth: TruthTable, xyxy: Floats, group: NDArray[np.int64]) -> tuple[Flags, Flags]:
    """Which detections are right, and which are ignored, (10, n) each; rows by group and falling confidence."""
    thresholds = np.minimum(IOU_THRESHOLDS, 1 - 1e-10)[:, None]
    hit = np.zeros((len(IOU_THRESHOLDS), len(xyxy)), bool)
    ignored = hit.copy()
    taken = np.zeros((len(IOU_THRESHOLDS), len(truth.xyxy)), bool)
    row, box, overlap = _pairs(truth, xyxy, group)
    if not len(row):
        return hit, ignored
    first = np.flatnonzero(np.diff(row, prepend=-1))  # where the pairs of each detection begin
    ends = np.append(first[1:], len(row))
    candidates = row[first]
    turn = np.arange(len(first)) - np.searchsorted(group[candidates], group[candidates])
    by_turn = np.argsort(turn, kind="stable")
    for some in np.split(by_turn, np.cumsum(np.bincount(turn))[:-1]):
        lengths = ends[some] - first[some]
        starts = np.cumsum(lengths) - lengths
        pairs = np.arange(lengths.sum()) - np.repeat(starts - first[some], lengths)
        boxes = box[pairs]
        free = (overlap[pairs] >= thresholds) & (~taken[:, boxes] | truth.crowd[boxes])
        # A detection's pairs rise in merit, so its best is the last that is free.
        last = np.maximum.reduceat(np.where(free, np.arange(len(pairs)), -1), starts, axis=1)
        level, column = np.nonzero(last >= 0)
        chosen = boxes[last[level, column]]
        hit[level, candidates[some][column]] = True
        ignored[level, candidates[some][column]] = truth.crowd[chosen]
        taken[level, chosen] = True
    return hit, ignored


def _pairs(
    truth: TruthTable, xyxy: Floats, group: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64], Floats]:
    """Detections and true boxes of one image and class that overlap enough for the lowest threshold.

    Returns:
        (row, box, overlap), each (p,): by row, and within a row by rising merit: crowds first, then by overlap, of
        equals the later box is the better one (as in pycocotools).
    """
    begin = np.searchsorted(truth.group, group, side="left")
    number = np.searchsorted(truth.group, group, side="right") - begin
    row = np.repeat(np.arange(len(group)), number)
    box = np.arange(number.sum()) - np.repeat(np.cumsum(number) - number - begin, number)
    overlap = _overlaps(xyxy[row], truth.xyxy[box], truth.crowd[box])
    enough = overlap >= IOU_THRESHOLDS[0]
    row, box, overlap = row[enough], box[enough], overlap[enough]
    order = np.lexsort((box, overlap, ~truth.crowd[box], row))
    return row[order], box[order], overlap[order]


def _overlaps(found: Floats, truth: Floats, crowd: Flags) -> Floats:
    """(p,) IoU of pairs of boxes; with a crowd the share of the detection that lies in it."""
    # By way of width and height, as files of COCO have them: to the last bit what pycocotools sees.
    found_wh, truth_wh = found[:, 2:] - found[:, :2], truth[:, 2:] - truth[:, :2]
    right = np.minimum(found[:, :2] + found_wh, truth[:, :2] + truth_wh)
    shared = (right - np.maximum(found[:, :2], truth[:, :2])).clip(0).prod(axis=1)
    area = found_wh.prod(axis=1)
    union = np.where(crowd, area, area + truth_wh.prod(axis=1) - shared)
    result: Floats = np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)
    return result
