"""Non-maximum suppression in torch: greedy, by DIoU, and soft; the images of a batch side by side.

The candidates are found and handed out in `model.candidates`, the work is in `model.greedy_nms` and
`model.soft_nms`.
"""

import torch
from torch import Tensor

from model.boxes import as_planes
from model.candidates import candidates_by_pass, sort_by_group, tables_of_images
from model.errors import ModelError
from model.greedy_nms import suppress
from model.soft_nms import soften
from model.suppression import Suppression, check_fraction

USUAL = Suppression()


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
    check_fraction("iou", iou)
    if xyxy.ndim != 2 or xyxy.shape[1] != 4 or scores.shape != xyxy.shape[:1]:
        raise ModelError(
            "xyxy (n, 4) and scores (n,) must belong together, "
            f"but got {tuple(xyxy.shape)} and {tuple(scores.shape)}"
        )
    order = scores.argsort(descending=True, stable=True)
    groups = torch.zeros(len(xyxy), dtype=torch.int64, device=xyxy.device)
    return order[suppress(as_planes(xyxy[order]), groups, iou, most=len(xyxy), distance=False)]


@torch.no_grad()
def non_max_suppression(decoded: Tensor, settings: Suppression = USUAL) -> list[Tensor]:
    """Turn the detector's decoded output into final detections.

    A detection's confidence is objectness times class probability. A detector of one class learns no class
    (its class loss is left out), so there the objectness alone counts.

    Args:
        decoded: (batch, predictions, 5 + classes): xywh px, objectness and class probabilities in [0, 1].
        settings: thresholds and kind.

    Returns:
        One (n, 6) tensor an image: xyxy px, confidence, class; by falling confidence. n may be 0.

    Raises:
        ModelError: `decoded` has another shape.
    """
    if decoded.ndim != 3 or decoded.shape[2] < 6:
        raise ModelError(f"decoded must be (batch, predictions, 5 + classes), but got {tuple(decoded.shape)}")
    confidence, iou, most = settings.confidence, settings.iou, settings.max_detections
    detections: list[Tensor] = []
    for images, candidates in candidates_by_pass(decoded, confidence, multi_label=settings.multi_label):
        found = sort_by_group(candidates, agnostic=settings.agnostic)
        if settings.kind in ("greedy", "diou"):
            planes, distance = as_planes(found.xyxy), settings.kind == "diou"
            found = found.rows(suppress(planes, found.groups, iou, most=most, distance=distance))
        else:
            found = soften(found, confidence, iou if settings.kind == "soft-linear" else None, most)
        detections += tables_of_images(found, images, most)
    return detections
