"""Which class is taken for which: predictions and labels paired by overlap, whatever their classes."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

CONFIDENCE = 0.25
IOU = 0.5


def confusion_matrix(
    truth: Sequence[NDArray[np.float64]], found: Sequence[NDArray[np.float32]], classes: int
) -> NDArray[np.int64]:
    """Count what labels were taken for.

    Predictions over `CONFIDENCE` and labels of an image are paired from the largest overlap down, each once, while
    the overlap is at least `IOU`. What is left over has nothing for a partner.

    Args:
        truth: Per image (m, 5): xyxy px, class.
        found: Per image (n, 6): xyxy px, confidence, class.
        classes: How many classes there are.

    Returns:
        (classes + 1, classes + 1): `[predicted, true]`; the last row and column stand for nothing.
    """
    matrix = np.zeros((classes + 1, classes + 1), np.int64)
    for boxes, rows in zip(truth, found, strict=True):
        sure = rows[rows[:, 4] > CONFIDENCE].astype(np.float64)
        pairs = _pairs(sure[:, :4], boxes[:, :4])
        predicted = np.full(len(boxes), classes)
        left_over = np.ones(len(sure), bool)
        for row, column in pairs:
            if left_over[row] and predicted[column] == classes:
                left_over[row] = False
                predicted[column] = int(sure[row, 5])
        np.add.at(matrix, (predicted, boxes[:, 4].astype(int)), 1)
        np.add.at(matrix, (sure[left_over, 5].astype(int), classes), 1)
    return matrix


def _pairs(first: NDArray[np.float64], second: NDArray[np.float64]) -> list[tuple[int, int]]:
    """Rows of two tables (n, 4), (m, 4) xyxy whose IoU is at least `IOU`, the largest first."""
    near = np.minimum(first[:, None, 2:], second[None, :, 2:])
    far = np.maximum(first[:, None, :2], second[None, :, :2])
    shared = (near - far).clip(0).prod(axis=2)
    areas = (first[:, 2:] - first[:, :2]).prod(axis=1)[:, None] + (second[:, 2:] - second[:, :2]).prod(axis=1)
    overlap = shared / np.maximum(areas - shared, 1e-9)
    rows, columns = np.nonzero(overlap >= IOU)
    order = np.argsort(-overlap[rows, columns], kind="stable")
    return list(zip(rows[order].tolist(), columns[order].tolist(), strict=True))
