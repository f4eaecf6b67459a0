"""How well a set of anchors fits a set of box shapes.

Two families of figures. The *ratio* family is what anchor-based YOLO detectors match targets with: an anchor may
predict a box when neither side differs by more than ``threshold`` times. The *IoU* family is what the k-means of
YOLOv2 optimises: boxes and anchors laid on one centre.

Every function takes ``wh`` (N, 2) and ``anchors`` (k, 2) or (levels, per_level, 2), both width and height in pixels
of the training image, all greater than 0, and edits neither. With no boxes (N = 0) a share or a mean is 0.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]

_ROWS = 8192  # boxes handled at once: their temporaries then stay in cache
_SIDES = (1e-12, 1e12)  # px: beyond them areas leave the range of floats, and no image has such a box


class AnchorError(ValueError):
    """Shapes or settings that no anchors can be fitted to; the message says what to change."""


@dataclass(frozen=True)
class AnchorMetrics:
    """The figures of one set of anchors on one set of shapes.

    Attributes:
        bpr: Best possible recall, 0..1: share of boxes that at least one anchor may predict.
        aat: Anchors above threshold, 0..k: mean number of anchors that may predict a box.
        fitness: 0..1, mean of the best ratio, counted as 0 where it is beyond the threshold.
        mean_best_iou: 0..1, the figure that the YOLOv2 paper reports.
        mean_best_ratio: 0..1, mean of the best ratio, wherever it lies.
    """

    bpr: float
    aat: float
    fitness: float
    mean_best_iou: float
    mean_best_ratio: float


def check_wh(wh: ArrayLike, *, name: str = "wh") -> Floats:
    """Return the shapes as a float array.

    Args:
        wh: (N, 2) width and height in pixels.
        name: What the caller calls the array, for the message.

    Raises:
        AnchorError: the array is not (N, 2), or a side is not finite or not greater than 0.
    """
    try:
        shapes = np.asarray(wh, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise AnchorError(
            f"{name} must be an (N, 2) array of numbers, but got {type(wh).__name__}"
        ) from error
    if shapes.size == 0 and shapes.ndim <= 2:
        return shapes.reshape(0, 2)
    if shapes.ndim != 2 or shapes.shape[1] != 2:
        raise AnchorError(f"{name} must have shape (N, 2), but got {shapes.shape}")
    low, high = _SIDES
    if shapes.min() >= low and shapes.max() <= high:  # no temporary arrays: ten million boxes would tell
        return shapes
    bad = ~((shapes >= low) & (shapes <= high)).all(axis=1)
    row = int(bad.argmax())
    raise AnchorError(
        f"{name} must be finite and greater than 0 (from {low:g} to {high:g} px), but got {int(bad.sum())} bad "
        f"rows of {len(shapes)}, the first is row {row}: {shapes[row].tolist()}"
    )


def check_weights(weights: ArrayLike | None, boxes: int) -> Floats | None:
    """Return one weight for each box as a float array, None for None.

    Raises:
        AnchorError: their number is another, or one is not finite and greater than 0.
    """
    if weights is None:
        return None
    array = np.asarray(weights, dtype=np.float64)
    if array.shape != (boxes,):
        raise AnchorError(f"weights must be one number for each of {boxes} boxes, but got {array.shape}")
    if boxes and not (array.min() > 0 and array.max() < np.inf):
        raise AnchorError("weights must be finite and greater than 0, but got one that is not")
    return array


def check_anchors(anchors: ArrayLike, *, name: str = "anchors") -> Floats:
    """Return the anchors as (k, 2), from (k, 2) or (levels, per_level, 2), in the order given.

    Raises:
        AnchorError: another shape, no anchor, or a side that is not finite or not greater than 0.
    """
    try:
        array = np.asarray(anchors, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise AnchorError(
            f"{name} must be (k, 2) or (levels, per_level, 2) numbers, but got ragged rows"
        ) from error
    if array.ndim not in {2, 3} or array.shape[-1] != 2 or array.size == 0:
        raise AnchorError(f"{name} must have shape (k, 2) or (levels, per_level, 2), but got {array.shape}")
    return check_wh(array.reshape(-1, 2), name=name)


def check_threshold(threshold: float) -> float:
    """Return the threshold.

    Raises:
        AnchorError: it is not a finite number greater than 1 (at 1 not even a perfect anchor would match).
    """
    if not (np.isfinite(threshold) and threshold > 1):
        raise AnchorError(f"threshold must be finite and greater than 1, but got {threshold}")
    return float(threshold)


def ratio(wh: ArrayLike, anchors: ArrayLike) -> Floats:
    """Ratio metric of every box with every anchor.

    ``[i, j]`` is ``min(w/a, a/w, h/b, b/h)`` of box i = (w, h) and anchor j = (a, b), in (0, 1]; 1 is the same shape.

    Returns:
        (N, k).

    Source:
        The rule by which YOLOv5 and Scaled-YOLOv4 assign targets to anchors.

    >>> ratio([[10, 20]], [[10, 20], [20, 10]]).tolist()
    [[1.0, 0.5]]
    """
    return _ratio(check_wh(wh), check_anchors(anchors))


def centred_iou(wh: ArrayLike, anchors: ArrayLike) -> Floats:
    """IoU of every box with every anchor when both are laid on one centre.

    Returns:
        (N, k), ``[i, j]`` in (0, 1] is the IoU of box i and anchor j.

    Source:
        YOLO9000 (Redmon and Farhadi, 2016), section "Dimension Clusters".

    >>> centred_iou([[10, 10]], [[10, 20]]).tolist()
    [[0.5]]
    """
    return _centred_iou(check_wh(wh), check_anchors(anchors))


def best_ratio(wh: ArrayLike, anchors: ArrayLike) -> Floats:
    """Ratio metric of every box with the anchor that suits it best: (N,), in (0, 1]."""
    shapes, flat = check_wh(wh), check_anchors(anchors)
    best = np.zeros(len(shapes))
    for rows in _slices(len(shapes)):
        wide, high = np.ascontiguousarray(shapes[rows].T)
        for a, b in flat:
            np.maximum(best[rows], _ratio_to(wide, high, a, b), out=best[rows])
    return best


def count_unreached(wh: ArrayLike, anchors: ArrayLike, threshold: float = 4.0) -> int:
    """How many boxes no anchor may predict: their best ratio is not greater than ``1 / threshold``."""
    shapes, limit = check_wh(wh), 1 / check_threshold(threshold)
    return sum(
        int(np.count_nonzero(best_ratio(shapes[rows], anchors) <= limit)) for rows in _slices(len(shapes))
    )


def best_possible_recall(wh: ArrayLike, anchors: ArrayLike, threshold: float = 4.0) -> float:
    """Share of boxes, 0..1, whose best ratio is greater than ``1 / threshold``."""
    return evaluate(wh, anchors, threshold).bpr


def anchors_above_threshold(wh: ArrayLike, anchors: ArrayLike, threshold: float = 4.0) -> float:
    """Mean number of anchors, 0..k, whose ratio with a box is greater than ``1 / threshold``."""
    return evaluate(wh, anchors, threshold).aat


def fitness(wh: ArrayLike, anchors: ArrayLike, threshold: float = 4.0) -> float:
    """Mean over boxes, 0..1, of the best ratio, counted as 0 where it is not greater than ``1 / threshold``."""
    return evaluate(wh, anchors, threshold).fitness


def mean_best_iou(wh: ArrayLike, anchors: ArrayLike) -> float:
    """Mean over boxes, 0..1, of the IoU with the anchor that overlaps best (YOLO9000, table 1)."""
    return evaluate(wh, anchors).mean_best_iou


def evaluate(
    wh: ArrayLike, anchors: ArrayLike, threshold: float = 4.0, weights: ArrayLike | None = None
) -> AnchorMetrics:
    """Every figure at once, in one pass over the boxes.

    Args:
        wh: (N, 2) px.
        anchors: (k, 2) or (levels, per_level, 2) px.
        threshold: Largest ratio of sides at which an anchor may predict a box, greater than 1.
        weights: (N,) how much each box counts, greater than 0, any scale; all the same when left out.

    Raises:
        AnchorError: an array has another shape or a side that is not finite and positive, or threshold ≤ 1.

    >>> evaluate([[10, 10], [10, 80]], [[10, 20]], threshold=4.0).bpr
    0.5
    """
    shapes, flat, limit = check_wh(wh), check_anchors(anchors), 1 / check_threshold(threshold)
    share = check_weights(weights, len(shapes))
    if not len(shapes):
        return AnchorMetrics(0.0, 0.0, 0.0, 0.0, 0.0)
    sums = [
        _tally(np.ascontiguousarray(shapes[rows].T), flat, limit, None if share is None else share[rows])
        for rows in _slices(len(shapes))
    ]
    # fsum rounds once, so the figures hang neither on the order of the slices nor on their number.
    total, *means = (math.fsum(column) for column in zip(*sums, strict=True))
    bpr, aat, fitness, iou, ratio = (figure / total for figure in means)
    return AnchorMetrics(min(bpr, 1.0), aat, min(fitness, 1.0), min(iou, 1.0), min(ratio, 1.0))


def _tally(
    sides: Floats, anchors: Floats, limit: float, weights: Floats | None
) -> tuple[float, float, float, float, float, float]:
    """Sums over some boxes (2, n): of the weights, and of each figure in the order of `AnchorMetrics`."""
    wide, high = sides
    best, iou, above = np.zeros(len(wide)), np.zeros(len(wide)), np.zeros(len(wide))
    for a, b in anchors:
        x = _ratio_to(wide, high, a, b)
        above += x > limit
        np.maximum(best, x, out=best)
        np.maximum(iou, _iou_to(wide, high, a, b), out=iou)
    within = best > limit
    if weights is None:
        within_sum, total = float(np.count_nonzero(within)), float(len(wide))
    else:
        within_sum, total = float((within * weights).sum()), float(weights.sum())
        best, iou, above = best * weights, iou * weights, above * weights
    fitness = float((best * within).sum())
    return total, within_sum, float(above.sum()), fitness, float(iou.sum()), float(best.sum())


def _ratio_to(wide: Floats, high: Floats, a: float, b: float) -> Floats:
    """Ratio metric (n,) of boxes of these widths and heights with one anchor."""
    x = np.minimum(wide, a) / np.maximum(wide, a)
    ratio: Floats = np.minimum(x, np.minimum(high, b) / np.maximum(high, b), out=x)
    return ratio


def _iou_to(wide: Floats, high: Floats, a: float, b: float) -> Floats:
    """IoU (n,) of boxes of these widths and heights with one anchor on the same centre."""
    shared = np.minimum(wide, a) * np.minimum(high, b)
    iou: Floats = shared / (wide * high + a * b - shared)
    return iou


def _ratio(wh: Floats, anchors: Floats) -> Floats:
    return np.stack([_ratio_to(wh[:, 0], wh[:, 1], a, b) for a, b in anchors], axis=1)


def _centred_iou(wh: Floats, anchors: Floats) -> Floats:
    return np.stack([_iou_to(wh[:, 0], wh[:, 1], a, b) for a, b in anchors], axis=1)


def _slices(count: int) -> Iterator[slice]:
    return (slice(first, first + _ROWS) for first in range(0, count, _ROWS))
