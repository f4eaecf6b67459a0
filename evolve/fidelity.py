"""How well short trainings rank like long ones: rank agreement between an early epoch and the last."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import ArrayLike, NDArray

from evolve.ladder import Ladder

LEAST_TRIALS = 8
LEAST_BEST = 3
LOW_AGREEMENT = 0.7
"""An agreement whose interval reaches below this is called low or uncertain."""
LONG_ONLY = (
    *("warmup_epochs", "warmup_momentum", "warmup_bias_lr", "warmup", "weight_decay", "decay", "lrf"),
    *("mosaic", "close_mosaic", "mixup", "cutmix", "copy_paste", "label_smoothing", "ema_decay", "patience"),
)
"""Genes that show their worth in long trainings only: warm-up, decay, the schedule's end, strong augmentation."""

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
        best: trials that are the best at the end, a tenth of all and at least `LEAST_BEST`.
        kept: of these, how many were among the best third at the epoch: what a rung there would have let go on.
    """

    epoch: int
    full: int
    trials: int
    rho: float
    low: float
    high: float
    best: int
    kept: int


def rank_agreement(
    curves: Sequence[Sequence[float]], epoch: int, full: int | None = None
) -> Agreement | None:
    """Compare what trials looked like after some epochs with how they stood later.

    A trial's fitness after k epochs is the best of its first k, as it is at the end. Only trials that reached both
    epochs count: one that was stopped tells nothing of its end.

    Args:
        curves: fitness after each epoch, a sequence per trial, of any lengths.
        epoch: epochs done, from 1.
        full: the later epoch; None for the length of the longest trial.

    Returns:
        None with fewer than `LEAST_TRIALS` such trials, an epoch not before the later one, or where all are equal.
    """
    full = full or max(map(len, curves), default=0)
    both = [curve for curve in curves if len(curve) >= full]
    if len(both) < LEAST_TRIALS or not 1 <= epoch < full:
        return None
    early = _ranks([max(curve[:epoch]) for curve in both])
    final = _ranks([max(curve[:full]) for curve in both])
    if not early.std() or not final.std():
        return None
    rho = float(np.corrcoef(early, final)[0, 1])
    # Source: Fisher's transformation, with the standard error of Fieller, Hartley, Pearson 1957 for ranks.
    middle, margin = math.atanh(min(max(rho, -0.9999), 0.9999)), _Z95 * 1.03 / math.sqrt(len(both) - 3)
    low, high = math.tanh(middle - margin), math.tanh(middle + margin)
    best = np.argsort(-final, kind="stable")[: max(LEAST_BEST, round(len(both) / 10))]
    bar = Ladder((epoch, full)).cut(early.tolist())
    return Agreement(
        epoch, full, len(both), rho, low, high, best=len(best), kept=int((early[best] >= bar).sum())
    )


def agreement_words(
    curves: Sequence[Sequence[float]], genes: Sequence[str], rungs: Sequence[int] = ()
) -> list[str]:
    """Sentences for the report: agreement after some epochs, and a warning where it is low.

    Args:
        curves: as `rank_agreement`; of stopped trials too.
        genes: names of those that are searched.
        rungs: epochs at which trials were judged, and the full length; without them a third and two thirds of it
            are looked at.
    """
    full = max(map(len, curves), default=0)
    if rungs:
        pairs = dict.fromkeys([*pairwise(rungs), *((rung, rungs[-1]) for rung in rungs[:-1])])
    else:
        pairs = dict.fromkeys((math.ceil(part * full / 3), full) for part in (1, 2))
    found = [each for pair in pairs if (each := rank_agreement(curves, *pair)) is not None]
    stopped = sum(len(curve) < rungs[-1] for curve in curves) if rungs else 0
    words = [
        f"After {each.epoch} of {each.full} epochs the trials ranked like at {_end(each, full)} by {each.rho:.2f} "
        f"(Spearman, 95 % interval {each.low:.2f} to {each.high:.2f}, {each.trials} trials)"
        + ("." if stopped else f"; a rung there that lets one in three go on keeps {_kept(each)}.")
        for each in found
    ]
    if stopped:
        words.append(_selection_words(stopped, len(curves), len(found)))
    if found and min(each.low for each in found) < LOW_AGREEMENT:
        late = [name for name in genes if name in LONG_ONLY]
        which = f", of the genes here {', '.join(late)}" if late else ""
        words.append(
            f"That is low or uncertain (an interval reaches below {LOW_AGREEMENT}): shorter trials than these would "
            f"mislead, and longer trainings may rank otherwise than {full} epochs do, most of all by genes that "
            f"matter late{which}. A first rung at more epochs, or such genes left out, make it surer."
        )
    return words


def _end(agreement: Agreement, full: int) -> str:
    return "their end" if agreement.full == full else f"epoch {agreement.full}"


def _kept(agreement: Agreement) -> str:
    """How many of the best a rung keeps, in words: most agreement is between poor and good, not among the good."""
    if agreement.kept == agreement.best:
        return f"all of the {agreement.best} best"
    return f"{agreement.kept or 'none'} of the {agreement.best} best"


def _selection_words(stopped: int, trials: int, found: int) -> str:
    """What a ladder does to the figures."""
    text = (
        f"{stopped} of {trials} trials were stopped at a rung; only those that reached both epochs are compared. "
        "They were chosen for standing high at the earlier one: over so narrow a choice it comes out lower "
        "than over all trials, and whether a stopped trial would have caught up is not known."
    )
    few = f" Fewer than {LEAST_TRIALS} trials went that far, too few for a figure." if not found else ""
    return text + few


def _ranks(values: ArrayLike) -> NDArray[np.float64]:
    """Ranks (N,) from 0, ties sharing their mean."""
    _, inverse, counts = np.unique(
        np.asarray(values, dtype=np.float64), return_inverse=True, return_counts=True
    )
    ends = np.cumsum(counts)
    return np.asarray((ends - (counts + 1) / 2)[inverse], dtype=np.float64)
