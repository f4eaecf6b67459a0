"""What the search maximises, in log space, for one set of anchors or for many at once."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from anchors.bins import Bins, Floats

_ROUNDING = 1e-12  # of worth
_CELLS = 1 << 18  # of a population's table held at once: 2 MB, which stays in cache


@dataclass(frozen=True)
class Objective:
    """Fitness, and what recall is worth beside it, up to a goal.

    The worth of a set of anchors is ``fitness + bonus * min(recall, goal)``. With no bonus it is the fitness. With a
    bonus larger than what a share of recall costs in fitness, the highest worth is the highest fitness among the sets
    that reach the goal (an exact penalty); with a very large one, recall comes before all else.

    Attributes:
        reach: Logarithm of the threshold, greater than 0.
        bonus: At least 0.
        goal: Best possible recall, 0..1, beyond which more of it is worth nothing.
    """

    reach: float
    bonus: float = 0.0
    goal: float = 1.0

    def ratio(self, distance: Floats) -> Floats:
        """The ratio metric where it is within reach, else 0; same shape as the distances."""
        return np.where(distance < self.reach, np.exp(-distance), 0.0)

    def worth(self, fitness: Floats, recall: Floats) -> Floats:
        """Worth of fitnesses and recalls, 0..1 each, of one shape."""
        total: Floats = fitness + self.bonus * np.minimum(recall, self.goal)
        return total

    def sums(self, distance: Floats, weights: Floats) -> tuple[Floats, Floats]:
        """Fitness and recall, over the last axis: (..., n) distances and (n,) weights give (...) each.

        Recall is only counted where it has a bonus.
        """
        within = distance < self.reach
        # Not a matrix product: its last digit would depend on how many threads it runs on.
        fitness = np.einsum("...n,n->...", np.where(within, np.exp(-distance), 0.0), weights)
        if not self.bonus:
            return fitness, np.zeros_like(fitness)
        return fitness, np.einsum("...n,n->...", within.astype(np.float64), weights)

    def mean(self, distance: Floats, weights: Floats) -> Floats:
        """Worth of sets whose distances to the nearest anchor are given: (..., n) and (n,) weights give (...)."""
        return self.worth(*self.sums(distance, weights))


def first_best(worth: Floats) -> int:
    """Index of the highest worth, the first of those that differ by rounding only: the same on every machine."""
    return int(np.argmax(worth >= worth.max() - _ROUNDING))


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
