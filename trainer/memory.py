"""When a batch does not fit into memory: it is processed in parts; and the largest one that fits is found."""

import ctypes
import gc
import logging
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch

from dataset import Dataset
from model.loss import DetectionLoss
from model.spec import load_spec
from trainer import checkpoint, prepare
from trainer.config import TrainConfig, TrainError, TrainResult
from trainer.image_cache import free_memory
from trainer.optim import PUBLISHED_NOMINAL_BATCH
from trainer.session import Job

logger = logging.getLogger(__name__)

SHARE_OF_FREE = 0.5
"""Of a CPU's free memory that a batch may take: other trainings and the images want some too."""

SHARE_OF_DEVICE = 0.85
"""Of a GPU's memory that a batch may take: real batches vary, and memory is cut into pieces as it is used."""

CPU_WORDS = ("DefaultCPUAllocator", "could not create a primitive", "could not create a memory object")
"""How PyTorch says that a CPU's memory ran out, and how oneDNN, which computes its convolutions, does."""

WORKSPACE = 1.5
"""Memory of a step over that of the tensors kept for its backward pass: gradients and workspaces, generously."""


class ExhaustedError(Exception):
    """Memory ran out in another process."""


def is_exhausted(error: BaseException) -> bool:
    """Whether an error says that memory ran out, on a GPU or a CPU."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError | ExhaustedError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in CPU_WORDS)


def with_halving(job: Job, run: Callable[[Job], TrainResult]) -> TrainResult:
    """Run a training; each time that memory runs out, do so from its last checkpoint with batches in twice the parts.

    The epoch in which it happened is begun again, from the state in which it began.

    Args:
        job: The training.
        run: Runs it.

    Raises:
        TrainError: A single image does not fit.
    """
    while True:
        outcome = _attempt(job, run)
        if isinstance(outcome, TrainResult):
            return outcome
        _give_back()
        job = _halved(job, outcome)


def _attempt(job: Job, run: Callable[[Job], TrainResult]) -> TrainResult | str:
    """The result, or why there is none; what the error held on to is let go with its frames."""
    try:
        return run(job)
    except (RuntimeError, MemoryError, ExhaustedError) as error:
        if not is_exhausted(error):
            raise
        return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__


def _give_back() -> None:
    """Let go of memory that is free but held: by cycles of references, by PyTorch, by the C library."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc has it
        if trim is not None:
            trim(0)


def _halved(job: Job, reason: str) -> Job:
    images = job.config.batch // job.config.devices
    if job.pieces >= images:
        raise TrainError(
            f"not even one image of {job.config.image_size} px fits into memory with {job.base.name} "
            f"({reason}): choose a smaller image_size or model"
        )
    pieces = min(2 * job.pieces, images)
    note = (
        f"a batch of {job.config.batch} images did not fit into memory: it is processed in {pieces} parts of "
        f"{-(-images // pieces)}, as many images a step as before"
    )
    logger.warning("%s (%s)", note, reason)
    return replace(job, config=replace(job.config, resume=True), pieces=pieces, notes=(*job.notes, note))


def resolve_batch(config: TrainConfig, dataset: Dataset) -> tuple[TrainConfig, str | None]:
    """Put a number in the place of a batch size "auto": that of the training that is resumed, or what fits.

    Returns:
        (the configuration, a note where something was chosen)
    """
    if config.batch_size != "auto":
        return config, None
    last = Path(config.out) / "weights" / "last.pt"
    if config.resume and last.exists():
        return replace(config, batch_size=int(checkpoint.load(last)["config"]["batch_size"])), None
    device = prepare.choose_device(config.device)
    most = min(config.nominal_batch or PUBLISHED_NOMINAL_BATCH, len(dataset.train.images))
    fitting = _largest_on_cuda if device.type == "cuda" else _largest_on_cpu
    each = fitting(config, dataset, device, max(most // config.devices, 1))
    batch = each * config.devices
    return replace(
        config, batch_size=batch
    ), f"batch size {batch}: the largest power of two that fits, at most {most}"


def _probe(
    config: TrainConfig, dataset: Dataset, device: torch.device
) -> tuple[torch.nn.Module, DetectionLoss, int, torch.dtype | None]:
    spec = load_spec(config.model, classes=len(dataset.names))
    size, _ = prepare.round_image_size(config.image_size, spec.grid)
    detector = prepare.place(prepare.build_detector(spec, config.seed), device)
    loss = prepare.build_loss(detector, config, size).to(device)
    return detector, loss, size, prepare.choose_precision(config.amp, device)


def _largest_on_cpu(config: TrainConfig, dataset: Dataset, device: torch.device, most: int) -> int:
    """From what one image leaves behind for the backward pass, and the memory that is free."""
    detector, loss, size, precision = _probe(config, dataset, device)
    kept: dict[int, int] = {}

    def note(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        with torch.autocast("cpu", precision, enabled=precision is not None):
            raw = detector(torch.zeros(2, 3, size, size))
        loss(raw, torch.zeros(0, 6))
    weights = sum(parameter.nbytes for parameter in detector.parameters())
    each = WORKSPACE * max(sum(kept.values()) - weights, 1) / 2
    room = SHARE_OF_FREE * free_memory() / config.devices - 5 * weights  # gradients, momenta, the average
    return _power_of_two(min(room / each, most))


def _largest_on_cuda(config: TrainConfig, dataset: Dataset, device: torch.device, most: int) -> int:
    """By trial: batches of twice the size until one does not fit."""
    detector, loss, size, precision = _probe(config, dataset, device)
    total = SHARE_OF_DEVICE * torch.cuda.get_device_properties(device).total_memory
    best, batch = 1, 1
    while batch <= most:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
        if not _fits(detector, loss, torch.zeros(batch, 3, size, size, device=device), precision):
            break
        if torch.cuda.max_memory_reserved(device) > total:
            break
        best, batch = batch, 2 * batch
    return best


def _fits(
    detector: torch.nn.Module, loss: DetectionLoss, images: torch.Tensor, precision: torch.dtype | None
) -> bool:
    try:
        with torch.autocast("cuda", precision, enabled=precision is not None):
            raw = detector(images.contiguous(memory_format=torch.channels_last))
        loss(raw, images.new_zeros(0, 6))[0].backward()
    except torch.OutOfMemoryError:
        return False
    return True


def _power_of_two(most: float) -> int:
    """The largest power of two that is not above, at least 1.

    >>> _power_of_two(0.3), _power_of_two(17)
    (1, 16)
    """
    return 1 << max(int(most).bit_length() - 1, 0)
