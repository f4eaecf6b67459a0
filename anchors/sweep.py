"""How fitness and recall grow with the number of anchors and with the image size."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from anchors.fit import fit
from anchors.metrics import AnchorError, AnchorMetrics, check_wh


@dataclass(frozen=True)
class Point:
    """One fit of a sweep.

    Attributes:
        image_size: Longer image side, px.
        k: Number of anchors.
        metrics: Figures of the anchors found.
        ignored: Boxes under 2 px on both sides at this image size.
        reaches_target: Whether the recall is the one asked for.
    """

    image_size: int
    k: int
    metrics: AnchorMetrics
    ignored: int
    reaches_target: bool


def sweep(  # noqa: PLR0913  one name for each thing a caller may want to say
    wh: ArrayLike,
    image_size: int,
    sizes: Sequence[int],
    counts: Sequence[int],
    threshold: float = 4.0,
    target_bpr: float = 0.98,
    seed: int = 0,
    progress: Callable[[float], None] | None = None,
) -> list[Point]:
    """Fit every number of anchors at every image size.

    The ratio metric does not hang on the scale, so sizes differ by the boxes that are too small at them.

    Args:
        wh: (N, 2) px at ``image_size``.
        image_size: px.
        sizes: Image sizes, px.
        counts: Numbers of anchors.
        threshold: Largest ratio of sides of a match.
        target_bpr: Recall asked for.
        seed: Of each fit.
        progress: Told the share done.

    Returns:
        One point for each size and number, sizes first. Numbers beyond that of distinct shapes are left out.

    Raises:
        AnchorError: no boxes, or nothing to sweep over.
    """
    shapes = check_wh(wh)
    if not sizes or not counts or min(*sizes, *counts, image_size) < 1:
        raise AnchorError(
            f"image sizes and numbers of anchors must be 1 or more, but got {sizes} and {counts}"
        )
    points: list[Point] = []
    for number, size in enumerate(sizes):
        scaled = shapes * (size / image_size)
        enough = len(np.unique(scaled[~(scaled < 2).all(axis=1)], axis=0))
        for step, k in enumerate(counts):
            if k <= enough:
                found = fit(scaled, 1, k, threshold, target_bpr, seed)
                points.append(Point(size, k, found.after, found.ignored, found.reaches_target))
            if progress:
                progress((number * len(counts) + step + 1) / (len(sizes) * len(counts)))
    return points


def find_knee(counts: Sequence[int], fitness: Sequence[float]) -> int:
    """The number of anchors from which more of them gain little: where the curve lies highest over its chord.

    Args:
        counts: Numbers of anchors, rising.
        fitness: Of each.

    Raises:
        AnchorError: There are no numbers, or not as many fitnesses.

    >>> find_knee([1, 2, 3, 4, 5], [0.2, 0.6, 0.7, 0.75, 0.78])
    2

    Source:
        Satopää et al. (2011), "Finding a kneedle in a haystack", for a curve without noise.
    """
    if not counts or len(counts) != len(fitness):
        raise AnchorError(f"there must be a fitness for each number, but got {counts} and {fitness}")
    x, y = np.asarray(counts, dtype=np.float64), np.asarray(fitness, dtype=np.float64)
    if np.ptp(x) == 0 or np.ptp(y) == 0:
        return int(counts[0])
    over = (y - y[0]) / np.ptp(y) - (x - x[0]) / np.ptp(x)
    return int(counts[int(over.argmax())])
