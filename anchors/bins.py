"""Box shapes as weighted bins in log space.

In log space the ratio metric of a box and an anchor is ``exp(-d)``, where d is their Chebyshev distance: the
larger of the two sides' differences. A square cell of a log grid therefore holds shapes that no anchor can tell apart
by more than the cell's side, and a hundred thousand boxes can be searched as a few hundred weighted points.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

_FINEST = 1e-9  # smallest side of a cell, as a share of the range; row × columns + column still fits 63 bits
_CLOSE = 1.05  # the side of a cell is found to within this factor


@dataclass(frozen=True, eq=False)
class Bins:
    """Weighted shapes in log space.

    Attributes:
        logs: (n, 2) natural logarithms of width and height in px: the weighted mean of each bin's shapes.
        weights: (n,) share of the boxes in each bin; they sum to 1.
        error: Largest Chebyshev distance of a shape from its bin: no box's ratio with any anchor is off by more than
            a factor of ``exp(error)``. 0 when every distinct shape has a bin of its own.
    """

    logs: Floats
    weights: Floats
    error: float = 0.0

    def __len__(self) -> int:
        return len(self.weights)


def build_bins(wh: Floats) -> Bins:
    """One bin for each distinct shape, in order of width, then height.

    Args:
        wh: (N, 2) px, all greater than 0.
    """
    # As complex numbers the pairs sort several times faster than as rows.
    distinct, counts = np.unique(wh[:, 0] + 1j * wh[:, 1], return_counts=True)
    logs = np.log(np.stack([distinct.real, distinct.imag], axis=1))
    return Bins(logs, counts / max(len(wh), 1))


def compress(bins: Bins, most: int) -> Bins:
    """Gather bins into at most ``most`` larger ones.

    The new bins are the occupied cells of a square log grid, whose side is as small as the limit allows. Few enough
    bins are returned as they are. The errors add up.

    Args:
        bins: What to gather.
        most: Largest number of bins to return, at least 4 (the corners of a grid of two by two).
    """
    if len(bins) <= most:
        return bins
    cell = _cells(bins.logs, _side(bins.logs, most))
    _, where = np.unique(cell, return_inverse=True)
    weights: Floats = np.bincount(where, bins.weights).astype(np.float64)
    logs = np.stack([np.bincount(where, bins.weights * side) / weights for side in bins.logs.T], axis=1)
    return Bins(logs, weights, bins.error + float(np.abs(bins.logs - logs[where]).max()))


def _side(logs: Floats, most: int) -> float:
    """Side of the smallest cells, of a bisection, of which at most ``most`` are occupied."""
    high = float(np.ptp(logs, axis=0).max())
    low = high * _FINEST
    while high > low * _CLOSE:
        side = float(np.sqrt(low * high))
        if len(np.unique(_cells(logs, side))) > most:
            low = side
        else:
            high = side
    return high


def _cells(logs: Floats, side: float) -> NDArray[np.int64]:
    grid = ((logs - logs.min(axis=0)) / side).astype(np.int64)
    cells: NDArray[np.int64] = grid[:, 0] * (grid[:, 1].max() + 1) + grid[:, 1]
    return cells
