"""Boxes: conversions and the IoU family; the only home of box formats. Suppression is in `model.nms`.

Formats: `xyxy` is left, top, right, bottom; `xywh` is centre x, centre y, width, height. The origin is the
image's upper left corner and y grows downwards. Units are the caller's (pixels or grid cells) and are kept.
"""

import math
from typing import Literal, get_args

import torch
from torch import Tensor

from model.spec import ModelError

IouKind = Literal["iou", "giou", "diou", "ciou"]

EPSILON = (
    1e-7  # keeps a division by a vanishing area or length finite; far under the square of any real pixel
)


def xywh_to_xyxy(xywh: Tensor) -> Tensor:
    """Turn centres and sizes into corners.

    Args:
        xywh: (..., 4) centre x, centre y, width, height.

    Returns:
        (..., 4) left, top, right, bottom, in the same unit; a new tensor.
    """
    centre, half = xywh[..., :2], xywh[..., 2:] / 2
    return torch.cat((centre - half, centre + half), dim=-1)


def xyxy_to_xywh(xyxy: Tensor) -> Tensor:
    """Turn corners into centres and sizes: the inverse of `xywh_to_xyxy`.

    Args:
        xyxy: (..., 4) left, top, right, bottom.

    Returns:
        (..., 4) centre x, centre y, width, height, in the same unit; a new tensor.
    """
    near, far = xyxy[..., :2], xyxy[..., 2:]
    return torch.cat(((near + far) / 2, far - near), dim=-1)


@torch.no_grad()
def box_iou(first: Tensor, second: Tensor) -> Tensor:
    """Intersection over union of every box of one table with every box of the other; without gradients.

    Args:
        first: (n, 4) xyxy.
        second: (m, 4) xyxy.

    Returns:
        (n, m), each in [0, 1]; `[i, j]` is that of `first[i]` and `second[j]`. Two boxes without area have 0.

    >>> box_iou(torch.tensor([[0.0, 0.0, 2.0, 2.0]]), torch.tensor([[1.0, 0.0, 3.0, 2.0]])).shape
    torch.Size([1, 1])
    """
    return pairwise_iou(as_planes(first), as_planes(second))


def bbox_iou(first: Tensor, second: Tensor, kind: IouKind = "iou") -> Tensor:
    """One of the IoU family for each pair of boxes that stand in the same place; gradients flow.

    Args:
        first: (..., 4) xyxy.
        second: (..., 4) xyxy; for `ciou` its sizes are the aim of `first`'s.
        kind: `iou` in [0, 1]; `giou`, `diou` in [-1, 1]; `ciou`, at most 1 and as low as -2.

    Returns:
        (...), one number a pair.

    Raises:
        ModelError: `kind` is none of the four.

    Source:
        GIoU: arXiv 1902.09630, algorithm 1. DIoU and CIoU: arXiv 1911.08287, equations 5 to 11; the trade-off
            alpha
        carries no gradient, as its section 4 has it.
    """
    if kind not in get_args(IouKind):
        raise ModelError(f"kind must be one of {', '.join(get_args(IouKind))}, but got {kind!r}")
    first_wh, second_wh = first[..., 2:] - first[..., :2], second[..., 2:] - second[..., :2]
    overlap = torch.minimum(first[..., 2:], second[..., 2:]) - torch.maximum(first[..., :2], second[..., :2])
    shared = overlap.clamp(min=0).prod(-1)
    union = first_wh.prod(-1) + second_wh.prod(-1) - shared + EPSILON
    iou = shared / union
    if kind == "iou":
        return iou
    hull = torch.maximum(first[..., 2:], second[..., 2:]) - torch.minimum(first[..., :2], second[..., :2])
    if kind == "giou":
        hull_area = hull.prod(-1) + EPSILON
        return iou - (hull_area - union) / hull_area
    between = (
        first[..., :2] + first[..., 2:] - second[..., :2] - second[..., 2:]
    )  # twice the centres' distance
    diou = iou - between.square().sum(-1) / 4 / (hull.square().sum(-1) + EPSILON)
    return diou if kind == "diou" else diou - _aspect_penalty(first_wh, second_wh, iou)


def _aspect_penalty(first_wh: Tensor, second_wh: Tensor, iou: Tensor) -> Tensor:
    """CIoU's alpha times v: how far the aspects of two boxes differ, weighed by how well they overlap."""
    angle = [torch.atan(wh[..., 0] / wh[..., 1].clamp(min=EPSILON)) for wh in (first_wh, second_wh)]
    v = (4 / math.pi**2) * (angle[1] - angle[0]).square()
    with torch.no_grad():
        alpha = v / (1 - iou + v + EPSILON)
    return alpha * v


def as_planes(xyxy: Tensor) -> Tensor:
    """Lay out boxes for vector units, a row apiece.

    Args:
        xyxy: (n, 4).

    Returns:
        (5, n) left, top, right, bottom, area, in at least float32.
    """
    left, top, right, bottom = (xyxy if xyxy.dtype == torch.float64 else xyxy.float()).unbind(1)
    return torch.stack((left, top, right, bottom, (right - left) * (bottom - top)))


def pairwise_iou(first: Tensor, second: Tensor, *, distance: bool = False) -> Tensor:
    """IoU (or DIoU) of all pairs of two tables of planes, without gradients.

    Args:
        first: (5, n) of `as_planes`.
        second: (5, m).
        distance: take DIoU instead.

    Returns:
        (n, m).
    """
    return planes_iou(first[:, :, None], second[:, None, :], distance=distance)


def planes_iou(first: Tensor, second: Tensor, *, distance: bool = False) -> Tensor:
    """IoU (or DIoU) of planes (5, ...) that are broadcast against each other."""
    left, top, right, bottom, area = first.unbind(0)
    left2, top2, right2, bottom2, area2 = second.unbind(0)
    # In place: matrices that stay in the cache make this twice as fast, and no gradient is asked of it.
    shared = torch.minimum(right, right2).sub_(torch.maximum(left, left2)).clamp_(min=0)
    height = torch.minimum(bottom, bottom2).sub_(torch.maximum(top, top2)).clamp_(min=0)
    shared.mul_(height)
    union = torch.add(area, area2, out=height).sub_(shared).clamp_(min=EPSILON)
    iou = shared.div_(union)
    if not distance:
        return iou
    hull_width = torch.maximum(right, right2) - torch.minimum(left, left2)
    hull_height = torch.maximum(bottom, bottom2) - torch.minimum(top, top2)
    between = (left + right - left2 - right2).square() + (top + bottom - top2 - bottom2).square()
    return iou - between / 4 / (hull_width.square() + hull_height.square()).clamp(min=EPSILON)
