"""Images per second of the training augmentation in one thread, against warping the whole mosaic canvas.

    python benchmarks/augment_speed.py [--size 640] [--seconds 3]

Both sides make the same training sample from four decoded images: mosaic, random perspective, HSV jitter, flips, RGB
planes. They take turns, so that other work on the machine hurts both. The images are random: no decoding is measured.
"""

import argparse
import math
import time
from collections.abc import Callable, Sequence

import cv2
import numpy as np

from trainer import augment
from trainer.config import Hyperparameters
from trainer.warp import draw_warp, warp_labels

SETTINGS = {
    "default (scale, translate)": Hyperparameters(),
    "rotate and shear": Hyperparameters(degrees=10, shear=3),
    "perspective": Hyperparameters(degrees=10, perspective=0.0005),
    "default with mixup": Hyperparameters(mixup=1),
}
Sample = tuple[np.ndarray, np.ndarray]


def plain_mosaic(
    rng: np.random.Generator, samples: Sequence[Sample], size: int, hyp: Hyperparameters
) -> Sample:
    """The mosaic by the book: a canvas of twice the size, four pastes, one warp of the whole."""
    centre_x, centre_y = (int(v) for v in rng.uniform(0.5 * size, 1.5 * size, 2))
    canvas = np.full((2 * size, 2 * size, 3), 114, np.uint8)
    boxes = []
    for corner, (image, labels) in enumerate(samples):
        height, width = image.shape[:2]
        x = centre_x - (0 if corner % 2 else width)
        y = centre_y - (0 if corner >= 2 else height)
        left, right = max(x, 0), min(x + width, 2 * size)
        top, bottom = max(y, 0), min(y + height, 2 * size)
        canvas[top:bottom, left:right] = image[top - y : bottom - y, left - x : right - x]
        boxes.append(labels + np.array([0, x, y, x, y], np.float32))
    warp = draw_warp(rng, hyp, (2 * size, 2 * size), (size, size))
    if warp.matrix[2, 0] == warp.matrix[2, 1] == 0:
        out = cv2.warpAffine(canvas, warp.matrix[:2], (size, size), borderValue=(114, 114, 114))
    else:
        out = cv2.warpPerspective(canvas, warp.matrix, (size, size), borderValue=(114, 114, 114))
    return out, warp_labels(np.concatenate(boxes).clip(0, 2 * size), warp)


def plain_hsv(rng: np.random.Generator, image: np.ndarray, hyp: Hyperparameters) -> np.ndarray:
    """HSV jitter with a table for each of the three channels."""
    factors = 1 + rng.uniform(-1, 1, 3) * (hyp.hsv_h, hyp.hsv_s, hyp.hsv_v)
    planes = cv2.split(cv2.cvtColor(image, cv2.COLOR_BGR2HSV))
    values = np.arange(256)
    tables = [
        values * factors[0] % 180,
        (values * factors[1]).clip(0, 255),
        (values * factors[2]).clip(0, 255),
    ]
    jittered = [cv2.LUT(plane, table.astype(np.uint8)) for plane, table in zip(planes, tables, strict=True)]
    return cv2.cvtColor(cv2.merge(jittered), cv2.COLOR_HSV2BGR)


def ours(rng: np.random.Generator, samples: Sequence[Sample], size: int, hyp: Hyperparameters) -> np.ndarray:
    image, labels = augment.mosaic4(rng, samples, size, hyp)
    if hyp.mixup:
        image, labels = augment.mixup(rng, (image, labels), augment.mosaic4(rng, samples, size, hyp))
    image, labels = augment.random_flips(rng, augment.jitter_hsv(rng, image, hyp), labels, hyp)
    planes = np.empty((3, size, size), np.uint8)
    cv2.split(image, [planes[2], planes[1], planes[0]])
    return planes


def plain(rng: np.random.Generator, samples: Sequence[Sample], size: int, hyp: Hyperparameters) -> np.ndarray:
    image, labels = plain_mosaic(rng, samples, size, hyp)
    if hyp.mixup:
        image, labels = augment.mixup(rng, (image, labels), plain_mosaic(rng, samples, size, hyp))
    image, labels = augment.random_flips(rng, plain_hsv(rng, image, hyp), labels, hyp)
    return np.ascontiguousarray(image.transpose(2, 0, 1)[::-1])


def photographs(size: int, count: int = 16) -> list[Sample]:
    """Smooth random images of 4:3 with fifteen boxes each."""
    rng = np.random.default_rng(0)
    samples = []
    for _ in range(count):
        coarse = rng.integers(0, 256, (30, 40, 3), dtype=np.uint8)
        image = cv2.resize(coarse, (size, size * 3 // 4), interpolation=cv2.INTER_CUBIC)
        corner = rng.uniform(0, size / 2, (15, 2))
        boxes = np.concatenate(
            [np.zeros((15, 1)), corner, corner + rng.uniform(10, size / 4, (15, 2))], axis=1
        )
        samples.append((image, boxes.astype(np.float32)))
    return samples


Pipeline = Callable[[np.random.Generator, Sequence[Sample], int, Hyperparameters], np.ndarray]


def race(pipelines: Sequence[Pipeline], hyp: Hyperparameters, size: int, seconds: float) -> list[float]:
    """Median seconds per sample of each pipeline on the same draws, taking turns."""
    samples = photographs(size)
    times: list[list[float]] = [[] for _ in pipelines]
    end, turn = time.perf_counter() + seconds, 0
    while time.perf_counter() < end or turn < 10:
        chosen = [samples[i] for i in np.random.default_rng([1, turn]).integers(len(samples), size=4)]
        for pipeline, spent in zip(pipelines, times, strict=True):
            rng = np.random.default_rng([2, turn])
            start = time.perf_counter()
            pipeline(rng, chosen, size, hyp)
            spent.append(time.perf_counter() - start)
        turn += 1
    return [float(np.median(spent)) for spent in times]


def main() -> None:
    parser = argparse.ArgumentParser(description="Images per second of the mosaic pipeline, one thread.")
    parser.add_argument("--size", type=int, default=640)
    parser.add_argument("--seconds", type=float, default=3.0, help="per row of the table")
    options = parser.parse_args()
    cv2.setNumThreads(1)
    print(f"{options.size} px, one thread, OpenCV {cv2.__version__}; images/s")
    print(f"{'augmentation':<28}{'beagle':>10}{'canvas':>10}{'ratio':>8}")
    ratios = []
    for name, hyp in SETTINGS.items():
        fast, slow = race((ours, plain), hyp, options.size, options.seconds)
        ratios.append(slow / fast)
        print(f"{name:<28}{1 / fast:>10.0f}{1 / slow:>10.0f}{slow / fast:>8.2f}")
    print(f"{'geometric mean':<28}{math.exp(np.mean(np.log(ratios))):>28.2f}")


if __name__ == "__main__":
    main()
