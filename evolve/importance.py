"""How much each gene has to do with the fitness, and how well short trainings foretell long ones.

Figures about a run's trials for people to judge by; the search does not use them.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

TREES, SHUFFLES, SAMPLE = 60, 5, 500
MIN_TRIALS = 12
RESAMPLES = 300
MOST_EPOCHS = 25

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Importance:
    """What a forest that was fitted to the trials says of the genes.

    Attributes:
        shares: For each gene how much worse the forest foretells the fitness of trials once this gene's values are
            shuffled, as a share of all genes; in [0, 1], their sum is 1 (0 where nothing matters).
        explained: Share of the fitness' variance that the forest foretells for trials that it has not seen (R² out
            of bag, at most 1); near 0 or under it the shares mean nothing.
    """

    shares: tuple[float, ...]
    explained: float


def importance(genes: Floats, fitness: Floats) -> Importance | None:
    """Permutation importance in a random forest.

    Args:
        genes: (N, D) encoded genes in [0, 1].
        fitness: (N,).

    Returns:
        None for fewer than `MIN_TRIALS` trials, or where all have the same fitness.

    Source: Breiman, Random Forests, section 10 (2001); scikit-learn's forest and its permutation importance.
    """
    from sklearn.ensemble import RandomForestRegressor
    from sklearn.inspection import permutation_importance

    if len(fitness) < MIN_TRIALS or np.ptp(fitness) <= 0:
        return None
    if len(fitness) > SAMPLE:
        kept = np.linspace(0, len(fitness) - 1, SAMPLE).astype(int)
        genes, fitness = genes[kept], fitness[kept]
    # By ranks: a few collapsed trials would be all that a forest of squared errors looks at.
    ranks = rankdata(fitness) / len(fitness)
    forest = RandomForestRegressor(TREES, oob_score=True, min_samples_leaf=2, random_state=0)
    forest.fit(genes, ranks)
    found = permutation_importance(forest, genes, ranks, n_repeats=SHUFFLES, random_state=0)
    raw = np.maximum(found.importances_mean, 0.0)
    total = float(raw.sum())
    shares = tuple(float(share) for share in (raw / total if total > 0 else raw))
    return Importance(shares, float(forest.oob_score_))


@dataclass(frozen=True)
class Agreement:
    """How well the order of trials at an epoch agrees with their final order.

    Attributes:
        epoch: From 1.
        spearman: Rank correlation in [-1, 1].
        low, high: 90 % interval over resampled trials.
    """

    epoch: int
    spearman: float
    low: float
    high: float


def rank_agreement(curves: Sequence[Sequence[float]], seed: int = 0) -> list[Agreement]:
    """Rank agreement of each epoch with the end.

    Args:
        curves: Fitness of each trial after each epoch; trials shorter than the longest are left out.
        seed: Of the resampling.

    Returns:
        One for each epoch, for 25 even ones of more; empty for fewer than 6 whole trials, or a single epoch.
    """
    length = max((len(curve) for curve in curves), default=0)
    whole = np.array([curve for curve in curves if len(curve) == length], dtype=np.float64)
    if len(whole) < 6 or length < 2:
        return []
    # A trial is judged by its best epoch so far, as it would be if it had been stopped there.
    reached = np.maximum.accumulate(whole, axis=1)
    draws = np.random.default_rng(seed).integers(0, len(whole), (RESAMPLES, len(whole)))
    shown = np.unique(np.linspace(0, length - 1, MOST_EPOCHS).round().astype(int))
    end = reached[:, -1]
    found = []
    for epoch in shown:
        now = reached[:, epoch]
        resampled = _spearman(now[draws], end[draws])
        low, high = np.quantile(resampled, (0.05, 0.95))
        found.append(Agreement(int(epoch) + 1, float(_spearman(now, end)), float(low), float(high)))
    return found


def _spearman(a: Floats, b: Floats) -> Floats:
    """Rank correlation along the last axis; 0 where one of the two is constant."""
    a, b = rankdata(a, axis=-1), rankdata(b, axis=-1)
    a, b = a - a.mean(-1, keepdims=True), b - b.mean(-1, keepdims=True)
    scale = np.sqrt((a * a).sum(-1) * (b * b).sum(-1))
    found: Floats = np.zeros_like(scale)
    np.divide((a * b).sum(-1), scale, out=found, where=scale > 0)
    return found
