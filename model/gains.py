"""Weights and options of the loss."""

import math
from dataclasses import dataclass, fields, replace
from typing import get_args

from model.boxes import IouKind
from model.errors import ModelError
from model.options import SCHEMES

BALANCES = {
    # For up to three levels, for four and for five: fine levels have more cells to learn from.
    "yolov5": ((4.0, 1.0, 0.4), (4.0, 1.0, 0.25, 0.06), (4.0, 1.0, 0.25, 0.06, 0.02)),
    "scaled-yolov4": ((4.0, 1.0, 0.4), (4.0, 1.0, 0.4, 0.1), (4.0, 1.0, 0.5, 0.4, 0.1)),
}
ASSIGNMENTS = ("ratio", "iou")
CHOICES = {"scheme": SCHEMES, "box_loss": get_args(IouKind), "assignment": ASSIGNMENTS}


@dataclass(frozen=True)
class LossGains:
    """Weights and options of the loss.

    Attributes:
        box: gain of the box part.
        cls: gain of the class part.
        obj: gain of the objectness part.
        cls_pw: weight of the positives in the class part.
        obj_pw: weight of the positives in the objectness part.
        fl_gamma: focal loss exponent; 0 is plain cross-entropy.
        label_smoothing: 0..1; classes are taught 1 - s/2 and s/2 instead of 1 and 0 (arXiv 1902.04103).
        anchor_t: an anchor claims a target when their sides differ by less than this factor.
        balance: objectness weight of each level; None takes the usual ones.
        autobalance: let `balance` follow the levels' own losses as training goes on.
        gr: how much of the objectness target is the box's IoU, 0..1; the rest is 1.
        scheme: whose balance and scaling: one of `SCHEMES`; see `scaled`.
        box_loss: which IoU the box part and the objectness target use: "ciou", "diou", "giou" or "iou".
        assignment: which anchors claim a target: "ratio" (see `anchor_t`), or "iou" (see `iou_t`).
        iou_t: under "iou", an anchor claims a target when their IoU, laid on one centre, is over this; the best
            anchor of all levels always does.
    """

    box: float = 0.05
    cls: float = 0.5
    obj: float = 1.0
    cls_pw: float = 1.0
    obj_pw: float = 1.0
    fl_gamma: float = 0.0
    label_smoothing: float = 0.0
    anchor_t: float = 4.0
    balance: tuple[float, ...] | None = None
    autobalance: bool = False
    gr: float = 1.0
    scheme: str = "yolov5"
    box_loss: IouKind = "ciou"
    assignment: str = "ratio"
    iou_t: float = 0.2

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if field.type is float and not (math.isfinite(value) and value >= 0):
                raise ModelError(f"{field.name} must be a finite number >= 0, but got {value!r}")
        for name, choices in CHOICES.items():
            if getattr(self, name) not in choices:
                raise ModelError(
                    f"{name} must be one of {', '.join(choices)}, but got {getattr(self, name)!r}"
                )
        for name in ("label_smoothing", "gr", "iou_t"):
            if getattr(self, name) > 1:
                raise ModelError(f"0 <= {name} <= 1 must hold, but got {getattr(self, name)!r}")
        if self.anchor_t <= 1:
            raise ModelError(f"anchor_t > 1 must hold, but got {self.anchor_t!r}")
        if self.balance is not None and not all(math.isfinite(w) and w > 0 for w in self.balance):
            raise ModelError(f"balance must be finite numbers > 0, but got {self.balance!r}")

    def balance_of(self, levels: int) -> tuple[float, ...]:
        """The objectness weight of each of so many levels: `balance`, or the scheme's; fewer where it has fewer."""
        if self.balance is not None:
            return self.balance
        short, four, five = BALANCES[self.scheme]
        return (short if levels <= 3 else four if levels == 4 else five)[:levels]

    def scaled(self, classes: int, image_size: int, levels: int) -> "LossGains":
        """The gains for a detector, from gains that were chosen for 80 classes, 640 px and three levels.

        Args:
            classes: classes of the detector.
            image_size: px, the longer side that it is trained on.
            levels: detection levels.

        Returns:
            New gains: box * 3/levels, cls * classes/80 * 3/levels, obj * (image_size/640)² * 3/levels. The scheme of
            Scaled-YOLOv4 leaves the image size out, and takes obj 1.4 times with four levels or more.

        Raises:
            ModelError: one of the three is not positive.

        >>> gains = LossGains(box=0.05, cls=0.5, obj=1.0).scaled(classes=40, image_size=320, levels=3)
        >>> gains.box, gains.cls, gains.obj
        (0.05, 0.25, 0.25)
        """
        if min(classes, image_size, levels) < 1:
            raise ModelError(
                "classes, image_size and levels must be positive, "
                f"but got {classes}, {image_size} and {levels}"
            )
        share = 3 / levels
        area = (image_size / 640) ** 2
        sized = {"yolov5": area, "scaled-yolov4": 1.4 if levels >= 4 else 1.0}[self.scheme]
        return replace(
            self,
            box=self.box * share,
            cls=self.cls * classes / 80 * share,
            obj=self.obj * sized * share,
        )
