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
    values = _checked(objectives)
    at_least = (values[:, None] >= values[None]).all(axis=2)
    better = (values[:, None] > values[None]).any(axis=2)
    return np.asarray((at_least & better).any(axis=0), dtype=np.bool_)


def fronts(objectives: ArrayLike) -> NDArray[np.int64]:
    """The front (N,) of each row: 0 for those that none beats, 1 for those that only front 0 beats, and so on.

    Source: Deb et al. 2002 (NSGA-II), non-dominated sorting.
    """
    values = _checked(objectives)
    front = np.zeros(len(values), dtype=np.int64)
    left = np.arange(len(values))
    number = 0
    while len(left):
        beaten = dominated(values[left])
        front[left[~beaten]] = number
        left = left[beaten]
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


def _checked(objectives: ArrayLike) -> Objectives:
    values = np.asarray(objectives, dtype=np.float64)
    if values.size == 0:
        return values.reshape(0, max(values.shape[-1] if values.ndim > 1 else 1, 1))
    if values.ndim != 2 or not np.isfinite(values).all():
        raise ValueError(f"objectives must be finite numbers (N, K), but got an array of {values.shape}")
    return values
