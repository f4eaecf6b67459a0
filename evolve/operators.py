"""Genetic operators on encoded points: pure functions of a generator and arrays in [0, 1].

A point is an array (D,), one coordinate a gene; a population is an array (N, D), fittest first.
"""

import numpy as np
from numpy.typing import NDArray

Points = NDArray[np.float64]


def reflect(points: Points) -> Points:
    """Fold coordinates back into [0, 1] at the bounds, as a ray between two mirrors.

    Clipping would pile the mutants of a gene near its bound on the bound itself.

    Args:
        points: any shape, any finite values.
    """
    folded = np.mod(points, 2.0)
    return np.where(folded > 1.0, 2.0 - folded, folded)


def latin(rng: np.random.Generator, count: int, genes: int) -> Points:
    """Draw points (count, genes) so that each gene has one in each of `count` equal slices of [0, 1].

    Source: McKay, Beckman, Conover 1979 (Latin hypercube sampling).
    """
    slices = rng.permuted(np.tile(np.arange(count, dtype=np.float64), (genes, 1)), axis=1).T
    points: Points = (slices + rng.random((count, genes))) / max(count, 1)
    return points


def select(rng: np.random.Generator, population: int, count: int, pressure: float) -> NDArray[np.int64]:
    """Draw `count` different members by rank.

    Args:
        rng: source of the draw.
        population: members, the fittest first; at least `count`.
        count: members drawn.
        pressure: 0 draws all alike; the member of rank r (from 0) weighs exp(-pressure * r / population).

    Returns:
        Ranks (count,), in the order drawn.
    """
    weights = np.exp(-pressure * np.arange(population) / max(population, 1))
    return rng.choice(population, size=count, replace=False, p=weights / weights.sum())


def cross(rng: np.random.Generator, first: Points, second: Points, extension: float) -> Points:
    """Blend two parents gene by gene: a child coordinate lies between them or up to `extension` beyond.

    Source: Eshelman, Schaffer 1993 (BLX-alpha).

    Args:
        rng: source of the draw.
        first: parent (D,).
        second: parent (D,).
        extension: alpha, as a fraction of the parents' distance; 0.5 keeps a population's spread.

    Returns:
        Child (D,), which may leave [0, 1]: reflect it.
    """
    share = rng.uniform(-extension, 1.0 + extension, size=first.shape)
    child: Points = first + share * (second - first)
    return child


def recombine(rng: np.random.Generator, centre: Points, parents: Points, expansion: float) -> Points:
    """Step from `centre` along the differences of several parents, so that the step follows how genes go together.

    Source: Akimoto et al. 2009 (REX): a sum of each parent's offset from their mean, by a normal factor. It has the
    covariance of the parents, and so knows a ridge that is no gene's own axis.

    Args:
        rng: source of the draw.
        centre: (D,), where the child is bred around.
        parents: (K, D), K >= 2.
        expansion: standard deviation of the step, as a multiple of the parents' own.

    Returns:
        Child (D,), which may leave [0, 1]: reflect it.
    """
    offsets = parents - parents.mean(axis=0)
    factors = rng.normal(0.0, expansion / np.sqrt(max(len(parents) - 1, 1)), size=len(parents))
    child: Points = centre + factors @ offsets
    return child


def mutate(rng: np.random.Generator, point: Points, step: Points | float, rate: float) -> Points:
    """Add a normal step to some of the genes, at least one.

    Args:
        rng: source of the draw.
        point: (D,).
        step: standard deviation, for all genes or one each (D,).
        rate: probability that a gene mutates.

    Returns:
        Mutant (D,), which may leave [0, 1]: reflect it.
    """
    mask = rng.random(point.shape) < rate
    if point.size:
        mask[rng.integers(point.size)] = True
    mutant: Points = point + mask * rng.normal(0.0, 1.0, size=point.shape) * step
    return mutant


def nearest(point: Points, others: Points) -> float:
    """Distance to the nearest other: root mean square over genes, so in [0, 1]; infinite where there is none."""
    if not len(others):
        return float("inf")
    return float(np.sqrt(np.mean((others - point) ** 2, axis=1).min()))
