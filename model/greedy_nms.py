"""Greedy suppression of groups of boxes, exactly, without a loop over the boxes.

Groups (a class of an image) are told apart by their number, not by moving their boxes to separate places: that would
cost the coordinates their last bits, and the result its exactness.
"""

from bisect import bisect_right

import torch
from torch import Tensor

from model.boxes import pairwise_iou, planes_iou

ROWS_PER_BLOCK = 128  # rows of one suppression matrix: few enough for its temporaries to stay in the cache
DEVICE_ROWS_PER_BLOCK = 1024  # where the number of launches costs more than the arithmetic
SMALL_GROUPS = (
    8,
    16,
    24,
    32,
    48,
    64,
    96,
    128,
)  # groups of up to so many are decided together, padded to that
PAIRS_PER_PASS = 1_000_000
COLUMNS_PER_BLOCK = 4096  # columns of one suppression matrix; ROWS times COLUMNS bound the memory


def suppress(planes: Tensor, groups: Tensor, iou: float, *, most: int, distance: bool) -> Tensor:
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
    kept = [
        large[
            _suppress_large(planes.index_select(1, large), groups[large], iou, most=most, distance=distance)
        ]
    ]
    for least, limit in zip((0, *SMALL_GROUPS), SMALL_GROUPS, strict=False):
        those = (counts > least) & (counts <= limit)
        if bool(those.any()):
            kept.append(_suppress_small(planes, starts[those], counts[those], iou, distance=distance))
    return torch.cat(kept).sort().values


def _suppress_small(planes: Tensor, starts: Tensor, counts: Tensor, iou: float, *, distance: bool) -> Tensor:
    """Decide many small groups side by side: (k,) columns that are kept, in no order.

    Args:
        planes: as of `suppress`.
        starts: (groups,) first column of each.
        counts: (groups,) boxes of each, at least 1.
        iou: threshold.
        distance: suppress by DIoU.
    """
    place = torch.arange(int(counts.max()), device=planes.device)
    empty = planes.shape[1]  # a column of zeros behind all others fills the groups up: it overlaps nothing
    padded = torch.cat((planes, planes.new_zeros(len(planes), 1)), 1)
    parts = []
    together = max(PAIRS_PER_PASS // len(place) ** 2, 1)
    for first, count in zip(torch.split(starts, together), torch.split(counts, together), strict=True):
        there = place < count[:, None]  # (groups, limit)
        columns = torch.where(there, first[:, None] + place, empty)
        boxes = padded[:, columns]
        overlaps = planes_iou(boxes[:, :, :, None], boxes[:, :, None, :], distance=distance)
        parts.append(columns[there & _decide(overlaps > iou)])
    return torch.cat(parts)


def _suppress_large(planes: Tensor, groups: Tensor, iou: float, *, most: int, distance: bool) -> Tensor:
    """Decide the next block of rows among themselves, then drop what they suppress further down, and so on.

    Only boxes that are still alive go into a block, and a group is left as soon as it has `most` boxes (its others
    can't be among the best `most` of all), so the work is far under n²/2 on real detections. As `suppress`.
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
        boxes, names = planes.index_select(1, head), groups[head]
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
    kept = planes.index_select(1, rows)
    parts = [
        (pairwise_iou(kept, planes.index_select(1, part), distance=distance) > iou).any(0)
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
    before = clash.to(torch.float32).triu_(1)
    kept = torch.ones(*clash.shape[:-2], 1, clash.shape[-1], device=clash.device)
    while True:
        decided = (kept @ before == 0).to(torch.float32)
        if torch.equal(decided, kept):
            return kept[..., 0, :].bool()
        kept = decided
