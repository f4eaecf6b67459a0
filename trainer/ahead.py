"""Work ahead of whoever waits for it: batches made in worker processes or in a thread, and what went wrong there."""

import logging
import sys
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, Protocol, TypeVar

import cv2
import torch
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from trainer.config import TrainError
from trainer.plan import Draw, Plan
from trainer.samples import DetectionSet, check_faults

logger = logging.getLogger(__name__)

Made = TypeVar("Made")

Faults = dict[int, str]
"""What is wrong with images that can't be read any more, by their place in the split."""


Outcome = tuple[Made | TrainError, Faults]
"""What came of one batch, and all images that the process which made it knows to be unusable."""


class Maker(Protocol[Made]):
    """Makes what the draws of a batch ask for, in whatever process it is in."""

    @property
    def samples(self) -> DetectionSet:
        """Where it takes them from."""
        ...

    def make(self, draws: list[Draw]) -> Made:
        """One batch.

        Raises:
            TrainError: It can't be made.
        """
        ...

    def pin(self, made: Made) -> Made:
        """A batch in page-locked memory."""
        ...


class Ahead(Generic[Made]):
    """What a maker makes of a plan, one pass per iteration, in worker processes or one batch ahead in a thread.

    Attributes:
        plan: Which images, when.
        faults: See `Faults`; of all processes.
    """

    def __init__(self, maker: Maker[Made], plan: Plan, workers: int, *, pin: bool = False) -> None:
        """Start nothing yet.

        Args:
            maker: What makes a batch.
            plan: The batches.
            workers: Processes that make them, kept from pass to pass; 0 makes them in a thread of this one.
            pin: Put tensors into page-locked memory, from which a GPU fetches them without being waited for.
        """
        self.plan = plan
        self.faults: Faults = {}
        self._maker = maker
        self._pin = pin
        self._loader: DataLoader[Outcome[Made]] | None = None
        if workers:
            self._loader = _worker_loader(maker, plan, workers, pin)

    def __iter__(self) -> Iterator[Made]:
        """One pass.

        Raises:
            TrainError: As the maker, or images have become unreadable by the dozen.
        """
        for made, faults in self._in_thread() if self._loader is None else self._loader:
            if faults.keys() - self.faults.keys():
                self._take_note(faults)
            if isinstance(made, TrainError):
                # A new one: raising `made` would tie this frame, and with it the workers, into a cycle of
                # references, and workers that the garbage collector ends take 5 s each.
                raise TrainError(str(made)) from made
            yield made

    def _take_note(self, faults: Faults) -> None:
        samples = self._maker.samples
        instead = "another image is used instead" if samples.augment else "its objects count as missed"
        for index in sorted(faults.keys() - self.faults.keys()):
            logger.warning("%s; %s", faults[index], instead)
        self.faults |= faults
        check_faults(self.faults, len(samples))

    def _in_thread(self) -> Iterator[Outcome[Made]]:
        """One batch ahead in a thread: OpenCV works while the caller's Python, or its GPU, does."""
        batches = _MapOfBatches(self._maker)

        def make(draws: list[Draw]) -> Outcome[Made]:
            made, faults = batches[draws]
            return made if isinstance(made, TrainError) or not self._pin else self._maker.pin(made), faults

        pending: Future[Outcome[Made]] | None = None
        with ThreadPoolExecutor(max_workers=1, thread_name_prefix="loader") as pool:
            for draws in self.plan:
                following = pool.submit(make, draws)
                if pending is not None:
                    yield pending.result()
                pending = following
            if pending is not None:
                yield pending.result()


def fault_notes(faults: Faults, samples: DetectionSet) -> list[str]:
    """One line on images that could not be read any more; none when all could."""
    if not faults:
        return []
    instead = "other images took their places" if samples.augment else "their objects count as missed"
    first = " ".join(faults[min(faults)].split())
    return [
        f"{len(faults)} of {len(samples)} {samples.split.name} images became unusable, {instead}; such as {first}"
    ]


class _MapOfBatches(TorchDataset[Outcome[Made]], Generic[Made]):
    """Batches by their draws. Errors come as values: torch would wrap their text in a worker's traceback."""

    def __init__(self, maker: Maker[Made]) -> None:
        self.maker = maker

    def __getitem__(self, draws: list[Draw]) -> Outcome[Made]:
        made: Made | TrainError
        try:
            made = self.maker.make(draws)
        except TrainError as error:
            made = error
        return made, dict(self.maker.samples.faults)


def _worker_loader(maker: Maker[Made], plan: Plan, workers: int, pin: bool) -> DataLoader[Outcome[Made]]:
    batches: _MapOfBatches[Made] = _MapOfBatches(maker)
    return DataLoader(
        batches,
        batch_size=None,  # the plan makes the batches
        sampler=plan,
        num_workers=workers,
        worker_init_fn=_start_worker,
        persistent_workers=True,
        pin_memory=pin,
        generator=torch.Generator(),  # else each pass would draw from the global one
        multiprocessing_context="fork" if sys.platform == "linux" else None,  # shares the image cache
    )


def _start_worker(_: int) -> None:
    cv2.setNumThreads(0)  # one core per worker
