"""Genetic refinement of anchors, in log space.

A population of anchor sets is bred for a few generations. What makes few enough:

- the first population is good already: swap search over the shapes from several k-means++ like seedings, and k-means;
- a child takes the anchors of both parents together and drops the ones that are missed least, so that what each
  parent solved in its own corner of the plane survives;
- a mutation moves some anchors by a step of a drawn scale, or one anchor to a shape that is served badly;
- children that come out well learn before they compete: a few sweeps of small moves (a memetic algorithm).

Sizes, not patience, bound the cost: it works on weighted bins, and leaves the last digits to the caller.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from anchors.bins import Bins, Floats, compress
from anchors.kmeans import kmeans, seed_indices
from anchors.local import drop_to, polish, swap_search
from anchors.metrics import AnchorError
from anchors.objective import Objective, distances, evaluate_population

_GAIN = 1e-7  # of worth: less doesn't count as progress
_DIGITS = 12  # of worth: the rest is rounding, and differs between machines
_NICHE = 0.04  # two sets of which no anchor is further from the other's than this are taken for one
_SMALLEST, _LARGEST = 0.003, 0.2  # scale of a mutation, in log space
_PAIRS = 200  # of shapes, at least, that suggest a place between them
_INSIDE = 1 - 1e-6  # just inside the reach, which ends before the threshold
_JUMPS = 0.25  # share of children with an anchor moved to another shape


@dataclass(frozen=True)
class GeneticSettings:
    """Sizes of the search; the defaults suit up to about twenty anchors.

    Attributes:
        seedings: Swap searches in the first population.
        population: Sets that survive a generation.
        children: Sets born in a generation.
        generations: Most generations.
        patience: Generations without gain after which it stops.
        learners: Children of a generation that are polished.
        coarse: Most bins in the swap search, whose table has that many rows and columns.
        fine: Most bins in the rest.
    """

    seedings: int = 16
    population: int = 12
    children: int = 24
    generations: int = 20
    patience: int = 5
    learners: int = 10
    coarse: int = 400
    fine: int = 1500

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if value < 1:
                raise AnchorError(f"{name} must be at least 1, but got {value}")


def refine(
    bins: Bins,
    k: int,
    objective: Objective,
    rng: np.random.Generator,
    *,
    seeds: Sequence[Floats] = (),
    settings: GeneticSettings | None = None,
    progress: Callable[[float], None] | None = None,
) -> list[Floats]:
    """Breed sets of k anchors that raise the objective.

    Args:
        bins: The shapes, at least k of them.
        k: Anchors in a set, at least 1.
        objective: What to raise.
        rng: Draws everything that is drawn.
        seeds: Sets (k, 2), logarithms of px, that join the first population.
        settings: Sizes of the search.
        progress: Told the share done, rising to 1.

    Returns:
        The last population, best first: arrays (k, 2), logarithms of px. Their order is that of the fine bins, so the
        caller that wants the best on all boxes scores a few of them there.

    Raises:
        AnchorError: there are fewer than k shapes.
    """
    if len(bins) < k:
        raise AnchorError(f"{k} anchors need at least as many distinct shapes, but there are {len(bins)}")
    sizes = settings or GeneticSettings()
    tell = progress or _silent
    fine = compress(bins, max(sizes.fine, 4 * k))
    first = [*seeds, *_first_population(compress(fine, max(sizes.coarse, 4 * k)), k, objective, rng, sizes)]
    tell(0.2)
    learnt = [polish(member, fine, objective, rng, radius=0.1, sweeps=6)[0] for member in first]
    population, worth = _survivors(np.stack([*seeds, *learnt]), fine, objective, sizes.population)
    tell(0.4)
    idle = 0
    for generation in range(sizes.generations):
        children = _breed(population, fine, objective, rng, sizes)
        best = worth[0]
        population, worth = _survivors(
            np.concatenate([population, children]), fine, objective, sizes.population
        )
        idle = 0 if worth[0] > best + _GAIN else idle + 1
        tell(0.4 + 0.6 * (generation + 1) / sizes.generations)
        if idle >= sizes.patience:
            break
    tell(1.0)
    return list(population)


def _first_population(
    coarse: Bins, k: int, objective: Objective, rng: np.random.Generator, sizes: GeneticSettings
) -> list[Floats]:
    wh, places = np.exp(coarse.logs), _places(coarse, objective, rng)
    ratio = objective.ratio(distances(places, coarse.logs))
    members = [np.log(kmeans(wh, k, rng, weights=coarse.weights, restarts=2, rounds=30))]
    for _ in range(sizes.seedings):
        seeds = seed_indices(wh, k, rng, coarse.weights)
        members.append(places[swap_search(seeds, ratio, coarse.weights, objective)])
    return members


def _places(coarse: Bins, objective: Objective, rng: np.random.Generator) -> Floats:
    """Where the swap search may put an anchor, (m, 2): the shapes first.

    Fitness is highest at shapes. But where recall counts more, an anchor may do best between shapes, with some of
    them at the very edge of its reach: then half-ways between two shapes are added, and places that have one shape's
    width and another's height at the edge, which is where a square that covers the most can always be moved to.
    """
    if not objective.bonus:
        return coarse.logs
    one, other = rng.integers(len(coarse), size=(2, max(len(coarse), _PAIRS)))
    edge = objective.reach * _INSIDE * rng.choice([-1.0, 1.0], size=(len(one), 2))
    corners = np.stack([coarse.logs[one, 0], coarse.logs[other, 1]], axis=1) + edge
    return np.concatenate([coarse.logs, (coarse.logs[one] + coarse.logs[other]) / 2, corners])


def _survivors(candidates: Floats, bins: Bins, objective: Objective, most: int) -> tuple[Floats, Floats]:
    """The best sets, best first, no two of them near each other: one a hill, so the population stays wide."""
    worth = evaluate_population(candidates, bins, objective)
    kept: list[int] = []
    for index in np.argsort(-np.round(worth, _DIGITS), kind="stable"):
        if not kept or _gaps(candidates[index], candidates[kept]).min() > _NICHE:
            kept.append(int(index))
        if len(kept) == most:
            break
    return candidates[kept], worth[kept]


def niches(candidates: Floats, bins: Bins, objective: Objective, most: int) -> list[Floats]:
    """The best sets of (C, k, 2) candidates, best first, no two of them near each other."""
    return list(_survivors(candidates, bins, objective, most)[0])


def _gaps(anchors: Floats, others: Floats) -> Floats:
    """How far sets (m, k, 2) are from one set (k, 2): the largest distance of an anchor to the other's nearest."""
    table = np.abs(others[:, :, None] - anchors).max(axis=-1)
    gaps: Floats = np.maximum(table.min(axis=1).max(axis=1), table.min(axis=2).max(axis=1))
    return gaps


def _breed(
    population: Floats, bins: Bins, objective: Objective, rng: np.random.Generator, sizes: GeneticSettings
) -> Floats:
    """Children of a population sorted best first; the most promising of them polished."""
    children = mutate(_cross(population, sizes.children, bins, objective, rng), bins, objective, rng)
    worth = evaluate_population(children, bins, objective)
    for index in np.argsort(-np.round(worth, _DIGITS), kind="stable")[: sizes.learners]:
        children[index], _ = polish(children[index], bins, objective, rng, radius=0.05, sweeps=3)
    return children


def _cross(
    population: Floats, count: int, bins: Bins, objective: Objective, rng: np.random.Generator
) -> Floats:
    """Children (count, k, 2), each the best of two parents' anchors; a tournament of two draws a parent."""
    k = population.shape[1]
    # The population is sorted, so the lower of two indices is the better parent.
    parents = rng.integers(len(population), size=(count, 2, 2)).min(axis=2)
    return np.stack([drop_to(np.concatenate(population[pair]), k, bins, objective) for pair in parents])


def mutate(children: Floats, bins: Bins, objective: Objective, rng: np.random.Generator) -> Floats:
    """Move some anchors of every child by a step, and one anchor of some children to a badly served shape.

    Args:
        children: (C, k, 2) logarithms of px; not edited.
        bins: The shapes.
        objective: What tells a badly served shape.
        rng: Draws.

    Returns:
        (C, k, 2).
    """
    count, k, _ = children.shape
    scale = np.exp(rng.uniform(np.log(_SMALLEST), np.log(_LARGEST), size=(count, 1, 1)))
    moved = rng.random((count, k, 1)) < rng.uniform(1 / k, 1, size=(count, 1, 1))
    mutants: Floats = children + moved * scale * rng.standard_normal(children.shape)
    for child in np.flatnonzero(rng.random(count) < _JUMPS):
        ratio = objective.ratio(distances(mutants[child], bins.logs).min(axis=0))
        odds = bins.weights * (1 - ratio + min(objective.bonus, 1.0) * (ratio == 0))
        if odds.any():
            mutants[child, rng.integers(k)] = bins.logs[rng.choice(len(bins), p=odds / odds.sum())]
    return mutants


def _silent(_share: float) -> None:
    """Progress that nobody asked for."""
