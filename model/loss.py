"""The detection loss: box, objectness and class, as named parts with their gains."""

from collections.abc import Sequence
from itertools import accumulate
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from model.assign import Matches, assign_flat
from model.boxes import EPSILON, bbox_iou, xywh_to_xyxy
from model.decoding import decode_cells
from model.errors import ModelError
from model.gains import LossGains

__all__ = ["DetectionLoss", "DetectorLike", "LossGains"]

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


class DetectionLoss(nn.Module):
    """Loss of raw predictions against targets.

    Box: 1 - IoU (CIoU unless `gains.box_loss` says otherwise), the mean over a level's matches, summed over the
    levels. Class: binary cross-entropy over a level's matches, likewise; left out for one class. Objectness: binary
    cross-entropy over every cell and anchor, aimed at the detached IoU of the prediction where a target is matched
    (where several are, at the highest, so that the order of the targets can't matter) and at 0 elsewhere; the mean
    of each level, weighed by `balance`.

    Everything is computed in float32 or better, under autocast as well. The detector's anchors are copied at birth.
    The only state is `balance` (levels,), a buffer: `state_dict` carries it when `autobalance` moves it.

    Where processes share a batch, `pool` joins them: the totals of all shares then add up to that of the batch.

    Args:
        detector: a `model.Detector`, or anything with its strides, anchors and number of classes; its `scale_xy`,
            where it has one, says how boxes are decoded.
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
        balance = gains.balance_of(levels)
        if not len(balance) == levels == len(detector.anchors):
            raise ModelError(
                f"levels must agree, but got {levels} strides, {len(balance)} balance weights and "
                f"anchors for {len(detector.anchors)} levels"
            )
        self.register_buffer("balance", torch.tensor(balance, dtype=torch.float32))
        # Whoever only has strides, anchors and classes decodes as YOLOv5 does.
        scales: tuple[float, ...] | None = getattr(detector, "scale_xy", None)
        self.scale_xy = None if scales is None else tuple(scales)
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
        matches, counts = assign_flat(
            targets,
            shapes,
            self.anchors,
            self.strides,
            self.gains.anchor_t,
            iou_t=self.gains.iou_t if self.gains.assignment == "iou" else None,
            neighbours=self.scale_xy is None,
        )
        places = _places(matches, raw)
        cells = [level[..., 4].numel() for level in raw]
        logits = _at_least_single(torch.cat([level[..., 4].flatten() for level in raw]))
        goals = torch.zeros_like(logits)
        box = cls = logits.new_zeros(())
        divisors = torch.tensor(counts, device=logits.device, dtype=torch.float32)
        if self.pool is not None:
            divisors = self.pool.counts(counts, len(raw[0]), logits.device)
        if len(matches):
            claimed = zip(raw, torch.split(places, counts), strict=True)
            predicted = _at_least_single(torch.cat([level.flatten(0, 3)[place] for level, place in claimed]))
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
        """IoU (m,) of the predictions, decoded in grid units relative to their cells, with their targets."""
        sides = self.anchors / torch.tensor(self.strides, device=predicted.device)[:, None, None]
        scale = None
        if self.scale_xy is not None:
            scale = predicted.new_tensor(self.scale_xy)[matches.level, None]
        decoded = decode_cells(predicted[:, :4], sides[matches.level, matches.anchor], scale)
        return bbox_iou(xywh_to_xyxy(decoded), xywh_to_xyxy(matches.box), kind=self.gains.box_loss)

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


def _at_least_single(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))


def _places(matches: Matches, raw: Sequence[Tensor]) -> Tensor:
    """(m,) int64: where each match stands in its level, as in `level.flatten(0, 3)`."""
    sizes = torch.tensor([level.shape[1:4] for level in raw], device=matches.level.device)
    anchors, rows, columns = sizes[matches.level].unbind(1)
    return ((matches.image * anchors + matches.anchor) * rows + matches.row) * columns + matches.column
