"""Images of a split: their sizes at training scale and in batches, read, resized, and kept in memory.

An image is uint8 BGR (H, W, 3).
"""

import math
import mmap
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import cv2
import numpy as np
from numpy.typing import NDArray

from dataset import Split
from trainer.config import TrainError

Image = NDArray[np.uint8]

RECT_PAD = 0.5
"""Strides added to the longer side of a rectangular batch before rounding up (YOLOv5's evaluation)."""


def as_image(array: Any) -> Image:
    """What OpenCV gives for an image: its signatures leave the type of px open."""
    return np.asarray(array, np.uint8)


def read_image(path: Path) -> Image:
    """Decode an image file to (H, W, 3) BGR, turned as its EXIF orientation says.

    Raises:
        TrainError: The file can't be read or is no image.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise TrainError(f"{path}: the image can't be read ({error.strerror or error})") from error
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR) if data else None
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
    aspects: NDArray[np.floating[Any]], batch_size: int, image_size: int, stride: int
) -> list[tuple[int, int]]:
    """Height and width of each batch of images sorted by aspect: the squarest image decides.

    Args:
        aspects: (N,) height / width, ascending.
        batch_size: Images per batch.
        image_size: Longer side of the images, px.
        stride: Sides are multiples of it, half a stride being added before rounding up.

    Source: rectangular evaluation of YOLOv5.
    """
    sizes = []
    for start in range(0, len(aspects), batch_size):
        low, high = float(aspects[start]), float(aspects[start : start + batch_size][-1])
        share = (high, 1.0) if high < 1 else (1.0, 1.0 / low) if low > 1 else (1.0, 1.0)
        height, width = (math.ceil(side * image_size / stride + RECT_PAD) * stride for side in share)
        sizes.append((height, width))
    return sizes


class ScaledImages:
    """The images of a split, the longer side of each scaled to the same length; read when asked for.

    Attributes:
        sizes: Height, width px of each, scaled.
        cache: Those already read.
    """

    def __init__(self, split: Split, image_size: int, *, smooth: bool) -> None:
        """Plan the memory for images: as many as fit into a quarter of what is free now.

        Args:
            split: Where they are, and how large.
            image_size: Longer side in px.
            smooth: As for `resize`.
        """
        self.sizes = scaled_sizes(split.sizes, image_size)
        self.cache = ImageCache(self.sizes, free_memory() // 4)
        self._split = split
        self._smooth = smooth

    def __getitem__(self, index: int) -> Image:
        """One image (H, W, 3) BGR; not to be edited.

        Raises:
            TrainError: It can't be read or has another size than the data set says.
        """
        image = self.cache.get(index)
        if image is None:
            image = resize(self._read(index), self.sizes[index], smooth=self._smooth)
            self.cache.put(index, image)
        return image

    def _read(self, index: int) -> Image:
        path = self._split.images[index]
        image = read_image(path)
        width, height = self._split.sizes[index].tolist()
        if image.shape[:2] != (height, width):
            raise TrainError(
                f"{path}: the image must be {width}x{height} px as when the data set was loaded, "
                f"but is {image.shape[1]}x{image.shape[0]}"
            )
        return image


class ImageCache:
    """Decoded images in memory that forked processes share: what one worker has read, the others need not.

    Memory is taken as images come in. As many as fit the budget have a place, the others are read each time.
    """

    def __init__(self, shapes: Sequence[tuple[int, int]], budget: int) -> None:
        """Plan places for images of these heights and widths, in order, within a budget in bytes."""
        ends = np.cumsum([height * width * 3 for height, width in shapes], dtype=np.int64)
        self.places = int(np.searchsorted(ends, budget, side="right"))
        self._shapes = shapes
        self._budget = budget
        self._ends = ends
        self._bytes = self._anonymous(int(ends[self.places - 1]) if self.places else 0)
        self._filled = self._anonymous(self.places)

    @staticmethod
    def _anonymous(length: int) -> Image:
        # Anonymous shared memory, unlike torch's, does not count against a container's small /dev/shm.
        return np.frombuffer(mmap.mmap(-1, length), np.uint8) if length else np.empty(0, np.uint8)

    def __reduce__(self) -> tuple[type[Self], tuple[Any, ...]]:
        # A spawned process shares nothing: it gets an empty one.
        return type(self), (self._shapes, self._budget)

    def get(self, index: int) -> Image | None:
        """The image (H, W, 3), read-only, or None when it is not kept (yet)."""
        if index >= self.places or not self._filled[index]:
            return None
        image = self._place(index)
        image.flags.writeable = False
        return image

    def put(self, index: int, image: Image) -> None:
        """Keep a copy of an image, if it has a place. Two writers at once write the same bytes."""
        if index < self.places:
            self._place(index)[:] = image
            self._filled[index] = 1

    def _place(self, index: int) -> Image:
        height, width = self._shapes[index]
        end = int(self._ends[index])
        return self._bytes[end - height * width * 3 : end].reshape(height, width, 3)


def free_memory() -> int:
    """Bytes that this process may still take: what the machine has left, or the container if that is less."""
    available = 0
    for line in _read_lines(Path("/proc/meminfo")):
        if line.startswith("MemAvailable:"):
            available = int(line.split()[1]) * 1024
    limit = "".join(_read_lines(Path("/sys/fs/cgroup/memory.max"))).strip()
    used = "".join(_read_lines(Path("/sys/fs/cgroup/memory.current"))).strip()
    if limit.isdecimal() and used.isdecimal():
        available = min(available, max(int(limit) - int(used), 0))
    return available


def _read_lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except OSError:  # another system, or no container
        return []
