"""Pictures made of several images: mosaic, mixup, CutMix, copy-paste. Only places, shares and boxes: no pixels.

What is drawn here is carried out by `trainer.recipe.cook` on the CPU and by `trainer.device_pipeline` on a device.

Sources: mosaic: YOLOv4 (arXiv 2004.10934); mixup: arXiv 1710.09412; CutMix: arXiv 1905.04899; copy-paste: arXiv
2012.07177.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from trainer.erase import VISIBLE, overlaps
from trainer.image_cache import Image
from trainer.images import as_image
from trainer.warp import Labels, worth_showing

MOSAIC = 4
"""Images of a mosaic: top left, top right, bottom left, bottom right."""

MIXUP_BETA = 32.0
"""Both parameters of the Beta distribution of the blend: nearly always between 0.3 and 0.7."""

PASTE_OVER = 0.3
"""No object is pasted where it would hide this share of another one's box."""

Window = tuple[int, int, int, int]
"""x1, y1, x2, y2 in whole px."""

Rings = Sequence[NDArray[np.float32]]
"""Outline of one object: polygons (k, 2), x and y in px."""


@dataclass(frozen=True, eq=False)
class Tile:
    """One whole image on a canvas: its place in the split, and where its top left corner lies."""

    index: int
    x: int
    y: int


@dataclass(frozen=True, eq=False)
class Patch:
    """A part of an image pasted on a canvas.

    Attributes:
        index: Image it is cut from.
        crop: The part, px of that image.
        mirror: Whether it is mirrored.
        mask: (H, W) of the crop as it is pasted, 0 where it is transparent; None when it covers all of the crop.
        x: Left side on the canvas.
        y: Its top.
    """

    index: int
    crop: Window
    mirror: bool
    mask: Image | None
    x: int
    y: int


def lay_mosaic(
    rng: np.random.Generator, size: int, indices: Sequence[int], sizes: Sequence[tuple[int, int]]
) -> tuple[Tile, ...]:
    """Lay four images around a random point of a canvas of twice the size.

    Args:
        rng: Source of the point, uniform over [0.5, 1.5] of the size.
        size: px; no image may be larger.
        indices: Four images: top left, top right, bottom left, bottom right.
        sizes: Height, width of each.
    """
    centre_x, centre_y = (int(v) for v in rng.uniform(0.5 * size, 1.5 * size, 2))
    return tuple(
        Tile(
            index,
            centre_x - (0 if corner % 2 else width),
            centre_y - (0 if corner >= 2 else height),
        )
        for corner, (index, (height, width)) in enumerate(zip(indices, sizes, strict=True))
    )


def draw_blend(rng: np.random.Generator) -> float:
    """Share of the first of two pictures in their mixup, from Beta(32, 32)."""
    return float(rng.beta(MIXUP_BETA, MIXUP_BETA))


def draw_cut(rng: np.random.Generator, size: tuple[int, int]) -> Window:
    """The rectangle of CutMix: a uniform share of the area, the aspect of the picture, a centre anywhere."""
    side = float(np.sqrt(rng.random()))
    centre = rng.random(2) * (size[1], size[0])
    half = np.array([size[1], size[0]]) * (side / 2)
    low = np.rint(centre - half).clip(0).astype(int)
    high = np.minimum(np.rint(centre + half), (size[1], size[0])).astype(int)
    return int(low[0]), int(low[1]), int(high[0]), int(high[1])


def cut_labels(labels: Labels, other: Labels, window: Window) -> Labels:
    """Labels (m, 5) of a picture with a window that shows another one.

    Boxes of the picture shrink to what is left of them, and go when that is less than `VISIBLE` of their area;
    boxes of the other one are clipped to the window, and go when they are not worth showing.
    """
    rest = labels.copy()
    rest[:, 1:] = outside(labels[:, 1:], window)
    area = (labels[:, 3] - labels[:, 1]) * (labels[:, 4] - labels[:, 2])
    hidden = overlaps(labels[:, 1:], np.array([window]))[:, 0]
    rest = rest[worth_showing(labels[:, 1:], rest[:, 1:]) & (hidden <= (1.0 - VISIBLE) * area)]
    low, high = window[:2] * 2, window[2:] * 2
    shown = other.copy()
    shown[:, 1:] = other[:, 1:].clip(low, high)
    return np.concatenate([rest, shown[worth_showing(other[:, 1:], shown[:, 1:])]])


def outside(xyxy: NDArray[np.float32], window: Window) -> NDArray[np.float32]:
    """Boxes (n, 4) around what a window leaves of boxes (n, 4); zeros where it covers all.

    A box shrinks on a side only where the window reaches over the whole of that side.
    """
    found = xyxy.copy()
    for axis in (0, 1):
        low, high = window[axis], window[axis + 2]
        across = (xyxy[:, 1 - axis] >= window[1 - axis]) & (xyxy[:, 3 - axis] <= window[3 - axis])
        start, end = xyxy[:, axis], xyxy[:, axis + 2]
        found[:, axis] = np.where(across & (start >= low) & (start < high), high, found[:, axis])
        found[:, axis + 2] = np.where(across & (end <= high) & (end > low), low, found[:, axis + 2])
    return np.where((found[:, 2:] > found[:, :2]).all(axis=1, keepdims=True), found, np.float32(0))


@dataclass(frozen=True, eq=False)
class Donor:
    """An image that objects are copied from.

    Attributes:
        index: Its place in the split.
        size: Height, width px.
        labels: (n, 5) px.
        outlines: For each label its rings in px, empty where only the box is known.
    """

    index: int
    size: tuple[int, int]
    labels: Labels
    outlines: Sequence[Rings]


def draw_patches(
    rng: np.random.Generator, probability: float, donor: Donor, canvas: tuple[int, int], labels: Labels
) -> tuple[tuple[Patch, ...], Labels]:
    """Copy objects of an image to random places of a canvas, mirrored or not.

    One that would hide `PASTE_OVER` or more of another, or is larger than the canvas, is left where it is.

    Args:
        rng: Source of four draws for each object of the donor.
        probability: With which each object is copied.
        donor: Where they come from.
        canvas: Height, width px.
        labels: (n, 5) of what lies on the canvas.

    Returns:
        The patches, and their labels (m, 5) in px of the canvas.
    """
    patches, pasted = [], labels
    draws = rng.random((len(donor.labels), 4))
    for row, outline, draw in zip(donor.labels, donor.outlines, draws, strict=True):
        x1, y1 = np.floor(row[1:3]).astype(int).clip(0).tolist()
        x2, y2 = np.minimum(np.ceil(row[3:5]), donor.size[::-1]).astype(int).tolist()
        width, height = x2 - x1, y2 - y1
        if draw[0] >= probability or width > canvas[1] or height > canvas[0] or min(width, height) < 1:
            continue
        x = int(draw[1] * (canvas[1] - width + 1))
        y = int(draw[2] * (canvas[0] - height + 1))
        mirror = bool(draw[3] < 0.5)
        left, right = (x2 - row[3], x2 - row[1]) if mirror else (row[1] - x1, row[3] - x1)
        box = np.array([[row[0], x + left, y + row[2] - y1, x + right, y + row[4] - y1]], np.float32)
        area = (pasted[:, 3] - pasted[:, 1]) * (pasted[:, 4] - pasted[:, 2])
        covered = overlaps(pasted[:, 1:], box[:, 1:])[:, 0]
        if (covered >= PASTE_OVER * area).any():
            continue
        mask = _fill(outline, (x1, y1), (height, width), mirror) if len(outline) else None
        patches.append(Patch(donor.index, (x1, y1, x2, y2), mirror, mask, x, y))
        pasted = np.concatenate([pasted, box])
    return tuple(patches), pasted[len(labels) :]


def _fill(outline: Rings, corner: tuple[int, int], size: tuple[int, int], mirror: bool) -> Image:
    """(H, W) 255 inside the rings, which are in px of the image whose part at `corner` this is."""
    mask = np.zeros(size, np.uint8)
    # OpenCV counts px from their middles, in 16ths here.
    rings = [np.rint((ring - corner - 0.5) * 16).astype(np.int32) for ring in outline]
    cv2.fillPoly(mask, rings, (255,), shift=4)
    return as_image(mask[:, ::-1] if mirror else mask)
