"""Detections of a split, and what they are worth: COCO average precision, precision and recall.

Average precision is that of faster_coco_eval (the COCO protocol: 101 recall points, IoU 0.5 to 0.95, at most
100 detections per image). Precision and recall are taken at the one confidence at which the mean F1 of all
classes is highest, at IoU 0.5.
"""

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from faster_coco_eval import COCO
from faster_coco_eval.core.faster_eval_api import COCOeval_faster
from numpy.typing import NDArray

from dataset import Split
from model import Detector
from model.boxes import box_iou, non_max_suppression

logger = logging.getLogger(__name__)

CONFIDENCE = 0.001  # average precision wants nearly all detections, however unsure
NMS_IOU = 0.6  # published for average precision
MAX_DETECTIONS = 300
COCO_MOST = 100  # detections per image that the COCO protocol looks at

Found = NDArray[np.float32]
"""Detections of one image: (n, 6) xyxy px of the original image, confidence, class."""


class GroundTruth:
    """The true boxes of a split, indexed once for all epochs.

    Attributes:
        names: Class names.
        boxes: Per image (n, 5): xyxy px of the original image, class.
        coco: The same for faster_coco_eval; image i has id i + 1, class c has id c + 1.
    """

    def __init__(self, split: Split, names: Sequence[str]) -> None:
        self.names = tuple(names)
        self.boxes = [
            _label_boxes(labels, size) for labels, size in zip(split.labels, split.sizes, strict=True)
        ]
        self.coco = COCO(
            {
                "images": [
                    {"id": index + 1, "width": int(width), "height": int(height)}
                    for index, (width, height) in enumerate(split.sizes)
                ],
                "categories": [{"id": index + 1, "name": name} for index, name in enumerate(self.names)],
                "annotations": _annotations(self.boxes),
            },
            print_function=logger.debug,
        )


def evaluate(
    detector: Detector,
    loader: Iterable[Mapping[str, Any]],
    split: Split,
    names: Sequence[str],
    device: torch.device | str = "cpu",
    *,
    truth: GroundTruth | None = None,
    progress: Callable[[str, int, int], None] | None = None,
) -> dict[str, Any]:
    """Measure a detector on a split.

    Args:
        detector: A fused copy is measured; it stays as it is.
        loader: Batches of the whole split, each image once.
        split: The truth.
        names: Class names.
        device: Where the detector is.
        truth: `GroundTruth(split, names)`, when it was built before.
        progress: Called with ("evaluate", images done, images).

    Returns:
        What `measure` returns.
    """
    truth = truth or GroundTruth(split, names)
    found: list[Found] = [np.zeros((0, 6), np.float32)] * len(split.images)
    fused = detector.fuse()
    done = 0
    for batch in loader:
        for index, boxes in zip(batch["indices"].tolist(), detect(fused, batch, device), strict=True):
            found[index] = boxes
        done += len(batch["indices"])
        if progress:
            progress("evaluate", done, len(split.images))
    return measure(truth, found)


@torch.no_grad()
def detect(
    detector: Detector,
    batch: Mapping[str, Any],
    device: torch.device | str = "cpu",
    *,
    confidence: float = CONFIDENCE,
    iou: float = NMS_IOU,
    multi_label: bool = True,
) -> list[Found]:
    """Detections of a batch of the loader, in px of the original images and clipped to them.

    Args:
        detector: In eval mode.
        batch: Of the loader: images uint8 (B, 3, H, W) RGB, sizes (h, w), ratio (w, h) and pad (left, top).
        device: Where the detector is.
        confidence: Least confidence of a detection.
        iou: Of the non-maximum suppression.
        multi_label: Several classes for one box; raises average precision, confuses people.

    Returns:
        Per image (n, 6), at most `MAX_DETECTIONS` rows, most confident first.
    """
    decoded, _ = detector(to_input(batch["images"], device))
    kept = non_max_suppression(
        decoded,
        confidence,
        iou,
        multi_label=multi_label and detector.classes > 1,
        max_detections=MAX_DETECTIONS,
    )
    return [
        to_original(boxes[boxes.isfinite().all(1)].float().cpu().numpy(), ratio, pad, size)
        for boxes, ratio, pad, size in zip(kept, batch["ratio"], batch["pad"], batch["sizes"], strict=True)
    ]


def to_input(images: torch.Tensor, device: torch.device | str) -> torch.Tensor:
    """Images uint8 (B, 3, H, W) as a detector takes them: float32 in [0, 1], channels last in memory."""
    moved = images.to(device, non_blocking=True).to(torch.float32, memory_format=torch.channels_last)
    return moved.div_(255)


def to_original(found: Found, ratio: Any, pad: Any, size: Any) -> Found:
    """Undo a letterbox.

    Args:
        found: (n, 6) xyxy px of the letterboxed image, confidence, class.
        ratio: (w, h) by which the original was scaled.
        pad: (left, top) px that were added after that.
        size: (h, w) of the original; boxes are clipped to it.

    Returns:
        A new (n, 6) array.
    """
    result = found.copy()
    for axis in (0, 1):
        sides = (found[:, axis:4:2] - float(pad[axis])) / float(ratio[axis])
        result[:, axis:4:2] = sides.clip(0, float(size[1 - axis]))
    return result


def measure(truth: GroundTruth, found: Sequence[Found]) -> dict[str, Any]:
    """Average precision, precision and recall of detections.

    Args:
        truth: The true boxes.
        found: Per image, in the order of the split.

    Returns:
        `precision`, `recall`, `map50`, `map50_95` and `fitness` (0.1 map50 + 0.9 map50_95): means over the
        classes that occur, 0.0 when none does; `confidence` at which precision and recall hold; `classes`:
        per class name, images, boxes, precision, recall, map50, map50_95 (None where the class does not occur).
    """
    counts = np.zeros((len(truth.names), 2), np.int64)  # images, boxes
    for boxes in truth.boxes:
        labels, repeats = np.unique(boxes[:, 4].astype(np.int64), return_counts=True)
        counts[labels] += np.stack((np.ones_like(repeats), repeats), axis=1)
    occurs = counts[:, 1] > 0
    average = _average_precision(truth, found)  # (classes, 2)
    confidence, precision, recall = _best_f1(truth, found, counts[:, 1])
    columns = {"precision": precision, "recall": recall, "map50": average[:, 0], "map50_95": average[:, 1]}
    means = {key: float(values[occurs].mean()) if occurs.any() else 0.0 for key, values in columns.items()}
    classes = [
        {"name": name, "images": int(counts[index, 0]), "boxes": int(counts[index, 1])}
        | {key: float(values[index]) if occurs[index] else None for key, values in columns.items()}
        for index, name in enumerate(truth.names)
    ]
    return {
        "fitness": fitness(means["map50"], means["map50_95"]),
        **means,
        "confidence": confidence,
        "classes": classes,
    }


def fitness(map50: float, map50_95: float) -> float:
    """The published figure of merit: 0.1 · mAP@0.5 + 0.9 · mAP@0.5:0.95."""
    return 0.1 * map50 + 0.9 * map50_95


def _label_boxes(labels: NDArray[np.float32], size: NDArray[np.int32]) -> NDArray[np.float64]:
    """Labels (n, 5) class and normalised xywh as (n, 5) xyxy px and class."""
    scale = np.tile(size.astype(np.float64), 2)
    centre, half = labels[:, 1:3].astype(np.float64), labels[:, 3:5].astype(np.float64) / 2
    xyxy = np.concatenate((centre - half, centre + half), axis=1) * scale
    return np.concatenate((xyxy, labels[:, :1]), axis=1)


def _annotations(boxes: Sequence[NDArray[np.float64]]) -> list[dict[str, Any]]:
    rows = [(image + 1, *row) for image, table in enumerate(boxes) for row in table.tolist()]
    return [
        {
            "id": number + 1,  # COCO's matching takes id 0 for "no match"
            "image_id": image,
            "category_id": int(label) + 1,
            "bbox": [left, top, right - left, bottom - top],
            "area": (right - left) * (bottom - top),
            "iscrowd": 0,
        }
        for number, (image, left, top, right, bottom, label) in enumerate(rows)
    ]


def _average_precision(truth: GroundTruth, found: Sequence[Found]) -> NDArray[np.float64]:
    """(classes, 2): AP at IoU 0.5 and mean AP at 0.5 to 0.95; 0 for classes without truth or detections."""
    rows = [
        np.column_stack(
            (np.full(len(boxes), image + 1), boxes[:, :2], boxes[:, 2:4] - boxes[:, :2], boxes[:, 4:])
        )
        for image, boxes in enumerate(found)
        if len(boxes)
    ]
    if not rows or not truth.coco.anns:
        return np.zeros((len(truth.names), 2))
    table = np.concatenate(rows).astype(np.float64)
    table[:, 6] += 1
    judge = COCOeval_faster(truth.coco, truth.coco.loadRes(table), "bbox", print_function=logger.debug)
    # Only the area range "all" is read below, and each other one costs as much again.
    judge.params.areaRng, judge.params.areaRngLbl = [[0, 1e10]], ["all"]
    judge.params.maxDets = [COCO_MOST]
    judge.evaluate()
    judge.accumulate()
    precision = np.asarray(judge.eval["precision"])[
        :, :, :, 0, -1
    ]  # (10 IoU, 101 recalls, classes), -1 absent
    by_iou = precision.clip(0).mean(axis=1)
    return np.stack((by_iou[0], by_iou.mean(axis=0)), axis=1)


def _best_f1(
    truth: GroundTruth, found: Sequence[Found], boxes: NDArray[np.int64]
) -> tuple[float, NDArray[np.float64], NDArray[np.float64]]:
    """The confidence of the highest mean F1 at IoU 0.5, and each class's precision and recall there."""
    hits = [true_positives(*pair) for pair in zip(found, truth.boxes, strict=True)]
    rows = np.concatenate([np.zeros((0, 6), np.float32), *found])
    hit = np.concatenate([np.zeros(0, bool), *hits])
    nothing = np.zeros(len(boxes))
    if not hit.any():
        return 0.0, nothing, nothing
    # Confidences of hits suffice: between two of them precision only falls as the threshold does.
    thresholds = np.unique(rows[hit, 4])
    precision, recall = np.zeros((2, len(boxes), len(thresholds)))
    for label in np.flatnonzero(boxes):
        mine = rows[:, 5] == label
        order = np.argsort(-rows[mine, 4], kind="stable")
        scores = -rows[mine, 4][order]  # ascending, as searchsorted wants them
        above = np.searchsorted(scores, -thresholds, side="right")
        right = np.concatenate(([0], np.cumsum(hit[mine][order])))[above]
        precision[label] = right / np.maximum(above, 1)
        recall[label] = right / boxes[label]
    f1 = 2 * precision * recall / np.maximum(precision + recall, 1e-12)
    best = int(f1[boxes > 0].mean(axis=0).argmax())
    return float(thresholds[best]), precision[:, best], recall[:, best]


def true_positives(found: Found, truth: NDArray[np.float64], iou: float = 0.5) -> NDArray[np.bool_]:
    """Which detections of one image are right: by falling confidence each takes its best true box still free.

    Args:
        found: (n, 6) xyxy px, confidence, class.
        truth: (m, 5) xyxy px, class.
        iou: Least IoU with a true box of the same class.

    Returns:
        (n,) bool, in the order of `found`.
    """
    right = np.zeros(len(found), bool)
    if not len(found) or not len(truth):
        return right
    overlaps = box_iou(
        torch.from_numpy(found[:, :4].astype(np.float64)), torch.from_numpy(truth[:, :4])
    ).numpy()
    overlaps[found[:, 5, None] != truth[None, :, 4]] = 0.0
    order = np.argsort(-found[:, 4], kind="stable")
    for row in order[(overlaps[order] >= iou).any(axis=1)]:
        column = overlaps[row].argmax()
        if overlaps[row, column] >= iou:
            right[row] = True
            overlaps[:, column] = 0.0  # taken
    return right
