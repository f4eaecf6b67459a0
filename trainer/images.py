"""Images of a split: their sizes at training scale and in batches, read, resized, and kept in memory.

An image is uint8 BGR (H, W, 3).
"""

import math
from pathlib import Path
from typing import Any, Self

import cv2
import numpy as np
from numpy.typing import NDArray

from dataset import Split
from trainer.config import TrainError
from trainer.image_cache import Image, build_cache

RECT_PAD = 0.5
"""Strides added to the longer side of a rectangular batch before rounding up (YOLOv5's evaluation)."""


def as_image(array: Any) -> Image:
    """What OpenCV gives for an image: its signatures leave the type of px open."""
    return np.asarray(array, np.uint8)


_REDUCED = {
    8: cv2.IMREAD_REDUCED_COLOR_8,
    4: cv2.IMREAD_REDUCED_COLOR_4,
    2: cv2.IMREAD_REDUCED_COLOR_2,
    1: cv2.IMREAD_COLOR,
}
_JPEG = b"\xff\xd8\xff"


def read_image(path: Path, *, reduce: int = 1) -> Image:
    """Decode an image file to (H, W, 3) BGR, turned as its EXIF orientation says.

    Args:
        path: The file.
        reduce: 2, 4 or 8: a JPEG is decoded to that part of its sides, rounded up: sooner, and by averaging its px.

    Raises:
        TrainError: The file can't be read or is no image.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise TrainError(f"{path}: the image can't be read ({error.strerror or error})") from error
    flags = _REDUCED[reduce if data.startswith(_JPEG) else 1]
    image = cv2.imdecode(np.frombuffer(data, np.uint8), flags) if data else None
    if image is None:
        raise TrainError(f"{path}: the file must be an image, but can't be decoded ({len(data)} bytes)")
    return as_image(image)


def resize(image: Image, size: tuple[int, int], *, smooth: bool) -> Image:
    """Resize to a height and width; `smooth` shrinks by area averages, several times slower than linear."""
    shrinks = size[0] * size[1] < image.shape[0] * image.shape[1]
    interpolation = cv2.INTER_AREA if smooth and shrinks else cv2.INTER_LINEAR
    return as_image(cv2.resize(image, (size[1], size[0]), interpolation=interpolation))


def scaled_sizes(sizes: NDArray[np.integer[Any]], image_size: int) -> list[tuple[int, int]]:
    """Heights and widths in px of images whose longer side is scaled to `image_size`, at least 1 px.

    Args:
        sizes: (N, 2) width, height px.
        image_size: px.
    """
    if not len(sizes):
        return []
    wh = sizes.astype(np.float64)
    scaled = np.rint(wh * (image_size / wh.max(axis=1, keepdims=True))).astype(int).clip(1)
    return [(height, width) for width, height in scaled.tolist()]


def rect_sizes(
    aspects: NDArray[np.floating[Any]],
    batch_size: int,
    image_size: int,
    stride: int,
    pad: float = RECT_PAD,
) -> list[tuple[int, int]]:
    """Height and width of each batch of images sorted by aspect: the squarest image decides.

    Args:
        aspects: (N,) height / width, ascending.
        batch_size: Images per batch.
        image_size: Longer side of the images, px.
        stride: Sides are multiples of it.
        pad: Strides added before rounding up.

    Source: rectangular batches of YOLOv5.
    """
    sizes = []
    for start in range(0, len(aspects), batch_size):
        low, high = float(aspects[start]), float(aspects[start : start + batch_size][-1])
        share = (high, 1.0) if high < 1 else (1.0, 1.0 / low) if low > 1 else (1.0, 1.0)
        height, width = (math.ceil(side * image_size / stride + pad) * stride for side in share)
        sizes.append((height, width))
    return sizes


class ImageError(TrainError):
    """One image of a split can't be used any more, though it could when the data set was loaded.

    Attributes:
        index: Its place in the split.
    """

    def __init__(self, message: str, index: int) -> None:
        super().__init__(message)
        self.index = index

    def __reduce__(self) -> tuple[type[Self], tuple[str, int]]:
        return type(self), (str(self), self.index)


class ScaledImages:
    """The images of a split, the longer side of each scaled to the same length; read when asked for.

    Attributes:
        sizes: Height, width px of each, scaled.
        cache: Those already read.
    """

    def __init__(self, split: Split, image_size: int, *, smooth: bool, cache: str = "ram") -> None:
        """Plan where images are kept.

        Args:
            split: Where they are, and how large.
            image_size: Longer side in px.
            smooth: As for `resize`. Where it is not set, JPEGs of twice the size or more are read at reduced scale.
            cache: As for `image_cache.build_cache`.
        """
        self.sizes = scaled_sizes(split.sizes, image_size)
        self.cache = build_cache(cache, split, self.sizes, "smooth" if smooth else "reduced, linear")
        self._split = split
        self._smooth = smooth

    def __getitem__(self, index: int) -> Image:
        """One image (H, W, 3) BGR; not to be edited.

        Raises:
            ImageError: It can't be read or has another size than the data set says.
        """
        image = self.cache.get(index)
        if image is None:
            image = self._read(index)
            if image.shape[:2] != self.sizes[index]:
                image = resize(image, self.sizes[index], smooth=self._smooth)
            self.cache.put(index, image)
        return image

    def _read(self, index: int) -> Image:
        path = self._split.images[index]
        width, height = self._split.sizes[index].tolist()
        shrinks = 1.0 if self._smooth else max(width, height) / max(self.sizes[index])
        factor = next(part for part in _REDUCED if part <= max(shrinks, 1.0))
        try:
            image = read_image(path, reduce=factor)
        except TrainError as error:
            raise ImageError(str(error), index) from error
        if image.shape[:2] not in ((height, width), (-(-height // factor), -(-width // factor))):
            said = f"{width}x{height} px as when the data set was loaded"
            now = f"{image.shape[1]}x{image.shape[0]}" + (
                f" at 1/{factor} of its sides" if factor > 1 else ""
            )
            raise ImageError(f"{path}: the image must be {said}, but is {now}", index)
        return image
