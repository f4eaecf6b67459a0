"""Recipes as a few tensors, so that a device can make many pictures by the same few operations."""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from trainer.mixes import Patch
from trainer.recipe import Layer, Recipe
from trainer.warp import GREY


@dataclass(frozen=True, eq=False)
class Packed:
    """B recipes of one size. Layers are numbered: those at the bottom of the pictures first, then all others.

    Attributes:
        size: Height, width px.
        layers: How many.
        slots: How many items (images on canvases) of each turn: a layer has one item a turn, later ones over earlier.
        tiles: How many of the turns are whole images; in the others each item has a mask.
        is_affine: Whether no map has a perspective.
        layer: (M,) layer of each item.
        image: (M,) place in the split.
        matrix: (M, 3, 3) float32 from picture to image, in continuous px.
        bounds: (M, 4) float32 x1, y1, x2, y2: the part of the image that may be seen.
        masks: (P, h, w) uint8, of the items that have one, 0 where they are transparent.
        corners: (P, 2) float32 x and y of the masks in px of their images.
        blend_rows: (b,) pictures blended with another layer.
        blend_layers: (b,) that layer.
        blend_shares: (b,) float32 share of the picture itself.
        cut_rows: (c,) pictures through which another layer shows.
        cut_layers: (c,) that layer.
        cut_windows: (c, 4) where, x1, y1, x2, y2 px.
        colour: (B, 3) float32 factors of hue, saturation, value.
        flips: (B, 2) bool: mirrored, turned upside down.
        any_flip: Whether any is mirrored, and any turned.
        fill_rows: (k,) pictures with a rectangle in a colour of its own.
        fill_windows: (k, 4) that rectangle.
        fill_colours: (k, 3) float32 its colour, RGB.
        holes: (g, 5) row, x1, y1, x2, y2 of grey rectangles.
    """

    size: tuple[int, int]
    layers: int
    slots: tuple[int, ...]
    tiles: int
    is_affine: bool
    layer: torch.Tensor
    image: torch.Tensor
    matrix: torch.Tensor
    bounds: torch.Tensor
    masks: torch.Tensor
    corners: torch.Tensor
    blend_rows: torch.Tensor
    blend_layers: torch.Tensor
    blend_shares: torch.Tensor
    cut_rows: torch.Tensor
    cut_layers: torch.Tensor
    cut_windows: torch.Tensor
    colour: torch.Tensor
    flips: torch.Tensor
    any_flip: tuple[bool, bool]
    fill_rows: torch.Tensor
    fill_windows: torch.Tensor
    fill_colours: torch.Tensor
    holes: torch.Tensor

    def to(self, device: torch.device) -> "Packed":
        """The same on a device; from page-locked memory without waiting."""
        moved = {name: tensor.to(device, non_blocking=True) for name, tensor in self._tensors().items()}
        return replace(self, **moved)

    def pin_memory(self) -> "Packed":
        """The same in page-locked memory."""
        return replace(self, **{name: tensor.pin_memory() for name, tensor in self._tensors().items()})

    def _tensors(self) -> dict[str, Any]:
        values = ((field.name, getattr(self, field.name)) for field in fields(self))
        return {name: value for name, value in values if isinstance(value, torch.Tensor)}


@dataclass(frozen=True, eq=False)
class _Item:
    layer: int
    image: int
    matrix: NDArray[np.float64]  # from canvas to image
    bounds: tuple[float, float, float, float]
    patch: Patch | None = None


def pack(recipes: Sequence[Recipe], sizes: Sequence[tuple[int, int]]) -> Packed:
    """Pack recipes of pictures of one size.

    Args:
        recipes: At least one.
        sizes: Height, width px of each image of the split.
    """
    layers = [recipe.base for recipe in recipes]
    blends, cuts = list[tuple[int, int, float]](), list[tuple[int, int, tuple[int, int, int, int]]]()
    for row, recipe in enumerate(recipes):
        if recipe.blended:
            blends.append((row, len(layers), recipe.blended[1]))
            layers.append(recipe.blended[0])
        if recipe.cut:
            cuts.append((row, len(layers), recipe.cut[1]))
            layers.append(recipe.cut[0])
    items, slots, tiles = _order(layers, sizes)
    inverse = np.linalg.inv(np.stack([layer.warp.matrix for layer in layers]))
    to_canvas = inverse[[item.layer for item in items]]
    patches = [item.patch for item in items if item.patch]
    flips = [recipe.flips for recipe in recipes]
    return Packed(
        size=recipes[0].size,
        layers=len(layers),
        slots=slots,
        tiles=tiles,
        is_affine=bool((inverse[:, 2, :2] == 0).all()),
        layer=torch.tensor([item.layer for item in items]),
        image=torch.tensor([item.image for item in items]),
        matrix=_floats(np.stack([item.matrix for item in items]) @ to_canvas, (3, 3)),
        bounds=_floats([item.bounds for item in items], (4,)),
        masks=_stack_masks(patches),
        corners=_floats([patch.crop[:2] for patch in patches], (2,)),
        blend_rows=_wholes([row for row, _, _ in blends], ()),
        blend_layers=_wholes([layer for _, layer, _ in blends], ()),
        blend_shares=_floats([share for _, _, share in blends], ()),
        cut_rows=_wholes([row for row, _, _ in cuts], ()),
        cut_layers=_wholes([layer for _, layer, _ in cuts], ()),
        cut_windows=_wholes([window for _, _, window in cuts], (4,)),
        colour=_floats([recipe.colour for recipe in recipes], (3,)),
        flips=torch.tensor(flips),
        any_flip=(any(mirror for mirror, _ in flips), any(upturn for _, upturn in flips)),
        **_pack_holes(recipes),
    )


def _order(
    layers: Sequence[Layer], sizes: Sequence[tuple[int, int]]
) -> tuple[list[_Item], tuple[int, ...], int]:
    """Items turn by turn, how many each turn has, and how many turns are tiles."""
    tiles, patches = list[list[_Item]](), list[list[_Item]]()
    for number, layer in enumerate(layers):
        height, width = layer.canvas
        for turn, tile in enumerate(layer.tiles):
            rows, columns = sizes[tile.index]
            bounds = (
                max(-tile.x, 0),
                max(-tile.y, 0),
                min(columns, width - tile.x),
                min(rows, height - tile.y),
            )
            _add(tiles, turn, _Item(number, tile.index, _shift(-tile.x, -tile.y), bounds))
        for turn, patch in enumerate(layer.patches):
            x1, y1, _, _ = patch.crop
            matrix = _shift(x1 - patch.x, y1 - patch.y)
            if patch.mirror:
                matrix[0] = (-1.0, 0.0, patch.crop[2] + patch.x)
            _add(patches, turn, _Item(number, patch.index, matrix, patch.crop, patch))
    turns = tiles + patches
    return [item for turn in turns for item in turn], tuple(len(turn) for turn in turns), len(tiles)


def _add(turns: list[list[_Item]], turn: int, item: _Item) -> None:
    if turn == len(turns):
        turns.append([])
    turns[turn].append(item)


def _shift(x: float, y: float) -> NDArray[np.float64]:
    return np.array([[1.0, 0.0, x], [0.0, 1.0, y], [0.0, 0.0, 1.0]])


def _stack_masks(patches: Sequence[Patch]) -> torch.Tensor:
    """Masks as they lie in their images, that is not mirrored, padded to one size."""
    wh = np.array([patch.crop for patch in patches], np.int64).reshape(-1, 4)
    columns, rows = (wh[:, 2:] - wh[:, :2]).max(axis=0, initial=0).tolist()
    masks = np.zeros((len(patches), rows, columns), np.uint8)
    for mask, patch in zip(masks, patches, strict=True):
        x1, y1, x2, y2 = patch.crop
        if patch.mask is None:
            mask[: y2 - y1, : x2 - x1] = 255
        else:
            mask[: y2 - y1, : x2 - x1] = patch.mask[:, ::-1] if patch.mirror else patch.mask
    return torch.from_numpy(masks)


def _pack_holes(recipes: Sequence[Recipe]) -> dict[str, torch.Tensor]:
    """A picture has at most one hole of another colour than grey, and grey ones are painted over it."""
    fills, holes = [], []
    for row, recipe in enumerate(recipes):
        if recipe.holes is None:
            continue
        for window, colour in zip(recipe.holes.xyxy.tolist(), recipe.holes.colour.tolist(), strict=True):
            if colour == [GREY] * 3:
                holes.append([row, *window])
            else:
                fills.append((row, window, colour[::-1]))
    return {
        "fill_rows": _wholes([row for row, _, _ in fills], ()),
        "fill_windows": _wholes([window for _, window, _ in fills], (4,)),
        "fill_colours": _floats([colour for _, _, colour in fills], (3,)),
        "holes": _wholes(holes, (5,)),
    }


def _floats(values: object, shape: tuple[int, ...]) -> torch.Tensor:
    return torch.from_numpy(np.array(values, np.float32).reshape(-1, *shape))


def _wholes(values: object, shape: tuple[int, ...]) -> torch.Tensor:
    return torch.from_numpy(np.array(values, np.int64).reshape(-1, *shape))
