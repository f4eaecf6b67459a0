"""Precision, recall and F1 over the confidence from which a detection counts, at IoU 0.5."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trainer.average_precision import Matches

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Curves:
    """What each class is worth at each threshold.

    Attributes:
        thresholds: (t,) confidences, rising.
        precision: (classes, t); 0 where no detection is above the threshold.
        recall: (classes, t)
    """

    thresholds: Floats
    precision: Floats
    recall: Floats

    @property
    def f1(self) -> Floats:
        """Harmonic mean of precision and recall, (classes, t)."""
        both = self.precision + self.recall
        return 2 * self.precision * self.recall / np.maximum(both, 1e-12)


def curves_at(matches: Matches, counts: NDArray[np.int64], thresholds: Floats) -> Curves:
    """Precision and recall of each class at given confidences.

    Args:
        matches: Of all detections.
        counts: (classes,) true boxes.
        thresholds: (t,) rising; a detection counts when its confidence is not below.
    """
    precision, recall = np.zeros((2, len(counts), len(thresholds)))
    starts = matches.starts(len(counts))
    for label in np.flatnonzero(counts):
        rows = slice(starts[label], starts[label + 1])
        counted = ~matches.ignored[0, rows]
        falling = -matches.confidence[rows][counted]  # ascending, as searchsorted wants them
        above = np.searchsorted(falling, -thresholds, side="right")
        right = np.concatenate(([0], np.cumsum(matches.hit[0, rows][counted])))[above]
        precision[label] = right / np.maximum(above, 1)
        recall[label] = right / counts[label]
    return Curves(thresholds, precision, recall)


def best_f1(matches: Matches, counts: NDArray[np.int64]) -> tuple[float, Floats, Floats]:
    """The confidence of the highest mean F1, and each class's precision and recall there.

    Args:
        matches: Of all detections.
        counts: (classes,) true boxes.

    Returns:
        (confidence, (classes,) precision, (classes,) recall)
    """
    # Confidences of hits suffice: between two of them precision only falls as the threshold does.
    thresholds = np.unique(matches.confidence[matches.hit[0] & ~matches.ignored[0]])
    nothing = np.zeros(len(counts))
    if not len(thresholds) or not counts.any():
        return 0.0, nothing, nothing
    curves = curves_at(matches, counts, thresholds)
    best = int(curves.f1[counts > 0].mean(axis=0).argmax())
    return float(thresholds[best]), curves.precision[:, best], curves.recall[:, best]
