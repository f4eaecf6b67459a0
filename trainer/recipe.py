"""What a training picture is made of: drawn from (seed, epoch, index) and geometry alone, before any pixel is read.

A `Composer` draws a `Recipe`; `cook` makes the picture on the CPU, `trainer.device_pipeline` makes whole batches on a
device. Both get the same boxes, since those are in the recipe.

Source: the augmentation of YOLOv4 (arXiv 2004.10934, section 3.4) in the order in which YOLOv5 practises it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import cv2
import numpy as np

from dataset import Split
from trainer.augment import draw_colour, draw_flips, flip, flip_labels, letterbox_places, shift_colour
from trainer.config import Hyperparameters
from trainer.erase import Holes, draw_holes, drop_hidden, paint_holes
from trainer.image_cache import Image
from trainer.images import as_image
from trainer.mixes import (
    MOSAIC,
    Donor,
    Patch,
    Tile,
    Window,
    cut_labels,
    draw_blend,
    draw_cut,
    draw_patches,
    lay_mosaic,
)
from trainer.plan import Draw
from trainer.warp import Labels, Scene, Warp, draw_warp, render, seen_region, warp_labels


@dataclass(frozen=True, eq=False)
class Layer:
    """Images on a canvas, and the warp through which it is seen.

    Attributes:
        canvas: Height, width px.
        tiles: Whole images.
        patches: Copied objects, over the tiles.
        warp: From canvas to picture.
    """

    canvas: tuple[int, int]
    tiles: tuple[Tile, ...]
    patches: tuple[Patch, ...]
    warp: Warp


@dataclass(frozen=True, eq=False)
class Recipe:
    """One training picture.

    Attributes:
        index: Place in the split of the image it was asked for.
        size: Height, width px.
        base: What is seen.
        labels: (n, 5) class, x1, y1, x2, y2 px of the finished picture.
        colour: Factors of hue, saturation and value.
        flips: Whether it is mirrored, and turned upside down.
        blended: A second layer, and the share of the first in their mixup.
        cut: A layer that shows through a window.
        holes: What is erased at the end.
    """

    index: int
    size: tuple[int, int]
    base: Layer
    labels: Labels
    colour: tuple[float, float, float]
    flips: tuple[bool, bool]
    blended: tuple[Layer, float] | None = None
    cut: tuple[Layer, Window] | None = None
    holes: Holes | None = None

    @property
    def layers(self) -> tuple[Layer, ...]:
        """All layers."""
        more = [extra[0] for extra in (self.blended, self.cut) if extra]
        return (self.base, *more)


class Composer:
    """Draws recipes for the images of a split.

    Attributes:
        stand_ins: Images that can't be read any more, and which are taken instead.
    """

    def __init__(
        self, split: Split, sizes: Sequence[tuple[int, int]], hyp: Hyperparameters, seed: int
    ) -> None:
        """Take note of geometry.

        Args:
            split: Labels and outlines.
            sizes: Height, width px of each image as it will be read; the longer side is the same for all.
            hyp: Augmentation genes.
            seed: With epoch and index it decides a recipe.
        """
        self.stand_ins: dict[int, int] = {}
        self._sizes = sizes
        self._side = max(max(size) for size in sizes)
        self._labels = place_labels(split, sizes)
        self._polygons = split.polygons
        self._hyp = hyp
        self._seed = seed

    def labels(self, index: int) -> Labels:
        """Labels (n, 5) in px of an image; not to be edited."""
        return self._labels[index]

    def compose(self, draw: Draw) -> Recipe:
        """The recipe of a picture."""
        hyp, rng = self._hyp, np.random.default_rng([self._seed, draw.epoch, draw.index])
        is_mosaic = bool(rng.random() < hyp.mosaic)
        make = self._mosaic if is_mosaic else self._single
        base, labels = make(rng, draw, draw.index)
        blended: tuple[Layer, float] | None = None
        cut: tuple[Layer, Window] | None = None
        if is_mosaic and rng.random() < hyp.mixup:
            layer, others = self._mosaic(rng, draw, int(rng.integers(len(self._sizes))))
            blended = layer, draw_blend(rng)
            labels = np.concatenate([labels, others])
        if hyp.cutmix and rng.random() < hyp.cutmix:
            layer, others = make(rng, draw, int(rng.integers(len(self._sizes))))
            cut = layer, draw_cut(rng, draw.size)
            labels = cut_labels(labels, others, cut[1])
        colour, flips = draw_colour(rng, hyp), draw_flips(rng, hyp)
        labels = flip_labels(labels, draw.size, flips)
        holes = draw_holes(rng, hyp, draw.size)
        if holes is not None:
            labels = drop_hidden(labels, holes)
        return Recipe(draw.index, draw.size, base, labels, colour, flips, blended, cut, holes)

    def _mosaic(self, rng: np.random.Generator, draw: Draw, index: int) -> tuple[Layer, Labels]:
        drawn = rng.permutation([index, *rng.integers(len(self._sizes), size=3).tolist()]).tolist()
        indices = [self.stand_ins.get(one, one) for one in drawn]
        tiles = lay_mosaic(rng, self._side, indices, [self._sizes[one] for one in indices])
        return self._layer(rng, draw, (2 * self._side, 2 * self._side), tiles)

    def _single(self, rng: np.random.Generator, draw: Draw, index: int) -> tuple[Layer, Labels]:
        index = self.stand_ins.get(index, index)
        canvas = round(draw.size[0] / draw.zoom), round(draw.size[1] / draw.zoom)
        left, top = letterbox_places(self._sizes[index], canvas)
        return self._layer(rng, draw, canvas, (Tile(index, left, top),))

    def _layer(
        self, rng: np.random.Generator, draw: Draw, canvas: tuple[int, int], tiles: tuple[Tile, ...]
    ) -> tuple[Layer, Labels]:
        boxes = [self._labels[t.index] + np.array([0, t.x, t.y, t.x, t.y], np.float32) for t in tiles]
        labels = np.concatenate(boxes)
        np.clip(labels[:, 1:], 0, canvas[::-1] * 2, out=labels[:, 1:])
        patches: tuple[Patch, ...] = ()
        if self._hyp.copy_paste:
            donor = self._donor(int(rng.integers(len(self._sizes))))
            patches, pasted = draw_patches(rng, self._hyp.copy_paste, donor, canvas, labels)
            labels = np.concatenate([labels, pasted])
        warp = draw_warp(rng, self._hyp, canvas, draw.size, draw.zoom)
        return Layer(canvas, tiles, patches, warp), warp_labels(labels, warp)

    def _donor(self, index: int) -> Donor:
        index = self.stand_ins.get(index, index)
        size, labels = self._sizes[index], self._labels[index]
        scale = np.array([size[1], size[0]], np.float32)
        outlines = [
            [ring * scale for ring in self._polygons.of(index, row)] if self._polygons else []
            for row in range(len(labels))
        ]
        return Donor(index, size, labels, outlines)


def place_labels(split: Split, sizes: Sequence[tuple[int, int]]) -> list[Labels]:
    """Labels (n, 5) class, x1, y1, x2, y2 of every image in px of its size (height, width)."""
    counts = [len(rows) for rows in split.labels]
    rows = np.concatenate([np.zeros((0, 5), np.float32), *split.labels])
    heights_widths = np.repeat(np.array(sizes, np.float32).reshape(-1, 2), counts, axis=0)
    wh = heights_widths[:, ::-1]
    half = rows[:, 3:5] / 2
    corners = (rows[:, 1:3] - half) * wh, (rows[:, 1:3] + half) * wh
    placed = np.concatenate([rows[:, :1], *corners], axis=1, dtype=np.float32)
    placed.flags.writeable = False
    return np.split(placed, np.cumsum(counts)[:-1])


def cook(recipe: Recipe, image: Callable[[int], Image]) -> Image:
    """Make the picture (H, W, 3) BGR of a recipe.

    Args:
        recipe: What to make.
        image: Gives the image at a place of the split.
    """
    recolour = partial(shift_colour, factors=recipe.colour)
    is_one_layer = not (recipe.blended or recipe.cut)
    picture = _show(recipe.base, image, recolour if is_one_layer else None)
    if recipe.blended:
        layer, share = recipe.blended
        picture = as_image(cv2.addWeighted(picture, share, _show(layer, image), 1.0 - share, 0.0))
    if recipe.cut:
        layer, (x1, y1, x2, y2) = recipe.cut
        picture = picture.copy()
        picture[y1:y2, x1:x2] = _show(layer, image)[y1:y2, x1:x2]
    picture = flip(picture if is_one_layer else recolour(picture), recipe.flips)
    return picture if recipe.holes is None else paint_holes(picture, recipe.holes)


def _show(
    layer: Layer, image: Callable[[int], Image], recolour: Callable[[Image], Image] | None = None
) -> Image:
    tiles = tuple((image(tile.index), tile.x, tile.y) for tile in _seen_tiles(layer))
    patches = []
    for patch in layer.patches:
        x1, y1, x2, y2 = patch.crop
        part = image(patch.index)[y1:y2, x1:x2]
        patches.append((part[:, ::-1] if patch.mirror else part, patch.mask, patch.x, patch.y))
    return render(Scene(layer.canvas, tiles, tuple(patches)), layer.warp, recolour)


def _seen_tiles(layer: Layer) -> Sequence[Tile]:
    """The tiles of a layer without those that the picture can't show, whose images then need not be read.

    A tile of a mosaic has a quarter of the canvas to itself. It is judged by that, not by its image, for which
    another one may stand in: a sample must not depend on who knows already that an image is bad.
    """
    if len(layer.tiles) != MOSAIC:
        return layer.tiles
    x0, y0, x1, y1 = seen_region(layer.canvas, layer.warp)
    centre = layer.tiles[-1]
    columns, rows = (x0 < centre.x, x1 > centre.x), (y0 < centre.y, y1 > centre.y)
    return [tile for corner, tile in enumerate(layer.tiles) if columns[corner % 2] and rows[corner // 2]]
