"""The genes of a training, each with the interval in which it means something. Nothing here imports torch."""

import difflib
import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from types import MappingProxyType
from typing import Any, Self


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
    "sat": (0.0, 1.0),
    "sat_eps": (0.0, 0.5),
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
        iou_t: Under the assignment "iou", the IoU of a target and an anchor over which they match.
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
        sat: Probability that a batch is turned against the detector before it learns from it (self-adversarial
            training).
        sat_eps: How far each pixel is then moved, as a share of its range.

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
    sat: float = 0.0
    sat_eps: float = 0.01

    def __post_init__(self) -> None:
        for name, (low, high) in RANGES.items():
            value = finite_number(name, getattr(self, name))
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


def finite_number(name: str, value: Any) -> float:
    """A finite float, from a number or from text that is one."""
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        raise TrainError(f"{name} must be a finite number, but got {value!r}")
    return number
