"""A climb of fitness along the edge of what the recall target allows.

A bonus for recall finds only the corners of the trade between recall and fitness; between two corners there may be
sets that recall just enough and fit better. Small steps from a corner find them.
"""

import numpy as np

from anchors.bins import Bins, Floats
from anchors.objective import distances

_STEPS = 24  # sets tried at once
_SCALE = 0.1  # of the first steps, in log space
_SMALLEST = 1e-3  # the climb ends when steps as small as this don't help
_GROW, _SHRINK = 1.5, 0.88


def climb(
    anchors: Floats, bins: Bins, reach: float, goal: float, rng: np.random.Generator, rounds: int = 100
) -> Floats:
    """Raise the recall to the goal, and then the fitness without losing it, by small random steps.

    Args:
        anchors: (k, 2) logarithms of px; not edited.
        bins: The shapes.
        reach: Logarithm of the threshold.
        goal: Share of the boxes that must be within reach.
        rng: Draws the steps.
        rounds: Most rounds, of 24 sets each.

    Returns:
        (k, 2) anchors. On these bins they recall no less than those given, up to the goal; and if those reached the
        goal, their fitness is no lower.
    """
    best, scale = anchors, _SCALE
    highest = float(_rank(anchors[None], bins, reach, goal)[0])
    for _ in range(rounds):
        moved = rng.random((_STEPS, len(anchors), 1)) < rng.uniform(1 / len(anchors), 1, size=(_STEPS, 1, 1))
        sets = best + moved * scale * rng.standard_normal((_STEPS, *anchors.shape))
        ranks = _rank(sets, bins, reach, goal)
        index = int(ranks.argmax())
        if ranks[index] > highest:
            best, highest = sets[index], float(ranks[index])
            scale *= _GROW
        else:
            scale *= _SHRINK
        if scale < _SMALLEST:
            break
    return best


def _rank(sets: Floats, bins: Bins, reach: float, goal: float) -> Floats:
    """Worth of sets (P, k, 2), (P,): the recall, 0..1, below the goal; from it on 1 + the fitness, 1..2."""
    nearest = np.stack([distances(anchors, bins.logs).min(axis=0) for anchors in sets])
    within = nearest < reach
    fitness = np.einsum("pn,n->p", np.where(within, np.exp(-nearest), 0.0), bins.weights)
    recall = np.einsum("pn,n->p", within.astype(np.float64), bins.weights)
    ranks: Floats = np.where(recall >= goal, 1 + fitness, recall)
    return ranks
