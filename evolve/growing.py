"""Children led uphill: the best of a brood go to where, close by, a surrogate promises most of all.

A child inherits its genes and learns in its life, and hands on what it learnt: Lamarck's way, which costs nothing
where a surrogate is asked and no training. Whole numbers and choices stay as they were bred.
"""

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from evolve.brood import Brood, settle
from evolve.operators import Points
from evolve.space import Space
from evolve.surrogate import Process, improvement_slopes

_STEPS = 40  # of a descent at most
_APART = 0.05  # root mean square over genes between two that are led
_LONGEST = 3.0  # scale of a gene in the descent; its length where that is shorter


def grow(
    space: Space, process: Process, best: float, brood: Brood, promise: Points, count: int
) -> Brood | None:
    """Lead the most promising children to where the expected improvement has its nearest maximum.

    Args:
        space: the genes.
        process: what is believed, open trials included.
        best: what is to be improved on, as the process scores.
        brood: all children.
        promise: (M,) what each promises.
        count: how many are led at most; those close to a better one are not.

    Returns:
        The led children, of the kinds and parents they were bred from; None where no gene is a real number.
    """
    free = np.array([not (gene.integer or gene.choices) for gene in space.genes])
    if not count or not free.any():
        return None
    rows = _apart(brood.points, promise, count)
    columns = _columns(space)[free]
    scale = np.minimum(process.kernel.lengths[columns], _LONGEST)
    grown = brood.points[rows]
    for child, features in zip(grown, space.features(grown), strict=True):
        begin = child[free] / scale
        fall = _Fall(process, best, features.copy(), columns, scale)
        bounds = [(0.0, 1.0 / each) for each in scale.tolist()]
        found = minimize(fall, begin, jac=True, method="L-BFGS-B", bounds=bounds, options={"maxiter": _STEPS})
        child[free] = np.clip(np.asarray(found.x) * scale, 0.0, 1.0)
    return Brood(settle(space, grown), brood.kinds[rows], brood.parents[rows])


class _Fall:
    """The negative logarithm of the expected improvement, with its gradient, over the scaled real genes."""

    def __init__(
        self, process: Process, best: float, features: Points, columns: NDArray[np.int64], scale: Points
    ) -> None:
        self.process, self.best, self.features = process, best, features
        self.columns, self.scale = columns, scale

    def __call__(self, scaled: Points) -> tuple[float, Points]:
        self.features[self.columns] = scaled * self.scale
        value, slope = improvement_slopes(self.process, self.features[None], self.best)
        return -float(value[0]), -slope[0][self.columns] * self.scale


def _columns(space: Space) -> NDArray[np.int64]:
    """The first feature (D,) of each gene."""
    widths = [len(gene.choices) or 1 for gene in space.genes]
    return np.cumsum([0, *widths[:-1]])


def _apart(points: Points, promise: Points, count: int) -> NDArray[np.int64]:
    """The most promising children (rows), no two of them close together."""
    chosen: list[int] = []
    left = np.argsort(-promise, kind="stable")
    while len(left) and len(chosen) < count:
        chosen.append(left[0])
        left = left[np.sqrt(((points[left] - points[left[0]]) ** 2).mean(axis=1)) > _APART]
    return np.array(chosen, dtype=np.int64)
