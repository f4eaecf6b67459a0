"""Families of detectors: what their programs take for granted and no model file says. No torch."""

from collections.abc import Iterable
from dataclasses import dataclass

from model.rows import Row

LEAKY = 0.1  # slope of the families' LeakyReLU


@dataclass(frozen=True)
class Activation:
    """An activation: a name of `RULES`, and the slope of a LeakyReLU."""

    module: str
    slope: float | None = None

    def __str__(self) -> str:
        return f"{self.module}({'' if self.slope is None else self.slope})"


SILU = Activation("nn.SiLU")
MISH = Activation("nn.Mish")
LEAKY_RELU = Activation("nn.LeakyReLU", LEAKY)
HARDSWISH = Activation("nn.Hardswish")


@dataclass(frozen=True)
class Family:
    """What the members of a family share.

    Attributes:
        backbone: activation of the convolutions of the backbone.
        head: likewise, of the head's rows.
        joint: activation after the batch norm that cross-stage blocks lay over both branches.
        loss: a name of `model.gains.SCHEMES`.
        eps: of the batch norms.
    """

    backbone: Activation = SILU
    head: Activation = SILU
    joint: Activation = SILU
    loss: str = "yolov5"
    eps: float = 1e-3


FAMILIES: dict[str, Family] = {
    "yolov5": Family(),
    "yolov5-v4.0": Family(joint=LEAKY_RELU),
    "yolov5-v3.1": Family(HARDSWISH, HARDSWISH, LEAKY_RELU),
    "scaled-yolov4": Family(MISH, MISH, MISH, loss="scaled-yolov4"),
    # Darknet's own figure: its weights were trained with it.
    "darknet": Family(MISH, LEAKY_RELU, LEAKY_RELU, eps=1e-5),
}


def guess_family(rows: Iterable[Row]) -> str:
    """Tell from its modules which program a model file was written for.

    The activation stands in the program and not in the file: BottleneckCSP2, SPPCSP and VoVCSP are Scaled-YOLOv4's;
    a Focus stem with BottleneckCSP is YOLOv5 v4.0 where there are C3 blocks as well, else v3.1.
    """
    modules = {row.module for row in rows}
    if modules & {"BottleneckCSP2", "SPPCSP", "VoVCSP"}:
        return "scaled-yolov4"
    if not {"Focus", "BottleneckCSP"} <= modules:
        return "yolov5"
    return "yolov5-v4.0" if modules & {"C3", "CBAMC3", "C3TR"} else "yolov5-v3.1"
