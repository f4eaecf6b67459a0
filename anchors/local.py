"""Moves of one anchor while the others stay: relocation to any shape, and small steps.

Both rest on one saving: with the nearest and second nearest anchor of every shape at hand, what a move of one anchor
changes is known without looking at the others again.
"""

import numpy as np
from numpy.typing import NDArray

from anchors.bins import Bins, Floats
from anchors.objective import Objective, distances, first_best, two_nearest

_RING = np.array([(x, y) for x in (-1.0, 0.0, 1.0) for y in (-1.0, 0.0, 1.0) if x or y])
_DRAWN = 4  # random directions beside the ring's eight
_GROW, _SHRINK = 1.5, 0.5  # of an anchor's step after a move that helped, and after none did
_GAIN = 1e-11  # less is rounding


def swap_search(
    chosen: NDArray[np.intp], ratio: Floats, weights: Floats, objective: Objective, rounds: int = 100
) -> NDArray[np.intp]:
    """Relocate one anchor at a time to the place where it gains most, until none gains.

    Every pair of (place, anchor to move there) is judged in each round, at a cost of only m × n operations.

    Args:
        chosen: (k,) indices of the places that are the first anchors.
        ratio: (m, n), ``[i, j]`` is the ratio of an anchor at place i with shape j, 0 out of reach.
        weights: (n,) positive.
        objective: What to raise.
        rounds: Most relocations.

    Returns:
        (k,) indices of places.

    Source:
        Partitioning around medoids (Kaufman and Rousseeuw, 1987) with the removal losses shared between candidates,
        as FastPAM does (Schubert and Rousseeuw, 2019).
    """
    chosen = chosen.copy()
    tables = [ratio, (ratio > 0).astype(np.float64)] if objective.bonus else [ratio]
    for _ in range(rounds):
        nearest, second = two_nearest(-ratio[chosen])
        parts = [_after_swaps(table, chosen, nearest, second, weights) for table in tables]
        fitness, recall = parts[0], parts[-1]
        worth = objective.worth(fitness[0], recall[0]).ravel()
        now = float(objective.worth(np.asarray(fitness[1]), np.asarray(recall[1])))
        best = first_best(worth)
        if worth[best] <= now + _GAIN:
            break
        place, old = np.unravel_index(best, fitness[0].shape)
        chosen[old] = place
    return chosen


def _after_swaps(
    table: Floats,
    chosen: NDArray[np.intp],
    nearest: NDArray[np.intp],
    second: NDArray[np.intp],
    weights: Floats,
) -> tuple[Floats, float]:
    """Mean of a table's best value after each swap, (m, k) by place and anchor to move there, and the mean now."""
    columns = np.arange(len(weights))
    best = table[chosen[nearest], columns]
    next_best = table[chosen[second], columns] if len(chosen) > 1 else np.zeros(len(weights))
    with_new = np.maximum(table, best)
    # Removing an anchor costs only the shapes whose best it was: sums over runs of columns in order of anchors.
    lost = (np.maximum(table, next_best) - with_new) * weights
    order = np.argsort(nearest, kind="stable")
    present, starts = np.unique(nearest[order], return_index=True)
    after = np.zeros((len(table), len(chosen)))
    after[:, present] = np.add.reduceat(lost[:, order], starts, axis=1)
    after += np.einsum("ij,j->i", with_new, weights)[:, None]
    return after, float((best * weights).sum())


def drop_to(anchors: Floats, k: int, bins: Bins, objective: Objective) -> Floats:
    """Leave out anchors one by one, each time the one that is missed least, until k are left.

    Args:
        anchors: (m, 2) logarithms of px, m at least k.
        k: At least 1.
        bins: The shapes.
        objective: What an anchor is missed by.

    Returns:
        (k, 2) in the order given.
    """
    table = distances(anchors, bins.logs)
    nearest, second = two_nearest(table)
    columns = np.arange(len(bins))
    kept = np.ones(len(anchors), dtype=bool)
    while kept.sum() > k:
        near, far = table[nearest, columns], table[second, columns]
        lost = bins.weights * (objective.ratio(near) - objective.ratio(far))
        missed = np.bincount(nearest, lost, minlength=len(anchors)).astype(np.float64)
        worth: Floats = -missed
        if objective.bonus:
            within = near < objective.reach
            last = bins.weights * (within & ~(far < objective.reach))
            needed = np.bincount(nearest, last, minlength=len(anchors)).astype(np.float64)
            worth = objective.worth(-missed, (bins.weights * within).sum() - needed)
        least = first_best(np.where(kept, worth, -np.inf))
        kept[least], table[least] = False, np.inf
        # Only the shapes that had it for one of their two need to look again.
        orphans = np.flatnonzero((nearest == least) | (second == least))
        nearest[orphans], second[orphans] = two_nearest(table[:, orphans])
    return anchors[kept]


def polish(
    anchors: Floats,
    bins: Bins,
    objective: Objective,
    rng: np.random.Generator,
    *,
    radius: float,
    sweeps: int,
    until: float = 5e-4,
) -> tuple[Floats, float]:
    """Move the anchors in turn by small steps, each to the best of twelve places around it, if one is better.

    An anchor's step grows when it moves and shrinks when it stays. A move is judged on the boxes that it can change:
    those to which the anchor, moved, could be the nearest.

    Args:
        anchors: (k, 2) logarithms of px; not edited.
        bins: The shapes.
        objective: What to raise.
        rng: Draws a third of the directions.
        radius: First step, in log space.
        sweeps: Most passes over all anchors.
        until: Stop when all steps are smaller than this.

    Returns:
        (k, 2) anchors, never worse than those given, and their mean worth.
    """
    anchors = anchors.copy()
    table = distances(anchors, bins.logs)
    radii = np.full(len(anchors), radius)
    for _ in range(sweeps):
        for j in range(len(anchors)):
            place = _best_step(anchors[j], table, j, bins, objective, radii[j] * _directions(rng))
            if place is None:
                radii[j] *= _SHRINK
            else:
                anchors[j] = place
                table[j] = distances(place[None], bins.logs)[0]
                radii[j] *= _GROW
        if radii.max() < until:
            break
    return anchors, float(objective.mean(table.min(axis=0), bins.weights))


def _directions(rng: np.random.Generator) -> Floats:
    return np.concatenate([_RING, rng.standard_normal((_DRAWN, 2))])


def _best_step(
    anchor: Floats, table: Floats, j: int, bins: Bins, objective: Objective, steps: Floats
) -> Floats | None:
    """The best of the places ``anchor + steps`` for anchor j, or None when it is best where it is."""
    own = table[j].copy()
    table[j] = np.inf  # for a moment: cheaper than a copy of the table without the row
    rest = table.min(axis=0)
    table[j] = own
    reaches = np.flatnonzero(rest > own - np.abs(steps).max())
    recall = 0.0
    if objective.bonus:  # of the boxes that stay as they are: a recall that is enough is worth no more
        now = np.minimum(rest, own) < objective.reach
        recall = float((bins.weights * now).sum() - (bins.weights[reaches] * now[reaches]).sum())
    rest, weights = rest[reaches], bins.weights[reaches]
    places = np.concatenate([anchor[None], anchor + steps])
    fitness, more = objective.sums(np.minimum(distances(places, bins.logs[reaches]), rest), weights)
    worth = objective.worth(fitness, recall + more)
    best = first_best(worth)
    return places[best] if worth[best] > worth[0] + _GAIN else None
