"""Which class is taken for which: predictions and labels paired by overlap, whatever their classes."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

CONFIDENCE = 0.25
IOU = 0.5
NO_CROWDS = np.zeros((0, 5))


def confusion_matrix(
    truth: Sequence[NDArray[np.float64]],
    found: Sequence[NDArray[np.float32]],
    classes: int,
    crowds: Sequence[NDArray[np.float64]] = (),
) -> NDArray[np.int64]:
    """Count what labels were taken for.

    Predictions over `CONFIDENCE` and labels of an image are paired from the largest overlap down, each once, while
    the overlap is at least `IOU`. What is left over has nothing for a partner; predictions left over that lie to
    such a share in a crowd of their class are not counted.

    Args:
        truth: Per image (m, 5): xyxy px, class.
        found: Per image (n, 6): xyxy px, confidence, class.
        classes: How many classes there are.
        crowds: Per image (k, 5): xyxy px, class: regions of many objects; none at all when empty.

    Returns:
        (classes + 1, classes + 1): `[predicted, true]`; the last row and column stand for nothing.
    """
    matrix = np.zeros((classes + 1, classes + 1), np.int64)
    for boxes, rows, regions in zip(truth, found, crowds or [NO_CROWDS] * len(truth), strict=True):
        sure = rows[rows[:, 4] > CONFIDENCE].astype(np.float64)
        pairs = _pairs(sure[:, :4], boxes[:, :4])
        predicted = np.full(len(boxes), classes)
        left_over = np.ones(len(sure), bool)
        for row, column in pairs:
            if left_over[row] and predicted[column] == classes:
                left_over[row] = False
                predicted[column] = int(sure[row, 5])
        np.add.at(matrix, (predicted, boxes[:, 4].astype(int)), 1)
        left_over &= ~_in_crowd(sure, regions)
        np.add.at(matrix, (sure[left_over, 5].astype(int), classes), 1)
    return matrix


def _pairs(first: NDArray[np.float64], second: NDArray[np.float64]) -> list[tuple[int, int]]:
    """Rows of two tables (n, 4), (m, 4) xyxy whose IoU is at least `IOU`, the largest first."""
    shared = _shared(first, second)
    areas = (first[:, 2:] - first[:, :2]).prod(axis=1)[:, None] + (second[:, 2:] - second[:, :2]).prod(axis=1)
    overlap = shared / np.maximum(areas - shared, 1e-9)
    rows, columns = np.nonzero(overlap >= IOU)
    order = np.argsort(-overlap[rows, columns], kind="stable")
    return list(zip(rows[order].tolist(), columns[order].tolist(), strict=True))


def _in_crowd(sure: NDArray[np.float64], regions: NDArray[np.float64]) -> NDArray[np.bool_]:
    """(n,) which predictions (n, 6) have at least `IOU` of their area in one of the regions (k, 5) of their class."""
    area = (sure[:, 2:4] - sure[:, :2]).prod(axis=1)[:, None]
    enough = _shared(sure[:, :4], regions[:, :4]) >= IOU * np.maximum(area, 1e-9)
    return np.asarray((enough & (sure[:, 5:6] == regions[None, :, 4])).any(axis=1))


def _shared(first: NDArray[np.float64], second: NDArray[np.float64]) -> NDArray[np.float64]:
    """(n, m) area that boxes (n, 4) have in common with boxes (m, 4)."""
    near = np.minimum(first[:, None, 2:], second[None, :, 2:])
    far = np.maximum(first[:, None, :2], second[None, :, :2])
    return np.asarray((near - far).clip(0).prod(axis=2))
