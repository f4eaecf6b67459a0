"""Detections on their way to suppression: which predictions go in, how they are grouped, and which come out."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from model.boxes import xywh_to_xyxy

CANDIDATES_PER_IMAGE = 30_000  # what one image may bring to suppression; the best by confidence go on
SCORES_PER_PASS = (
    1_500_000  # class scores of candidates that are looked at at once, so that they stay in the cache
)
DEVICE_SCORES_PER_PASS = 256_000_000  # where launches cost more than memory
SCORE_BITS = 32


@dataclass(frozen=True, eq=False)
class Candidates:
    """Detections of several images: row i is about detection i.

    Attributes:
        image: (n,) int64.
        xyxy: (n, 4) float32.
        scores: (n,) float32, in (0, 1].
        classes: (n,) int64.
        position: (n,) int64, the order in which equal scores stand.
        groups: (n,) int64, what suppresses each other.
    """

    image: Tensor
    xyxy: Tensor
    scores: Tensor
    classes: Tensor
    position: Tensor
    groups: Tensor

    def rows(self, which: Tensor, scores: Tensor | None = None) -> "Candidates":
        """Those rows, with these scores where they are given."""
        return Candidates(
            self.image.index_select(0, which),
            self.xyxy.index_select(0, which),
            self.scores.index_select(0, which) if scores is None else scores,
            self.classes.index_select(0, which),
            self.position.index_select(0, which),
            self.groups.index_select(0, which),
        )


def candidates_by_pass(
    decoded: Tensor, confidence: float, *, multi_label: bool
) -> Iterator[tuple[int, Candidates]]:
    """Find the predictions above `confidence`, so many images at a time as their scores are few.

    Args:
        decoded: (batch, predictions, 5 + classes).
        confidence: in [0, 1].
        multi_label: one candidate for every class above the confidence, not for the best alone.

    Yields:
        (number of images, their candidates); `image` counts from 0 in each pass.
    """
    flat = decoded.reshape(-1, decoded.shape[2])
    above = (flat[:, 4] > confidence).nonzero()[:, 0]  # a class only lowers the objectness
    image = above // max(decoded.shape[1], 1)
    counts = image.bincount(minlength=len(decoded)).tolist()
    budget = SCORES_PER_PASS if decoded.device.type == "cpu" else DEVICE_SCORES_PER_PASS
    first = begin = 0
    while first < len(counts):
        last, end = first + 1, begin + counts[first]
        while last < len(counts) and (end + counts[last] - begin) * decoded.shape[2] <= budget:
            end += counts[last]
            last += 1
        table = flat.index_select(0, above[begin:end]).float()
        yield last - first, _score(image[begin:end] - first, table, confidence, multi_label=multi_label)
        first, begin = last, end


def _score(image: Tensor, table: Tensor, confidence: float, *, multi_label: bool) -> Candidates:
    """Candidates of rows (n, 5 + classes) of some images, of each image the best if too many."""
    scores = table[:, 4:5] if table.shape[1] == 6 else table[:, 5:] * table[:, 4:5]
    if multi_label:
        rows, classes = (scores > confidence).nonzero(as_tuple=True)
        best = scores[rows, classes]
    else:
        best, classes = scores.max(1)
        rows = (best > confidence).nonzero()[:, 0]
        best, classes = best[rows], classes[rows]
    position = torch.arange(len(rows), device=table.device)
    found = Candidates(image[rows], xywh_to_xyxy(table[rows, :4]), best, classes, position, classes)
    if len(rows) > CANDIDATES_PER_IMAGE and int(found.image.bincount().max()) > CANDIDATES_PER_IMAGE:
        found = found.rows(best_of_images(found.image, best, CANDIDATES_PER_IMAGE))
    return found


def sort_by_group(found: Candidates, *, agnostic: bool) -> Candidates:
    """Number the groups (the classes of an image, or the image) and sort by group, falling score, position."""
    classes = torch.zeros_like(found.classes) if agnostic else found.classes
    span = int(classes.max()) + 1 if len(classes) else 1
    groups = found.image * span + classes
    numbered = Candidates(found.image, found.xyxy, found.scores, found.classes, found.position, groups)
    return numbered.rows(_order(groups, found.scores))


def best_of_images(image: Tensor, scores: Tensor, most: int) -> Tensor:
    """Positions of the `most` best of each image, by image, then by falling score, then as they stand."""
    order = _order(image, scores)
    ordered = image[order]
    counts = ordered.bincount()
    if not len(counts) or int(counts.max()) <= most:
        return order
    starts = counts.cumsum(0) - counts
    rank = torch.arange(len(order), device=order.device) - starts[ordered]
    return order[rank < most]


def tables_of_images(found: Candidates, images: int, most: int) -> Iterator[Tensor]:
    """Give each image its `most` best rows (n, 6): xyxy, score, class; of equal scores the first."""
    order = found.position.argsort()
    order = order[best_of_images(found.image[order], found.scores[order], most)]
    columns = (found.xyxy, found.scores[:, None], found.classes[:, None].to(found.xyxy.dtype))
    table = torch.cat([column[order] for column in columns], dim=1)
    yield from torch.split(table, found.image[order].bincount(minlength=images).tolist())


def _order(groups: Tensor, scores: Tensor) -> Tensor:
    """Positions by rising group, falling score (over 0), position: one sort, by group and the score's bits."""
    bits = scores.view(torch.int32).to(torch.int64)
    return ((groups << SCORE_BITS) - bits).argsort(stable=True)
