"""Which cells and anchors must predict a target.

A target is claimed, at every level, by each anchor whose width and height are within a factor `threshold` of
its own, in the cell that holds its centre and in the two neighbour cells nearest to that centre. The head's
decoding reaches centres from -0.5 to 1.5 cells and sizes up to four times an anchor, which is just what this
asks of it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from model.errors import ModelError


@dataclass(frozen=True, eq=False)
class Matches:
    """Cells and anchors that must predict a target, m of them; every field's row i is about match i.

    Attributes:
        level: (m,) int64, index of the detection level.
        image: (m,) int64, index in the batch.
        anchor: (m,) int64, index among the level's anchors.
        row: (m,) int64, cell row from the top.
        column: (m,) int64, cell column from the left.
        box: (m, 4) xywh in grid units of the level; the centre is relative to the cell's upper left corner
            and lies in [-0.5, 1.5].
        classes: (m,) int64, class of the target.
    """

    level: Tensor
    image: Tensor
    anchor: Tensor
    row: Tensor
    column: Tensor
    box: Tensor
    classes: Tensor

    def __len__(self) -> int:
        return len(self.level)


def assign(
    targets: Tensor,
    shapes: Sequence[tuple[int, int]],
    anchors: Tensor,
    strides: Sequence[int],
    threshold: float = 4.0,
    iou_t: float | None = None,
    neighbours: bool = True,
) -> list[Matches]:
    """Say, level by level, which cells and anchors must predict which target.

    Args:
        targets: (n, 6) image, class, centre x, centre y, width, height; the last four as fractions of the
            image.
        shapes: rows and columns of each level.
        anchors: (levels, per level, 2) width, height in px.
        strides: px a cell, of each level.
        threshold: an anchor claims a target when both sides of one are under `threshold` times those of the
            other.
        iou_t: when given, `threshold` is left aside: an anchor claims a target when their IoU, laid on one centre,
            is over this, and the best anchor of all levels does in any case (the first of equals).
        neighbours: whether the two nearest cells claim a target as well; a head that can't reach beyond its cell
            must not be asked to.

    Returns:
        One `Matches` a level, which may be empty. Targets without area are never matched.

    Raises:
        ModelError: the tables' shapes don't belong together.

    Source:
        The rule of YOLOv5 and Scaled-YOLOv4, from its description and its numbers. One case is ours: a centre
        that lies on the border of two cells to the last bit has no neighbour to its right (or below), which
        couldn't reach it. Several anchors by IoU: YOLOv4, https://arxiv.org/abs/2004.10934, section 3.4.
    """
    matches, counts = assign_flat(targets, shapes, anchors, strides, threshold, iou_t, neighbours)
    parts = [torch.split(getattr(matches, field.name), counts) for field in fields(matches)]
    return [Matches(*level) for level in zip(*parts, strict=True)]


def assign_flat(
    targets: Tensor,
    shapes: Sequence[tuple[int, int]],
    anchors: Tensor,
    strides: Sequence[int],
    threshold: float = 4.0,
    iou_t: float | None = None,
    neighbours: bool = True,
) -> tuple[Matches, list[int]]:
    """Do as `assign`, but for all levels in one table sorted by level, and say how many rows each level has.

    One table costs a third of the kernel launches, and a training step waits for this on the slow side of the
    bus.
    """
    _check_tables(targets, shapes, anchors, strides)
    device = targets.device
    pixels = torch.tensor(strides, device=device, dtype=torch.float32)
    grid = torch.tensor([(columns, rows) for rows, columns in shapes], device=device, dtype=torch.float32)
    centre = targets[:, 2:4].float() * grid[:, None]  # (levels, n, 2)
    size = targets[:, 4:6].float() * grid[:, None]

    sides = anchors.to(device) / pixels[:, None, None]
    fits = _within_ratio(size, sides, threshold) if iou_t is None else _over_iou(size, sides, pixels, iou_t)
    cells, inside = _nearest_cells(centre, grid)
    if not neighbours:
        inside[:, :, 1:] = False
    claims = inside[:, :, :, None] & fits[:, :, None, :]  # (levels, n, 3, anchors)
    level, target, which, anchor = claims.nonzero(as_tuple=True)
    cell = cells[level, target, which]
    index = targets[target, :2].long()
    matches = Matches(
        level=level,
        image=index[:, 0],
        anchor=anchor,
        row=cell[:, 1].long(),
        column=cell[:, 0].long(),
        box=torch.cat((centre[level, target] - cell, size[level, target]), dim=1),
        classes=index[:, 1],
    )
    return matches, level.bincount(minlength=len(shapes)).tolist()


def _within_ratio(size: Tensor, sides: Tensor, threshold: float) -> Tensor:
    """Which anchors have sides within a factor of a target's.

    Args:
        size: (levels, n, 2) targets in cells.
        sides: (levels, anchors, 2) anchors in cells.
        threshold: the factor.

    Returns:
        (levels, n, anchors) bool.
    """
    ratio = size[:, :, None] / sides[:, None]
    return torch.maximum(ratio, 1 / ratio).amax(-1) < threshold


def _over_iou(size: Tensor, sides: Tensor, pixels: Tensor, iou_t: float) -> Tensor:
    """Which anchors overlap a target by more than `iou_t` on one centre, or best of all; see `_within_ratio`."""
    # In px, or a target whose sides differ from level to level in their last bits had several best anchors.
    wh, ab = size[0] * pixels[0], sides * pixels[:, None, None]
    both = torch.minimum(wh[None, :, None], ab[:, None]).prod(-1)
    iou = both / (wh.prod(-1)[None, :, None] + ab.prod(-1)[:, None] - both)
    levels, n, per_level = iou.shape
    flat = iou.permute(1, 0, 2).reshape(n, levels * per_level)
    best = torch.zeros_like(flat, dtype=torch.bool)
    if n:
        best.scatter_(1, flat.argmax(1, keepdim=True), True)
    area = (wh > 0).all(-1)
    best = best.view(n, levels, per_level).permute(1, 0, 2)
    return ((iou > iou_t) | best) & area[None, :, None]


def _nearest_cells(centre: Tensor, grid: Tensor) -> tuple[Tensor, Tensor]:
    """The cell of each centre and its nearest neighbours sideways and up or down.

    Args:
        centre: (levels, n, 2) x, y in grid units.
        grid: (levels, 2) columns, rows.

    Returns:
        (levels, n, 3, 2) column, row of the three cells; (levels, n, 3) whether there is such a cell. A
        centre in the middle of its cell to the last bit has no nearest neighbour.
    """
    last = grid[:, None] - 1
    home = torch.minimum(centre.floor(), last).clamp(
        min=0
    )  # a centre on the far border belongs to the last cell
    step = (centre - home - 0.5).sign()
    ways = torch.tensor([(0.0, 0.0), (1.0, 0.0), (0.0, 1.0)], device=centre.device)
    steps = step[:, :, None] * ways
    cells = home[:, :, None] + steps
    inside = ((cells >= 0) & (cells <= last[:, :, None])).all(-1)
    inside[:, :, 1:] &= step != 0
    return cells, inside


def _check_tables(
    targets: Tensor, shapes: Sequence[tuple[int, int]], anchors: Tensor, strides: Sequence[int]
) -> None:
    if targets.ndim != 2 or targets.shape[1] != 6:
        raise ModelError(f"targets must be (n, 6): image, class, x, y, w, h, but got {tuple(targets.shape)}")
    if anchors.ndim != 3 or anchors.shape[2] != 2:
        raise ModelError(f"anchors must be (levels, per level, 2) px, but got {tuple(anchors.shape)}")
    if not len(shapes) == len(strides) == len(anchors):
        raise ModelError(
            "levels must agree, but got "
            f"{len(shapes)} grid shapes, {len(strides)} strides and anchors for {len(anchors)} levels"
        )
