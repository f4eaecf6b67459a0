"""Letterbox, colours and flips of one image: pure functions, draws apart from what they do.

An image is uint8 BGR (H, W, 3). Labels are float32 (n, 5): class, x1, y1, x2, y2 in px, where pixel `i`
covers the interval [i, i + 1], so a box around all of an image is (0, 0, W, H). Whatever moves pixels moves
boxes by the same map. No function edits its inputs; where nothing has to be done, the input may come back.

Source: the augmentation of YOLOv4 (arXiv 2004.10934, section 3.4) as YOLOv5 practises it.
"""

import cv2
import numpy as np

from trainer.config import Hyperparameters
from trainer.image_cache import Image
from trainer.images import as_image, resize
from trainer.warp import GREY, Labels


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
    left, top = letterbox_places((new_height, new_width), size)
    right, bottom = size[1] - new_width - left, size[0] - new_height - top
    if left or right or top or bottom:
        image = as_image(
            cv2.copyMakeBorder(image, top, bottom, left, right, cv2.BORDER_CONSTANT, value=(pad, pad, pad))
        )
    return image, (new_width / width, new_height / height), (left, top)


def letterbox_places(image: tuple[int, int], size: tuple[int, int]) -> tuple[int, int]:
    """Left and top px of padding that put an image (height, width) into the middle of a size (height, width)."""
    return round((size[1] - image[1]) / 2 - 0.1), round((size[0] - image[0]) / 2 - 0.1)


def draw_colour(rng: np.random.Generator, hyp: Hyperparameters) -> tuple[float, float, float]:
    """Factors of hue, saturation and value from 1 ± `hsv_h`, `hsv_s`, `hsv_v`. Three draws always."""
    hue, saturation, value = 1.0 + rng.uniform(-1, 1, 3) * (hyp.hsv_h, hyp.hsv_s, hyp.hsv_v)
    return float(hue), float(saturation), float(value)


def shift_colour(image: Image, factors: tuple[float, float, float]) -> Image:
    """Multiply hue, saturation and value by factors. Hue goes round; saturation and value stop at 255."""
    hue, saturation, value = factors
    if hue == saturation == value == 1.0:
        return image
    hsv = cv2.cvtColor(image, cv2.COLOR_BGR2HSV)
    # OpenCV keeps hue in half degrees, 0 to 179, and takes 180 for 0 and so on, but a byte ends at 255.
    goes_round = hue * 179 > 255
    # One saturating pass over all channels: a third of the time of splitting and joining them.
    hsv = cv2.transform(hsv, np.diag([1.0 if goes_round else hue, saturation, value]))
    if goes_round:
        planes = list(cv2.split(hsv))
        planes[0] = cv2.LUT(planes[0], (np.arange(256) * hue % 180).astype(np.uint8))
        hsv = cv2.merge(planes)
    return as_image(cv2.cvtColor(hsv, cv2.COLOR_HSV2BGR))


def draw_flips(rng: np.random.Generator, hyp: Hyperparameters) -> tuple[bool, bool]:
    """Whether to mirror, with probability `fliplr`, and to turn upside down, `flipud`. Two draws always."""
    mirror, upturn = rng.random(2) < (hyp.fliplr, hyp.flipud)
    return bool(mirror), bool(upturn)


def flip(image: Image, flips: tuple[bool, bool]) -> Image:
    """Mirror an image, turn it upside down, or both."""
    mirror, upturn = flips
    if not (mirror or upturn):
        return image
    return as_image(cv2.flip(image, -1 if mirror and upturn else int(mirror)))


def flip_labels(labels: Labels, size: tuple[int, int], flips: tuple[bool, bool]) -> Labels:
    """Labels (n, 5) in px of an image (height, width) that is flipped."""
    (height, width), (mirror, upturn) = size, flips
    if mirror:
        labels = labels[:, [0, 3, 2, 1, 4]] * np.array([1, -1, 1, -1, 1], np.float32)
        labels += np.array([0, width, 0, width, 0], np.float32)
    if upturn:
        labels = labels[:, [0, 1, 4, 3, 2]] * np.array([1, 1, -1, 1, -1], np.float32)
        labels += np.array([0, 0, height, 0, height], np.float32)
    return labels
