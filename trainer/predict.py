"""What a trained checkpoint is for: boxes on images, pictures of them, and figures on a split."""

import colorsys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from dataset import load
from model import Detector
from model.spec import ModelError
from model.spec import round_image_size as next_size
from model.suppression import Suppression
from model.transfer import build_from
from model.weights import read_checkpoint
from trainer import augment
from trainer.config import TrainError
from trainer.evaluate import FOR_AVERAGE_PRECISION, Found, GroundTruth, detect, evaluate
from trainer.images import read_image
from trainer.prepare import Progress, build_val_loader, choose_device, place

Image = NDArray[np.uint8]
"""(H, W, 3) BGR."""

FOR_PEOPLE = Suppression()
"""What is sure enough to be drawn, each object once."""


@dataclass(frozen=True, kw_only=True)
class Measuring:
    """How a checkpoint is measured.

    Attributes:
        batch_size: Images per forward pass.
        device: "auto", "cpu", "cuda" or "cuda:N".
        suppression: How overlapping boxes are thinned out.
        tta: Look at each image several times, see `trainer.tta`.
    """

    batch_size: int = 16
    device: str = "auto"
    suppression: Suppression = FOR_AVERAGE_PRECISION
    tta: bool = False


MEASURING = Measuring()

GOLDEN_RATIO = 0.618033988749895
"""Hues this share of the circle apart stay well apart, however many classes there are."""


def load_detector(
    path: str | Path, device: str | torch.device = "cpu"
) -> tuple[Detector, tuple[str, ...], int]:
    """Read a detector in eval mode, its averaged weights where there are such.

    Args:
        path: A checkpoint of a training, or another program's that says which model it is of (`model.weights`).
        device: Where it goes.

    Returns:
        (detector, class names: numbers where the checkpoint has none, image size in px that it was trained at, or
        that the model is meant for)

    Raises:
        TrainError: The checkpoint cannot be read, is damaged, or does not say its model.
    """
    try:
        checkpoint = read_checkpoint(path)
        detector, _ = build_from(checkpoint)
    except ModelError as error:
        raise TrainError(str(error)) from error
    names = checkpoint.names
    if names is None or len(names) != detector.classes:
        names = tuple(map(str, range(detector.classes)))
    size = next_size(checkpoint.image_size or detector.spec.image_size, detector.spec.grid)
    return place(detector, device).eval(), names, size


def predict(
    checkpoint: str | Path | tuple[Detector, Sequence[str], int],
    images: Iterable[str | Path | Image],
    *,
    suppression: Suppression = FOR_PEOPLE,
    image_size: int | None = None,
    device: str = "auto",
    tta: bool = False,
) -> Iterator[Found]:
    """Detect objects on images, one after another.

    Args:
        checkpoint: A path, or what `load_detector` gave.
        images: Paths, or uint8 (H, W, 3) BGR as OpenCV reads them.
        suppression: How overlapping boxes are thinned out.
        image_size: Longer side in px that images are scaled to; None is that of the training.
        device: "auto", "cpu", "cuda" or "cuda:N".
        tta: Look at each image several times, see `trainer.tta`.

    Yields:
        Per image (n, 6): xyxy px of the image as given, confidence, class; most confident first.

    Raises:
        TrainError: The checkpoint or an image cannot be read, or the device is not there.
    """
    where = choose_device(device)
    loaded = checkpoint if isinstance(checkpoint, tuple) else load_detector(checkpoint)
    detector = place(loaded[0].fuse(), where)
    for image in images:
        pixels = read_image(Path(image)) if isinstance(image, str | Path) else _check_image(image)
        batch = _as_batch(pixels, image_size or loaded[2], detector.spec.grid)
        yield detect(detector, batch, where, suppression=suppression, tta=tta)[0]


def draw(image: Image, detections: Found, names: Sequence[str]) -> Image:
    """Draw boxes with class and confidence, one colour per class.

    Args:
        image: uint8 (H, W, 3) BGR; not edited.
        detections: (n, 6) xyxy px, confidence, class; the most confident is drawn on top.
        names: Class names.

    Returns:
        A new image of the same size.
    """
    canvas = np.ascontiguousarray(_check_image(image)).copy()
    # Labels of the same share of a picture whether it is a thumbnail or a photograph, but never too small to read.
    scale = max(max(canvas.shape[:2]) / 1600, 0.4)
    line = max(round(2 * scale), 1)
    for left, top, right, bottom, confidence, label in detections[::-1].tolist():
        colour = class_colour(int(label))
        corner = (round(left), round(top))
        cv2.rectangle(canvas, corner, (round(right), round(bottom)), colour, line)
        draw_label(canvas, f"{names[int(label)]} {confidence:.2f}", corner, colour, scale)
    return canvas


def class_colour(label: int) -> tuple[int, int, int]:
    """A BGR colour, the same for a class on every picture.

    >>> class_colour(0) != class_colour(1)
    True
    """
    red, green, blue = colorsys.hsv_to_rgb(label * GOLDEN_RATIO % 1, 0.85, 0.95)
    return round(blue * 255), round(green * 255), round(red * 255)


def validate(
    checkpoint: str | Path,
    data: str | Path,
    split: str = "val",
    *,
    how: Measuring = MEASURING,
    difficult: str = "learn",
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Measure a checkpoint on a split of a data set.

    Args:
        checkpoint: Of a training.
        data: What `dataset.load` reads.
        split: "train", "val" or "test".
        how: Batches, device and suppression.
        difficult: As for `dataset.load`.
        progress: Called with ("evaluate", images done, images).

    Returns:
        What `evaluate.measure` gives (`classes` is the table by class), and `split`, `images`, `image_size`.

    Raises:
        TrainError: The checkpoint cannot be read, or knows other classes than the data, or there is no such split.
        dataset.DataError: The data cannot be read.
    """
    where = choose_device(how.device)
    detector, names, image_size = load_detector(checkpoint, where)
    dataset = load(data, difficult=difficult)
    if dataset.names != names:
        raise TrainError(
            f"{checkpoint} knows the classes {', '.join(names)}, but {data} has {', '.join(dataset.names)}"
        )
    if split not in dataset.splits:
        raise TrainError(f"split must be one of {', '.join(dataset.splits)}, but got {split!r}")
    part = dataset.splits[split]
    loader = build_val_loader(part, image_size, detector.spec.grid, batch_size=how.batch_size)
    truth = GroundTruth(part, names)
    measured = evaluate(
        detector, loader, truth, where, suppression=how.suppression, tta=how.tta, progress=progress
    )
    return measured | {"split": split, "images": len(part.images), "image_size": image_size}


def _check_image(image: Image) -> Image:
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
        raise TrainError(f"an image must be uint8 (H, W, 3), but got {image.dtype} {image.shape}")
    return image


def _as_batch(image: Image, image_size: int, grid: int) -> dict[str, Any]:
    """A batch of one, as the loader would give it: the longer side at `image_size`, padded to the grid."""
    height, width = image.shape[:2]
    ratio = image_size / max(height, width)
    size = (int(np.ceil(height * ratio / grid)) * grid, int(np.ceil(width * ratio / grid)) * grid)
    fitted, ratios, pad = augment.letterbox(image, size, scale_up=True)
    planes = np.ascontiguousarray(fitted[:, :, ::-1].transpose(2, 0, 1))
    return {
        "images": torch.from_numpy(planes)[None],
        "ratio": [ratios],
        "pad": [pad],
        "sizes": [(height, width)],
    }


def draw_label(
    canvas: Image, text: str, corner: tuple[int, int], colour: tuple[int, int, int], scale: float
) -> None:
    """A filled plate with text, above the box's corner, or inside the box where there is no room above."""
    thickness = max(round(1.5 * scale), 1)
    (width, height), below = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, scale, thickness)
    tall = height + below + 2
    left = int(np.clip(corner[0], 0, max(canvas.shape[1] - width - 2, 0)))
    above = corner[1] - tall if corner[1] >= tall else corner[1]
    top = int(np.clip(above, 0, max(canvas.shape[0] - tall, 0)))
    cv2.rectangle(canvas, (left, top), (left + width + 2, top + tall), colour, cv2.FILLED)
    # Black on light plates, white on dark ones, by the luminance of ITU-R BT.601.
    bright = 0.114 * colour[0] + 0.587 * colour[1] + 0.299 * colour[2] > 140
    ink = (0, 0, 0) if bright else (255, 255, 255)
    at = (left + 1, top + height + 1)
    cv2.putText(canvas, text, at, cv2.FONT_HERSHEY_SIMPLEX, scale, ink, thickness, cv2.LINE_AA)
