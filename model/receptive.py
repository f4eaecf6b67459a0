"""How much of an image each row can see, and which boxes each level can reach. No torch."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from math import ceil, inf

from model.rows import IMAGE, RULES, Argument, Layer, Row
from model.spec import ModelSpec

Windows = list[tuple[int, Fraction]]
"""Windows along the longest way through a module: side in cells, and what it does to the stride."""


@dataclass(frozen=True)
class LevelReach:
    """What one detection level can see and predict.

    Attributes:
        stride: px a cell.
        receptive_field: side in px of the square that a cell can see; inf where something pools the whole image.
        widths: least and most px of the widths that its anchors match.
        heights: likewise.
    """

    stride: int
    receptive_field: float
    widths: tuple[float, float]
    heights: tuple[float, float]


def receptive_fields(spec: ModelSpec) -> tuple[float, ...]:
    """The side in px of the square of the image that one value of each row's output can depend on.

    inf stands for the whole image. Borders are left aside, and upsampling is taken as nearest.
    """
    fields: list[float] = []
    for layer, row in zip(spec.layers, spec.rows, strict=True):
        seen = [1.0 if source == IMAGE else fields[source] for source in layer.sources]
        jumps = [Fraction(1) if source == IMAGE else spec.layers[source].stride for source in layer.sources]
        fields.append(max(seen) + _growth(row, layer, jumps[0]))
    return tuple(fields)


def level_reaches(spec: ModelSpec, threshold: float = 4.0) -> tuple[LevelReach, ...]:
    """What each detection level can see, and the sizes of boxes that it is matched with.

    Args:
        spec: the model.
        threshold: sides of a box and an anchor match within this factor.
    """
    fields, levels = receptive_fields(spec), spec.layers[-1].sources
    attention = {"sam": 6.0, "se": inf, "cbam": inf}.get(spec.options.attention or "", 0.0)
    reaches = []
    for source, stride, anchors in zip(levels, spec.strides, spec.anchors, strict=True):
        sides = [[pair[side] for pair in anchors] for side in (0, 1)]
        widths, heights = ((min(values) / threshold, max(values) * threshold) for values in sides)
        grown = attention * stride if attention else 0.0
        reaches.append(LevelReach(stride, fields[source] + grown, widths, heights))
    return tuple(reaches)


def _growth(row: Row, layer: Layer, jump: Fraction) -> float:
    rule = RULES[row.module]
    if row.module in ("SE", "CBAM", "CBAMC3", "C3TR"):
        return inf
    named = dict(zip(rule.parameters, row.args, strict=False))
    number = layer.args[2] if rule.repeats else layer.stack
    windows = WINDOWS[row.module](named) if row.module in WINDOWS else []
    times = number if isinstance(number, int) and row.module not in ONCE else 1
    grown = 0.0
    for side, factor in windows * times:
        grown += float((side - 1) * jump)
        jump *= factor
    return grown


def _int(args: Mapping[str, Argument], name: str, default: int) -> int:
    value = args.get(name, default)
    return value if isinstance(value, int) else default


def _window(args: Mapping[str, Argument]) -> Windows:
    return [(_int(args, "kernel", 1), Fraction(_int(args, "stride", 1)))]


def _pool(args: Mapping[str, Argument]) -> Windows:
    kernel = _int(args, "kernel", 1)
    return [(kernel, Fraction(_int(args, "stride", kernel)))]


def _largest(args: Mapping[str, Argument], default: int = 13) -> Windows:
    kernels = args.get("kernels")
    return [(max(kernels) if isinstance(kernels, tuple) else default, Fraction(1))]


def _ghost_bottleneck(args: Mapping[str, Argument]) -> Windows:
    middle = [(_int(args, "kernel", 3), Fraction(2))] if _int(args, "stride", 1) == 2 else []
    return [GHOST, *middle, GHOST]


def _transposed(args: Mapping[str, Argument]) -> Windows:
    kernel, stride = _int(args, "kernel", 1), _int(args, "stride", 1)
    return [(ceil(kernel / stride), Fraction(1, stride))]


THREE = (3, Fraction(1))
GHOST = (5, Fraction(1))
ONCE = ("SPPCSP", "VoVCSP")  # they take a number of repeats and leave it aside
WINDOWS: dict[str, Callable[[Mapping[str, Argument]], Windows]] = {
    "Conv": _window,
    "DWConv": _window,
    "DWConvTranspose2d": _transposed,
    "MixConv2d": lambda args: [(_largest(args, 3)[0][0], Fraction(_int(args, "stride", 1)))],
    "CrossConv": lambda args: [(_int(args, "kernel", 3), Fraction(_int(args, "stride", 1)))],
    "Focus": lambda args: [(2, Fraction(2)), *_window(args)],
    "Bottleneck": lambda args: [THREE],
    "BottleneckCSP": lambda args: [THREE],
    "BottleneckCSP2": lambda args: [THREE],
    "VoVCSP": lambda args: [THREE, THREE],
    "C3": lambda args: [THREE],
    "C3x": lambda args: [THREE],
    "C3Ghost": lambda args: [GHOST, GHOST],
    "C3SPP": _largest,
    "GhostConv": lambda args: [*_window(args), GHOST],
    "GhostBottleneck": _ghost_bottleneck,
    "SPP": _largest,
    "SPPF": lambda args: [(3 * _int(args, "kernel", 5) - 2, Fraction(1))],
    "SPPCSP": lambda args: [THREE, *_largest(args), THREE],
    "MP": lambda args: [(_int(args, "kernel", 2), Fraction(_int(args, "kernel", 2)))],
    "SAM": lambda args: [(_int(args, "kernel", 7), Fraction(1))],
    "Contract": lambda args: [(_int(args, "gain", 2), Fraction(_int(args, "gain", 2)))],
    "nn.Conv2d": _window,
    "nn.ConvTranspose2d": _transposed,
    "nn.MaxPool2d": _pool,
}
