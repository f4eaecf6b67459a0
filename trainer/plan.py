"""Which images make which batch of an epoch, and at which size: decided ahead, from (seed, epoch, batch) alone."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

SMALLEST, LARGEST = 0.5, 1.5
"""Multi-scale training draws sizes from this interval, as shares of the image size."""

_ORDER_OF_BATCHES, _SIZES = 1, 2  # streams of their own, beside that of the shuffling


@dataclass(frozen=True)
class Draw:
    """What a worker is asked for: one image of the split, in an epoch, at a height and width.

    Attributes:
        index: Place in the split.
        epoch: With seed and index it decides the sample.
        size: Height, width px.
        zoom: What the size is, as a multiple of the one at which images are kept.
    """

    index: int
    epoch: int
    size: tuple[int, int]
    zoom: float = 1.0


@dataclass
class Plan:
    """Iterating gives the draws of each batch of the epoch.

    Attributes:
        order: Indices of the split, unshuffled.
        sizes: Height, width of each batch; one for all when there is only one.
        batch_size: Images per batch; the last may have fewer.
        seed: Of the shuffling; None keeps the order.
        drop_last: Leave out a last batch that is not full.
        epoch: Settable; the order depends on (seed, epoch) alone.
        multi_scale: Step in px of the sizes that are drawn for each batch; 0 draws none.
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
    multi_scale: int = 0
    chances: NDArray[np.float64] | None = None
    rank: int = 0
    world: int = 1

    def __len__(self) -> int:
        """Batches of one pass."""
        full, rest = divmod(len(self.order), self.batch_size)
        return full + (rest > 0 and not self.drop_last)

    def __iter__(self) -> Iterator[list[Draw]]:
        """The draws of each batch."""
        epoch, order, numbers = self.epoch, self.order, np.arange(len(self))
        rectangular = len(self.sizes) > 1
        if self.chances is not None and not rectangular:
            rng = np.random.default_rng([self.seed or 0, epoch, len(order), 1])
            order = rng.choice(order, size=len(order), p=self.chances)
        elif self.seed is not None and rectangular:  # what lies in a batch is settled by its shape
            numbers = np.random.default_rng([self.seed, epoch, _ORDER_OF_BATCHES]).permutation(numbers)
        elif self.seed is not None:  # the third number keeps this stream apart from those of the samples
            order = np.random.default_rng([self.seed, epoch, len(order)]).permutation(order)
        for place, number in enumerate(numbers.tolist()):
            size, zoom = self._scaled(self.sizes[number % len(self.sizes)], epoch, place)
            indices = order[number * self.batch_size : (number + 1) * self.batch_size].tolist()
            yield [Draw(index, epoch, size, zoom) for index in self._share(indices)]

    def _share(self, indices: list[int]) -> list[int]:
        """Every `world`th image; where a last batch has fewer images than shares, those left over take its first."""
        return indices[self.rank :: self.world] or indices[:1]

    def _scaled(self, size: tuple[int, int], epoch: int, place: int) -> tuple[tuple[int, int], float]:
        """The size of a batch and its zoom: the longer side is any multiple of the step in the interval."""
        step, longer = self.multi_scale, max(size)
        if not step:
            return size, 1.0
        low, high = max(round(SMALLEST * longer / step), 1), max(round(LARGEST * longer / step), 1)
        rng = np.random.default_rng([self.seed or 0, epoch, place, _SIZES])
        drawn = int(rng.integers(low, high + 1)) * step
        zoom = drawn / longer
        height, width = (-(-round(side * zoom) // step) * step for side in size)
        return (height, width), zoom
