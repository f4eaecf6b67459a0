"""From a split to batches: images augmented or letterboxed, and laid together.

A sample depends on (seed, epoch, index) and on nothing else, so a training sees the same images whatever the
number of worker processes, and a resumed one sees what an unbroken one would have seen.
"""

import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from dataset import Split
from trainer.augment import jitter_hsv, letterbox, mixup, mosaic4, random_flips, random_perspective
from trainer.config import Hyperparameters, TrainError
from trainer.images import Image, ScaledImages, rect_sizes
from trainer.warp import Labels, to_corners, to_shares

Batch = dict[str, torch.Tensor]
"""What a loader gives, B images of H x W:

- `images` (B, 3, H, W) uint8 RGB;
- `targets` (n, 6) float32: image in the batch, class, centre x, y, width, height as shares of W and H;
- `indices` (B,) int64: places in the split; of a mosaic that of its first image;
- `sizes` (B, 2) int64: height, width in px of the original images;
- `ratio` (B, 2) float64 (x, y) and `pad` (B, 2) float64 (left, top): `x = x_original * ratio + pad`; NaN for
  augmented samples, which no letterbox describes.
"""


@dataclass(frozen=True)
class Draw:
    """What a worker is asked for: one image of the split, in an epoch, at a height and width."""

    index: int
    epoch: int
    size: tuple[int, int]


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
    ratio: tuple[float, float]
    pad: tuple[float, float]


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
    ) -> None:
        """Check the numbers and plan the memory for images, see `ScaledImages`.

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
        self.images = ScaledImages(split, image_size, smooth=not augment)

    def __len__(self) -> int:
        """Images of the split."""
        return len(self.split.images)

    def __getitem__(self, index: int) -> Sample:
        """The square sample at `index` for the current epoch."""
        return self.sample(Draw(index, self.epoch, (self.image_size, self.image_size)))

    def sample(self, draw: Draw) -> Sample:
        """One sample.

        Raises:
            TrainError: An image can't be read any more or has another size than the data set says.
        """
        ratio, pad = (np.nan, np.nan), (np.nan, np.nan)
        if self.augment:
            image, labels = self._augmented(draw)
        else:
            image, labels, ratio, pad = self._letterboxed(draw)
        planes = np.empty((3, *image.shape[:2]), np.uint8)
        # BGR px to RGB planes, in a sixth of the time of a transpose.
        cv2.split(image, [planes[2], planes[1], planes[0]])
        width, height = self.split.sizes[draw.index].tolist()
        shares = to_shares(labels, (image.shape[0], image.shape[1]))
        return Sample(planes, shares, draw.index, (height, width), ratio, pad)

    def labels(self, index: int) -> Labels:
        """Labels (n, 5) class, x1, y1, x2, y2 in px of `images[index]`."""
        return to_corners(self.split.labels[index], self.images.sizes[index])

    def _letterboxed(self, draw: Draw) -> tuple[Image, Labels, tuple[float, float], tuple[int, int]]:
        image, (x, y), pad = letterbox(self.images[draw.index], draw.size, scale_up=False)
        labels = self.labels(draw.index) * np.array([1, x, y, x, y], np.float32)
        rows, columns = self.images.sizes[draw.index]
        width, height = self.split.sizes[draw.index].tolist()
        ratio = x * columns / width, y * rows / height  # from the original image
        return image, labels + np.array([0, *pad, *pad], np.float32), ratio, pad

    def _augmented(self, draw: Draw) -> tuple[Image, Labels]:
        rng = np.random.default_rng([self.seed, draw.epoch, draw.index])
        if rng.random() < self.hyp.mosaic:
            image, labels = self._mosaic(rng, draw.index)
            if rng.random() < self.hyp.mixup:
                other = self._mosaic(rng, int(rng.integers(len(self))))
                image, labels = mixup(rng, (image, labels), other)
        else:
            image, labels, _, _ = self._letterboxed(draw)
            image, labels = random_perspective(rng, image, labels, self.hyp, draw.size)
        return random_flips(rng, jitter_hsv(rng, image, self.hyp), labels, self.hyp)

    def _mosaic(self, rng: np.random.Generator, index: int) -> tuple[Image, Labels]:
        indices = rng.permutation([index, *rng.integers(len(self), size=3).tolist()]).tolist()
        return mosaic4(rng, [(self.images[i], self.labels(i)) for i in indices], self.image_size, self.hyp)


def collate(samples: Sequence[Sample]) -> Batch:
    """Lay samples of one size together; see `Batch`."""
    targets = [
        np.concatenate([np.full((len(sample.labels), 1), place, np.float32), sample.labels], axis=1)
        for place, sample in enumerate(samples)
    ]
    return {
        "images": torch.from_numpy(np.stack([sample.image for sample in samples])),
        "targets": torch.from_numpy(np.concatenate(targets)),
        "indices": torch.tensor([sample.index for sample in samples]),
        "sizes": torch.tensor([sample.size for sample in samples]),
        "ratio": torch.tensor([sample.ratio for sample in samples], dtype=torch.float64),
        "pad": torch.tensor([sample.pad for sample in samples], dtype=torch.float64),
    }


@dataclass
class Plan:
    """Which images make which batch: iterating gives the draws of each batch of the epoch.

    Attributes:
        order: Indices of the split, unshuffled.
        sizes: Height, width of each batch; one for all when there is only one.
        batch_size: Images per batch; the last may have fewer.
        seed: Of the shuffling; None keeps the order.
        drop_last: Leave out a last batch that is not full.
        epoch: Settable; the order depends on (seed, epoch) alone.
        chances: Settable; with which an image is drawn each time, (N,) summing to 1; None shows each image once.
        rank: Settable; which share of each batch is given, from 0.
        world: Settable; how many shares there are.
    """

    order: NDArray[np.int64]
    sizes: list[tuple[int, int]]
    batch_size: int
    seed: int | None
    drop_last: bool
    epoch: int = 0
    chances: NDArray[np.float64] | None = None
    rank: int = 0
    world: int = 1

    def __len__(self) -> int:
        """Batches of one pass."""
        full, rest = divmod(len(self.order), self.batch_size)
        return full + (rest > 0 and not self.drop_last)

    def __iter__(self) -> Iterator[list[Draw]]:
        """The draws of each batch."""
        epoch, order = self.epoch, self.order
        if self.chances is not None:
            rng = np.random.default_rng([self.seed or 0, epoch, len(order), 1])
            order = rng.choice(order, size=len(order), p=self.chances)
        elif self.seed is not None:  # the third number keeps this stream apart from those of the samples
            order = np.random.default_rng([self.seed, epoch, len(order)]).permutation(order)
        for number in range(len(self)):
            size = self.sizes[number % len(self.sizes)]
            indices = order[number * self.batch_size : (number + 1) * self.batch_size].tolist()
            yield [Draw(index, epoch, size) for index in self._share(indices)]

    def _share(self, indices: list[int]) -> list[int]:
        """Every `world`th image; where a last batch has fewer images than shares, those left over take its first."""
        return indices[self.rank :: self.world] or indices[:1]


class Loader:
    """Batches of a `DetectionSet`, one pass per iteration; `set_epoch` before each.

    Attributes:
        samples: The set.
    """

    def __init__(self, samples: DetectionSet, plan: Plan, workers: int) -> None:
        self.samples = samples
        self._plan = plan
        self._loader = _worker_loader(samples, plan, workers) if workers else None

    def __len__(self) -> int:
        """Batches of one pass."""
        return len(self._plan)

    def __iter__(self) -> Iterator[Batch]:
        """Read, augment and lay together one pass over the set, ahead of the caller.

        Raises:
            TrainError: As `DetectionSet.sample`.
        """
        for batch in self._ahead() if self._loader is None else self._loader:
            if isinstance(batch, TrainError):
                # A new one: raising `batch` would tie this frame, and with it the workers, into a cycle of
                # references, and workers that the garbage collector ends take 5 s each.
                raise TrainError(str(batch)) from batch
            yield batch

    def set_epoch(self, epoch: int) -> None:
        """Choose the order and the augmentation of the passes that begin from now on."""
        self._plan.epoch = self.samples.epoch = epoch

    def set_share(self, rank: int, world: int) -> None:
        """Give share `rank` of `world` of each batch from now on; all shares together are the batch."""
        self._plan.rank, self._plan.world = rank, world

    def set_chances(self, chances: NDArray[np.float64] | None) -> None:
        """Draw each image with a chance of its own from now on, (N,) summing to 1; None shows each image once."""
        self._plan.chances = chances

    def _ahead(self) -> Iterator[Batch | TrainError]:
        """One batch ahead in a thread: OpenCV works while the caller's Python, or its GPU, does."""
        make = _BatchSet(self.samples)
        pending: Future[Batch | TrainError] | None = None
        with ThreadPoolExecutor(max_workers=1, thread_name_prefix="loader") as pool:
            for draws in self._plan:
                following = pool.submit(make.__getitem__, draws)
                if pending is not None:
                    yield pending.result()
                pending = following
            if pending is not None:
                yield pending.result()


def build_loader(
    samples: DetectionSet,
    batch_size: int,
    *,
    shuffle: bool,
    workers: int,
    seed: int,
    drop_last: bool = False,
    rect: bool = False,
) -> Loader:
    """Build a loader of batches.

    Args:
        samples: The set.
        batch_size: Images per batch.
        shuffle: Whether each epoch has an order of its own.
        workers: Processes that read and augment, kept from epoch to epoch; 0 uses a thread of this process.
        seed: Of the order.
        drop_last: Leave out a last batch that is not full.
        rect: Sort images by aspect and give each batch a shape of its own, see `rect_sizes`.

    Raises:
        TrainError: A number is too small, or `rect` is asked for together with shuffling or augmentation.
    """
    if batch_size < 1 or workers < 0 or seed < 0:
        raise TrainError(
            f"batch_size >= 1, workers >= 0, seed >= 0 must hold, but got {batch_size}, {workers}, {seed}"
        )
    order = np.arange(len(samples))
    sizes = [(samples.image_size, samples.image_size)]
    if rect:
        if shuffle or samples.augment:
            raise TrainError("rectangular batches must be neither shuffled nor augmented, but rect is True")
        aspects = samples.split.sizes[:, 1] / samples.split.sizes[:, 0]
        order = np.argsort(aspects, kind="stable")
        sizes = rect_sizes(aspects[order], batch_size, samples.image_size, samples.stride)
    return Loader(samples, Plan(order, sizes, batch_size, seed if shuffle else None, drop_last), workers)


class _BatchSet(TorchDataset[Batch | TrainError]):
    """Batches by their draws. Errors come as values: torch would wrap their text in a worker's traceback."""

    def __init__(self, samples: DetectionSet) -> None:
        self.samples = samples

    def __getitem__(self, draws: list[Draw]) -> Batch | TrainError:
        try:
            return collate([self.samples.sample(draw) for draw in draws])
        except TrainError as error:
            return error


def _worker_loader(samples: DetectionSet, plan: Plan, workers: int) -> DataLoader[Batch | TrainError]:
    return DataLoader(
        _BatchSet(samples),
        batch_size=None,  # the plan makes the batches
        sampler=plan,
        num_workers=workers,
        worker_init_fn=_start_worker,
        persistent_workers=True,
        generator=torch.Generator(),  # else each pass would draw from the global one
        multiprocessing_context="fork" if sys.platform == "linux" else None,  # shares the image cache
    )


def _start_worker(_: int) -> None:
    cv2.setNumThreads(0)  # one core per worker
