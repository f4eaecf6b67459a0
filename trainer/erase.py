"""Erasing: rectangles of a picture are painted over, and boxes of which too little is left are dropped.

No pixel moves, so no box does. All draw where to erase and leave the painting to `paint_holes`, so that it can be
done on any device.

Sources: random erasing (arXiv 1708.04896), cutout (arXiv 1708.04552), hide-and-seek (arXiv 1811.02545), GridMask
(arXiv 2001.04086).
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainer.config import Hyperparameters
from trainer.image_cache import Image
from trainer.warp import GREY, Labels

VISIBLE = 0.4
"""Share of a box that must be left for its label to stay."""

Rectangles = NDArray[np.int64]
"""(k, 4): x1, y1, x2, y2 in px, within the picture."""


@dataclass(frozen=True, eq=False)
class Holes:
    """What is painted over.

    Attributes:
        xyxy: The rectangles.
        colour: (k, 3) uint8 BGR of each.
    """

    xyxy: Rectangles
    colour: NDArray[np.uint8]


def draw_holes(rng: np.random.Generator, hyp: Hyperparameters, size: tuple[int, int]) -> Holes | None:
    """Draw what is erased from a picture; None for nothing.

    Args:
        rng: Drawn from for those ways of erasing alone whose probability is not 0.
        hyp: `erasing`, `cutout`, `hide_and_seek`, `gridmask`: the probability of each.
        size: Height, width of the picture.
    """
    found: list[Holes] = []
    for probability, draw in (
        (hyp.erasing, draw_erasing),
        (hyp.cutout, draw_cutout),
        (hyp.hide_and_seek, draw_hide_and_seek),
        (hyp.gridmask, draw_gridmask),
    ):
        if probability and rng.random() < probability:
            found.append(draw(rng, size))
    if not found:
        return None
    return Holes(np.concatenate([h.xyxy for h in found]), np.concatenate([h.colour for h in found]))


def draw_erasing(rng: np.random.Generator, size: tuple[int, int]) -> Holes:
    """One rectangle of 2 to 40 % of the picture's area and an aspect of 0.3 to 3.3, in a random colour."""
    share, aspect = rng.uniform(0.02, 0.4), np.exp(rng.uniform(np.log(0.3), np.log(1 / 0.3)))
    area = share * size[0] * size[1]
    height = int(np.clip(np.rint(np.sqrt(area * aspect)), 1, size[0]))
    width = int(np.clip(np.rint(np.sqrt(area / aspect)), 1, size[1]))
    y, x = int(rng.integers(size[0] - height + 1)), int(rng.integers(size[1] - width + 1))
    colour = rng.integers(0, 256, (1, 3), dtype=np.uint8)
    return Holes(np.array([[x, y, x + width, y + height]]), colour)


def draw_cutout(rng: np.random.Generator, size: tuple[int, int]) -> Holes:
    """One grey square of a quarter of the shorter side about a point anywhere, cut off at the border."""
    half = max(min(size) // 8, 1)
    x, y = int(rng.integers(size[1])), int(rng.integers(size[0]))
    return _grey(np.array([[x - half, y - half, x + half, y + half]]), size)


def draw_hide_and_seek(rng: np.random.Generator, size: tuple[int, int]) -> Holes:
    """A grid of 4, 5, 7 or 14 cells along the shorter side; each cell is grey with probability 0.5."""
    step = max(min(size) // int(rng.choice((4, 5, 7, 14))), 1)
    rows, columns = -(-size[0] // step), -(-size[1] // step)
    y, x = np.nonzero(rng.random((rows, columns)) < 0.5)
    corner = np.stack([x, y], axis=1) * step
    return _grey(np.concatenate([corner, corner + step], axis=1), size)


def draw_gridmask(rng: np.random.Generator, size: tuple[int, int]) -> Holes:
    """Grey squares of half a unit in every unit: 0.15 to 0.35 of the shorter side (96 to 224 px of 640)."""
    unit = max(int(rng.uniform(0.15, 0.35) * min(size)), 2)
    offset = rng.integers(unit, size=2)
    x, y = np.meshgrid(
        np.arange(int(offset[0]) - unit, size[1], unit), np.arange(int(offset[1]) - unit, size[0], unit)
    )
    corner = np.stack([x.ravel(), y.ravel()], axis=1)
    return _grey(np.concatenate([corner, corner + unit // 2], axis=1), size)


def _grey(xyxy: Rectangles, size: tuple[int, int]) -> Holes:
    inside = np.clip(xyxy, 0, [size[1], size[0], size[1], size[0]])
    inside = inside[(inside[:, 2:] > inside[:, :2]).all(axis=1)]
    return Holes(inside, np.full((len(inside), 3), GREY, np.uint8))


def paint_holes(image: Image, holes: Holes) -> Image:
    """A copy of an image (H, W, 3) in which the holes are painted over, later ones over earlier ones."""
    image = image.copy()
    for (x1, y1, x2, y2), colour in zip(holes.xyxy.tolist(), holes.colour, strict=True):
        image[y1:y2, x1:x2] = colour
    return image


def drop_hidden(labels: Labels, holes: Holes) -> Labels:
    """The labels (n, 5) of which at least `VISIBLE` is left. Where holes overlap, that is counted twice."""
    if not len(labels) or not len(holes.xyxy):
        return labels
    hidden = overlaps(labels[:, 1:], holes.xyxy).sum(axis=1)
    area = (labels[:, 3] - labels[:, 1]) * (labels[:, 4] - labels[:, 2])
    return np.asarray(labels[hidden <= (1.0 - VISIBLE) * area])


def overlaps(boxes: NDArray[np.float32], others: NDArray[Any]) -> NDArray[np.float64]:
    """Areas (n, m) px that boxes (n, 4) and others (m, 4), x1, y1, x2, y2, have in common."""
    low = np.maximum(boxes[:, None, :2], others[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], others[None, :, 2:])
    return np.asarray((high - low).clip(0).prod(axis=2), np.float64)
