"""What a training is told and what it gives back: plain frozen data, refused at birth when it makes no sense.

Nothing here imports torch, so a search driver or a command can build and check configurations cheaply.
"""

import difflib
import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from types import MappingProxyType
from typing import Any, Self

AnchorTable = tuple[tuple[tuple[float, float], ...], ...]
"""Anchors in px, `[level][anchor]` is (width, height); levels in order of stride, anchors sorted by area."""


class TrainError(ValueError):
    """What the user of a training can mend: a wrong setting, a folder in the way, a full disk."""


RANGES: dict[str, tuple[float, float]] = {
    "lr0": (0.0, 1e6),
    "lrf": (0.0, 1.0),
    "momentum": (0.0, 0.9999),
    "weight_decay": (0.0, 1.0),
    "warmup_epochs": (0.0, 1000.0),
    "warmup_momentum": (0.0, 0.9999),
    "warmup_bias_lr": (0.0, 10.0),
    "box": (0.0, 100.0),
    "cls": (0.0, 100.0),
    "cls_pw": (0.01, 100.0),
    "obj": (0.0, 100.0),
    "obj_pw": (0.01, 100.0),
    "iou_t": (0.0, 1.0),
    "anchor_t": (1.01, 100.0),
    "anchors": (0, 16),
    "fl_gamma": (0.0, 10.0),
    "label_smoothing": (0.0, 0.99),
    "hsv_h": (0.0, 1.0),
    "hsv_s": (0.0, 1.0),
    "hsv_v": (0.0, 1.0),
    "degrees": (0.0, 180.0),
    "translate": (0.0, 1.0),
    "scale": (0.0, 0.99),
    "shear": (0.0, 60.0),
    "perspective": (0.0, 0.01),
    "flipud": (0.0, 1.0),
    "fliplr": (0.0, 1.0),
    "mosaic": (0.0, 1.0),
    "mixup": (0.0, 1.0),
    "cutmix": (0.0, 1.0),
    "copy_paste": (0.0, 1.0),
    "erasing": (0.0, 1.0),
    "cutout": (0.0, 1.0),
    "hide_and_seek": (0.0, 1.0),
    "gridmask": (0.0, 1.0),
}
"""The closed interval in which each hyperparameter means something; a search space lies inside it."""

OTHER_NAMES = MappingProxyType({"giou": "box", "ciou": "box", "lr": "lr0"})
"""Names that other programs give to our hyperparameters; the error for them says ours."""


@dataclass(frozen=True, kw_only=True)
class Hyperparameters:
    """The genes of a training. The defaults are those published as hyp.scratch-low.

    Attributes:
        lr0: Initial learning rate of SGD; Adam and AdamW start at a tenth of it (see `trainer.optim`).
        lrf: Final rate as a factor of `lr0`.
        momentum: SGD momentum, Adam's beta1.
        weight_decay: At the nominal batch; scaled when the effective batch differs.
        warmup_epochs: Epochs of warm-up, fractions allowed.
        warmup_momentum: Momentum at the first iteration of the warm-up.
        warmup_bias_lr: Rate of the biases at the first iteration of the warm-up.
        box: Gain of the box loss.
        cls: Gain of the class loss.
        cls_pw: Weight of positives in the class loss.
        obj: Gain of the objectness loss.
        obj_pw: Weight of positives in the objectness loss.
        iou_t: Kept for files of other programs; no loss reads it.
        anchor_t: Largest ratio of a target's side to an anchor's for which they match.
        anchors: Anchors per level to fit when the model has another count; 0 keeps the model's.
        fl_gamma: Focal loss exponent; 0 is plain cross-entropy.
        label_smoothing: Of the class targets.
        hsv_h: Hue jitter, fraction.
        hsv_s: Saturation jitter, fraction.
        hsv_v: Value jitter, fraction.
        degrees: Rotation, ± degrees.
        translate: Translation, ± fraction of the image.
        scale: Scaling, factor 1 ± scale.
        shear: Shear, ± degrees.
        perspective: Perspective, ± fraction.
        flipud: Probability of an upside-down flip.
        fliplr: Probability of a mirror flip.
        mosaic: Probability of a four-image mosaic.
        mixup: Probability that a mosaic is blended with a second one.
        cutmix: Probability that a rectangle shows another picture instead.
        copy_paste: Probability with which each object of another image is pasted, along its polygon if it has one.
        erasing: Probability of erasing one rectangle of any shape with one colour.
        cutout: Probability of greying out one square.
        hide_and_seek: Probability of greying out half the cells of a grid.
        gridmask: Probability of greying out the squares of a regular grid.

    Raises:
        TrainError: A value is no finite number or lies outside `RANGES`.
    """

    lr0: float = 0.01
    lrf: float = 0.01
    momentum: float = 0.937
    weight_decay: float = 0.0005
    warmup_epochs: float = 3.0
    warmup_momentum: float = 0.8
    warmup_bias_lr: float = 0.1
    box: float = 0.05
    cls: float = 0.5
    cls_pw: float = 1.0
    obj: float = 1.0
    obj_pw: float = 1.0
    iou_t: float = 0.2
    anchor_t: float = 4.0
    anchors: int = 0
    fl_gamma: float = 0.0
    label_smoothing: float = 0.0
    hsv_h: float = 0.015
    hsv_s: float = 0.7
    hsv_v: float = 0.4
    degrees: float = 0.0
    translate: float = 0.1
    scale: float = 0.5
    shear: float = 0.0
    perspective: float = 0.0
    flipud: float = 0.0
    fliplr: float = 0.5
    mosaic: float = 1.0
    mixup: float = 0.0
    cutmix: float = 0.0
    copy_paste: float = 0.0
    erasing: float = 0.0
    cutout: float = 0.0
    hide_and_seek: float = 0.0
    gridmask: float = 0.0

    def __post_init__(self) -> None:
        for name, (low, high) in RANGES.items():
            value = _number(name, getattr(self, name))
            if not low <= value <= high:
                raise TrainError(f"{low:g} <= {name} <= {high:g} must hold, but got {value:g}")
            if name == "anchors" and value != round(value):
                raise TrainError(f"anchors must be a whole number per level, but got {value:g}")
            # Files and search spaces give 3.0 for 3 and the text "1e-3" for 1e-3 (YAML 1.1 reads it so).
            object.__setattr__(self, name, round(value) if name == "anchors" else value)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Build from names and numbers; those not named keep their defaults.

        Raises:
            TrainError: An unknown name (the message gives the nearest known one) or a value out of range.
        """
        check_names(values, RANGES, "hyperparameter")
        return cls(**values)

    def to_dict(self) -> dict[str, float]:
        """All values by name, in the order of the fields; `from_dict` reads it back."""
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """One training, as plain data.

    Attributes:
        data: What `dataset.load` reads: "digits", a data.yaml, an instances.json or a folder.
        model: A model of the zoo or a YAML file.
        out: Folder that is written; must be empty or absent unless `resume`.
        epochs: Passes over the training split.
        batch_size: Images per forward pass.
        image_size: Longer image side in px; rounded up to the model's grid.
        hyp: Hyperparameters.
        optimizer: "sgd" (Nesterov), "adamw", "adam", or "auto": AdamW for trainings of under 10,000 iterations,
            else SGD. The Adam kinds use a tenth of `hyp.lr0` as rate.
        schedule: "linear" or "cosine".
        nominal_batch: Images per optimiser step that gradients are accumulated to. None: 64, less when the
            training would be too short for it (see `trainer.optim.plan_steps`). 64: always 64.
        seed: Of everything random: initial weights, order, augmentation.
        device: "auto" (CUDA when there is one), "cpu", "cuda" or "cuda:N".
        workers: Loader processes; 0 loads in this process.
        amp: Mixed precision; has effect on CUDA only.
        anchors: "auto" refits them when too few boxes can be reached, "keep" takes the model's, a nested
            sequence (levels, per level, 2) px is taken as it is.
        resume: Go on from `out`/weights/last.pt.
        weights: A checkpoint to start from; tensors of other shapes keep their initial values.
        augment: False trains on plain letterboxed images.
        cache: Where images at training scale are kept: "ram" (as many as fit; one copy for all trainings of this
            machine that need the same), "disk" (in the cache folder, for later trainings too) or "off".
        rect: Train on rectangular batches: images sorted by aspect, each batch in the least shape that holds them.
            Excludes mosaics.
        multi_scale: Draw the size of each training batch from 0.5 to 1.5 of `image_size`.
        pipeline: Where training images are augmented: "cpu", "device", or "auto": on a CUDA device whose memory has
            room for the whole split, else on the CPU.
        threads: CPU threads for torch; None leaves torch's own choice.

    Raises:
        TrainError: A setting that cannot be.
    """

    data: str
    model: str
    out: Path
    epochs: int = 100
    batch_size: int = 16
    image_size: int = 640
    hyp: Hyperparameters = field(default_factory=Hyperparameters)
    optimizer: str = "auto"
    schedule: str = "linear"
    nominal_batch: int | None = None
    seed: int = 0
    device: str = "auto"
    workers: int = 0
    amp: bool = True
    anchors: str | AnchorTable = "auto"
    resume: bool = False
    weights: str | None = None
    augment: bool = True
    cache: str = "ram"
    rect: bool = False
    multi_scale: bool = False
    pipeline: str = "auto"
    threads: int | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "data", str(self.data))
        object.__setattr__(self, "model", str(self.model))
        object.__setattr__(self, "out", Path(self.out))
        _check_choice("optimizer", self.optimizer, ("auto", "sgd", "adamw", "adam"))
        _check_choice("schedule", self.schedule, ("linear", "cosine"))
        _check_choice("cache", self.cache, ("off", "ram", "disk"))
        _check_choice("pipeline", self.pipeline, ("auto", "cpu", "device"))
        for name, low in (("epochs", 1), ("batch_size", 1), ("image_size", 1), ("seed", 0), ("workers", 0)):
            _check_whole(name, getattr(self, name), low)
        for name in ("nominal_batch", "threads"):
            if getattr(self, name) is not None:
                _check_whole(name, getattr(self, name), 1)
        for name in ("amp", "resume", "augment", "rect", "multi_scale"):
            if not isinstance(getattr(self, name), bool):
                raise TrainError(f"{name} must be true or false, but got {getattr(self, name)!r}")
        if not (self.device in ("auto", "cpu", "cuda") or self.device.removeprefix("cuda:").isdecimal()):
            raise TrainError(f'device must be "auto", "cpu", "cuda" or "cuda:N", but got {self.device!r}')
        if isinstance(self.anchors, str):
            _check_choice("anchors", self.anchors, ("auto", "keep"))
        else:
            object.__setattr__(self, "anchors", anchor_table(self.anchors))

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
        return asdict(self) | {"out": str(self.out), "anchors": anchors}


@dataclass(frozen=True, kw_only=True)
class TrainResult:
    """What a training came to. A training that diverged is a result too.

    Attributes:
        fitness: 0.1 · map50 + 0.9 · map50_95 of the best epoch; None when diverged.
        metrics: The report of the best epoch; empty when there is none.
        history: One report per epoch that was finished.
        epochs: Epochs that were finished.
        best_epoch: Its index from 0; None when no epoch was finished.
        anchors: px, nested list (levels, per level, 2), as the detector was built with.
        best: Checkpoint of the best epoch; not there when no epoch was finished.
        last: Checkpoint of the last epoch; likewise.
        seconds: Wall-clock time of all epochs, those before a resume included.
        status: "finished" or "diverged".
        reason: Why it diverged, else None.
        notes: What was decided or mended on the way, one line each.
    """

    fitness: float | None
    metrics: dict[str, float]
    history: list[dict[str, float]]
    epochs: int
    best_epoch: int | None
    anchors: list[list[list[float]]]
    best: Path
    last: Path
    seconds: float
    status: str
    reason: str | None = None
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Plain data that JSON can hold."""
        return asdict(self) | {"best": str(self.best), "last": str(self.last), "notes": list(self.notes)}


def check_names(given: Iterable[str], known: Iterable[str], what: str) -> None:
    """Refuse a name that is not known, with the nearest one that is.

    Raises:
        TrainError: The first unknown name.
    """
    names = list(known)
    for name in given:
        if name in names:
            continue
        near = difflib.get_close_matches(str(name), names, n=1, cutoff=0.5)
        meant = OTHER_NAMES.get(str(name), near[0] if near else None)
        hint = f"did you mean {meant!r}?" if meant in names else f"known are {', '.join(names)}"
        raise TrainError(f"unknown {what} {name!r}: {hint}")


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


def _nested_list(table: AnchorTable) -> list[list[list[float]]]:
    return [[list(pair) for pair in level] for level in table]


def _number(name: str, value: Any) -> float:
    """A finite float, from a number or from text that is one."""
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        raise TrainError(f"{name} must be a finite number, but got {value!r}")
    return number


def _check_whole(name: str, value: Any, low: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < low:
        raise TrainError(f"{name} must be a whole number of at least {low}, but got {value!r}")


def _check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise TrainError(f"{name} must be one of {', '.join(choices)}, but got {value!r}")
