"""The detection loss: box, objectness and class, as named parts with their gains."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from itertools import accumulate
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from model.assign import Matches, assign_flat
from model.boxes import EPSILON, bbox_iou, xywh_to_xyxy
from model.spec import ModelError

BALANCE_SHORT = (
    4.0,
    1.0,
    0.4,
)  # objectness by level, up to three levels: fine levels have more cells to learn from
BALANCE_LONG = (4.0, 1.0, 0.25, 0.06, 0.02)
FOCAL_ALPHA = 0.25  # share of the positives in the focal loss, arXiv 1708.02002 section 5.1
AUTOBALANCE_RATE = 1e-4


class DetectorLike(Protocol):
    """What the loss needs to know of a detector."""

    @property
    def strides(self) -> tuple[int, ...]:
        """Px a cell, of each level."""

    @property
    def anchors(self) -> Tensor:
        """(levels, per level, 2) width, height in px."""

    @property
    def classes(self) -> int:
        """How many classes the detector tells apart."""


class Pool(Protocol):
    """Other processes that each compute the loss of a share of the batch."""

    def counts(self, counts: Sequence[int], images: int, device: torch.device) -> Tensor:
        """Matches by level as this share must count them, for all shares' losses to add up to that of the batch."""

    def mean(self, values: Tensor) -> Tensor:
        """The mean over all shares."""


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

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if field.type is float and not (math.isfinite(value) and value >= 0):
                raise ModelError(f"{field.name} must be a finite number >= 0, but got {value!r}")
        for name in ("label_smoothing", "gr"):
            if getattr(self, name) > 1:
                raise ModelError(f"0 <= {name} <= 1 must hold, but got {getattr(self, name)!r}")
        if self.anchor_t <= 1:
            raise ModelError(f"anchor_t > 1 must hold, but got {self.anchor_t!r}")
        if self.balance is not None and not all(math.isfinite(w) and w > 0 for w in self.balance):
            raise ModelError(f"balance must be finite numbers > 0, but got {self.balance!r}")

    def scaled(self, classes: int, image_size: int, levels: int) -> "LossGains":
        """The gains for a detector, from gains that were chosen for 80 classes, 640 px and three levels.

        Args:
            classes: classes of the detector.
            image_size: px, the longer side that it is trained on.
            levels: detection levels.

        Returns:
            New gains: box * 3/levels, cls * classes/80 * 3/levels, obj * (image_size/640)² * 3/levels.

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
        return replace(
            self,
            box=self.box * share,
            cls=self.cls * classes / 80 * share,
            obj=self.obj * (image_size / 640) ** 2 * share,
        )


class DetectionLoss(nn.Module):
    """Loss of raw predictions against targets.

    Box: 1 - CIoU, the mean over a level's matches, summed over the levels. Class: binary cross-entropy over a
    level's matches, likewise; left out for one class. Objectness: binary cross-entropy over every cell and
    anchor, aimed at the detached CIoU of the prediction where a target is matched (where several are, at the
    highest, so that the order of the targets can't matter) and at 0 elsewhere; the mean of each level,
    weighed by `balance`.

    Everything is computed in float32, under autocast as well. The detector's anchors are copied at birth. The
    only state is `balance` (levels,), a buffer: `state_dict` carries it when `autobalance` moves it.

    Where processes share a batch, `pool` joins them: the totals of all shares then add up to that of the batch.

    Args:
        detector: a `model.Detector`, or anything with its strides, anchors and number of classes.
        gains: as they stand; see `LossGains.scaled`.

    Raises:
        ModelError: `gains.balance` has not one weight a level, or the detector's levels disagree.
    """

    balance: Tensor
    anchors: Tensor

    def __init__(self, detector: DetectorLike, gains: LossGains) -> None:
        super().__init__()
        self.gains = gains
        self.pool: Pool | None = None
        self.classes = detector.classes
        self.strides = tuple(detector.strides)
        levels = len(self.strides)
        usual = (BALANCE_SHORT if levels <= len(BALANCE_SHORT) else BALANCE_LONG)[:levels]
        balance = usual if gains.balance is None else gains.balance
        if not len(balance) == levels == len(detector.anchors):
            raise ModelError(
                f"levels must agree, but got {levels} strides, {len(balance)} balance weights and "
                f"anchors for {len(detector.anchors)} levels"
            )
        self.register_buffer("balance", torch.tensor(balance, dtype=torch.float32))
        self.register_buffer("anchors", detector.anchors.detach().clone().float(), persistent=False)
        self._reference = self.strides.index(16) if 16 in self.strides else min(1, levels - 1)

    def forward(self, raw: Sequence[Tensor], targets: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Compute the loss of one batch.

        Args:
            raw: one (batch, anchors, rows, columns, 5 + classes) tensor a level, before any sigmoid.
            targets: (n, 6) image, class, centre x, centre y, width, height; the last four as fractions of the
                image. n may be 0.

        Returns:
            The sum of the parts times the batch size, a scalar that carries gradients; the parts `box`, `obj`
            and `cls`, detached scalars with their gains in.

        Raises:
            ModelError: `raw` doesn't fit the detector, or a target names an image or class that isn't there.
        """
        self._check(raw, targets)
        device = raw[0].device
        if self.anchors.device != device:
            self.to(device)
        with torch.autocast(device.type, enabled=False):
            parts = self._parts(raw, targets.to(device))
        total = (parts["box"] + parts["obj"] + parts["cls"]) * len(raw[0])
        return total, {name: part.detach() for name, part in parts.items()}

    def _parts(self, raw: Sequence[Tensor], targets: Tensor) -> dict[str, Tensor]:
        shapes = [(level.shape[2], level.shape[3]) for level in raw]
        matches, counts = assign_flat(targets, shapes, self.anchors, self.strides, self.gains.anchor_t)
        places = _places(matches, raw)
        cells = [level[..., 4].numel() for level in raw]
        logits = torch.cat([level[..., 4].flatten() for level in raw]).float()
        goals = torch.zeros_like(logits)
        box = cls = logits.new_zeros(())
        divisors = torch.tensor(counts, device=logits.device, dtype=torch.float32)
        if self.pool is not None:
            divisors = self.pool.counts(counts, len(raw[0]), logits.device)
        if len(matches):
            claimed = zip(raw, torch.split(places, counts), strict=True)
            predicted = torch.cat([level.flatten(0, 3)[place] for level, place in claimed]).float()
            share = 1 / divisors[matches.level]
            iou = self._iou(predicted, matches)
            box = ((1 - iou) * share).sum()
            cls = self._class_loss(predicted, matches, share)
            starts = torch.tensor([0, *accumulate(cells[:-1])], device=logits.device)
            worth = 1 - self.gains.gr + self.gains.gr * iou.detach().clamp(min=0)
            goals.scatter_reduce_(0, starts[matches.level] + places, worth, "amax")
        obj = self._objectness_loss(logits, goals, cells)
        return {"box": box * self.gains.box, "obj": obj * self.gains.obj, "cls": cls * self.gains.cls}

    def _iou(self, predicted: Tensor, matches: Matches) -> Tensor:
        """CIoU (m,) of the predictions, decoded in grid units relative to their cells, with their targets."""
        sides = self.anchors / torch.tensor(self.strides, device=predicted.device)[:, None, None]
        scaled = predicted[:, :4].sigmoid() * 2
        decoded = torch.cat(
            (scaled[:, :2] - 0.5, scaled[:, 2:].square() * sides[matches.level, matches.anchor]), dim=1
        )
        return bbox_iou(xywh_to_xyxy(decoded), xywh_to_xyxy(matches.box), kind="ciou")

    def _class_loss(self, predicted: Tensor, matches: Matches, share: Tensor) -> Tensor:
        if self.classes == 1:
            return share.new_zeros(())
        logits = predicted[:, 5:]
        off = self.gains.label_smoothing / 2
        goals = torch.full_like(logits, off).scatter_(1, matches.classes[:, None], 1 - off)
        return (self._cross_entropy(logits, goals, self.gains.cls_pw).mean(1) * share).sum()

    def _objectness_loss(self, logits: Tensor, goals: Tensor, sizes: list[int]) -> Tensor:
        each = self._cross_entropy(logits, goals, self.gains.obj_pw)
        by_level = torch.stack([part.mean() for part in torch.split(each, sizes)])
        loss = (by_level * self.balance).sum()
        if self.gains.autobalance and self.training and torch.is_grad_enabled():
            seen = by_level.detach() if self.pool is None else self.pool.mean(by_level)
            wanted = 1 / seen.clamp(min=EPSILON)
            moved = self.balance + AUTOBALANCE_RATE * (wanted - self.balance)
            # A new tensor, since the backward pass still needs the old one.
            self.balance = moved / moved[self._reference]
        return loss

    def _cross_entropy(self, logits: Tensor, goals: Tensor, positive_weight: float) -> Tensor:
        """Binary cross-entropy of each element, as a focal loss where `fl_gamma` asks for it."""
        weight = None if positive_weight == 1 else logits.new_tensor(positive_weight)
        loss = binary_cross_entropy_with_logits(logits, goals, pos_weight=weight, reduction="none")
        if self.gains.fl_gamma == 0:
            return loss
        # Goals may be soft: both factors of arXiv 1708.02002 then blend between the two sides.
        probability = logits.sigmoid()
        certainty = goals * probability + (1 - goals) * (1 - probability)
        alpha = goals * FOCAL_ALPHA + (1 - goals) * (1 - FOCAL_ALPHA)
        doubt = (1 - certainty).clamp(min=EPSILON)  # at 0 a power under 1 has no gradient, and gives NaN
        return loss * alpha * doubt**self.gains.fl_gamma

    def _check(self, raw: Sequence[Tensor], targets: Tensor) -> None:
        wanted = (self.anchors.shape[1], 5 + self.classes)
        if len(raw) != len(self.strides):
            raise ModelError(f"raw must have {len(self.strides)} levels, but got {len(raw)}")
        for index, level in enumerate(raw):
            if level.ndim != 5 or (level.shape[1], level.shape[4]) != wanted or len(level) != len(raw[0]):
                raise ModelError(
                    f"raw[{index}] must be ({len(raw[0])}, {wanted[0]}, rows, columns, {wanted[1]}), "
                    f"but got {tuple(level.shape)}"
                )
        if targets.ndim == 2 and targets.shape[1] == 6 and len(targets):
            # A wrong index would train another image's cells in silence: worth waiting for the device.
            (first, low), (image, name) = torch.stack(torch.aminmax(targets[:, :2], dim=0)).tolist()
            if not (min(first, low) >= 0 and image < len(raw[0]) and name < self.classes):
                raise ModelError(
                    f"targets must name images 0..{len(raw[0]) - 1} and classes 0..{self.classes - 1}, "
                    f"but got images {first:g}..{image:g} and classes {low:g}..{name:g}"
                )


def _places(matches: Matches, raw: Sequence[Tensor]) -> Tensor:
    """(m,) int64: where each match stands in its level, as in `level.flatten(0, 3)`."""
    sizes = torch.tensor([level.shape[1:4] for level in raw], device=matches.level.device)
    anchors, rows, columns = sizes[matches.level].unbind(1)
    return ((matches.image * anchors + matches.anchor) * rows + matches.row) * columns + matches.column
