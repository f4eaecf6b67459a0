"""From a split to batches: samples laid together, ahead of whoever learns from them."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from trainer.ahead import Ahead, fault_notes
from trainer.config import TrainError
from trainer.image_cache import Image
from trainer.images import RECT_PAD, rect_sizes
from trainer.plan import Draw, Plan
from trainer.samples import DetectionSet, Sample

Batch = dict[str, torch.Tensor]
"""What a loader gives, B images of H x W:

- `images` (B, 3, H, W) uint8 RGB;
- `targets` (n, 6) float32: image in the batch, class, centre x, y, width, height as shares of W and H;
- `indices` (B,) int64: places in the split; of a mosaic that of its first image;
- `sizes` (B, 2) int64: height, width in px of the original images;
- `ratio` (B, 2) float64 (x, y) and `pad` (B, 2) float64 (left, top): `x = x_original * ratio + pad`; NaN for
  augmented samples, which no letterbox describes.
"""


class BatchMaker:
    """Makes batches on the CPU."""

    def __init__(self, samples: DetectionSet) -> None:
        self.samples = samples

    def make(self, draws: list[Draw]) -> Batch:
        """One batch, see `Batch`."""
        images = np.empty((len(draws), 3, *draws[0].size), np.uint8)
        return collate([self.samples.sample(*pair) for pair in zip(draws, images, strict=True)], images)

    def pin(self, made: Batch) -> Batch:
        """A batch in page-locked memory."""
        return {name: tensor.pin_memory() for name, tensor in made.items()}


def collate(samples: Sequence[Sample], images: Image | None = None) -> Batch:
    """Lay samples of one size together; see `Batch`. Their images may lie together already."""
    if images is None:
        images = np.stack([sample.image for sample in samples])
    return {
        "images": torch.from_numpy(images),
        "targets": number_targets([sample.labels for sample in samples]),
        "indices": torch.tensor([sample.index for sample in samples]),
        "sizes": torch.tensor([sample.size for sample in samples]),
        "ratio": torch.tensor([sample.ratio for sample in samples], dtype=torch.float64),
        "pad": torch.tensor([sample.pad for sample in samples], dtype=torch.float64),
    }


def number_targets(labels: Sequence[NDArray[np.float32]]) -> torch.Tensor:
    """Labels (n_i, 5) of the images of a batch as (n, 6): place of the image, then the label."""
    numbers = np.repeat(np.arange(len(labels), dtype=np.float32), [len(rows) for rows in labels])
    return torch.from_numpy(np.column_stack([numbers, np.concatenate(labels)]).astype(np.float32, copy=False))


class PlannedLoader(ABC):
    """Batches of a `DetectionSet`, one pass per iteration; `set_epoch` before each.

    Attributes:
        samples: The set.
    """

    def __init__(self, samples: DetectionSet, plan: Plan) -> None:
        self.samples = samples
        self._plan = plan

    @abstractmethod
    def __iter__(self) -> Iterator[Batch]:
        """One pass, made ahead of the caller.

        Raises:
            TrainError: As `DetectionSet.sample`.
        """

    @abstractmethod
    def notes(self) -> list[str]:
        """What a result should say: where images are kept, if not all are, and which became unreadable."""

    def __len__(self) -> int:
        """Batches of one pass."""
        return len(self._plan)

    def set_epoch(self, epoch: int) -> None:
        """Choose the order and the augmentation of the passes that begin from now on."""
        self._plan.epoch = self.samples.epoch = epoch

    def set_share(self, rank: int, world: int) -> None:
        """Give share `rank` of `world` of each batch from now on; all shares together are the batch."""
        self._plan.rank, self._plan.world = rank, world

    def set_chances(self, chances: NDArray[np.float64] | None) -> None:
        """Draw each image with a chance of its own from now on, (N,) summing to 1; None shows each image once."""
        self._plan.chances = chances


class Loader(PlannedLoader):
    """Reads, augments and lays together on the CPU."""

    def __init__(self, samples: DetectionSet, plan: Plan, workers: int, *, pin: bool = False) -> None:
        """As `Ahead`."""
        super().__init__(samples, plan)
        self._ahead = Ahead(BatchMaker(samples), plan, workers, pin=pin)

    def __iter__(self) -> Iterator[Batch]:
        """See `PlannedLoader`."""
        yield from self._ahead

    def notes(self) -> list[str]:
        """See `PlannedLoader`."""
        return [*self.samples.images.cache.notes(), *fault_notes(self._ahead.faults, self.samples)]


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
        rect: As for `build_plan`.

    Raises:
        TrainError: As `build_plan`, or `workers` is negative.
    """
    if workers < 0:
        raise TrainError(f"workers >= 0 must hold, but got {workers}")
    plan = build_plan(samples, batch_size, shuffle=shuffle, seed=seed, rect=rect)
    plan.drop_last = drop_last
    return Loader(samples, plan, workers)


def build_plan(
    samples: DetectionSet,
    batch_size: int,
    *,
    shuffle: bool,
    seed: int,
    rect: bool = False,
    multi_scale: bool = False,
) -> Plan:
    """Plan the batches of a set.

    Args:
        samples: The set.
        batch_size: Images per batch.
        shuffle: Whether each epoch has an order of its own; with `rect` an order of batches.
        seed: Of the order.
        rect: Sort images by aspect and give each batch a shape of its own, see `rect_sizes`.
        multi_scale: Draw a size for each batch.

    Raises:
        TrainError: A number is too small, or `rect` is asked for together with mosaics.
    """
    if batch_size < 1 or seed < 0:
        raise TrainError(f"batch_size >= 1, seed >= 0 must hold, but got {batch_size}, {seed}")
    order = np.arange(len(samples))
    sizes = [(samples.image_size, samples.image_size)]
    if rect:
        if samples.augment and samples.hyp.mosaic > 0:
            raise TrainError(
                f"rectangular batches exclude mosaics: mosaic must be 0, but is {samples.hyp.mosaic:g}"
            )
        aspects = samples.split.sizes[:, 1] / samples.split.sizes[:, 0]
        order = np.argsort(aspects, kind="stable")
        pad = 0.0 if samples.augment else RECT_PAD
        sizes = rect_sizes(aspects[order], batch_size, samples.image_size, samples.stride, pad)
    step = samples.stride if multi_scale else 0
    return Plan(order, sizes, batch_size, seed if shuffle else None, drop_last=False, multi_scale=step)
