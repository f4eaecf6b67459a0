"""Problems drawn by chance, to choose the search's settings on: no two alike, and none that the benchmark reports.

`drawn_problem(seed)` draws everything: how many genes and of which kinds, the shape of the landscape, how the fitness
saturates, where the optimum lies, how noisy a look is, and whether a part of the space fails. So a setting is judged
on what searches have in common, and not on one function.
"""

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from benchmarks.search_problems import Cost, Points, Problem, turn, unit_space
from evolve import Gene, Space

_DRAWS = 1500  # random points for the median and for the way to an optimum that has no formula
_SEARCHED = 4  # of them the starts of a descent


def drawn_problem(seed: int) -> Problem:
    """Draw a problem."""
    rng = np.random.default_rng([seed, 20])
    genes = int(rng.integers(6, 30))
    space = _some_whole(unit_space(genes, rng), rng)
    start = space.encode(space.start)
    where = rng.choice(["start", "near", "far"], p=[0.15, 0.45, 0.4])
    optimum = rng.uniform(0.08, 0.92, genes)
    if where == "near":
        optimum = np.clip(np.abs(start + rng.normal(0, rng.uniform(0.05, 0.2), genes)), 0.0, 1.0)
    elif where == "start":
        optimum = start
    shape = _SHAPES[int(rng.integers(len(_SHAPES)))]
    cost = shape(genes, rng)
    draws = rng.random((_DRAWS, genes))
    costs = np.array([cost(unit - optimum) for unit in draws])
    least = min(_least(lambda unit: cost(unit - optimum), draws, costs, optimum), float(costs.min()))
    scale = float(np.median(costs)) - least
    saturate = _SATURATIONS[int(rng.integers(len(_SATURATIONS)))]
    # The median random point is worth 0.15 to 0.6 of the best.
    median = float(rng.uniform(0.15, 0.6))
    strength = float(_strength(saturate, median))
    wall, edge = _wall(genes, rng, optimum, start)

    def value(unit: Points) -> float | None:
        if float(wall @ unit) > edge:
            return None
        return float(saturate(strength * max(cost(unit - optimum) - least, 0.0) / scale))

    return Problem(space, value, float(rng.choice([0.005, 0.01, 0.02, 0.04])), 1.0, median)


def _some_whole(space: Space, rng: np.random.Generator) -> Space:
    """In a third of the spaces, some genes are whole numbers."""
    if rng.random() > 1 / 3:
        return space
    return Space(
        Gene(gene.name, 1, 12, start=int(rng.integers(1, 13)), integer=True) if rng.random() < 0.15 else gene
        for gene in space.genes
    )


def _wall(
    genes: int, rng: np.random.Generator, optimum: Points, start: Points
) -> tuple[NDArray[np.float64], float]:
    """In a quarter of the problems trials fail beyond a plane that neither the optimum nor the start lies behind."""
    wall = rng.exponential(1.0, genes) * (rng.random(genes) < 0.4) * rng.choice([-1.0, 1.0], genes)
    reach = max(float(wall @ optimum), float(wall @ start)) + rng.uniform(0.02, 0.2) * float(
        np.abs(wall).sum()
    )
    return wall, reach if rng.random() < 0.25 else math.inf


def _least(cost: Cost, draws: Points, costs: NDArray[np.float64], optimum: Points) -> float:
    """The least cost that descents from the best draws and from the nominal optimum reach."""
    starts = [optimum, *draws[np.argsort(costs)[:_SEARCHED]]]
    found = [
        minimize(cost, begin, method="L-BFGS-B", bounds=[(0, 1)] * len(begin), options={"maxiter": 20}).fun
        for begin in starts
    ]
    return float(min(found))


# --- how a fitness saturates with the cost: 1 at cost 0, falling ----------------------------------------------------

_SATURATIONS: tuple[Callable[[float], float], ...] = (
    lambda c: math.exp(-c),
    lambda c: 1 / (1 + c),
    lambda c: max(1 - c, 0.0),
    lambda c: 1 / (1 + c * c),
    lambda c: math.exp(-math.sqrt(c)),
)


def _strength(saturate: Callable[[float], float], median: float) -> float:
    """What the cost must be for a fitness of `median`, by bisection."""
    low, high = 0.0, 1e3
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if saturate(middle) > median else (low, middle)
    return high


# --- shapes: costs of offsets from the nominal optimum --------------------------------------------------------------


def _power(genes: int, rng: np.random.Generator) -> Cost:
    """A valley with one exponent, its axes turned in some pairs, and a few to many genes of weight."""
    weights = rng.lognormal(0, rng.uniform(0.3, 2.0), genes)
    exponent = float(rng.choice([1.0, 1.5, 2.0]))
    axes = np.eye(genes)
    for _ in range(int(rng.integers(0, genes + 1))):
        i, j = rng.choice(genes, 2, replace=False)
        angle = rng.uniform(0, math.pi / 2)
        rows = axes[[i, j]]
        axes[i] = math.cos(angle) * rows[0] + math.sin(angle) * rows[1]
        axes[j] = -math.sin(angle) * rows[0] + math.cos(angle) * rows[1]
    return lambda z: float(np.sum(weights * np.abs(axes @ z) ** exponent))


def _sparse(genes: int, rng: np.random.Generator) -> Cost:
    """Three to six genes matter, the others do nothing."""
    live = rng.permutation(genes)[: int(rng.integers(3, 7))]
    axes, weights = turn(len(live), rng), rng.lognormal(0, 1, len(live))
    return lambda z: float(np.sum(weights * (axes @ z[live]) ** 2))


def _waves(genes: int, rng: np.random.Generator) -> Cost:
    """A random smooth function: cosines whose frequencies differ by gene; many hills."""
    reach = rng.lognormal(0, 0.7, genes) * rng.uniform(1.0, 4.0) / math.sqrt(genes)
    frequencies = rng.normal(size=(60, genes)) * reach * 2.0
    phases = rng.uniform(0, 2 * math.pi, 60)
    return lambda z: float(-np.mean(np.cos(frequencies @ z + phases)) * 4)


def _network(genes: int, rng: np.random.Generator) -> Cost:
    """A random network of one hidden layer."""
    first = rng.normal(size=(24, genes)) * rng.lognormal(0, 0.7, genes) * 1.5
    second, shift = rng.normal(size=24), rng.normal(size=24)
    return lambda z: float(second @ np.tanh(first @ z + shift))


def _additive(genes: int, rng: np.random.Generator) -> Cost:
    """Each gene alone: a slope or two of its own steepness on either side, a ripple on some."""
    left, right = rng.lognormal(0, 1, genes), rng.lognormal(0, 1, genes)
    ripple = 0.05 * rng.random(genes) * (rng.random(genes) < 0.3)
    power = rng.choice([1.0, 2.0, 3.0], genes)
    return lambda z: float(
        np.sum(np.where(z < 0, left, right) * np.abs(z) ** power + ripple * (1 - np.cos(14 * z)))
    )


def _hills(genes: int, rng: np.random.Generator) -> Cost:
    """The best of a few hills, one of them the highest."""
    centres = np.vstack([np.zeros(genes), rng.normal(0, 0.35, (4, genes))])
    heights = np.array([0.0, *rng.uniform(0.1, 0.6, 4)])
    weights = rng.lognormal(0, 0.8, genes) * 4 / genes
    return lambda z: float(np.min(heights + ((z - centres) ** 2 * weights).sum(1)))


def _valley(genes: int, rng: np.random.Generator) -> Cost:
    """A bent valley: pairs of genes must follow each other's square."""
    pairs = rng.permutation(genes)[: 2 * (genes // 2)].reshape(-1, 2)
    bend, weights = rng.uniform(0.5, 2.0, len(pairs)), rng.lognormal(0, 0.5, len(pairs))
    i, j = pairs.T
    return lambda z: float(
        np.sum(weights * (4 * (z[j] - bend * z[i] ** 2 - 0.3 * z[i]) ** 2 + 0.3 * z[i] ** 2))
    )


def _needle(genes: int, rng: np.random.Generator) -> Cost:
    """A wide bowl with a narrow one inside, and cross talk of all genes."""
    axes = turn(genes, rng) * rng.lognormal(0, 0.8, genes)[:, None]
    narrow = rng.uniform(2.0, 6.0)

    def cost(z: Points) -> float:
        square = float(np.sum((axes @ z) ** 2))
        return square / genes + 0.3 * (1 - math.exp(-narrow * square))

    return cost


_SHAPES: tuple[Callable[[int, np.random.Generator], Cost], ...] = (
    _power,
    _sparse,
    _waves,
    _network,
    _additive,
    _hills,
    _valley,
    _needle,
)
