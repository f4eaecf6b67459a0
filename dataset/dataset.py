"""The frozen data set that every reader gives, whatever the format it came from."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dataset.polygons import Polygons


def one_line(message: str) -> str:
    """A message without line breaks, which file names and other people's texts may bring into it."""
    return " ".join(message.splitlines())


class DataError(ValueError):
    """A data set that cannot be used as it is; the message names the file and line, and is one line long."""

    def __init__(self, message: str) -> None:
        super().__init__(one_line(message))


@dataclass(frozen=True, eq=False)
class Split:
    """One part of a data set.

    Attributes:
        name: "train", "val" or "test".
        images: N absolute paths.
        sizes: (N, 2) width and height in px of each image as ``cv2.imread`` gives it (turned as its EXIF says).
        labels: N arrays (n_i, 5): class, cx, cy, w, h, normalised to 0..1 by the image's own width and height. Every
            box lies in its image and has an area; an image without objects has an array (0, 5).
        polygons: Outlines of the labels, where the source has any (YOLO segments, COCO polygons); else None.
        crowds: N arrays (k_i, 5) like the labels: regions that are not learnt, and in which an evaluation counts no
            detection of that class as right or wrong (crowds of COCO, difficult objects of VOC where that was asked
            for); None where there are none at all.
    """

    name: str
    images: tuple[Path, ...]
    sizes: NDArray[np.int32]
    labels: tuple[NDArray[np.float32], ...]
    polygons: Polygons | None = None
    crowds: tuple[NDArray[np.float32], ...] | None = None

    def __len__(self) -> int:
        return len(self.images)

    @property
    def boxes(self) -> int:
        """Number of boxes over all images."""
        return sum(len(rows) for rows in self.labels)

    def shapes(self, image_size: int) -> NDArray[np.float64]:
        """Width and height of every box when its image's longer side is scaled to ``image_size``, as training does.

        Args:
            image_size: Longer side in px.

        Returns:
            (M, 2) px, in the order of ``images`` and of the rows within each.

        Raises:
            DataError: ``image_size`` is not positive.
        """
        if not image_size > 0:
            raise DataError(f"image_size > 0 must hold, but got {image_size}")
        if not self.boxes:
            return np.zeros((0, 2))
        sizes = self.sizes.astype(np.float64)
        scaled = sizes * (image_size / sizes.max(axis=1, keepdims=True))
        counts = [len(rows) for rows in self.labels]
        wh = np.concatenate(self.labels)[:, 3:5].astype(np.float64)
        return np.asarray(wh * np.repeat(scaled, counts, axis=0))


@dataclass(frozen=True, eq=False)
class Dataset:
    """A detection data set: where its images are, and what is in them.

    Attributes:
        name: The folder's or file's name.
        source: Absolute path of the folder or file it was read from.
        names: Class names; a label's class is an index into them.
        splits: "train" and "val" always, "test" where the source has one that is not used as "val".
        notes: One line for each thing that was decided or mended on the way.
        fingerprint: sha256 (hex) over the class names, and for each image of each split its file name, size, content
            and labels. Folders and times do not enter, so that a copy on another machine has the same fingerprint.
            Images over 1 MiB enter by their length and their first and last 512 KiB.
            Of outlines only the boxes around them enter; crowds enter where there are any.
    """

    name: str
    source: Path
    names: tuple[str, ...]
    splits: Mapping[str, Split]
    notes: tuple[str, ...]
    fingerprint: str

    @property
    def train(self) -> Split:
        """The split that a detector learns from."""
        return self.splits["train"]

    @property
    def val(self) -> Split:
        """The split that a detector is judged on."""
        return self.splits["val"]

    def shapes(self, image_size: int, split: str = "train") -> NDArray[np.float64]:
        """Box shapes of one split, (M, 2) px: see ``Split.shapes``.

        Raises:
            DataError: There is no such split, or ``image_size`` is not positive.
        """
        if split not in self.splits:
            raise DataError(f"split must be one of {', '.join(self.splits)}, but got {split!r}")
        return self.splits[split].shapes(image_size)
