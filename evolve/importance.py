"""How much each gene has to do with the fitness: figures for people to judge by, which the search does not use."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

TREES, SHUFFLES, SAMPLE = 60, 5, 500
MIN_TRIALS = 12

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
