"""What the search maximises, in log space, for one set of anchors or for many at once."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from anchors.bins import Bins, Floats

_CELLS = 1 << 18  # of a population's table held at once: 2 MB, which stays in cache


@dataclass(frozen=True)
class Objective:
    """Worth of the distance from a box to its nearest anchor.

    Within reach the worth is ``exp(-distance) + bonus``: the ratio metric, and what a recalled box is worth beside.
    Out of reach it is 0. So with no bonus the mean worth is the fitness, and a growing bonus trades fitness for
    recall: it is the Lagrange multiplier of the wish for a best possible recall.

    Attributes:
        reach: Logarithm of the threshold, greater than 0.
        bonus: At least 0.
    """

    reach: float
    bonus: float = 0.0

    def worth(self, distance: Floats) -> Floats:
        """Worth, same shape as the distances, never rising with them."""
        return np.where(distance < self.reach, np.exp(-distance) + self.bonus, 0.0)

    def mean(self, distance: Floats, weights: Floats) -> Floats:
        """Weighted sum of the worth over the last axis: (..., n) distances and (n,) weights give (...)."""
        # Not a matrix product: its last digit would depend on how many threads it runs on.
        total: Floats = np.einsum("...n,n->...", self.worth(distance), weights)
        return total


def distances(anchors: Floats, logs: Floats) -> Floats:
    """Chebyshev distance of every anchor (k, 2) to every shape (n, 2), both logarithms of px: (k, n)."""
    wide = np.abs(anchors[:, :1] - logs[:, 0])
    high = np.abs(anchors[:, 1:] - logs[:, 1])
    table: Floats = np.maximum(wide, high, out=wide)
    return table


def evaluate_population(population: Floats, bins: Bins, objective: Objective) -> Floats:
    """Worth of many sets of anchors.

    Args:
        population: (P, k, 2) logarithms of px.
        bins: n weighted shapes.
        objective: What to measure.

    Returns:
        (P,) mean worth.
    """
    members, k, _ = population.shape
    worth = np.empty(members)
    step = max(1, _CELLS // max(len(bins), 1))
    for first in range(0, members, step):
        part = population[first : first + step]
        # The nearest anchor is found among distances, so that the exponential is taken once a box, not k times.
        nearest = distances(part[:, 0], bins.logs)
        for anchor in range(1, k):
            np.minimum(nearest, distances(part[:, anchor], bins.logs), out=nearest)
        worth[first : first + step] = objective.mean(nearest, bins.weights)
    return worth


def two_nearest(table: Floats) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """The nearest anchor of every shape, and the second nearest.

    Args:
        table: (k, n) distances, k at least 1.

    Returns:
        (n,) index of the nearest and (n,) index of the second, which is the nearest again when k is 1.
    """
    nearest = table.argmin(axis=0)
    others = table.copy()
    others[nearest, np.arange(table.shape[1])] = np.inf
    return nearest, others.argmin(axis=0)
