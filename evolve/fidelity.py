"""How well short trainings rank like long ones: rank agreement between an early epoch and the last."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

LEAST_TRIALS = 8
LOW_AGREEMENT = 0.7
LONG_ONLY = ("warmup_epochs", "weight_decay", "lrf", "mixup", "mosaic", "copy_paste")
"""Genes that are known to show their worth in long trainings only."""

_Z95 = 1.96


@dataclass(frozen=True)
class Agreement:
    """Spearman's rank correlation between the fitness at an epoch and at the end.

    Attributes:
        epoch: epochs done, from 1.
        full: epochs of a whole trial.
        trials: that were compared, all of them whole.
        rho: the correlation, -1 to 1.
        low: lower end of its 95 % interval.
        high: upper end.
    """

    epoch: int
    full: int
    trials: int
    rho: float
    low: float
    high: float


def rank_agreement(curves: Sequence[Sequence[float]], epoch: int) -> Agreement | None:
    """Compare what trials looked like after some epochs with how they ended.

    A trial's fitness after k epochs is the best of its first k, as it is at the end. Only trials of the full length
    count: one that was stopped tells nothing of its end.

    Args:
        curves: fitness after each epoch, a sequence per trial, of any lengths.
        epoch: epochs done, from 1.

    Returns:
        None with fewer than `LEAST_TRIALS` whole trials, an epoch not before the last, or where all are equal.
    """
    full = max(map(len, curves), default=0)
    whole = [curve for curve in curves if len(curve) == full]
    if len(whole) < LEAST_TRIALS or not 1 <= epoch < full:
        return None
    early = _ranks([max(curve[:epoch]) for curve in whole])
    final = _ranks([max(curve) for curve in whole])
    if not early.std() or not final.std():
        return None
    rho = float(np.corrcoef(early, final)[0, 1])
    # Source: Fisher's transformation, with the standard error of Fieller, Hartley, Pearson 1957 for ranks.
    middle, margin = math.atanh(min(max(rho, -0.9999), 0.9999)), _Z95 * 1.03 / math.sqrt(len(whole) - 3)
    return Agreement(epoch, full, len(whole), rho, math.tanh(middle - margin), math.tanh(middle + margin))


def agreement_words(curves: Sequence[Sequence[float]], genes: Sequence[str]) -> list[str]:
    """Sentences for the report: agreement after a third and two thirds of the epochs, and a warning where it is low.

    Args:
        curves: as `rank_agreement`.
        genes: names of those that are searched.
    """
    full = max(map(len, curves), default=0)
    epochs = dict.fromkeys((math.ceil(full / 3), math.ceil(2 * full / 3)))
    found = [each for epoch in epochs if (each := rank_agreement(curves, epoch)) is not None]
    words = [
        f"After {each.epoch} of {each.full} epochs the trials ranked like at their end by {each.rho:.2f} "
        f"(Spearman, 95 % interval {each.low:.2f} to {each.high:.2f}, {each.trials} trials)."
        for each in found
    ]
    if found and found[0].low < LOW_AGREEMENT:
        late = [name for name in genes if name in LONG_ONLY]
        which = f", of the genes here {', '.join(late)}" if late else ""
        words.append(
            "That is low or uncertain: shorter trials than these would mislead, and longer trainings may rank "
            f"otherwise than {full} epochs do, most of all by genes that matter late{which}."
        )
    return words


def _ranks(values: ArrayLike) -> NDArray[np.float64]:
    """Ranks (N,) from 0, ties sharing their mean."""
    _, inverse, counts = np.unique(
        np.asarray(values, dtype=np.float64), return_inverse=True, return_counts=True
    )
    ends = np.cumsum(counts)
    return np.asarray((ends - (counts + 1) / 2)[inverse], dtype=np.float64)
