"""A detector as its file describes it, checked when made. No torch."""

from dataclasses import dataclass, field
from functools import cached_property
from reprlib import repr as shorten
from typing import Any

from model.errors import ModelError
from model.families import Activation
from model.notation import (
    Anchors,
    flow,
    format_px,
    level_name,
    plain_row,
    read_anchors,
    read_factor,
    read_whole,
)
from model.options import Options
from model.rows import Layer, Row, plan_layers

MINIMAL_GRID = 32  # image sizes are multiples of at least this, whatever the strides, as in YOLOv5
MAX_CLASSES = 100_000


@dataclass(frozen=True)
class ModelSpec:
    """A detector as its file describes it, checked when made.

    Attributes:
        name: zoo name, or the stem of the file.
        classes: number of classes, from 1.
        depth: factor on the repeats of a row (`depth_multiple`).
        width: factor on channels (`width_multiple`).
        anchors: width and height in px, shape (levels, per level, 2), levels in the order of Detect's inputs.
        backbone: rows as written.
        head: rows as written, counted on from the backbone; the last is Detect.
        channels: channels of the image.
        activation: of every convolution; None is the family's own.
        options: what else it is told.
        notes: what was decided or mended while reading, a line each.

    Raises:
        ModelError: a value or a row can't be.
    """

    name: str
    classes: int
    depth: float
    width: float
    anchors: Anchors
    backbone: tuple[Row, ...]
    head: tuple[Row, ...]
    channels: int = 3
    activation: Activation | None = None
    options: Options = field(default_factory=Options)
    notes: tuple[str, ...] = field(default=(), compare=False)

    def __post_init__(self) -> None:
        read_whole(self.classes, 1, MAX_CLASSES, f"{self.name}: nc (classes)")
        read_whole(self.channels, 1, MAX_CLASSES, f"{self.name}: ch (image channels)")
        read_factor(self.depth, f"{self.name}: depth_multiple")
        read_factor(self.width, f"{self.name}: width_multiple")
        scales = self.options.scale_xy
        if scales is not None and len(scales) != len(self.strides):
            raise ModelError(f"{self.name}: scale_xy must be {len(self.strides)} numbers, but got {scales}")
        if read_anchors(self.anchors, len(self.strides), self.name) != self.anchors:
            raise ModelError(
                f"{self.name}: anchors must be nested tuples of floats, but got {shorten(self.anchors)}"
            )

    @property
    def rows(self) -> tuple[Row, ...]:
        """Backbone and head in one."""
        return self.backbone + self.head

    @cached_property
    def layers(self) -> tuple[Layer, ...]:
        """The rows worked out, with channels and strides."""
        return plan_layers(self.rows, (self.depth, self.width), self.name, self.channels)

    @cached_property
    def strides(self) -> tuple[int, ...]:
        """Image pixels per cell of each detection level, in the order of the anchors, such as (8, 16, 32)."""
        return detection_strides(self.layers, self.name)

    @property
    def image_size(self) -> int:
        """Px that the model is meant for: what its file says, else 640, or 1280 with a stride of 64 or more."""
        return self.options.image_size or (640 if max(self.strides) < 64 else 1280)

    @property
    def grid(self) -> int:
        """What image sizes must be a multiple of, in px."""
        return max(*self.strides, MINIMAL_GRID)

    def to_dict(self) -> dict[str, Any]:
        """Return plain data (JSON or YAML) that `load_spec` reads back."""
        known = {
            "name": self.name,
            "nc": self.classes,
            "ch": self.channels,
            "depth_multiple": self.depth,
            "width_multiple": self.width,
            "anchors": [[list(pair) for pair in level] for level in self.anchors],
            "backbone": [plain_row(row) for row in self.backbone],
            "head": [plain_row(row) for row in self.head],
            **self.options.to_dict(),
        }
        return known if self.activation is None else {**known, "activation": str(self.activation)}


def round_image_size(size: int, grid: int) -> int:
    """The least size from `size` on that a model's grid divides, at least two cells.

    Args:
        size: px.
        grid: px, see `ModelSpec.grid`.

    Raises:
        ModelError: It is no positive number of px.

    >>> round_image_size(641, 32)
    672
    """
    if size < 1:
        raise ModelError(f"image size >= 1 px must hold, but got {size}")
    return max(-(-size // grid), 2) * grid


def spec_to_yaml(spec: ModelSpec) -> str:
    """Return a complete model file that YOLOv5 and `load_spec` read; anchors are rounded to 0.01 px."""
    lines = [
        f"# {' '.join(spec.name.split())}: strides {', '.join(map(str, spec.strides))}",
        f"nc: {spec.classes}  # classes",
        f"depth_multiple: {spec.depth}  # scales number",
        f"width_multiple: {spec.width}  # scales channels",
    ]
    if spec.channels != 3:
        lines.append(f"ch: {spec.channels}  # image channels")
    if spec.activation is not None:
        lines.append(f"activation: {spec.activation}")
    lines += [f"{name}: {flow(value)}" for name, value in spec.options.to_dict().items()]
    lines.append("anchors:  # width,height in px, one line per level")
    for stride, level in zip(spec.strides, spec.anchors, strict=True):
        pairs = ", ".join(f"{format_px(width)},{format_px(height)}" for width, height in level)
        lines.append(f"  - [{pairs}]  # {level_name(stride)}")
    index = 0
    for part, rows in (("backbone", spec.backbone), ("head", spec.head)):
        lines.append(f"{part}:  # [from, number, module, args]" if rows else f"{part}: []")
        for row in rows:
            lines.append(f"  - {flow(plain_row(row))}  # {index}")
            index += 1
    return "\n".join(lines) + "\n"


def detection_strides(layers: tuple[Layer, ...], where: str) -> tuple[int, ...]:
    """Image pixels per cell of each input of Detect; `where` opens the error's message.

    Raises:
        ModelError: one is no whole number of px.
    """
    strides = [layers[source].stride for source in layers[-1].sources]
    if any(stride.denominator != 1 for stride in strides):
        raise ModelError(
            f"{where}: strides of Detect must be whole px, but got {', '.join(map(str, strides))}"
        )
    return tuple(int(stride) for stride in strides)
