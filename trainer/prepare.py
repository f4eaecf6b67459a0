"""What is settled before the first step: image size, anchors, initial weights, the device."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields, replace
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn.utils import convert_conv2d_weight_memory_format

from dataset import Split
from model import Detector, build
from model.boxes import IouKind
from model.loss import DetectionLoss, LossGains
from model.spec import ModelSpec, load_spec
from model.spec import round_image_size as next_size
from model.weights import Checkpoint
from trainer.autoanchor import choose
from trainer.config import AnchorTable, Hyperparameters, TrainConfig, TrainError, anchor_table
from trainer.device_pipeline import DeviceLoader, choose_pipeline
from trainer.images import rect_sizes
from trainer.loader import Loader, build_loader, build_plan
from trainer.samples import DetectionSet

Progress = Callable[[str, int, int], None]
"""Called with (what, done, total)."""


def round_image_size(size: int, grid: int) -> tuple[int, str | None]:
    """Round an image size up to the model's grid, at least twice the grid.

    Args:
        size: px.
        grid: px, see `ModelSpec.grid`.

    Returns:
        (size in px, a note when it changed)

    >>> round_image_size(641, 32)
    (672, 'image size 672 instead of 641: a multiple of 32 px, at least 64')
    """
    rounded = next_size(size, grid)
    if rounded == size:
        return size, None
    return rounded, f"image size {rounded} instead of {size}: a multiple of {grid} px, at least {2 * grid}"


def choose_anchors(
    config: TrainConfig, spec: ModelSpec, wh_px: NDArray[np.float64], progress: Progress | None = None
) -> tuple[AnchorTable, list[str]]:
    """Decide which anchors the detector is built with, before its first step (AutoAnchor).

    Given anchors are taken; "keep" takes the model's. With "auto" they are fitted when the best possible recall is
    under `trainer.autoanchor.TARGET_BPR`, or when `hyp.anchors` asks for another number per level than the model has.
    A fit that is no better than the model's anchors is not taken.

    Args:
        config: `anchors`, `seed`, and of `hyp` `anchors` and `anchor_t`.
        spec: The model's own anchors.
        wh_px: (N, 2) shapes of the training boxes at the image size.
        progress: Called while fitting.

    Returns:
        (anchors in px, notes)

    Raises:
        TrainError: Given anchors have not one row per level of the model.
    """
    levels, per_level = len(spec.anchors), len(spec.anchors[0])
    wanted = config.hyp.anchors or per_level
    if not isinstance(config.anchors, str):
        if len(config.anchors) != levels:
            raise TrainError(
                f"anchors must have {levels} levels for {spec.name}, but got {len(config.anchors)}"
            )
        return config.anchors, []
    if config.anchors == "keep" or not len(wh_px):
        why = "anchors are kept" if len(wh_px) else "there are no boxes to fit anchors to"
        ignored = [f"hyp.anchors = {wanted} has no effect: {why}"] if wanted != per_level else []
        return spec.anchors, ignored
    chosen = choose(
        wh_px,
        np.asarray(spec.anchors),
        per_level=wanted,
        threshold=config.hyp.anchor_t,
        seed=config.seed,
        progress=(lambda done: progress("anchors", round(100 * done), 100)) if progress else None,
    )
    before, fitted = chosen.before, chosen.fitted
    if fitted is None:
        return spec.anchors, []
    if wanted == per_level and fitted.after.bpr < before.bpr:
        return spec.anchors, [f"anchors kept: recall {before.bpr:.4f} could not be raised by fitting them"]
    # Rounded as model files write them, so that an exported model is the one that was trained.
    return anchor_table(fitted.anchors.round(2)), [
        f"anchors fitted, {wanted} per level: best possible recall {before.bpr:.4f} -> {fitted.after.bpr:.4f}, "
        f"mean best ratio {before.mean_best_ratio:.3f} -> {fitted.after.mean_best_ratio:.3f}"
    ]


def build_detector(spec: ModelSpec, seed: int) -> Detector:
    """A detector whose initial weights follow from the seed alone; torch's own generator is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build(spec)


def place(detector: Detector, device: str | torch.device) -> Detector:
    """Move a detector to a device, in the form in which it computes fastest; what it computes stays the same.

    Convolutions are laid out channels last: half their time on a CPU. SiLU does not work in place: its backward pass
    needs the input, so in place it copies it first, which costs a CPU 6 % of a step and saves no memory.
    """
    for module in detector.modules():
        if isinstance(module, nn.SiLU):
            module.inplace = False
    convert_conv2d_weight_memory_format(detector.to(device), torch.channels_last)
    return detector


def with_anchors_of(spec: ModelSpec, given: Checkpoint | None) -> tuple[ModelSpec, list[str]]:
    """The model with the anchors of the checkpoint that a training starts from, and a note when they differ.

    They are taken where there are as many; whether they fit the data is judged later, by `choose_anchors`.
    """
    anchors = None if given is None else given.anchors_for(spec.strides)
    if anchors is None or anchors == spec.anchors or len(anchors[0]) != len(spec.anchors[0]):
        return spec, []
    return load_spec(spec, anchors=anchors), ["anchors come from the checkpoint"]


def choose_device(name: str) -> torch.device:
    """The device of a configuration.

    Raises:
        TrainError: A CUDA device that this machine does not have.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    device = torch.device(name)
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise TrainError(
            f"device {name} is not there: this machine has {torch.cuda.device_count()} CUDA devices"
        )
    return device


@contextlib.contextmanager
def cpu_threads(threads: int | None) -> Iterator[None]:
    """Run with so many CPU threads of torch, and leave the setting as it was."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def choose_precision(amp: str, device: torch.device) -> torch.dtype | None:
    """The type that the forward pass computes in where that is safe; None for float32 throughout.

    Args:
        amp: "auto", "off", "bf16" or "fp16", see `TrainConfig`.
        device: Of the detector.

    Raises:
        TrainError: fp16 on a CPU, whose gradients nobody scales.
    """
    cuda = device.type == "cuda"
    if amp == "off" or (amp == "auto" and not cuda):
        return None
    if amp == "fp16" and not cuda:
        raise TrainError("amp fp16 needs a CUDA device: choose bf16, off or auto on a CPU")
    if amp == "bf16" or (amp == "auto" and torch.cuda.is_bf16_supported(including_emulation=False)):
        return torch.bfloat16
    return torch.float16


def freeze(detector: Detector, layers: Sequence[int]) -> str | None:
    """Take the weights of layers out of the training; `train_mode` keeps their statistics too.

    Returns:
        A note, where there is something to freeze.

    Raises:
        TrainError: A layer that the detector has not, or the last, which predicts.
    """
    last = len(detector.model) - 1
    for layer in layers:
        if layer >= last:
            raise TrainError(
                f"freeze must name layers 0 to {last - 1} of {detector.spec.name}, but got {layer}"
            )
        detector.model[layer].requires_grad_(False)
    return f"{len(layers)} of {last + 1} layers are frozen" if layers else None


def train_mode(detector: Detector, frozen: Sequence[int]) -> None:
    """Put a detector into train mode, all but its frozen layers."""
    detector.train()
    for layer in frozen:
        detector.model[layer].eval()


def take_fraction(split: Split, fraction: float) -> Split:
    """Evenly spaced images of a split with all that belongs to them; the same ones each time."""
    count = len(split.images)
    if fraction == 1 or not count:
        return split
    places = np.unique(np.linspace(0, count - 1, max(round(count * fraction), 1)).round().astype(np.int64))
    parts: dict[str, Any] = {}
    for each in fields(split):
        value = getattr(split, each.name)
        if isinstance(value, np.ndarray) and len(value) == count:
            parts[each.name] = value[places]
        elif isinstance(value, tuple) and len(value) == count:
            parts[each.name] = tuple(value[place] for place in places)
    return replace(split, **parts)


def image_chances(split: Split, class_map: Sequence[float]) -> NDArray[np.float64] | None:
    """With which chance each image is drawn, so that classes that are found badly are seen more often.

    A box weighs `(1 - mAP)²` of its class over the number of that class's boxes; an image weighs what its boxes do.

    Args:
        split: N training images.
        class_map: mAP@0.5:0.95 of each class, in [0, 1].

    Returns:
        (N,) summing to 1; None where no box weighs anything.
    """
    counts = np.zeros(len(class_map))
    for labels in split.labels:
        np.add.at(counts, labels[:, 0].astype(np.int64), 1)
    worth = (1 - np.asarray(class_map)) ** 2 / np.maximum(counts, 1)
    weights = np.array([worth[labels[:, 0].astype(np.int64)].sum() for labels in split.labels])
    total = float(weights.sum())
    return weights / total if total > 0 else None


def build_loss(detector: Detector, config: TrainConfig, image_size: int) -> DetectionLoss:
    """The loss of a detector, its gains scaled to classes, image size (px) and levels by the rule of its family."""
    hyp = config.hyp
    gains = LossGains(
        box=hyp.box,
        cls=hyp.cls,
        obj=hyp.obj,
        cls_pw=hyp.cls_pw,
        obj_pw=hyp.obj_pw,
        fl_gamma=hyp.fl_gamma,
        label_smoothing=hyp.label_smoothing,
        anchor_t=hyp.anchor_t,
        iou_t=hyp.iou_t,
        autobalance=config.autobalance,
        scheme=detector.spec.options.scheme if config.loss == "auto" else config.loss,
        box_loss=cast(IouKind, config.box_loss),
        assignment=config.assignment,
    )
    return DetectionLoss(detector, gains.scaled(detector.classes, image_size, len(detector.strides)))


def build_train_loader(
    config: TrainConfig, split: Split, image_size: int, grid: int, device: torch.device
) -> tuple[Loader | DeviceLoader, list[str]]:
    """Shuffled, augmented batches; order and augmentation follow from (seed, epoch).

    Args:
        config: `rect`, `multi_scale`, `pipeline`, `cache` and more.
        split: What is learnt from.
        image_size: px.
        grid: px; sides of batches are multiples of it.
        device: Where the detector is.

    Returns:
        (the loader, notes)
    """
    hyp, notes = config.hyp, list[str]()
    if config.rect and config.augment and hyp.mosaic > 0:
        hyp = replace(hyp, mosaic=0.0)
        notes.append("rectangular batches exclude mosaics: trained without")
    samples = DetectionSet(
        split, image_size, hyp, config.augment, config.seed, stride=grid, cache=config.cache
    )
    plan = build_plan(
        samples,
        config.batch,
        shuffle=True,
        seed=config.seed,
        rect=config.rect,
        multi_scale=config.multi_scale,
    )
    place = choose_pipeline(config.pipeline, samples, device)
    notes += place.notes
    if place.on_device:
        return DeviceLoader(samples, plan, config.workers, device), notes
    return Loader(samples, plan, config.workers, pin=device.type == "cuda"), notes


def build_val_loader(
    split: Split,
    image_size: int,
    grid: int,
    *,
    batch_size: int,
    workers: int = 0,
    cache: str = "ram",
) -> Loader:
    """Batches of a whole split, letterboxed: rectangular where that has fewer pixels than square ones."""
    samples = DetectionSet(split, image_size, Hyperparameters(), augment=False, stride=grid, cache=cache)
    aspects = np.sort(split.sizes[:, 1] / split.sizes[:, 0])
    shapes = rect_sizes(aspects, batch_size, image_size, grid)
    rect = sum(height * width for height, width in shapes) < len(shapes) * image_size**2
    return build_loader(samples, batch_size, shuffle=False, workers=workers, seed=0, rect=rect)
