"""Children bred in numbers: whole arrays of mutants, crosses and recombinations, for a surrogate to choose among."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from evolve.operators import Points, reflect
from evolve.space import Space

KINDS = ("mutation", "crossover", "recombination", "random")
_SHARES = (0.4, 0.25, 0.2, 0.15)
_PRESSURE = 3.0  # see `operators.select`
_STEPS = (0.01, 0.3)  # least and most standard deviation of a mutation; each child draws its own between them
_EXTENSION = 0.4  # of a cross beyond its parents


@dataclass(frozen=True, eq=False)
class Brood:
    """Children and how they were made.

    Attributes:
        points: (M, D) in [0, 1].
        kinds: (M,) index in `KINDS`.
        parents: (M, 2) rows of the parents' array.
    """

    points: Points
    kinds: NDArray[np.int64]
    parents: NDArray[np.int64]

    def joined(self, other: "Brood") -> "Brood":
        """Both, this one's children first."""
        return Brood(
            np.vstack([self.points, other.points]),
            np.concatenate([self.kinds, other.kinds]),
            np.vstack([self.parents, other.parents]),
        )


def breed(rng: np.random.Generator, space: Space, parents: Points, count: int, stretch: Points) -> Brood:
    """Breed from parents.

    Steps adapt themselves: each child draws its length anew over the scales from fine to coarse, the surrogate picks
    what promises most, and so the fine ones win as the search closes in. Recombined children have the parents'
    covariance, so that they know which genes go together.

    Args:
        rng: source of the draws.
        space: the genes, for whole numbers and choices.
        parents: (K, D), K >= 1, the fittest first.
        count: M.
        stretch: (D,) factor of each gene's step: longer for genes that matter less.
    """
    size, genes = parents.shape
    weights = np.exp(-_PRESSURE * np.arange(size) / size)
    pairs = rng.choice(size, (count, 2), p=weights / weights.sum())
    kinds = rng.choice(len(KINDS), count, p=_SHARES)
    kinds = np.where((kinds == KINDS.index("recombination")) & (size < 3), 0, kinds)
    low, high = map(math.log, _STEPS)
    step = np.exp(rng.uniform(low, high, (count, 1)))
    rate = np.exp(rng.uniform(-math.log(genes), 0.0, (count, 1)))
    mask = rng.random((count, genes)) < rate
    mask[np.arange(count), rng.integers(genes, size=count)] = True
    moves = rng.normal(size=(count, genes)) * step * stretch
    first, second = parents[pairs[:, 0]], parents[pairs[:, 1]]
    mutants = first + mask * moves
    share = rng.uniform(-_EXTENSION, 1 + _EXTENSION, (count, genes))
    crosses = first + share * (second - first) + (rng.random((count, genes)) < 1 / genes) * moves / 2
    factors = rng.normal(0.0, 1.0 / math.sqrt(max(size - 1, 1)), (count, size))
    recombined = first + factors @ (parents - parents.mean(axis=0))
    draws = rng.random((count, genes))
    column = kinds[:, None]
    points = np.select([column == 0, column == 1, column == 2], [mutants, crosses, recombined], draws)
    points = _choose(rng, space, points, np.where(rng.random((count, 1)) < 0.5, first, second), mask)
    return Brood(settle(space, reflect(points)), kinds, pairs)


def strangers(rng: np.random.Generator, space: Space, count: int) -> Brood:
    """Children (M, D) of nobody, anywhere in the space."""
    points = settle(space, rng.random((count, len(space))))
    return Brood(points, np.full(count, KINDS.index("random")), np.zeros((count, 2), dtype=np.int64))


def refine(
    rng: np.random.Generator, space: Space, brood: Brood, chosen: NDArray[np.int64], count: int, step: Points
) -> Brood:
    """Breed once more, from the children that the surrogate liked: nearer to each other, in smaller steps.

    Args:
        rng: source of the draws.
        space: the genes.
        brood: all children so far.
        chosen: rows of `brood`, one or more.
        count: M.
        step: (D,) standard deviation of each gene's step.
    """
    rows = chosen[rng.integers(len(chosen), size=count)]
    mates = chosen[rng.integers(len(chosen), size=count)]
    points, genes = brood.points[rows], len(space)
    toward = rng.uniform(-0.3, 0.7, (count, 1)) * (rng.random((count, 1)) < 0.4)
    rate = np.where(rng.random((count, 1)) < 0.5, 0.3, 1.0)
    mask = rng.random((count, genes)) < rate
    moved = points + toward * (brood.points[mates] - points)
    moved = moved + mask * rng.normal(size=(count, genes)) * step
    own = np.where(toward > 0.35, brood.points[mates], points)
    moved = _choose(rng, space, moved, own, mask & (rng.random((count, genes)) < 0.2))
    return Brood(settle(space, reflect(moved)), brood.kinds[rows], brood.parents[rows])


def settle(space: Space, points: Points) -> Points:
    """Move whole numbers and choices to the coordinates they stand for, so that a surrogate sees what is tried."""
    settled = points.copy()
    for index, gene in enumerate(space.genes):
        if gene.integer or gene.choices:
            settled[:, index] = [gene.encode(gene.decode(unit)) for unit in points[:, index].tolist()]
    return settled


def _choose(
    rng: np.random.Generator, space: Space, points: Points, inherited: Points, mask: NDArray[np.bool_]
) -> Points:
    """Choices have no between and no step: they are inherited from one parent, or drawn anew where `mask` says."""
    unordered = space.unordered
    if not unordered.any():
        return points
    drawn = np.where(mask & (rng.random(points.shape) < 0.5), rng.random(points.shape), inherited)
    return np.where(unordered, drawn, points)
