"""Figures of anchors by detection level and by class, and what is odd about them."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from anchors.metrics import (
    AnchorError,
    AnchorMetrics,
    Floats,
    best_ratio,
    check_anchors,
    check_threshold,
    check_wh,
    evaluate,
)

_FEW = 0.001  # share of the boxes under which a level is said to serve hardly any


@dataclass(frozen=True)
class Part:
    """Some of the boxes, and how all anchors fit them.

    Attributes:
        name: Of the level or class.
        boxes: How many they are.
        metrics: Their figures; all 0 for no boxes.
    """

    name: str
    boxes: int
    metrics: AnchorMetrics


def find_level(wh: ArrayLike, anchors: ArrayLike) -> NDArray[np.intp]:
    """The level whose anchors suit each box best by the ratio metric, (N,); the lower one of two that do alike.

    Args:
        wh: (N, 2) px.
        anchors: (levels, per_level, 2) px.

    Raises:
        AnchorError: an array has another shape, or a side that is not finite and positive.
    """
    levels = _levels(anchors)
    owner: NDArray[np.intp] = np.stack([best_ratio(wh, level) for level in levels]).argmax(axis=0)
    return owner


def by_level(wh: ArrayLike, anchors: ArrayLike, threshold: float = 4.0) -> list[Part]:
    """Figures of the boxes that each level suits best, level by level."""
    shapes, owner = check_wh(wh), find_level(wh, anchors)
    parts = [shapes[owner == index] for index in range(len(_levels(anchors)))]
    return [
        Part(f"level {index}", len(part), evaluate(part, anchors, threshold))
        for index, part in enumerate(parts)
    ]


def by_class(
    wh: ArrayLike,
    classes: NDArray[np.intp],
    names: Sequence[str],
    anchors: ArrayLike,
    threshold: float = 4.0,
) -> list[Part]:
    """Figures of the boxes of each class that has any, in the order of class ids.

    Args:
        wh: (N, 2) px.
        classes: (N,) class ids.
        names: Of the classes; an id beyond them is called by its number.
        anchors: (levels, per_level, 2) or (k, 2) px.
        threshold: Largest ratio of sides of a match.
    """
    shapes = check_wh(wh)
    parts = []
    for index in np.unique(classes).tolist():
        part = shapes[classes == index]
        name = names[index] if 0 <= index < len(names) else str(index)
        parts.append(Part(name, len(part), evaluate(part, anchors, threshold)))
    return parts


def find_unmatched(wh: ArrayLike, anchors: ArrayLike, threshold: float = 4.0) -> NDArray[np.intp]:
    """Rows of the boxes that no anchor may predict, the farthest from any anchor first."""
    best = best_ratio(wh, anchors)
    rows = np.flatnonzero(best <= 1 / check_threshold(threshold))
    return rows[np.argsort(best[rows], kind="stable")]


def remark(wh: ArrayLike, anchors: ArrayLike, strides: Sequence[int]) -> list[str]:
    """What a user should know of how boxes and levels go together, a line each.

    Args:
        wh: (N, 2) px.
        anchors: (levels, per_level, 2) px.
        strides: px of each level.

    Raises:
        AnchorError: there are not as many strides as levels.
    """
    levels = _levels(anchors)
    if len(strides) != len(levels):
        raise AnchorError(f"there must be a stride for each of {len(levels)} levels, but got {len(strides)}")
    shapes = check_wh(wh)
    counts = np.bincount(find_level(shapes, anchors), minlength=len(levels))
    lines = []
    for index, count in enumerate(counts.tolist()):
        if count <= _FEW * len(shapes):
            lines.append(
                f"level {index} (stride {strides[index]}) suits {count or 'none'} of {len(shapes)} boxes best: "
                "a model with fewer levels would do"
            )
    small = int((shapes.max(axis=1, initial=0) < strides[0] / 2).sum()) if len(shapes) else 0
    if small:
        lines.append(
            f"{small} of {len(shapes)} boxes are under half the smallest stride ({strides[0]} px) on both sides: "
            "a larger image size, or a model with a finer level, would help them"
        )
    return lines


def _levels(anchors: ArrayLike) -> list[Floats]:
    flat = check_anchors(anchors)
    if np.ndim(anchors) != 3:
        raise AnchorError(f"anchors must have shape (levels, per_level, 2), but got {np.shape(anchors)}")
    return list(flat.reshape(np.shape(anchors)))
