"""Detections of a split, and what they are worth: COCO average precision, precision and recall.

Average precision follows the COCO protocol: 101 recall points, IoU 0.5 to 0.95, at most 100 detections per image
and class. Precision and recall are taken at the one confidence at which the mean F1 of all classes is highest, at
IoU 0.5.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from dataset import Split
from model import Detector
from model.nms import non_max_suppression
from model.suppression import Suppression
from trainer.average_precision import average_precision, build_truth, match
from trainer.curves import best_f1
from trainer.tta import augmented_predictions

FOR_AVERAGE_PRECISION = Suppression(confidence=0.001, iou=0.6, multi_label=True)
"""Average precision wants nearly all detections, however unsure; the IoU is published for it."""

Found = NDArray[np.float32]
"""Detections of one image: (n, 6) xyxy px of the original image, confidence, class."""


class GroundTruth:
    """The true boxes of a split, laid together once for all epochs.

    Attributes:
        names: Class names.
        boxes: Per image (n, 5): xyxy px of the original image, class.
        crowds: Per image (k, 5) likewise, regions in which detections do not count; empty where the split has none.
        table: The same, for `average_precision.match`.
    """

    def __init__(self, split: Split, names: Sequence[str]) -> None:
        """Turn labels and crowds into px.

        Args:
            split: The labels.
            names: Class names.
        """
        self.names = tuple(names)
        self.boxes = [
            _label_boxes(labels, size) for labels, size in zip(split.labels, split.sizes, strict=True)
        ]
        crowds = split.crowds or ()
        self.crowds = [_label_boxes(rows, size) for rows, size in zip(crowds, split.sizes, strict=False)]
        self.table = build_truth(self.boxes, len(self.names), self.crowds)


def evaluate(
    detector: Detector,
    loader: Iterable[Mapping[str, Any]],
    truth: GroundTruth,
    device: torch.device | str = "cpu",
    *,
    suppression: Suppression = FOR_AVERAGE_PRECISION,
    tta: bool = False,
    progress: Callable[[str, int, int], None] | None = None,
) -> dict[str, Any]:
    """Measure a detector on a split.

    Args:
        detector: A fused copy is measured; it stays as it is.
        loader: Batches of the whole split, each image once.
        truth: What is really there.
        device: Where the detector is.
        suppression: How overlapping boxes are thinned out.
        tta: Look at each image several times, see `trainer.tta`.
        progress: Called with ("evaluate", images done, images).

    Returns:
        What `measure` returns.
    """
    images = len(truth.boxes)
    found = detect_split(
        detector, loader, images, device, suppression=suppression, tta=tta, progress=progress
    )
    return measure(truth, found)


def detect_split(
    detector: Detector,
    loader: Iterable[Mapping[str, Any]],
    images: int,
    device: torch.device | str = "cpu",
    *,
    suppression: Suppression = FOR_AVERAGE_PRECISION,
    tta: bool = False,
    progress: Callable[[str, int, int], None] | None = None,
) -> list[Found]:
    """Detections of a whole split, per image in its order, as average precision wants them; see `evaluate`."""
    found: list[Found] = [np.zeros((0, 6), np.float32)] * images
    fused = detector.fuse()
    done = 0
    for batch in loader:
        boxes_of = detect(fused, batch, device, suppression=suppression, tta=tta)
        for index, boxes in zip(batch["indices"].tolist(), boxes_of, strict=True):
            found[index] = boxes
        done += len(batch["indices"])
        if progress:
            progress("evaluate", done, images)
    return found


@torch.no_grad()
def detect(
    detector: Detector,
    batch: Mapping[str, Any],
    device: torch.device | str = "cpu",
    *,
    suppression: Suppression = FOR_AVERAGE_PRECISION,
    tta: bool = False,
) -> list[Found]:
    """Detections of a batch of the loader, in px of the original images and clipped to them.

    Args:
        detector: In eval mode.
        batch: Of the loader: images uint8 (B, 3, H, W) RGB, sizes (h, w), ratio (w, h) and pad (left, top).
        device: Where the detector is.
        suppression: How overlapping boxes are thinned out; several classes for one box raise average precision and
            confuse people.
        tta: Look at each image several times, see `trainer.tta`.

    Returns:
        Per image (n, 6), at most `suppression.max_detections` rows, most confident first.
    """
    decoded = _decoded(detector, to_input(batch["images"], device), tta=tta)
    kept = non_max_suppression(decoded, suppression)
    return [
        to_original(boxes[boxes.isfinite().all(1)].float().cpu().numpy(), ratio, pad, size)
        for boxes, ratio, pad, size in zip(kept, batch["ratio"], batch["pad"], batch["sizes"], strict=True)
    ]


def _decoded(detector: Detector, images: torch.Tensor, *, tta: bool) -> torch.Tensor:
    """Decoded predictions of a batch; in halves, and those in halves, where a GPU's memory does not hold it."""
    try:
        return augmented_predictions(detector, images) if tta else detector(images)[0]
    except torch.OutOfMemoryError:
        if len(images) == 1:
            raise
    middle = len(images) // 2
    halves = (_decoded(detector, half, tta=tta) for half in (images[:middle], images[middle:]))
    return torch.cat(list(halves))


def to_input(images: torch.Tensor, device: torch.device | str) -> torch.Tensor:
    """Images uint8 (B, 3, H, W) as a detector takes them: float32 in [0, 1], channels last in memory.

    Images that a device has augmented already are floats in [0, 1], and stay so.
    """
    if images.is_floating_point():
        return images.to(device, memory_format=torch.channels_last)
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
    matches = match(truth.table, found)
    by_iou = average_precision(matches, counts[:, 1])
    average = np.stack((by_iou[:, 0], by_iou.mean(axis=1)), axis=1)
    confidence, precision, recall = best_f1(matches, counts[:, 1])
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
