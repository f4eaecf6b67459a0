"""Boxes: conversions, the IoU family and non-maximum suppression; the only home of box formats.

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
CANDIDATES_PER_IMAGE = 30_000  # what one image may bring to NMS; the best by confidence go on
ROWS_PER_BLOCK = 128  # rows of one suppression matrix: few enough for its temporaries to stay in the cache
DEVICE_ROWS_PER_BLOCK = 1024  # where the number of launches costs more than the arithmetic


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
    return _pairwise(_planes(first), _planes(second), distance=False)


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


@torch.no_grad()
def nms(xyxy: Tensor, scores: Tensor, iou: float) -> Tensor:
    """Greedy non-maximum suppression, exactly, without a loop over the boxes.

    The best box is kept, every box that overlaps it by more than `iou` is dropped, and so on with what is
    left.

    Args:
        xyxy: (n, 4), any float type; half precision is computed in float32.
        scores: (n,).
        iou: a box is dropped when its IoU with a kept one is greater than this, in [0, 1].

    Returns:
        (k,) int64: positions of the kept boxes by falling score. Of equal scores the lower position goes
        first.

    Raises:
        ModelError: `iou` is outside [0, 1], or the shapes don't belong together.

    >>> boxes = torch.tensor([[0.0, 0.0, 9.0, 9.0], [0.0, 0.0, 9.0, 8.0], [20.0, 0.0, 29.0, 9.0]])
    >>> nms(boxes, torch.tensor([0.8, 0.9, 0.7]), 0.5).tolist()
    [1, 2]
    """
    _check_fraction("iou", iou)
    if xyxy.ndim != 2 or xyxy.shape[1] != 4 or scores.shape != xyxy.shape[:1]:
        raise ModelError(
            "xyxy (n, 4) and scores (n,) must belong together, "
            f"but got {tuple(xyxy.shape)} and {tuple(scores.shape)}"
        )
    groups = torch.zeros(len(xyxy), dtype=torch.int64, device=xyxy.device)
    return _grouped_nms(xyxy, scores, groups, iou, most=len(xyxy))


@torch.no_grad()
def non_max_suppression(
    decoded: Tensor,
    confidence: float = 0.25,
    iou: float = 0.45,
    *,
    multi_label: bool = False,
    agnostic: bool = False,
    max_detections: int = 300,
    distance: bool = False,
) -> list[Tensor]:
    """Turn the detector's decoded output into final detections.

    A detection's confidence is objectness times class probability. A detector of one class learns no class
    (its class loss is left out), so there the objectness alone counts.

    Args:
        decoded: (batch, predictions, 5 + classes): xywh px, objectness and class probabilities in [0, 1].
        confidence: a detection needs more than this, in [0, 1].
        iou: a detection is dropped when its IoU with a better one is greater than this, in [0, 1].
        multi_label: let one prediction stand for every class above `confidence` (what average precision
            rewards), instead of for its best class only.
        agnostic: let classes suppress each other.
        max_detections: keep at most so many an image, the best.
        distance: suppress by DIoU instead of IoU (arXiv 1911.08287, section 4.3), which spares neighbours.

    Returns:
        One (n, 6) tensor an image: xyxy px, confidence, class; by falling confidence. n may be 0.

    Raises:
        ModelError: a threshold is outside [0, 1], or `decoded` has another shape.
    """
    _check_fraction("confidence", confidence)
    _check_fraction("iou", iou)
    if decoded.ndim != 3 or decoded.shape[2] < 6:
        raise ModelError(f"decoded must be (batch, predictions, 5 + classes), but got {tuple(decoded.shape)}")
    detections = []
    for image in decoded:
        found = _candidates(image, confidence, multi_label=multi_label)
        groups = torch.zeros_like(found[:, 5]) if agnostic else found[:, 5]
        kept = _grouped_nms(found[:, :4], found[:, 4], groups, iou, most=max_detections, distance=distance)
        detections.append(found[kept])
    return detections


def _check_fraction(name: str, value: float) -> None:
    if not 0 <= value <= 1:
        raise ModelError(f"0 <= {name} <= 1 must hold, but got {value}")


def _candidates(image: Tensor, confidence: float, *, multi_label: bool) -> Tensor:
    """One image's (predictions, 5 + classes) as (n, 6) rows above `confidence`, the best ones if too many."""
    image = image[image[:, 4] > confidence].float()  # a class probability only lowers the objectness
    scores = image[:, 4:5] if image.shape[1] == 6 else image[:, 5:] * image[:, 4:5]
    if multi_label:
        rows, classes = (scores > confidence).nonzero(as_tuple=True)
        best = scores[rows, classes]
    else:
        best, classes = scores.max(1)
        rows = (best > confidence).nonzero()[:, 0]
        best, classes = best[rows], classes[rows]
    if len(best) > CANDIDATES_PER_IMAGE:
        top = best.argsort(descending=True, stable=True)[:CANDIDATES_PER_IMAGE]
        rows, best, classes = rows[top], best[top], classes[top]
    return torch.cat((xywh_to_xyxy(image[rows, :4]), best[:, None], classes[:, None].to(best.dtype)), dim=1)


def _grouped_nms(
    xyxy: Tensor, scores: Tensor, groups: Tensor, iou: float, *, most: int, distance: bool = False
) -> Tensor:
    """Greedy NMS within each group: positions of the `most` best kept boxes of all, by falling score.

    Groups are told apart by their number, not by moving their boxes to separate places: that would cost the
    coordinates their last bits, and the result its exactness.
    """
    order = scores.argsort(descending=True, stable=True)
    order = order[groups[order].argsort(stable=True)]
    kept = order[_suppress(_planes(xyxy[order]), groups[order], iou, most=most, distance=distance)]
    kept = kept.sort().values  # so that the stable sort breaks ties by position
    return kept[scores[kept].argsort(descending=True, stable=True)][:most]


def _suppress(planes: Tensor, groups: Tensor, iou: float, *, most: int, distance: bool) -> Tensor:
    """Decide the next block of rows among themselves, then drop what they suppress further down, and so on.

    Only boxes that are still alive go into a block, and a group is left as soon as it has `most` boxes (its others
    can't be among the best `most` of all), so the work is far under n²/2 on real detections.

    Args:
        planes: (5, n) from `_planes`, sorted by group, then by falling score.
        groups: (n,) rising.
        iou: threshold.
        most: boxes of one group that may be kept; a few more may come back.
        distance: suppress by DIoU.

    Returns:
        (k,) int64 columns of `planes` that are kept, rising.
    """
    size = ROWS_PER_BLOCK if planes.device.type == "cpu" else DEVICE_ROWS_PER_BLOCK
    alive = torch.arange(planes.shape[1], device=planes.device)
    kept_parts = [alive[:0]]
    tail_name, tail_kept = math.nan, 0
    while len(alive) and most > 0:
        head, rest = alive[:size], alive[size:]
        boxes, names = planes[:, head], groups[head]
        clash = (_pairwise(boxes, boxes, distance=distance) > iou) & (names[:, None] == names)
        kept = head[_decide(clash)]
        kept_parts.append(kept)
        if not len(rest):
            break
        # Only the block's last group goes on below it.
        name = names[-1].item()
        rows = kept[groups[kept] == name]
        tail_name, tail_kept = name, len(rows) + (tail_kept if tail_name == name else 0)
        end = int((groups[rest] == name).sum())
        below, alive = rest[:end], rest[end:]
        if end and tail_kept < most:
            dropped = (_pairwise(planes[:, rows], planes[:, below], distance=distance) > iou).any(0)
            alive = torch.cat((below[~dropped], alive))
    return torch.cat(kept_parts)


def _decide(clash: Tensor) -> Tensor:
    """Greedy suppression inside one block, as the fixed point of "kept unless a kept better box clashes".

    Row j depends on the rows before it only, so after step t the first t rows are right and stay so: the
    fixed point is unique and is the greedy answer. Real chains of suppression are short, so a few steps are
    enough.

    Args:
        clash: (n, n) bool, best row first; `[i, j]` says that i, if kept, suppresses j > i.

    Returns:
        (n,) bool.
    """
    before = clash.triu(1).to(torch.float32)
    kept = torch.ones(len(clash), device=clash.device)
    while True:
        decided = (kept @ before == 0).to(torch.float32)
        if torch.equal(decided, kept):
            return kept.bool()
        kept = decided


def _planes(xyxy: Tensor) -> Tensor:
    """(n, 4) xyxy as (5, n) left, top, right, bottom, area, in at least float32: a row apiece suits vector units."""
    left, top, right, bottom = (xyxy if xyxy.dtype == torch.float64 else xyxy.float()).unbind(1)
    return torch.stack((left, top, right, bottom, (right - left) * (bottom - top)))


def _pairwise(first: Tensor, second: Tensor, *, distance: bool) -> Tensor:
    """IoU (or DIoU) of all pairs of two tables of planes: (5, n), (5, m) -> (n, m)."""
    left, top, right, bottom, area = first[:, :, None].unbind(0)
    left2, top2, right2, bottom2, area2 = second[:, None, :].unbind(0)
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
