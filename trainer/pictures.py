"""Pictures of a training: its first batches, predictions beside labels, and the charts of `trainer.charts`."""

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from model.suppression import Suppression
from trainer import checkpoint
from trainer.average_precision import match
from trainer.charts import draw_confusion, draw_f1, draw_history, draw_labels, draw_pr
from trainer.confusion import confusion_matrix
from trainer.curves import curves_at
from trainer.evaluate import Found, detect, detect_split
from trainer.images import as_image
from trainer.predict import class_colour, draw_label, load_detector
from trainer.session import Session

BATCHES = 2
TILES = 16
TILE = 320
"""px; the longer side of an image in a mosaic of several."""
SURE = 0.25
"""Least confidence of a prediction that is drawn."""

Image = NDArray[np.uint8]
Floats = NDArray[np.float64]


def draw_start(session: Session) -> None:
    """Draw labels.png and train_batch_N.jpg, before the first step. No random stream is moved.

    Raises:
        TrainError: The disk is full.
    """
    folder = session.folder.path
    draw_labels(folder / "labels.png", session.train_split, session.truth.names)
    session.train_loader.set_epoch(0)
    for number, batch in enumerate(itertools.islice(session.train_loader, BATCHES)):
        save_image(folder / f"train_batch_{number}.jpg", draw_batch(batch, session.truth.names))


def draw_end(session: Session) -> None:
    """Draw results.png, and from best.pt val_batch.jpg, pr_curve.png, f1_curve.png and confusion.png.

    Raises:
        TrainError: The disk is full.
    """
    folder, truth = session.folder.path, session.truth
    draw_history(folder / "results.png", session.history)
    detector, names, _ = load_detector(session.folder.best, session.device)
    batch = next(iter(session.val_loader))
    sure = detect(detector, batch, session.device, suppression=Suppression(confidence=SURE, iou=0.6))
    save_image(folder / "val_batch.jpg", draw_predictions(batch, sure, session))
    found = detect_split(detector, session.val_loader, len(truth.boxes), session.device)
    counts = truth.table.counts
    curves = curves_at(match(truth.table, found), counts, np.linspace(0, 1, 501))
    draw_pr(folder / "pr_curve.png", curves, counts, names)
    draw_f1(folder / "f1_curve.png", curves, counts, names)
    draw_confusion(
        folder / "confusion.png", confusion_matrix(truth.boxes, found, len(names), truth.crowds), names
    )


def draw_batch(batch: Mapping[str, Any], names: Sequence[str]) -> Image:
    """The images of a batch as the detector gets them, with the boxes that it is to find."""
    images, targets = batch["images"][:TILES], batch["targets"].cpu().numpy()
    tiles = []
    for place, planes in enumerate(images):
        image = _as_image(planes)
        mine = targets[targets[:, 0] == place]
        sides = np.tile([image.shape[1], image.shape[0]], 2)
        centre, half = mine[:, 2:4], mine[:, 4:6] / 2
        xyxy = np.concatenate((centre - half, centre + half), axis=1) * sides
        labels = mine[:, 1].astype(int)
        tiles.append(_draw_boxes(image, xyxy, labels, [names[label] for label in labels]))
    return lay_out(tiles)


def draw_predictions(batch: Mapping[str, Any], found: Sequence[Found], session: Session) -> Image:
    """Images of a batch twice, side by side: with their labels, and with what was predicted."""
    tiles = []
    for place, index in enumerate(batch["indices"].tolist()[: TILES // 2]):
        ratio, pad = batch["ratio"][place].tolist(), batch["pad"][place].tolist()
        scale, shift = np.tile(ratio, 2), np.tile(pad, 2)
        image, boxes = _as_image(batch["images"][place]), session.truth.boxes[index]
        labels = boxes[:, 4].astype(int)
        words = [session.truth.names[label] for label in labels]
        labelled = _draw_boxes(image, boxes[:, :4] * scale + shift, labels, words)
        rows = found[place].astype(np.float64)
        words = [f"{sure:.2f}" for sure in rows[:, 4].tolist()]  # colours tell the classes
        guessed = _draw_boxes(image, rows[:, :4] * scale + shift, rows[:, 5].astype(int), words)
        tiles += [_headed(labelled, "labels"), _headed(guessed, "predictions, with confidence")]
    return lay_out(tiles, columns=4)


def lay_out(tiles: Sequence[Image], columns: int | None = None) -> Image:
    """Several images as one, each scaled to fit a square of `TILE` px; columns None makes it about square."""
    columns = columns or int(np.ceil(np.sqrt(len(tiles))))
    scaled = list[Image]()
    for tile in tiles:
        ratio = (TILE - 4) / max(tile.shape[:2])
        size = (max(round(tile.shape[1] * ratio), 1), max(round(tile.shape[0] * ratio), 1))
        way = cv2.INTER_AREA if ratio < 1 else cv2.INTER_LINEAR
        scaled.append(as_image(cv2.resize(tile, size, interpolation=way)))
    rows = list[Image]()
    for first in range(0, len(scaled), columns):
        row = scaled[first : first + columns]
        canvas = np.full((max(map(len, row)) + 4, columns * TILE, 3), 255, np.uint8)
        for place, shown in enumerate(row):
            left = place * TILE + 2
            canvas[2 : 2 + shown.shape[0], left : left + shown.shape[1]] = shown
        rows.append(canvas)
    return np.concatenate(rows)


def save_image(path: Path, image: Image) -> None:
    """Write an image, whole or not at all.

    Raises:
        TrainError: The disk is full.
    """
    done, data = cv2.imencode(path.suffix, image)
    if done:
        checkpoint.write_bytes(path, data.tobytes())


def _as_image(planes: torch.Tensor) -> Image:
    """(3, H, W) RGB planes, uint8 or in [0, 1], as (H, W, 3) BGR px."""
    if planes.is_floating_point():
        planes = (planes * 255).round().to(torch.uint8)
    return np.ascontiguousarray(planes.cpu().numpy().transpose(1, 2, 0)[:, :, ::-1])


def _draw_boxes(image: Image, xyxy: Floats, labels: NDArray[Any], words: Sequence[str]) -> Image:
    """Boxes with a word each; on small images, where words would hide them, colours alone tell the classes."""
    canvas = image.copy()
    thick = max(round(max(image.shape[:2]) / 400), 1)
    corners = xyxy.round().astype(int).tolist()
    for (left, top, right, bottom), label in zip(corners, labels, strict=True):
        colour = class_colour(int(label))
        cv2.rectangle(canvas, (left, top), (right, bottom), colour, thick)
    if max(image.shape[:2]) >= TILE:
        scale = max(0.34, 0.34 * max(image.shape[:2]) / (2 * TILE))
        for (left, top, _, _), label, word in zip(corners, labels, words, strict=True):
            draw_label(canvas, word, (left, top), class_colour(int(label)), scale)
    return canvas


def _headed(image: Image, text: str) -> Image:
    """An image under a strip with a word."""
    tall = max(round(image.shape[1] / 16), 12)
    strip = np.full((tall, image.shape[1], 3), 255, np.uint8)
    scale = tall / 26
    cv2.putText(strip, text, (4, tall - 4), cv2.FONT_HERSHEY_SIMPLEX, scale, (0, 0, 0), 1, cv2.LINE_AA)
    return np.concatenate((strip, image))
