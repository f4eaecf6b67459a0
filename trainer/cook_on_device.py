"""Makes many pictures at once on a device: the batched twin of `trainer.recipe.cook`.

Only tensor operations of fixed shapes: no value is brought back to the CPU.
"""

import torch
from torch.nn.functional import grid_sample

from trainer.packing import Packed
from trainer.warp import GREY


def cook_batch(images: torch.Tensor, packed: Packed) -> torch.Tensor:
    """Make the pictures of packed recipes.

    Args:
        images: (N, 3, S, S) uint8 RGB, see `trainer.device_pipeline.DeviceLoader`.
        packed: B recipes, on the same device.

    Returns:
        (B, 3, H, W) uint8 RGB.
    """
    shown = _show(images, packed)
    pictures = shown[: len(packed.colour)]
    if len(packed.blend_rows):
        share = packed.blend_shares[:, None, None, None]
        mixed = torch.lerp(shown[packed.blend_layers], pictures[packed.blend_rows], share)
        pictures[packed.blend_rows] = mixed
    if len(packed.cut_rows):
        here = _windows(packed.cut_windows, packed.size)
        both = torch.where(here, shown[packed.cut_layers], pictures[packed.cut_rows])
        pictures[packed.cut_rows] = both
    pictures = shift_colour(pictures, packed.colour)
    for axis, happens, flipped in zip((3, 2), packed.any_flip, packed.flips.unbind(1), strict=True):
        if happens:
            pictures = torch.where(flipped[:, None, None, None], pictures.flip(axis), pictures)
    return _erase(pictures, packed).round_().clamp_(0, 255).to(torch.uint8)


def _show(images: torch.Tensor, packed: Packed) -> torch.Tensor:
    """All layers seen through their warps: (layers, 3, H, W) float32."""
    height, width = packed.size
    x = torch.arange(width, device=images.device) + 0.5
    y = (torch.arange(height, device=images.device) + 0.5)[:, None]
    shown = torch.full((packed.layers, 3, height, width), float(GREY), device=images.device)
    start = 0
    for turn, count in enumerate(packed.slots):
        items = slice(start, start + count)
        start += count
        source = _project(packed.matrix[items], x, y, packed.is_affine)
        low, high = packed.bounds[items, :2, None, None], packed.bounds[items, 2:, None, None]
        seen = ((source >= low) & (source < high)).all(1)
        if turn >= packed.tiles:
            seen &= _masked(packed, source, items)
        inside = torch.maximum(torch.minimum(source, high - 0.5), low + 0.5)
        grid = (inside * (2.0 / images.shape[-1]) - 1.0).permute(0, 2, 3, 1)
        found = grid_sample(
            images[packed.image[items]].float(), grid, padding_mode="border", align_corners=False
        )
        rows = packed.layer[items]
        shown[rows] = torch.where(seen[:, None], found, shown[rows])
    return shown


def _project(matrix: torch.Tensor, x: torch.Tensor, y: torch.Tensor, is_affine: bool) -> torch.Tensor:
    """Where px of the pictures lie in the images: (items, 2, H, W), x and y in continuous px."""
    columns = matrix[:, :, :, None, None]
    points = columns[:, :2, 0] * x + columns[:, :2, 1] * y + columns[:, :2, 2]
    if is_affine:
        return points
    depth = columns[:, 2:, 0] * x + columns[:, 2:, 1] * y + columns[:, 2:, 2]
    # At the horizon px lie nowhere, and a number far outside all bounds says so without a division by zero.
    return torch.where(depth.abs() < 1e-9, -1e9, points / torch.where(depth.abs() < 1e-9, 1.0, depth))


def _masked(packed: Packed, source: torch.Tensor, items: slice) -> torch.Tensor:
    """Which px (items, H, W) of the pictures lie on the objects that are pasted."""
    first = sum(packed.slots[: packed.tiles])
    chosen = slice(items.start - first, items.stop - first)
    masks = packed.masks[chosen]
    rows, columns = masks.shape[1:]
    place = (source - packed.corners[chosen, :, None, None]).floor().long()
    x, y = place[:, 0].clamp(0, columns - 1), place[:, 1].clamp(0, rows - 1)
    found = masks.flatten(1).gather(1, (y * columns + x).flatten(1))
    return (found > 0).view(x.shape)


def _windows(xyxy: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """Which px lie in windows (n, 4): (n, 1, H, W) bool."""
    x = torch.arange(size[1], device=xyxy.device)
    y = torch.arange(size[0], device=xyxy.device)[:, None]
    x1, y1, x2, y2 = xyxy[:, :, None, None, None].unbind(1)
    return (x >= x1) & (x < x2) & (y >= y1) & (y < y2)


def shift_colour(rgb: torch.Tensor, factors: torch.Tensor) -> torch.Tensor:
    """Multiply hue, saturation and value of pictures, as `trainer.augment.shift_colour` does.

    Args:
        rgb: (n, 3, H, W) in [0, 255].
        factors: (n, 3) of hue, saturation, value.
    """
    by_hue, by_saturation, by_value = factors[:, :, None, None].unbind(1)
    red, green, blue = rgb.unbind(1)
    value, least = rgb.amax(1), rgb.amin(1)
    chroma = value - least
    divisor = torch.where(chroma > 0, chroma, 1.0)
    sector = torch.where(
        value == red,
        (green - blue) / divisor,
        torch.where(value == green, 2.0 + (blue - red) / divisor, 4.0 + (red - green) / divisor),
    )
    hue = torch.remainder(torch.remainder(sector, 6.0) * by_hue, 6.0)
    saturation = (chroma / value.clamp(min=1e-6) * by_saturation).clamp_(max=1.0)
    value = (value * by_value).clamp_(max=255.0)
    chroma = value * saturation
    planes = []
    for offset in (5.0, 3.0, 1.0):
        turn = torch.remainder(hue + offset, 6.0)
        planes.append(value - chroma * torch.minimum(turn, 4.0 - turn).clamp_(0.0, 1.0))
    return torch.stack(planes, 1)


def _erase(pictures: torch.Tensor, packed: Packed) -> torch.Tensor:
    if len(packed.fill_rows):
        here = _windows(packed.fill_windows, packed.size)
        colour = packed.fill_colours[:, :, None, None]
        pictures[packed.fill_rows] = torch.where(here, colour, pictures[packed.fill_rows])
    if len(packed.holes):
        # Corners count up and down, so that the sums over both axes say how many rectangles lie on a px.
        height, width = packed.size
        row, x1, y1, x2, y2 = packed.holes.unbind(1)
        steps = torch.zeros((len(pictures), height + 1, width + 1), dtype=torch.int32, device=pictures.device)
        one = torch.ones_like(row, dtype=torch.int32)
        for y, x, step in ((y1, x1, one), (y1, x2, -one), (y2, x1, -one), (y2, x2, one)):
            steps.index_put_((row, y, x), step, accumulate=True)
        covered = steps.cumsum(1).cumsum(2)[:, None, :height, :width] > 0
        pictures = torch.where(covered, float(GREY), pictures)
    return pictures
