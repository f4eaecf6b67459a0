"""How overlapping boxes are thinned out: the settings, checked when made. No torch."""

from dataclasses import dataclass
from typing import Literal, get_args

from model.errors import ModelError, nearest

NmsKind = Literal["greedy", "diou", "soft", "soft-linear"]
KINDS: tuple[NmsKind, ...] = get_args(NmsKind)


@dataclass(frozen=True, kw_only=True)
class Suppression:
    """Settings of non-maximum suppression; see `model.nms.non_max_suppression`.

    Attributes:
        confidence: a detection needs more than this, in [0, 1].
        iou: a detection is dropped when its IoU with a better one is greater than this, in [0, 1]; "soft" does
            without.
        kind: "greedy"; "diou" suppresses by DIoU instead of IoU, which spares neighbours (arXiv 1911.08287, section
            4.3); "soft" lowers the confidence of what overlaps a better one, by exp(-IoU² / 0.5), instead of dropping
            it, "soft-linear" by 1 - IoU where IoU is greater than `iou` (arXiv 1704.04503).
        multi_label: let one prediction stand for every class above `confidence` (what average precision
            rewards), instead of for its best class only.
        agnostic: let classes suppress each other.
        max_detections: keep at most so many an image, the best; at least 1.

    Raises:
        ModelError: a threshold is outside [0, 1], no such kind, or no detections may stay.
    """

    confidence: float = 0.25
    iou: float = 0.45
    kind: NmsKind = "greedy"
    multi_label: bool = False
    agnostic: bool = False
    max_detections: int = 300

    def __post_init__(self) -> None:
        check_fraction("confidence", self.confidence)
        check_fraction("iou", self.iou)
        check_kind(self.kind)
        if self.max_detections < 1:
            raise ModelError(f"max_detections >= 1 must hold, but got {self.max_detections}")


def check_kind(kind: str) -> NmsKind:
    """Return `kind`, or raise ModelError where there is no such kind."""
    for known in KINDS:
        if kind == known:
            return known
    raise ModelError(f"unknown kind of suppression {kind!r:.80}; {nearest(kind, KINDS)}")


def check_fraction(name: str, value: float) -> None:
    """Raise ModelError where `value` is outside [0, 1] or no number."""
    if not 0 <= value <= 1:
        raise ModelError(f"0 <= {name} <= 1 must hold, but got {value}")
