"""The samples of a split: images at training scale, augmented by recipe or letterboxed, and what happens to bad ones.

A sample depends on (seed, epoch, index) and on nothing else, so a training sees the same images whatever the
number of worker processes, and a resumed one sees what an unbroken one would have seen.

An image that can't be read any more (deleted, cut short, replaced by one of another size) does not end a run: in an
augmented sample another image, which follows from the seed, stands in for it; letterboxed it is a grey picture
without labels, so that an evaluation counts its objects as missed. Labels are read once, when the data set is loaded:
what changes in their files afterwards is seen by the next run.
"""

from dataclasses import dataclass, replace

import cv2
import numpy as np

from dataset import Split
from trainer.augment import letterbox
from trainer.config import Hyperparameters, TrainError
from trainer.image_cache import Image
from trainer.images import ImageError, ScaledImages
from trainer.plan import Draw
from trainer.recipe import Composer, Recipe, cook
from trainer.warp import GREY, Labels, to_shares

MOST_FAULTS = 0.1
"""Share of a split's images that may be unreadable, beyond one; more are a fault of the disk, not of images."""


@dataclass(frozen=True, eq=False)
class Sample:
    """One image ready for a batch.

    Attributes:
        image: (3, H, W) uint8 RGB.
        labels: (n, 5) float32: class, centre x, y, width, height as shares of W and H.
        index: Place in the split.
        size: Height, width of the original image.
        ratio: Scale (x, y) from the original image, NaN when augmented.
        pad: Left and top px before the image, NaN when augmented.
    """

    image: Image
    labels: Labels
    index: int
    size: tuple[int, int]
    ratio: tuple[float, float] = (np.nan, np.nan)
    pad: tuple[float, float] = (np.nan, np.nan)


class DetectionSet:
    """The images of a split at training scale, augmented or letterboxed.

    Attributes:
        split: Where images and labels come from.
        image_size: Side in px of a sample; the longer side of every image is scaled to it.
        hyp: Augmentation genes.
        augment: Whether samples are augmented.
        seed: Of the augmentation.
        stride: Sides of rectangular batches are multiples of it.
        epoch: Settable; together with seed and index it decides a sample.
        images: Those of the split, at training scale.
        faults: What was wrong with images that can't be read any more, by their place in the split.
    """

    def __init__(
        self,
        split: Split,
        image_size: int,
        hyp: Hyperparameters,
        augment: bool,
        seed: int = 0,
        *,
        stride: int = 32,
        cache: str = "ram",
    ) -> None:
        """Check the numbers and plan where images are kept, see `trainer.image_cache`.

        Raises:
            TrainError: No images, an image size that is no multiple of the stride, or a negative seed.
        """
        if not split.images:
            raise TrainError(f"split {split.name!r} must have images, but it is empty")
        if image_size < stride or image_size % stride:
            raise TrainError(f"image_size must be a multiple of {stride}, but got {image_size}")
        if seed < 0:
            raise TrainError(f"seed must be at least 0, but got {seed}")
        self.split = split
        self.image_size = image_size
        self.hyp = hyp
        self.augment = augment
        self.seed = seed
        self.stride = stride
        self.epoch = 0
        self.images = ScaledImages(split, image_size, smooth=not augment, cache=cache)
        self.composer = Composer(split, self.images.sizes, hyp, seed)
        self.faults: dict[int, str] = {}

    def __len__(self) -> int:
        """Images of the split."""
        return len(self.split.images)

    def __getitem__(self, index: int) -> Sample:
        """The square sample at `index` for the current epoch."""
        return self.sample(Draw(index, self.epoch, (self.image_size, self.image_size)))

    def sample(self, draw: Draw, out: Image | None = None) -> Sample:
        """One sample.

        Args:
            draw: Which one.
            out: (3, H, W) uint8 that the image is written to; None makes a new array.

        Raises:
            TrainError: More images than `MOST_FAULTS` allows can't be read any more.
        """
        while True:
            try:
                return self._augmented(draw, out) if self.augment else self._letterboxed(draw, out)
            except ImageError as error:
                self.leave_out(error)

    def recipe(self, draw: Draw) -> Recipe:
        """What an augmented sample is made of."""
        return self.composer.compose(draw)

    def leave_out(self, error: ImageError) -> None:
        """Do without an image from now on.

        Raises:
            TrainError: There have been too many such images.
        """
        self.faults[error.index] = str(error)
        check_faults(self.faults, len(self))
        # The first of the sequence that is not known to be bad: whoever knows less comes to the same one in the end.
        for missing in sorted(self.faults):
            rng = np.random.default_rng([self.seed, missing, len(self)])
            stand_in = int(rng.integers(len(self)))
            while stand_in in self.faults:
                stand_in = int(rng.integers(len(self)))
            self.composer.stand_ins[missing] = stand_in

    def _letterboxed(self, draw: Draw, out: Image | None) -> Sample:
        if draw.index in self.faults:
            rows, columns = self.images.sizes[draw.index]
            image, labels = np.full((rows, columns, 3), GREY, np.uint8), np.zeros((0, 5), np.float32)
        else:
            image, labels = self.images[draw.index], self.composer.labels(draw.index)
        image, (x, y), pad = letterbox(image, draw.size, scale_up=draw.zoom > 1)
        labels = labels * np.array([1, x, y, x, y], np.float32) + np.array([0, *pad, *pad], np.float32)
        rows, columns = self.images.sizes[draw.index]
        width, height = self.split.sizes[draw.index].tolist()
        ratio = x * columns / width, y * rows / height  # from the original image
        sample = Sample(_planes(image, out), to_shares(labels, draw.size), draw.index, (height, width))
        return replace(sample, ratio=ratio, pad=pad)

    def _augmented(self, draw: Draw, out: Image | None) -> Sample:
        recipe = self.recipe(draw)
        image = cook(recipe, self.images.__getitem__)
        width, height = self.split.sizes[draw.index].tolist()
        return Sample(_planes(image, out), to_shares(recipe.labels, draw.size), draw.index, (height, width))


def _planes(image: Image, out: Image | None) -> Image:
    """BGR px (H, W, 3) as RGB planes (3, H, W), in a sixth of the time of a transpose."""
    planes = np.empty((3, *image.shape[:2]), np.uint8) if out is None else out
    cv2.split(image, [planes[2], planes[1], planes[0]])
    return planes


def check_faults(faults: dict[int, str], images: int) -> None:
    """Refuse to go on when too many images of a split can't be read any more.

    Raises:
        TrainError: They are all, or more than one and more than `MOST_FAULTS` of all.
    """
    if len(faults) > max(1.0, MOST_FAULTS * images) or len(faults) == images:
        first = faults[min(faults)]
        raise TrainError(
            f"{len(faults)} of {images} images can't be used any more (is the disk still there?), such as {first}"
        )
