"""What a training is told: plain frozen data, refused at birth when it makes no sense.

Nothing here imports torch, so a search driver or a command can build and check configurations cheaply.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from types import MappingProxyType
from typing import Any, Self

from trainer.hyperparameters import (
    OTHER_NAMES,
    RANGES,
    Hyperparameters,
    TrainError,
    check_names,
    finite_number,
)
from trainer.result import TrainResult

__all__ = [
    "OTHER_NAMES",
    "RANGES",
    "AnchorTable",
    "Hyperparameters",
    "TrainConfig",
    "TrainError",
    "TrainResult",
    "anchor_table",
    "check_names",
]

AnchorTable = tuple[tuple[tuple[float, float], ...], ...]
"""Anchors in px, `[level][anchor]` is (width, height); levels in order of stride, anchors sorted by area."""


CHOICES = MappingProxyType(
    {
        "optimizer": ("auto", "sgd", "adamw", "adam", "rmsprop"),
        "schedule": ("linear", "cosine"),
        "amp": ("auto", "off", "bf16", "fp16"),
        "loss": ("auto", "yolov5", "scaled-yolov4"),
        "box_loss": ("ciou", "diou", "giou", "iou"),
        "assignment": ("ratio", "iou"),
        "cache": ("off", "ram", "disk"),
        "pipeline": ("auto", "cpu", "device"),
        "difficult": ("learn", "ignore"),
    }
)
WHOLE = MappingProxyType(
    {"epochs": 1, "image_size": 1, "seed": 0, "workers": 0, "devices": 1, "val_every": 1, "precise_bn": 0}
)
SWITCHES = (
    *("resume", "augment", "sync_bn", "compile", "image_weights", "autobalance", "pictures"),
    *("rect", "multi_scale"),
)


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """One training, as plain data.

    Attributes:
        data: What `dataset.load` reads: "digits", a data.yaml, an instances.json or a folder.
        model: A model of the zoo or a YAML file.
        out: Folder that is written; must be empty or absent unless `resume`.
        epochs: Passes over the training split.
        batch_size: Images per iteration, over all devices; "auto": the largest power of two that fits into memory,
            at most `nominal_batch` or 64 (see `trainer.memory`).
        image_size: Longer image side in px; rounded up to the model's grid.
        hyp: Hyperparameters.
        optimizer: "sgd" (Nesterov), "adamw", "adam", "rmsprop", or "auto": AdamW for trainings of under 10,000
            iterations, else SGD. All but SGD normalise their steps and take a share of `hyp.lr0`, see `RATE_FACTORS`
            of `trainer.optim`.
        schedule: "linear" or "cosine".
        nominal_batch: Images per optimiser step that gradients are accumulated to. None: 64, less when the
            training would be too short for it (see `trainer.optim.plan_steps`). 64: always 64.
        seed: Of everything random: initial weights, order, augmentation.
        device: "auto" (CUDA when there is one), "cpu", "cuda" or "cuda:N".
        devices: Processes that train together, one per GPU (on a CPU: that many processes); they share each batch.
        sync_bn: Batch normalisation over the batch of all devices rather than each device's own share.
        workers: Loader processes; 0 loads in this process.
        amp: Mixed precision: "auto" (on CUDA bf16 where the device has it, else fp16; off on a CPU), "off", "bf16" or
            "fp16" (CUDA only). True and False are read as "auto" and "off".
        compile: Let `torch.compile` build the forward pass: minutes of start-up, for long trainings.
        anchors: "auto" refits them when too few boxes can be reached, "keep" takes the model's, a nested
            sequence (levels, per level, 2) px is taken as it is.
        resume: Go on from `out`/weights/last.pt.
        weights: A checkpoint to start from; tensors of other shapes keep their initial values.
        freeze: Layers, counted from 0 as in the model file, whose weights and statistics stay as they are.
        image_weights: Draw images by how badly the classes on them were found in the last evaluation.
        autobalance: Let the objectness weights of the levels follow their losses.
        patience: Stop after so many epochs without a better fitness; None never.
        val_every: Evaluate every so many epochs, and after the last one. Rows between repeat the last figures.
        val_fraction: Share of the val images that is evaluated, always the same ones.
        precise_bn: Before each evaluation, estimate the statistics of batch normalisation anew, for the averaged
            weights on the images of so many of the epoch's last batches; 0 leaves them as the training followed them.
        ema_share: Share of the updates so far, 0 <= share < 1, that the averaged weights span at least; they are what
            is evaluated and kept. 0 averages as YOLOv5 does, next to nothing in a short training (see `trainer.ema`).
        pictures: Draw batches, predictions and curves into `out`.
        augment: False trains on plain letterboxed images.
        loss: "auto" takes the loss of the model's family; else "yolov5" or "scaled-yolov4" (see `model.gains`).
        box_loss: Which IoU the box loss uses: "ciou", "diou", "giou" or "iou".
        assignment: Which anchors a target is matched with: "ratio" (see `hyp.anchor_t`) or "iou" (see `hyp.iou_t`).
        cache: Where images at training scale are kept: "ram" (as many as fit; one copy for all trainings of this
            machine that need the same), "disk" (in the cache folder, for later trainings too) or "off".
        rect: Train on rectangular batches: images sorted by aspect, each batch in the least shape that holds them.
            Excludes mosaics.
        multi_scale: Draw the size of each training batch from 0.5 to 1.5 of `image_size`.
        pipeline: Where training images are augmented: "cpu", "device", or "auto": on a CUDA device whose memory has
            room for the whole split, else on the CPU.
        difficult: What becomes of objects that a VOC file calls difficult: "learn" like any other, or "ignore", as
            `dataset.load` has it.
        threads: CPU threads for torch; None leaves torch's own choice.

    Raises:
        TrainError: A setting that cannot be.
    """

    data: str
    model: str
    out: Path
    epochs: int = 100
    batch_size: int | str = 16
    image_size: int = 640
    hyp: Hyperparameters = field(default_factory=Hyperparameters)
    optimizer: str = "auto"
    schedule: str = "linear"
    nominal_batch: int | None = None
    seed: int = 0
    device: str = "auto"
    devices: int = 1
    sync_bn: bool = False
    workers: int = 0
    amp: str = "auto"
    compile: bool = False
    anchors: str | AnchorTable = "auto"
    resume: bool = False
    weights: str | None = None
    freeze: tuple[int, ...] = ()
    image_weights: bool = False
    autobalance: bool = False
    patience: int | None = None
    val_every: int = 1
    val_fraction: float = 1.0
    precise_bn: int = 8
    ema_share: float = 0.08
    pictures: bool = False
    augment: bool = True
    loss: str = "auto"
    box_loss: str = "ciou"
    assignment: str = "ratio"
    cache: str = "ram"
    rect: bool = False
    multi_scale: bool = False
    pipeline: str = "auto"
    difficult: str = "learn"
    threads: int | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "data", str(self.data))
        object.__setattr__(self, "model", str(self.model))
        object.__setattr__(self, "out", Path(self.out))
        object.__setattr__(self, "amp", _amp_word(self.amp))
        object.__setattr__(self, "freeze", layer_numbers(self.freeze))
        self._check_plain()
        self._check_batch()
        if not (self.device in ("auto", "cpu", "cuda") or self.device.removeprefix("cuda:").isdecimal()):
            raise TrainError(f'device must be "auto", "cpu", "cuda" or "cuda:N", but got {self.device!r}')
        if isinstance(self.anchors, str):
            _check_choice("anchors", self.anchors, ("auto", "keep"))
        else:
            object.__setattr__(self, "anchors", anchor_table(self.anchors))

    def _check_plain(self) -> None:
        """Settings that are one word, one number or a switch."""
        for name, choices in CHOICES.items():
            _check_choice(name, getattr(self, name), choices)
        for name, low in WHOLE.items():
            _check_whole(name, getattr(self, name), low)
        for name in ("nominal_batch", "threads", "patience"):
            if getattr(self, name) is not None:
                _check_whole(name, getattr(self, name), 1)
        for name in SWITCHES:
            if not isinstance(getattr(self, name), bool):
                raise TrainError(f"{name} must be true or false, but got {getattr(self, name)!r}")
        fraction = self.val_fraction
        if not 0 < finite_number("val_fraction", fraction) <= 1:
            raise TrainError(f"0 < val_fraction <= 1 must hold, but got {fraction!r}")
        if not 0 <= finite_number("ema_share", self.ema_share) < 1:
            raise TrainError(f"0 <= ema_share < 1 must hold, but got {self.ema_share!r}")

    def _check_batch(self) -> None:
        if self.batch_size == "auto":
            return
        _check_whole("batch_size", self.batch_size, 1)
        if int(self.batch_size) % self.devices:
            raise TrainError(
                f"batch_size must be a multiple of devices, but got {self.batch_size} for {self.devices}"
            )

    @property
    def batch(self) -> int:
        """`batch_size` once it is a number.

        Raises:
            TrainError: It is still "auto".
        """
        if isinstance(self.batch_size, str):
            raise TrainError('batch_size is still "auto": trainer.memory.resolve_batch chooses it')
        return self.batch_size

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Build from plain data such as `to_dict` gives.

        Raises:
            TrainError: An unknown or missing name, or a setting that cannot be.
        """
        known = [f.name for f in fields(cls)]
        check_names(values, known, "setting")
        missing = [name for name in ("data", "model", "out") if name not in values]
        if missing:
            raise TrainError(f"a training needs data, model and out, but {', '.join(missing)} is not given")
        hyp = values.get("hyp", {})
        if not isinstance(hyp, Hyperparameters):
            hyp = Hyperparameters.from_dict(hyp)
        return cls(**{**values, "hyp": hyp})

    def to_dict(self) -> dict[str, Any]:
        """Plain data that JSON can hold; `from_dict` reads it back."""
        anchors = self.anchors if isinstance(self.anchors, str) else _nested_list(self.anchors)
        return asdict(self) | {"out": str(self.out), "anchors": anchors, "freeze": list(self.freeze)}


def anchor_table(anchors: Any) -> AnchorTable:
    """Nested tuples of floats from any nested sequence or array (levels, per level, 2) px.

    Raises:
        TrainError: The nesting is another, levels differ in length, or a side is not positive.
    """
    try:
        table = tuple(tuple((float(w), float(h)) for w, h in level) for level in anchors)
    except (TypeError, ValueError):
        raise TrainError(f"anchors must be (levels, per level, 2) in px, but got {anchors!r}") from None
    if not table or len({len(level) for level in table}) != 1 or not table[0]:
        raise TrainError(
            f"every level must have the same number of anchors, but got {[len(level) for level in table]}"
        )
    if not all(math.isfinite(side) and side > 0 for level in table for pair in level for side in pair):
        raise TrainError(f"anchor sides must be positive px, but got {_nested_list(table)}")
    return table


def layer_numbers(layers: Any) -> tuple[int, ...]:
    """Layers to freeze, rising: a whole number stands for the first so many, a sequence for itself.

    Raises:
        TrainError: Not whole numbers of at least 0.

    >>> layer_numbers(3), layer_numbers([5, 2])
    ((0, 1, 2), (2, 5))
    """
    if isinstance(layers, int) and not isinstance(layers, bool):
        layers = range(layers) if layers >= 0 else [layers]
    if isinstance(layers, str) or not isinstance(layers, Iterable):
        raise TrainError(f"freeze must be a number of layers or a list of them, but got {layers!r}")
    numbers = list(layers)
    for number in numbers:
        _check_whole("freeze", number, 0)
    return tuple(sorted(set(numbers)))


def _amp_word(amp: Any) -> Any:
    """The switch that older configurations hold, as a word."""
    return {True: "auto", False: "off"}[amp] if isinstance(amp, bool) else amp


def _nested_list(table: AnchorTable) -> list[list[list[float]]]:
    return [[list(pair) for pair in level] for level in table]


def _check_whole(name: str, value: Any, low: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < low:
        raise TrainError(f"{name} must be a whole number of at least {low}, but got {value!r}")


def _check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise TrainError(f"{name} must be one of {', '.join(choices)}, but got {value!r}")
