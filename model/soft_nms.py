"""Soft suppression: boxes that overlap a better one lose confidence, and go only where too little is left.

Source: Soft-NMS (Bodla et al. 2017), https://arxiv.org/abs/1704.04503.
"""

import torch

from model.boxes import as_planes, planes_iou
from model.candidates import Candidates

SOFT_SIGMA = 0.5  # as published


def soften(found: Candidates, confidence: float, linear_iou: float | None, most: int) -> Candidates:
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
