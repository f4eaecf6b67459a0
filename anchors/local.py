"""Moves of one anchor while the others stay: relocation to any shape, and small steps.

Both rest on one saving: with the nearest and second nearest anchor of every shape at hand, what a move of one anchor
changes is known without looking at the others again.
"""

import numpy as np
from numpy.typing import NDArray

from anchors.bins import Bins, Floats
from anchors.objective import Objective, distances, two_nearest

_RING = np.array([(x, y) for x in (-1.0, 0.0, 1.0) for y in (-1.0, 0.0, 1.0) if x or y])
_DRAWN = 4  # random directions beside the ring's eight
_GROW, _SHRINK = 1.5, 0.5  # of an anchor's step after a move that helped, and after none did
_GAIN = 1e-12  # less is rounding


def swap_search(
    chosen: NDArray[np.intp], worth: Floats, weights: Floats, rounds: int = 100
) -> NDArray[np.intp]:
    """Relocate one anchor at a time to the place where it gains most, until none gains.

    Every pair of (place, anchor to move there) is judged in each round, at a cost of only m × n operations.

    Args:
        chosen: (k,) indices of the places that are the first anchors.
        worth: (m, n), ``[i, j]`` is the worth of an anchor at place i for shape j, at least 0.
        weights: (n,) positive.
        rounds: Most relocations.

    Returns:
        (k,) indices of places.

    Source:
        Partitioning around medoids (Kaufman and Rousseeuw, 1987) with the removal losses shared between candidates,
        as FastPAM does (Schubert and Rousseeuw, 2019).
    """
    chosen = chosen.copy()
    columns = np.arange(len(weights))
    for _ in range(rounds):
        nearest, second = two_nearest(-worth[chosen])
        best = worth[chosen[nearest], columns]
        next_best = worth[chosen[second], columns] if len(chosen) > 1 else np.zeros(len(weights))
        with_new = np.maximum(worth, best)
        # Removing an anchor costs only the shapes whose best it was: sums over runs of columns in order of anchors.
        lost = (np.maximum(worth, next_best) - with_new) * weights
        order = np.argsort(nearest, kind="stable")
        present, starts = np.unique(nearest[order], return_index=True)
        change = np.zeros((len(worth), len(chosen)))
        change[:, present] = np.add.reduceat(lost[:, order], starts, axis=1)
        change += np.einsum("ij,j->i", with_new - best, weights)[:, None]
        place, old = np.unravel_index(int(change.argmax()), change.shape)
        if change[place, old] <= _GAIN:
            break
        chosen[old] = place
    return chosen


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
        worth = objective.worth(table[nearest, columns]) - objective.worth(table[second, columns])
        missed = np.bincount(nearest, bins.weights * worth, minlength=len(anchors))
        least = int(np.where(kept, missed, np.inf).argmin())
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
    touched = np.flatnonzero(rest > own - np.abs(steps).max())
    rest, weights = rest[touched], bins.weights[touched]
    places = np.concatenate([anchor[None], anchor + steps])
    worth = objective.mean(np.minimum(distances(places, bins.logs[touched]), rest), weights)
    best = int(worth.argmax())
    return places[best] if worth[best] > worth[0] + _GAIN else None
