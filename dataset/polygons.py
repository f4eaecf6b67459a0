"""Outlines of labelled objects, packed: a set of a million polygons is four arrays, not a million."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Rings = tuple[NDArray[np.float64], ...]
"""The outline of one object: closed polygons (k, 2) of x and y, k >= 3; none where only its box is known."""


@dataclass(frozen=True, eq=False)
class Polygons:
    """Outlines of the labels of a split's images.

    Attributes:
        points: (P, 2) float32 x and y, normalised to 0..1 by the image's own width and height.
        rings: (R + 1,) where each ring starts in `points`, and the end.
        labels: (L + 1,) where the rings of each label start in `rings`.
        images: (N + 1,) where the labels of each image start in `labels`.
    """

    points: NDArray[np.float32]
    rings: NDArray[np.int64]
    labels: NDArray[np.int64]
    images: NDArray[np.int64]

    def of(self, image: int, label: int) -> list[NDArray[np.float32]]:
        """The rings (k, 2) of a label of an image; none where only its box is known."""
        place = int(self.images[image]) + label
        first, end = int(self.labels[place]), int(self.labels[place + 1])
        return [self.points[self.rings[ring] : self.rings[ring + 1]] for ring in range(first, end)]


def pack_polygons(images: Iterable[Sequence[Rings]]) -> Polygons | None:
    """Pack the outlines of all labels of all images; None when there is no outline at all."""
    points: list[NDArray[np.float64]] = []
    per_label: list[int] = []
    per_image: list[int] = []
    for outlines in images:
        per_image.append(len(outlines))
        for rings in outlines:
            per_label.append(len(rings))
            points += rings
    if not points:
        return None
    return Polygons(
        np.concatenate(points).astype(np.float32),
        _starts([len(ring) for ring in points]),
        _starts(per_label),
        _starts(per_image),
    )


def _starts(counts: Sequence[int]) -> NDArray[np.int64]:
    return np.concatenate([[0], np.cumsum(counts, dtype=np.int64)])
