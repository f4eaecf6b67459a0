"""Non-maximum suppression in torch: greedy, by DIoU, and soft; one fused pass for a batch.

Groups (a class of an image) are told apart by their number, not by moving their boxes to separate places: that would
cost the coordinates their last bits, and the result its exactness.
"""

from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from model.boxes import as_planes, pairwise_iou, planes_iou, xywh_to_xyxy
from model.spec import ModelError

NmsKind = Literal["greedy", "diou", "soft", "soft-linear"]

CANDIDATES_PER_IMAGE = 30_000  # what one image may bring to NMS; the best by confidence go on
ROWS_PER_BLOCK = 128  # rows of one suppression matrix: few enough for its temporaries to stay in the cache
DEVICE_ROWS_PER_BLOCK = 1024  # where the number of launches costs more than the arithmetic
SMALL_GROUPS = (8, 32)  # groups of up to so many boxes are decided together, each padded to that many
PAIRS_PER_PASS = 4_000_000
COLUMNS_PER_BLOCK = 4096  # columns of one suppression matrix; ROWS times COLUMNS bound the memory
SCORES_PER_PASS = (
    4_000_000  # class scores that are looked at at once: more images share a pass where they are small
)
DEVICE_SCORES_PER_PASS = 256_000_000
SOFT_SIGMA = 0.5  # of Soft-NMS, as published


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
    order = scores.argsort(descending=True, stable=True)
    groups = torch.zeros(len(xyxy), dtype=torch.int64, device=xyxy.device)
    return order[_suppress(as_planes(xyxy[order]), groups, iou, most=len(xyxy), distance=False)]


@torch.no_grad()
def non_max_suppression(
    decoded: Tensor,
    confidence: float = 0.25,
    iou: float = 0.45,
    *,
    multi_label: bool = False,
    agnostic: bool = False,
    max_detections: int = 300,
    kind: NmsKind = "greedy",
) -> list[Tensor]:
    """Turn the detector's decoded output into final detections.

    A detection's confidence is objectness times class probability. A detector of one class learns no class
    (its class loss is left out), so there the objectness alone counts.

    Args:
        decoded: (batch, predictions, 5 + classes): xywh px, objectness and class probabilities in [0, 1].
        confidence: a detection needs more than this, in [0, 1].
        iou: a detection is dropped when its IoU with a better one is greater than this, in [0, 1]; "soft" does
            without.
        multi_label: let one prediction stand for every class above `confidence` (what average precision
            rewards), instead of for its best class only.
        agnostic: let classes suppress each other.
        max_detections: keep at most so many an image, the best.
        kind: "greedy"; "diou" suppresses by DIoU instead of IoU, which spares neighbours (arXiv 1911.08287, section
            4.3); "soft" lowers the confidence of what overlaps a better one, by exp(-IoU² / 0.5), instead of dropping
            it, "soft-linear" by 1 - IoU where IoU is greater than `iou` (arXiv 1704.04503).

    Returns:
        One (n, 6) tensor an image: xyxy px, confidence, class; by falling confidence. n may be 0.

    Raises:
        ModelError: a threshold is outside [0, 1], no such kind, or `decoded` has another shape.
    """
    _check_fraction("confidence", confidence)
    _check_fraction("iou", iou)
    if kind not in get_args(NmsKind):
        raise ModelError(f"kind must be one of {', '.join(get_args(NmsKind))}, but got {kind!r}")
    if decoded.ndim != 3 or decoded.shape[2] < 6:
        raise ModelError(f"decoded must be (batch, predictions, 5 + classes), but got {tuple(decoded.shape)}")
    budget = SCORES_PER_PASS if decoded.device.type == "cpu" else DEVICE_SCORES_PER_PASS
    together = max(budget // max(decoded[0].numel() if len(decoded) else 1, 1), 1)
    detections: list[Tensor] = []
    for images in torch.split(decoded, together) if len(decoded) else ():
        found = _candidates(images, confidence, multi_label=multi_label)
        found = _sorted(found, agnostic=agnostic)
        if kind in ("greedy", "diou"):
            kept = _suppress(
                as_planes(found.xyxy), found.groups, iou, most=max_detections, distance=kind == "diou"
            )
            found = found.rows(kept)
        else:
            found = _soften(found, confidence, iou if kind == "soft-linear" else None, max_detections)
        detections += _by_image(found, len(images), max_detections)
    return detections


@dataclass(frozen=True, eq=False)
class _Found:
    """Detections of several images: row i is about detection i."""

    image: Tensor  # (n,) int64
    xyxy: Tensor  # (n, 4) float32
    scores: Tensor  # (n,) float32
    classes: Tensor  # (n,) int64
    position: Tensor  # (n,) int64, the order in which equal scores stand
    groups: Tensor  # (n,) int64, what suppresses each other

    def rows(self, which: Tensor, scores: Tensor | None = None) -> "_Found":
        taken = (
            getattr(self, name)[which]
            for name in ("image", "xyxy", "scores", "classes", "position", "groups")
        )
        image, xyxy, old, classes, position, groups = taken
        return _Found(image, xyxy, old if scores is None else scores, classes, position, groups)


def _check_fraction(name: str, value: float) -> None:
    if not 0 <= value <= 1:
        raise ModelError(f"0 <= {name} <= 1 must hold, but got {value}")


def _candidates(images: Tensor, confidence: float, *, multi_label: bool) -> _Found:
    """Predictions (batch, predictions, 5 + classes) above `confidence`, of each image the best if too many."""
    image, row = (images[..., 4] > confidence).nonzero(as_tuple=True)  # a class only lowers the objectness
    table = images[image, row].float()
    scores = table[:, 4:5] if table.shape[1] == 6 else table[:, 5:] * table[:, 4:5]
    if multi_label:
        rows, classes = (scores > confidence).nonzero(as_tuple=True)
        best = scores[rows, classes]
    else:
        best, classes = scores.max(1)
        rows = (best > confidence).nonzero()[:, 0]
        best, classes = best[rows], classes[rows]
    position = torch.arange(len(rows), device=images.device)
    found = _Found(image[rows], xywh_to_xyxy(table[rows, :4]), best, classes, position, classes)
    if len(rows) > CANDIDATES_PER_IMAGE and int(found.image.bincount().max()) > CANDIDATES_PER_IMAGE:
        found = found.rows(_best_of_images(found, CANDIDATES_PER_IMAGE))
    return found


def _best_of_images(found: _Found, most: int) -> Tensor:
    """Positions of the `most` best of each image, by image, then by falling score."""
    order = found.scores.argsort(descending=True, stable=True)
    order = order[found.image[order].argsort(stable=True)]
    image = found.image[order]
    counts = image.bincount()
    starts = counts.cumsum(0) - counts
    rank = torch.arange(len(order), device=order.device) - starts[image]
    return order[rank < most]


def _sorted(found: _Found, *, agnostic: bool) -> _Found:
    """Number the groups and sort by group, then by falling score, then as they stood."""
    classes = torch.zeros_like(found.classes) if agnostic else found.classes
    span = int(classes.max()) + 1 if len(classes) else 1
    groups = found.image * span + classes
    order = found.scores.argsort(descending=True, stable=True)
    order = order[groups[order].argsort(stable=True)]
    numbered = _Found(found.image, found.xyxy, found.scores, found.classes, found.position, groups)
    return numbered.rows(order)


def _by_image(found: _Found, images: int, most: int) -> Iterator[Tensor]:
    """Give each image its `most` best rows, of equal scores the first."""
    found = found.rows(found.position.argsort())
    found = found.rows(_best_of_images(found, most))
    table = torch.cat((found.xyxy, found.scores[:, None], found.classes[:, None].to(found.xyxy.dtype)), dim=1)
    yield from torch.split(table, found.image.bincount(minlength=images).tolist())


def _suppress(planes: Tensor, groups: Tensor, iou: float, *, most: int, distance: bool) -> Tensor:
    """Greedy suppression in each group.

    Args:
        planes: (5, n) of `as_planes`, sorted by group, then by falling score.
        groups: (n,) rising.
        iou: threshold.
        most: boxes of one group that are wanted; more may come back.
        distance: suppress by DIoU.

    Returns:
        (k,) int64 columns of `planes` that are kept, rising.
    """
    counts = torch.unique_consecutive(groups, return_counts=True)[1]
    starts = counts.cumsum(0) - counts
    large = (counts.repeat_interleave(counts) > SMALL_GROUPS[-1]).nonzero()[:, 0]
    kept = [large[_suppress_large(planes[:, large], groups[large], iou, most=most, distance=distance)]]
    for least, limit in zip((0, *SMALL_GROUPS), SMALL_GROUPS, strict=False):
        those = (counts > least) & (counts <= limit)
        if bool(those.any()):
            kept.append(_suppress_small(planes, starts[those], counts[those], iou, distance=distance))
    return torch.cat(kept).sort().values


def _suppress_small(planes: Tensor, starts: Tensor, counts: Tensor, iou: float, *, distance: bool) -> Tensor:
    """Decide many small groups side by side: (k,) columns that are kept, in no order.

    Args:
        planes: as of `_suppress`.
        starts: (groups,) first column of each.
        counts: (groups,) boxes of each, at least 1.
        iou: threshold.
        distance: suppress by DIoU.
    """
    place = torch.arange(int(counts.max()), device=planes.device)
    parts = []
    together = max(PAIRS_PER_PASS // len(place) ** 2, 1)
    for first, count in zip(torch.split(starts, together), torch.split(counts, together), strict=True):
        there = place < count[:, None]  # (groups, limit)
        columns = torch.where(there, first[:, None] + place, 0)
        boxes = planes[:, columns]
        overlaps = planes_iou(boxes[:, :, :, None], boxes[:, :, None, :], distance=distance)
        clash = (overlaps > iou) & there[:, :, None] & there[:, None, :]
        parts.append(columns[there & _decide(clash)])
    return torch.cat(parts)


def _suppress_large(planes: Tensor, groups: Tensor, iou: float, *, most: int, distance: bool) -> Tensor:
    """Decide the next block of rows among themselves, then drop what they suppress further down, and so on.

    Only boxes that are still alive go into a block, and a group is left as soon as it has `most` boxes (its others
    can't be among the best `most` of all), so the work is far under n²/2 on real detections. As `_suppress`.
    """
    device, total = planes.device, planes.shape[1]
    size = ROWS_PER_BLOCK if device.type == "cpu" else DEVICE_ROWS_PER_BLOCK
    ends = torch.unique_consecutive(groups, return_counts=True)[1].cumsum(0).tolist()
    kept_parts = [torch.zeros(0, dtype=torch.int64, device=device)]
    pending = kept_parts[0]  # survivors of the group that goes on; all else from `start` on is untouched
    start, group_kept, group_start = 0, 0, 0
    while most > 0 and (start < total or len(pending)):
        fresh = torch.arange(start, min(start + max(size - len(pending), 0), total), device=device)
        head, pending = torch.cat((pending[:size], fresh)), pending[size:]
        if len(fresh):
            start += len(fresh)
            group = bisect_right(ends, start - 1)
            if group and ends[group - 1] > group_start:
                group_start, group_kept = ends[group - 1], 0
        boxes, names = planes[:, head], groups[head]
        clash = (pairwise_iou(boxes, boxes, distance=distance) > iou) & (names[:, None] == names)
        kept = head[_decide(clash)]
        kept_parts.append(kept)
        end = ends[bisect_right(ends, start - 1)] if start else 0
        below = torch.cat((pending, torch.arange(start, end, device=device)))
        start = max(start, end)
        rows = kept[kept >= group_start]
        group_kept += len(rows)
        if len(below) and group_kept < most:
            pending = below[~_dropped(planes, rows, below, iou, distance=distance)]
        else:
            pending = kept_parts[0]
    return torch.cat(kept_parts)


def _dropped(planes: Tensor, rows: Tensor, below: Tensor, iou: float, *, distance: bool) -> Tensor:
    """Which columns `below` overlap any of `rows` too much, (len(below),) bool."""
    kept = planes[:, rows]
    parts = [
        (pairwise_iou(kept, planes[:, part], distance=distance) > iou).any(0)
        for part in torch.split(below, COLUMNS_PER_BLOCK)
    ]
    return torch.cat(parts)


def _decide(clash: Tensor) -> Tensor:
    """Greedy suppression inside each block, as the fixed point of "kept unless a kept better box clashes".

    Row j depends on the rows before it only, so after step t the first t rows are right and stay so: the
    fixed point is unique and is the greedy answer. Real chains of suppression are short, so a few steps are
    enough.

    Args:
        clash: (..., n, n) bool, best row first; `[i, j]` says that i, if kept, suppresses j > i.

    Returns:
        (..., n) bool.
    """
    before = clash.triu(1).to(torch.float32)
    kept = torch.ones(*clash.shape[:-2], 1, clash.shape[-1], device=clash.device)
    while True:
        decided = (kept @ before == 0).to(torch.float32)
        if torch.equal(decided, kept):
            return kept[..., 0, :].bool()
        kept = decided


def _soften(found: _Found, confidence: float, linear_iou: float | None, most: int) -> _Found:
    """Soft suppression of all groups at once: a step takes the best box of each and lowers its neighbours.

    A group's picks fall in score, so its first `most` hold all of it that can be among the best of an image.

    Args:
        found: sorted by group.
        confidence: what falls to this or under is gone.
        linear_iou: the threshold of the linear kind; None is the Gaussian.
        most: steps.

    Returns:
        The picks with their lowered scores.
    """
    names, group = torch.unique_consecutive(found.groups, return_inverse=True)
    count = len(names)
    planes, scores = as_planes(found.xyxy), found.scores.clone()
    column = torch.arange(len(scores), device=scores.device)
    picks, lowered = [column[:0]], [scores[:0]]
    for _ in range(most):
        alive = (scores > confidence).nonzero()[:, 0]
        if not len(alive):
            break
        group, scores, column = group[alive], scores[alive], column[alive]
        best = scores.new_full((count,), 0.0).scatter_reduce(0, group, scores, "amax")
        place = torch.arange(len(scores), device=scores.device)
        candidates = torch.where(scores == best[group], place, len(scores))
        first = place.new_full((count,), len(scores)).scatter_reduce(0, group, candidates, "amin")
        pick = first[first < len(scores)]
        picks.append(column[pick])
        lowered.append(scores[pick])
        overlap = planes_iou(planes[:, column], planes[:, column[first[group]]])
        if linear_iou is None:
            scores = scores * torch.exp(-overlap.square() / SOFT_SIGMA)
        else:
            scores = torch.where(overlap > linear_iou, scores * (1 - overlap), scores)
        scores[pick] = 0.0
    return found.rows(torch.cat(picks), torch.cat(lowered))
