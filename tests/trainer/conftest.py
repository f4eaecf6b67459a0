"""A tiny data set that the tests of the trainer share."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from trainer import TrainConfig

COLOURS = ((40, 40, 230), (60, 210, 60), (230, 90, 40))  # BGR, one per class
SIZES = ((96, 72), (64, 96), (80, 80), (128, 64))  # width, height px


def _draw_image(rng: np.random.Generator, width: int, height: int) -> tuple[np.ndarray, list[str]]:
    """Noise with one to three filled rectangles that don't overlap, and their YOLO label lines."""
    image = rng.integers(90, 140, (height, width, 3), dtype=np.uint8)
    lines = []
    columns = int(rng.integers(1, 4))
    for column in range(columns):
        room = width // columns
        w, h = int(rng.integers(12, room - 3)), int(rng.integers(12, height - 8))
        x, y = column * room + int(rng.integers(0, room - w)), int(rng.integers(0, height - h))
        label = int(rng.integers(3))
        image[y : y + h, x : x + w] = COLOURS[label]
        lines.append(
            f"{label} {(x + w / 2) / width:.6f} {(y + h / 2) / height:.6f} {w / width:.6f} {h / height:.6f}"
        )
    return image, lines


@pytest.fixture(scope="session")
def tiny_dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Path of the data.yaml of a YOLO data set: 16 images to train on, 8 to judge on, 3 classes told by colour."""
    root = tmp_path_factory.mktemp("tiny")
    rng = np.random.default_rng(2024)
    for split, count in (("train", 16), ("val", 8)):
        images, labels = root / "images" / split, root / "labels" / split
        images.mkdir(parents=True)
        labels.mkdir(parents=True)
        for number in range(count):
            image, lines = _draw_image(rng, *SIZES[number % len(SIZES)])
            cv2.imwrite(str(images / f"{number:02}.png"), image)
            (labels / f"{number:02}.txt").write_text("\n".join(lines) + "\n")
    data = root / "data.yaml"
    data.write_text(
        f"path: {root}\ntrain: images/train\nval: images/val\nnames:\n  0: red\n  1: green\n  2: blue\n"
    )
    return data


@pytest.fixture
def config(tiny_dataset: Path, tmp_path: Path) -> TrainConfig:
    """A training of seconds: one epoch of two batches at 64 px."""
    settings = {"data": str(tiny_dataset), "model": "yolov5n", "out": tmp_path / "out", "epochs": 1}
    settings |= {"batch_size": 8, "image_size": 64, "anchors": "keep", "threads": 1, "device": "cpu"}
    return TrainConfig(**settings)
