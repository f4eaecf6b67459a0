"""A detector taken apart: parameters and operations, row by row."""

from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from model.detector import Detector
from model.receptive import LevelReach, level_reaches
from model.rows import RULES
from model.spec import ModelSpec, round_image_size


@dataclass(frozen=True)
class RowFigures:
    """One row of a detector.

    Attributes:
        index: place in the model.
        sources: rows whose output it takes, as written.
        number: how many it holds, after `depth_multiple`.
        module: a name of `RULES`.
        args: as written, before `width_multiple`.
        channels: of its output; 0 for Detect.
        stride: px a cell of its output.
        parameters: trainable numbers.
        gflops: 10⁹ operations for one image, two for each multiply-add of convolutions and matrices.
    """

    index: int
    sources: tuple[int, ...]
    number: int
    module: str
    args: tuple[Any, ...]
    channels: int
    stride: Fraction
    parameters: int
    gflops: float


@dataclass(frozen=True)
class Anatomy:
    """A detector in figures.

    Attributes:
        spec: what it was built from.
        image_size: (rows, columns) in px that `gflops` are for.
        rows: its rows.
        levels: what each detection level sees and reaches.
    """

    spec: ModelSpec
    image_size: tuple[int, int]
    rows: tuple[RowFigures, ...]
    levels: tuple[LevelReach, ...]

    @property
    def parameters(self) -> int:
        """Trainable numbers in all."""
        return sum(row.parameters for row in self.rows)

    @property
    def gflops(self) -> float:
        """10⁹ operations for one image in all."""
        return sum(row.gflops for row in self.rows)


def dissect(spec: ModelSpec, image_size: int | None = None) -> Anatomy:
    """Count a detector's parameters and operations without making its weights.

    Args:
        spec: the model.
        image_size: px, rounded up to the model's grid; None is the size that the model is meant for.

    Raises:
        ModelError: a row can't be built, or sizes don't fit together.
    """
    side = round_image_size(image_size or spec.image_size, spec.grid)
    with torch.device("meta"):
        detector = Detector(spec).eval()
        images = torch.empty(1, spec.channels, side, side)
    flops = _flops(detector, images)
    rows = []
    for layer, row, module, count in zip(spec.layers, spec.rows, detector.model, flops, strict=True):
        number = layer.args[2] if RULES[row.module].repeats else layer.stack
        rows.append(
            RowFigures(
                index=layer.index,
                sources=row.sources,
                number=number if isinstance(number, int) else 1,
                module=row.module,
                args=row.args,
                channels=layer.channels,
                stride=layer.stride,
                parameters=sum(p.numel() for p in module.parameters() if p.requires_grad),
                gflops=count / 1e9,
            )
        )
    return Anatomy(spec, (side, side), tuple(rows), level_reaches(spec))


def _flops(detector: Detector, images: Tensor) -> list[int]:
    """Operations of each row for these images."""
    so_far: list[int] = []
    counter = FlopCounterMode(display=False)

    def mark(module: nn.Module, inputs: Any, output: Any) -> None:
        so_far.append(counter.get_total_flops())

    handles = [row.register_forward_hook(mark) for row in detector.model]
    try:
        with torch.no_grad(), counter:
            detector(images)
    finally:
        for handle in handles:
            handle.remove()
    return [after - before for before, after in zip([0, *so_far], so_far, strict=False)]
