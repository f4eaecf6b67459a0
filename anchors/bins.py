"""Box shapes as weighted bins in log space.

In log space the ratio metric of a box and an anchor is ``exp(-d)``, where d is their Chebyshev distance: the
larger of the two sides' differences. A square cell of a log grid therefore holds shapes that no anchor can tell apart
by more than the cell's side, and a hundred thousand boxes can be searched as a few hundred weighted points.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

DISTINCT = 200_000
"""Distinct shapes up to which each has a bin of its own."""

_FINEST = 1e-9  # smallest side of a cell, as a share of the range; row × columns + column still fits 63 bits
_CELLS = 400  # cells along the longer side of the grid over very many shapes
_ROWS = 1 << 17  # shapes read at once
_HEAVY = 0.02  # share of the boxes with one exact width or height, from which on it has a row of its own
_ATOMS = 4  # most such rows
_WIDER = 1 + 1e-9  # one cell then holds all
_GRAINS = 2.0**36
_MARKS = 1 << 24  # cells of a grid up to which their occupation is marked in a table
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


def build_bins(
    wh: Floats, weights: Floats | None = None, *, unit: Floats | None = None, most: int = DISTINCT
) -> Bins:
    """One bin for each distinct shape, in order of width, then height; cells of a fine grid where these are too many.

    The shapes are read a slice at a time, so that ten million of them cost little memory beside their own.

    Args:
        wh: (N, 2) px, all greater than 0.
        weights: (N,) how much each box counts, greater than 0; all the same when left out.
        unit: (2,) px: the width and the height whose logarithms are 0; 1 px when left out. The ratio metric does not
            hang on it, and shapes measured in their own smallest sides give the same bins at any scale.
        most: Number of distinct shapes beyond which cells are made: about a thousandth of the range wide and high.
    """
    one = np.ones(2) if unit is None else unit
    found = _count_distinct(wh, weights, most)
    if found is None:
        return _build_cells(wh, weights, one)
    distinct, counts = found
    logs = _log(np.stack([distinct.real, distinct.imag], axis=1) / one)
    return Bins(logs, counts / max(counts.sum(), 1e-300))


def _count_distinct(
    wh: Floats, weights: Floats | None, most: int
) -> tuple[NDArray[np.complex128], Floats] | None:
    """Distinct shapes as complex numbers, and the weight of each; None for more than `most`."""
    shapes, counts = np.zeros(0, dtype=np.complex128), np.zeros(0)
    for rows in _slices(len(wh)):
        # As complex numbers the pairs sort several times faster than as rows.
        part = wh[rows, 0] + 1j * wh[rows, 1]
        share = np.ones(len(part)) if weights is None else weights[rows]
        shapes, where = np.unique(np.concatenate([shapes, part]), return_inverse=True)
        counts = np.bincount(where, np.concatenate([counts, share])).astype(np.float64)
        if len(shapes) > most:
            return None
    return shapes, counts


def _build_cells(wh: Floats, weights: Floats | None, unit: Floats) -> Bins:
    """The occupied cells of a square log grid over all shapes."""
    low, high = _log(wh.min(axis=0) / unit), _log(wh.max(axis=0) / unit)
    side = float((high - low).max()) / _CELLS
    some = _log(wh[:: max(len(wh) // _ROWS, 1)] / unit)
    atoms = [_find_atoms(values, np.ones(len(some))) for values in some.T]
    shape = ((high - low) / side).astype(np.int64) + 1 + [len(own) for own in atoms]
    sums = np.zeros((3, int(shape.prod())))
    for rows in _slices(len(wh)):
        logs = _log(wh[rows] / unit)
        share = np.ones(len(logs)) if weights is None else weights[rows]
        row, column = (_place(logs[:, i], low[i], side, atoms[i]) for i in (0, 1))
        for index, values in enumerate((share, share * logs[:, 0], share * logs[:, 1])):
            sums[index] += np.bincount(row * shape[1] + column, values, minlength=sums.shape[1])
    occupied = np.flatnonzero(sums[0])
    mass = sums[0, occupied]
    return Bins(_rounded((sums[1:, occupied] / mass).T), mass / mass.sum(), side)


def _log(sides: Floats) -> Floats:
    return _rounded(np.log(sides))


def _rounded(logs: Floats) -> Floats:
    """Rounded so coarsely (to 1e-11) that the last digit of a machine's own logarithm does not tell."""
    rounded: Floats = np.round(logs * _GRAINS) / _GRAINS
    return rounded


def _slices(count: int) -> Iterator[slice]:
    return (slice(first, first + _ROWS) for first in range(0, count, _ROWS))


def compress(bins: Bins, most: int) -> Bins:
    """Gather bins into at most ``most`` larger ones.

    The new bins are the occupied cells of a square log grid, whose side is as small as the limit allows. Widths and
    heights that many boxes share exactly, such as those of boxes as wide as their image, have rows and columns of
    their own: a mean beside such a value would be recalled by anchors that just miss all of those boxes. Few enough
    bins are returned as they are. The errors add up.

    Args:
        bins: What to gather.
        most: Largest number of bins to return, at least 4 (the corners of a grid of two by two).
    """
    if len(bins) <= most:
        return bins
    low = bins.logs.min(axis=0)
    atoms = [_find_atoms(side, bins.weights) for side in bins.logs.T]
    cell = _cells(bins.logs, low, _find_side(bins.logs, atoms, most), atoms)
    if _count(cell) > most:  # so few are allowed that there is no room for rows of their own
        atoms = [np.zeros(0), np.zeros(0)]
        cell = _cells(bins.logs, low, _find_side(bins.logs, atoms, most), atoms)
    _, where = np.unique(cell, return_inverse=True)
    weights: Floats = np.bincount(where, bins.weights).astype(np.float64)
    means = np.stack([np.bincount(where, bins.weights * side) / weights for side in bins.logs.T], axis=1)
    logs = _rounded(means)
    return Bins(logs, weights, bins.error + float(np.abs(bins.logs - logs[where]).max()))


def _find_side(logs: Floats, atoms: list[Floats], most: int) -> float:
    """Side of the smallest cells, of a bisection, of which at most ``most`` are occupied."""
    low_corner = logs.min(axis=0)
    high = float(np.ptp(logs, axis=0).max()) * _WIDER
    low = high * _FINEST
    while high > low * _CLOSE:
        side = float(np.sqrt(low * high))
        if _count(_cells(logs, low_corner, side, atoms)) > most:
            low = side
        else:
            high = side
    return high


def _find_atoms(values: Floats, weights: Floats) -> Floats:
    """The values that so many boxes share that they must not be mixed with others, sorted."""
    distinct, where = np.unique(values, return_inverse=True)
    if len(distinct) == len(values):
        return np.zeros(0)
    mass = np.bincount(where, weights)
    heavy = np.flatnonzero(mass >= _HEAVY * mass.sum())
    heaviest = heavy[np.argsort(-mass[heavy], kind="stable")[:_ATOMS]]
    return np.sort(distinct[heaviest])


def _count(cells: NDArray[np.int64]) -> int:
    """How many different cells there are."""
    last = int(cells.max()) + 1
    if last > _MARKS:
        return len(np.unique(cells))
    marks = np.zeros(last, dtype=bool)  # sorting would take several times as long
    marks[cells] = True
    return int(np.count_nonzero(marks))


def _cells(logs: Floats, low: Floats, side: float, atoms: list[Floats]) -> NDArray[np.int64]:
    """Number of the cell that each shape lies in."""
    places = [
        _place(values, lowest, side, own) for values, lowest, own in zip(logs.T, low, atoms, strict=True)
    ]
    cells: NDArray[np.int64] = places[0] * (places[1].max() + 1) + places[1]
    return cells


def _place(values: Floats, low: float, side: float, atoms: Floats) -> NDArray[np.int64]:
    """Which row or column of a grid each value lies in; the atoms' own come first."""
    place = ((values - low) / side).astype(np.int64) + len(atoms)
    if len(atoms):
        nearest = np.minimum(np.searchsorted(atoms, values), len(atoms) - 1)
        place = np.where(atoms[nearest] == values, nearest, place)
    return place
