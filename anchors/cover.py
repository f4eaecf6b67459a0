"""Which sets of anchors reach the most boxes, wherever they then fit best.

An anchor reaches the shapes in a square about it, in log space. On a grid, sums over a sliding square are
differences of running sums, so the best place for one anchor while the others stay is found among all places at
once, in about a millisecond. Searches from many random starts then find what recall can be had.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from anchors.bins import Bins, Floats

_CELLS = 128  # along the longer side
_MARGIN = 1e-6  # the reach ends before the threshold
_GAIN = 1e-9


@dataclass(frozen=True, eq=False)
class _Grid:
    density: Floats  # (rows, columns) weight of the shapes in a cell
    low: Floats  # (2,) of the grid's corner
    side: float  # of a cell
    width: int  # of a reach's square, in cells, rounded down: what it covers, an anchor in its middle reaches


def cover(bins: Bins, k: int, reach: float, rng: np.random.Generator, *, tries: int = 32) -> list[Floats]:
    """Sets of k anchors that reach many shapes, most first.

    Args:
        bins: The shapes.
        k: Anchors in a set.
        reach: Logarithm of the threshold.
        rng: Draws the starts.
        tries: Searches.

    Returns:
        As many sets (k, 2), logarithms.
    """
    grid = _build_grid(bins, reach)
    found = [_search(grid, k, rng) for _ in range(tries)]
    found.sort(key=lambda item: -item[0])
    return [grid.low + grid.side * (corners + grid.width / 2) for _, corners in found]


def _build_grid(bins: Bins, reach: float) -> _Grid:
    low = bins.logs.min(axis=0)
    span = float(np.ptp(bins.logs, axis=0).max())
    # Cells divide the square evenly, so that rounding down costs nothing of it.
    width = max(int(np.ceil(_CELLS * 2 * reach / max(span, 1e-9))), 8) if span > 0 else 8
    width = min(width, _CELLS)
    side = 2 * (reach - _MARGIN) / width
    cell = ((bins.logs - low) / side).astype(np.int64)
    shape = cell.max(axis=0) + 1
    density = np.bincount(cell[:, 0] * shape[1] + cell[:, 1], bins.weights, minlength=int(shape.prod()))
    return _Grid(density.reshape(shape).astype(np.float64), low, side, width)


def _search(grid: _Grid, k: int, rng: np.random.Generator) -> tuple[float, NDArray[np.int64]]:
    """Place k squares at random, then each anew where it covers most, until no move helps: covered share, corners."""
    corners = np.stack([rng.integers(1 - grid.width, size, size=k) for size in grid.density.shape], axis=1)
    for j in range(k):  # a first placement by chance in a random one of the two ways, greedy or anywhere
        if rng.random() < 0.5:
            corners[j] = _best_place(_uncovered(grid, corners[:j]), grid.width, rng)
    covered = 0.0
    while True:
        for j in rng.permutation(k):
            others = np.delete(corners, j, axis=0)
            corners[j] = _best_place(_uncovered(grid, others), grid.width, rng)
        now = float(grid.density.sum() - _uncovered(grid, corners).sum())
        if now <= covered + _GAIN:
            return now, corners
        covered = now


def _uncovered(grid: _Grid, corners: NDArray[np.int64]) -> Floats:
    rest = grid.density.copy()
    for x, y in corners:
        rest[max(x, 0) : max(x + grid.width, 0), max(y, 0) : max(y + grid.width, 0)] = 0.0
    return rest


def _best_place(density: Floats, width: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Corner of the square that covers the most; one of them by chance where several do."""
    sums = _slide(_slide(density, width).T, width).T
    best = np.argwhere(sums >= sums.max() - _GAIN)
    place: NDArray[np.int64] = best[rng.integers(len(best))] - (width - 1)
    return place


def _slide(density: Floats, width: int) -> Floats:
    """Sums over ``width`` rows, (rows + width - 1, columns): ``[i]`` is of the rows i - width + 1 to i."""
    running = np.cumsum(np.pad(density, ((width, width - 1), (0, 0))), axis=0)
    sums: Floats = running[width:] - running[:-width]
    return sums
