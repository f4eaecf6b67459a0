"""Training batches made on the device: the split lies there as uint8, and recipes are cooked by the batch.

The CPU only draws recipes, in worker processes or a thread: places, matrices and boxes, a few kilobytes a batch. They
are those of the CPU pipeline, so boxes are the same and px differ by rounding. Nothing here waits for the device.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch

from trainer.ahead import Ahead, fault_notes
from trainer.config import TrainError
from trainer.cook_on_device import cook_batch
from trainer.image_cache import free_memory
from trainer.images import ImageError
from trainer.loader import Batch, PlannedLoader, number_targets
from trainer.packing import Packed, pack
from trainer.plan import Draw, Plan
from trainer.samples import DetectionSet
from trainer.warp import to_shares

DEVICE_SHARE = 0.25
"""Of the device's free memory, the part that the images of a split may take."""

CHUNK = 32
"""Pictures that are cooked at once: bounds the memory that intermediate results take."""

_READERS = 8  # threads that read images at the start


@dataclass(frozen=True)
class Place:
    """Where training images are augmented, and why."""

    on_device: bool
    notes: tuple[str, ...] = ()


def choose_pipeline(pipeline: str, samples: DetectionSet, device: torch.device) -> Place:
    """Decide where training images are augmented.

    Args:
        pipeline: "cpu", "device" or "auto": the device if it is a CUDA device with room.
        samples: What is augmented.
        device: Where the detector is.

    Raises:
        TrainError: The device is asked for and has no room.
    """
    if pipeline == "cpu" or (pipeline == "auto" and device.type != "cuda"):
        return Place(False)
    if not samples.augment:
        return Place(
            False, ("nothing is augmented: the device pipeline is not used",) if pipeline == "device" else ()
        )
    needed = len(samples) * 3 * samples.image_size**2
    free = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else free_memory()
    room = int(DEVICE_SHARE * free)
    said = f"{needed / 2**30:.1f} GiB of images, and {room / 2**30:.1f} GiB is their share of {device}'s free memory"
    if needed <= room:
        return Place(True, (f"images are augmented on {device}: {said}",))
    if pipeline == "device":
        raise TrainError(f"the device pipeline needs {said}: choose --pipeline cpu")
    return Place(False, (f"images are augmented on the CPU: {said}",))


class DeviceLoader(PlannedLoader):
    """Batches whose images are made on the device, one ahead of the caller.

    Attributes:
        images: (N, 3, S, S) uint8 RGB on the device: the split at training scale, each in the top left corner.
    """

    def __init__(self, samples: DetectionSet, plan: Plan, workers: int, device: torch.device) -> None:
        """Bring all images to the device.

        Args:
            samples: An augmented set.
            plan: The batches.
            workers: Processes that draw recipes; on CUDA at least one, so that Python's lock stays with the training.
            device: Where batches are made.

        Raises:
            TrainError: Too many images can't be read any more.
        """
        super().__init__(samples, plan)
        self.device = device
        self.images = upload(samples, device)
        on_gpu = device.type == "cuda"
        self._ahead = Ahead(RecipeMaker(samples), plan, max(workers, int(on_gpu)), pin=on_gpu)
        build_stream: Callable[[torch.device], torch.cuda.Stream] = torch.cuda.Stream
        self._stream = build_stream(device) if on_gpu else None

    def __iter__(self) -> Iterator[Batch]:
        """See `PlannedLoader`; `images` and `targets` are on the device."""
        ready: Batch | None = None
        for order in self._ahead:
            following = self._cook(order)
            if ready is not None:
                yield self._hand_over(ready)
            ready = following
        if ready is not None:
            yield self._hand_over(ready)

    def notes(self) -> list[str]:
        """See `PlannedLoader`."""
        return fault_notes(self.samples.faults, self.samples)

    def _cook(self, order: "Order") -> Batch:
        """Queue the making of a batch, on a stream beside that of the training."""
        with torch.cuda.stream(self._stream):  # None: no stream, as on a CPU
            chunks = [cook_batch(self.images, packed.to(self.device)) for packed in order.chunks]
            images = chunks[0] if len(chunks) == 1 else torch.cat(chunks)
            targets = order.batch["targets"].to(self.device, non_blocking=True)
        return order.batch | {"images": images, "targets": targets}

    def _hand_over(self, batch: Batch) -> Batch:
        """Let the current stream wait for a batch; the CPU does not."""
        if self._stream is not None:
            current = torch.cuda.current_stream(self.device)
            current.wait_stream(self._stream)
            for name in ("images", "targets"):
                batch[name].record_stream(current)
        return batch


@dataclass(frozen=True, eq=False)
class Order:
    """What the CPU sends for one batch.

    Attributes:
        chunks: How its pictures are made, `CHUNK` at a time.
        batch: All of `Batch` but the images.
    """

    chunks: list[Packed]
    batch: Batch

    def pin_memory(self) -> "Order":
        """The same in page-locked memory."""
        batch = {name: tensor.pin_memory() for name, tensor in self.batch.items()}
        return Order([packed.pin_memory() for packed in self.chunks], batch)


class RecipeMaker:
    """Draws the recipes of a batch."""

    def __init__(self, samples: DetectionSet) -> None:
        self.samples = samples

    def make(self, draws: list[Draw]) -> Order:
        """One batch."""
        recipes = [self.samples.recipe(draw) for draw in draws]
        sizes = self.samples.images.sizes
        nowhere = torch.full((len(draws), 2), torch.nan, dtype=torch.float64)
        indices = torch.tensor([recipe.index for recipe in recipes])
        batch = {
            "targets": number_targets([to_shares(recipe.labels, recipe.size) for recipe in recipes]),
            "indices": indices,
            "sizes": torch.from_numpy(self.samples.split.sizes[indices.numpy()].astype(np.int64)).flip(1),
            "ratio": nowhere,
            "pad": nowhere.clone(),
        }
        chunks = [pack(recipes[start : start + CHUNK], sizes) for start in range(0, len(recipes), CHUNK)]
        return Order(chunks, batch)

    def pin(self, made: Order) -> Order:
        """A batch in page-locked memory."""
        return made.pin_memory()


def upload(samples: DetectionSet, device: torch.device) -> torch.Tensor:
    """All images of a set on a device: (N, 3, S, S) uint8 RGB. Unreadable ones are left out, see `DetectionSet`.

    Raises:
        TrainError: Too many images can't be read any more.
    """
    side = samples.image_size
    images = torch.zeros((len(samples), 3, side, side), dtype=torch.uint8, device=device)

    def read(index: int) -> np.ndarray | ImageError:
        try:
            return samples.images[index]
        except ImageError as error:
            return error

    with ThreadPoolExecutor(max_workers=_READERS, thread_name_prefix="reader") as pool:
        for index, image in enumerate(pool.map(read, range(len(samples)))):
            if isinstance(image, ImageError):
                samples.leave_out(image)
                continue
            height, width = image.shape[:2]
            planes = torch.from_numpy(np.ascontiguousarray(image[:, :, ::-1])).to(device)
            images[index, :, :height, :width] = planes.permute(2, 0, 1)
    return images
