"""Augmentation of one training image: pure functions of a generator, an image and its labels.

An image is uint8 BGR (H, W, 3). Labels are float32 (n, 5): class, x1, y1, x2, y2 in px, where pixel `i`
covers the interval [i, i + 1], so a box around all of an image is (0, 0, W, H). Whatever moves pixels moves
boxes by the same map. No function edits its inputs; where nothing has to be done, the input may come back.

Source: the augmentation of YOLOv4 (arXiv 2004.10934, section 3.4) as YOLOv5 practises it: mosaic, random
perspective, mixup (arXiv 1710.09412), HSV jitter, flips, letterbox.
"""

from collections.abc import Sequence

import cv2
import numpy as np

from trainer.config import Hyperparameters
from trainer.images import Image, as_image, resize
from trainer.warp import GREY, Labels, Scene, draw_warp, render, warp_labels

Sample = tuple[Image, Labels]

MIXUP_BETA = 32.0
"""Both parameters of the Beta distribution of the blend: nearly always between 0.3 and 0.7."""


def letterbox(
    image: Image, size: tuple[int, int], *, scale_up: bool, pad: int = GREY
) -> tuple[Image, tuple[float, float], tuple[int, int]]:
    """Scale an image to fit into a size, keeping its aspect, and pad it evenly to the size.

    Args:
        image: (H, W, 3).
        size: Height, width in px of the result.
        scale_up: Whether a small image is enlarged.
        pad: Value of the padding.

    Returns:
        The image, the ratio (x, y) of its px to those of the given image, and the padding (left, top) in px:
        `x_new = x · ratio[0] + pad[0]`. The ratios differ by the rounding of the sides to whole px.

    Source: facts of YOLOv5: odd padding puts the larger half right and below.
    """
    height, width = image.shape[:2]
    ratio = min(size[0] / height, size[1] / width)
    if not scale_up:
        ratio = min(ratio, 1.0)
    new_width, new_height = max(round(width * ratio), 1), max(round(height * ratio), 1)
    if (new_width, new_height) != (width, height):
        image = resize(image, (new_height, new_width), smooth=True)
    left, right = _halves(size[1] - new_width)
    top, bottom = _halves(size[0] - new_height)
    if left or right or top or bottom:
        image = as_image(
            cv2.copyMakeBorder(image, top, bottom, left, right, cv2.BORDER_CONSTANT, value=(pad, pad, pad))
        )
    return image, (new_width / width, new_height / height), (left, top)


def random_perspective(
    rng: np.random.Generator, image: Image, labels: Labels, hyp: Hyperparameters, size: tuple[int, int]
) -> Sample:
    """Rotate, scale, shear, shift and tilt an image about its centre, cropped or padded to a size.

    Args:
        rng: Source of the eight draws of `draw_warp`.
        image: (H, W, 3).
        labels: (n, 5), px of the image.
        hyp: As for `draw_warp`.
        size: Height, width of the result; its middle shows the centre of the image.

    Returns:
        The image of that size and the labels (m, 5), m ≤ n, of the boxes that are still worth showing.
    """
    height, width = image.shape[:2]
    scene = Scene((height, width), ((image, 0, 0),))
    warp = draw_warp(rng, hyp, scene.size, size)
    return render(scene, warp), warp_labels(labels, warp)


def mosaic4(rng: np.random.Generator, samples: Sequence[Sample], size: int, hyp: Hyperparameters) -> Sample:
    """Lay four images around a random point of a canvas of twice the size, then crop by a random perspective.

    Args:
        rng: Source of the point, uniform over [0.5, 1.5] of the size, and of the eight draws of `draw_warp`.
        samples: Four images with their labels, in the order top left, top right, bottom left, bottom right.
        size: Side of the result in px; no image may be larger.
        hyp: As for `draw_warp`.

    Returns:
        The image (size, size, 3) and the labels (m, 5).

    Source: YOLOv4. The result is that of drawing the canvas and warping it; only what is seen is drawn.
    """
    centre_x, centre_y = (int(v) for v in rng.uniform(0.5 * size, 1.5 * size, 2))
    tiles, boxes = [], []
    for corner, (image, labels) in enumerate(samples):
        x = centre_x - (0 if corner % 2 else image.shape[1])
        y = centre_y - (0 if corner >= 2 else image.shape[0])
        tiles.append((image, x, y))
        boxes.append(labels + np.array([0, x, y, x, y], np.float32))
    scene = Scene((2 * size, 2 * size), tuple(tiles))
    joined = np.concatenate(boxes)
    joined[:, 1:] = joined[:, 1:].clip(0, 2 * size)
    warp = draw_warp(rng, hyp, scene.size, (size, size))
    return render(scene, warp), warp_labels(joined, warp)


def mixup(rng: np.random.Generator, first: Sample, second: Sample) -> Sample:
    """Blend two images of one size by a ratio from Beta(32, 32); both keep their labels, unweighted."""
    ratio = float(rng.beta(MIXUP_BETA, MIXUP_BETA))
    image = as_image(cv2.addWeighted(first[0], ratio, second[0], 1.0 - ratio, 0.0))
    return image, np.concatenate([first[1], second[1]])


def jitter_hsv(rng: np.random.Generator, image: Image, hyp: Hyperparameters) -> Image:
    """Multiply hue, saturation and value by factors drawn from 1 ± `hsv_h`, `hsv_s`, `hsv_v`.

    Hue goes round; saturation and value stop at 255. Three draws, whatever the hyperparameters.
    """
    hue, saturation, value = (
        float(f) for f in 1.0 + rng.uniform(-1, 1, 3) * (hyp.hsv_h, hyp.hsv_s, hyp.hsv_v)
    )
    if hue == saturation == value == 1.0:
        return image
    planes = list(cv2.split(cv2.cvtColor(image, cv2.COLOR_BGR2HSV)))
    if hue != 1.0:  # OpenCV keeps hue in half degrees, 0 to 179
        planes[0] = cv2.LUT(planes[0], (np.arange(256) * hue % 180).astype(np.uint8))
    for channel, factor in ((1, saturation), (2, value)):
        if factor != 1.0:  # saturating; three times as fast as a table
            planes[channel] = cv2.convertScaleAbs(planes[channel], alpha=factor)
    return as_image(cv2.cvtColor(cv2.merge(planes), cv2.COLOR_HSV2BGR))


def random_flips(rng: np.random.Generator, image: Image, labels: Labels, hyp: Hyperparameters) -> Sample:
    """Mirror with probability `fliplr`, turn upside down with probability `flipud`. Two draws always."""
    mirror, upturn = (bool(hit) for hit in rng.random(2) < (hyp.fliplr, hyp.flipud))
    height, width = image.shape[:2]
    if mirror:
        labels = labels[:, [0, 3, 2, 1, 4]] * np.array([1, -1, 1, -1, 1], np.float32)
        labels += np.array([0, width, 0, width, 0], np.float32)
    if upturn:
        labels = labels[:, [0, 1, 4, 3, 2]] * np.array([1, 1, -1, 1, -1], np.float32)
        labels += np.array([0, 0, height, 0, height], np.float32)
    if mirror or upturn:
        code = -1 if mirror and upturn else int(mirror)
        image = as_image(cv2.flip(image, code))
    return image, labels


def _halves(padding: int) -> tuple[int, int]:
    return round(padding / 2 - 0.1), round(padding / 2 + 0.1)
