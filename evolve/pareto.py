"""Several objectives at once: which configurations no other beats in everything, and how to breed towards them.

All objectives here are maximised; what should be small (latency, parameters) is negated by whoever knows it.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

Objectives = NDArray[np.float64]


def dominated(objectives: ArrayLike) -> NDArray[np.bool_]:
    """Which rows (N,) some other row beats: as good in every objective (N, K), better in one.

    >>> dominated([[1, 0], [0, 1], [0, 0]]).tolist()
    [False, False, True]
    """
    return np.asarray(_beats(_checked(objectives)).any(axis=0), dtype=np.bool_)


def fronts(objectives: ArrayLike) -> NDArray[np.int64]:
    """The front (N,) of each row: 0 for those that none beats, 1 for those that only front 0 beats, and so on.

    Source: Deb et al. 2002 (NSGA-II), non-dominated sorting.
    """
    beats = _beats(_checked(objectives))
    front = np.zeros(len(beats), dtype=np.int64)
    beaten_by, left = beats.sum(axis=0), np.ones(len(beats), dtype=np.bool_)
    number = 0
    while left.any():
        best = left & (beaten_by == 0)
        front[best] = number
        beaten_by -= beats[best].sum(axis=0)
        left &= ~best
        number += 1
    return front


def crowding(objectives: ArrayLike) -> NDArray[np.float64]:
    """How alone each row (N,) of one front is: the sum of the gaps between its neighbours, infinite at the ends.

    Source: Deb et al. 2002 (NSGA-II), crowding distance.
    """
    values = _checked(objectives)
    alone = np.zeros(len(values))
    for column in values.T:
        order = np.argsort(column, kind="stable")
        spread = float(column[order[-1]] - column[order[0]]) if len(order) else 0.0
        if len(order):
            alone[order[[0, -1]]] = np.inf
        if spread > 0:
            alone[order[1:-1]] += (column[order[2:]] - column[order[:-2]]) / spread
    return alone


def ranking(objectives: ArrayLike) -> NDArray[np.int64]:
    """Rows (N,), the best first: by front, and within a front those that are more alone first, then the earlier."""
    values = _checked(objectives)
    front = fronts(values)
    alone = np.zeros(len(values))
    for number in np.unique(front):
        alone[front == number] = crowding(values[front == number])
    return np.lexsort((np.arange(len(values)), -alone, front)).astype(np.int64)


def one_score(objectives: ArrayLike) -> NDArray[np.float64]:
    """What a search of one fitness is told (N,): the place in `ranking`, from 1 for the best down to 0.

    Everything that ranks fitnesses (selection, the rank-normalised surrogate) then follows NSGA-II.
    """
    order = ranking(objectives)
    score = np.empty(len(order))
    score[order] = np.linspace(1.0, 0.0, len(order)) if len(order) > 1 else 1.0
    return score


def _beats(values: Objectives) -> NDArray[np.bool_]:
    """Whether row i beats row j (N, N): as good in every objective, better in one."""
    at_least = np.ones((len(values), len(values)), dtype=np.bool_)
    better = ~at_least
    for column in values.T:
        at_least &= column[:, None] >= column
        better |= column[:, None] > column
    return at_least & better


def _checked(objectives: ArrayLike) -> Objectives:
    values = np.asarray(objectives, dtype=np.float64)
    if values.size == 0:
        return values.reshape(0, max(values.shape[-1] if values.ndim > 1 else 1, 1))
    if values.ndim != 2 or not np.isfinite(values).all():
        raise ValueError(f"objectives must be finite numbers (N, K), but got an array of {values.shape}")
    return values
