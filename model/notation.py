"""Values of a model file to ours and back: rows, arguments, activations, anchors. No torch, no eval."""

import re
from math import log2
from reprlib import repr as shorten
from typing import Any

import numpy as np

from model.families import LEAKY_RELU, Activation
from model.rows import RULES, Argument, ModelError, Row, check_module, nearest

Anchors = tuple[tuple[tuple[float, float], ...], ...]

MAX_REPEATS = 1_000
CONSTANTS: dict[str, Argument] = {"None": None, "True": True, "False": False}
NAMES = (
    "nc",
    "anchors",
    "nearest",
    "bilinear",
    "bicubic",
)  # the words that may stand among a row's arguments
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
ACTIVATIONS = ("nn.Identity", *(name for name, rule in RULES.items() if "in_place" in rule.parameters))


SHORT = {name.removeprefix("nn.").lower(): Activation(name) for name in ACTIVATIONS}
SHORT |= {"leaky": LEAKY_RELU, "leakyrelu": LEAKY_RELU}


def read_whole(value: Any, low: int, high: int, what: str) -> int:
    """Return `value` where it is a whole number in [low, high]; `what` opens the error's message."""
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise ModelError(f"{what} must be a whole number from {low} to {high}, but got {value!r}")
    return value


def read_factor(value: Any, what: str) -> float:
    """Return `value` where it is a number in (0, 100]; `what` opens the error's message."""
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 < value <= 100:
        raise ModelError(f"{what} must be a number over 0 and at most 100, but got {value!r}")
    return float(value)


def read_rows(raw: Any, first: int, part: str) -> tuple[Row, ...]:
    """Read the rows of backbone or head; `first` is the index of the first, `part` opens messages."""
    if not isinstance(raw, list | tuple):
        raise ModelError(f"{part} must be a list of rows, but got {shorten(raw)}")
    return tuple(_read_row(item, f"{part}: row {index}") for index, item in enumerate(raw, first))


def _read_row(raw: Any, at: str) -> Row:
    if not isinstance(raw, list | tuple) or len(raw) != 4 or not isinstance(raw[3], list | tuple):
        raise ModelError(f"{at}: must be [from, number, module, [args]], but got {shorten(raw)}")
    source, number, module, args = raw
    module = module.removeprefix("torch.") if isinstance(module, str) else module
    check_module(module, at)
    sources = source if isinstance(source, list | tuple) else [source]
    if not sources:
        raise ModelError(f"{at}: from must name a row, but got []")
    return Row(
        tuple(read_whole(item, -10_000, 10_000, f"{at}: from") for item in sources),
        read_whole(number, 1, MAX_REPEATS, f"{at}: number"),
        module,
        tuple(_read_argument(item, f"{at} ({module})") for item in args),
    )


def _read_argument(raw: Any, at: str) -> Argument:
    if raw is None or isinstance(raw, int | float):  # bool is an int
        return raw
    if isinstance(raw, list | tuple):
        return tuple(read_whole(item, -1_000_000, 1_000_000, f"{at}: each number of a list") for item in raw)
    if isinstance(raw, str):
        if raw in CONSTANTS:
            return CONSTANTS[raw]
        if raw in NAMES:
            return raw
        if NUMBER.fullmatch(raw):  # YAML 1.1 reads 1e-3 as a word
            return float(raw)
    raise ModelError(f"{at}: unknown argument {shorten(raw)}; {nearest(str(raw), (*CONSTANTS, *NAMES))}")


def plain_row(row: Row) -> list[Any]:
    """Return a row as plain data, the way it stands in a file."""
    many = len(row.sources) > 1 or RULES[row.module].many
    args = [list(arg) if isinstance(arg, tuple) else arg for arg in row.args]
    return [list(row.sources) if many else row.sources[0], row.number, row.module, args]


def flow(value: Any) -> str:
    """Return plain data as YAML on one line, in the spelling that YOLOv5's own reader takes."""
    if isinstance(value, list):
        return f"[{', '.join(map(flow, value))}]"
    return str(value)


def read_activation(raw: Any, where: str) -> Activation | None:
    """Read "nn.LeakyReLU(0.1)", or a short name: "mish", "leaky". Whether it works in place is ours to say."""
    if raw is None:
        return None
    if str(raw).lower() in SHORT:
        return SHORT[str(raw).lower()]
    match = re.fullmatch(r"(?:torch\.)?(nn\.\w+)(?:\(([^()]*)\))?", str(raw).strip())
    if match is None or match[1] not in ACTIVATIONS:
        raise ModelError(
            f"{where}: unknown activation {shorten(raw)}; {nearest(str(raw), (*ACTIVATIONS, *SHORT))}"
        )
    slope = None
    for piece in filter(None, (part.strip() for part in (match[2] or "").split(","))):
        if re.fullmatch(r"(inplace\s*=\s*)?(True|False)", piece):
            continue
        number = re.sub(r"^negative_slope\s*=\s*", "", piece)
        if match[1] != "nn.LeakyReLU" or slope is not None or not NUMBER.fullmatch(number):
            raise ModelError(
                f"{where}: activation {match[1]} takes no {piece!r:.80}, but the file has {shorten(raw)}"
            )
        slope = float(number)
    return Activation(match[1], slope)


def read_anchors(raw: Any, levels: int, where: str) -> Anchors:
    """Read anchors, px, one entry a level: either flat [w, h, w, h, ...] or pairs.

    Raises:
        ModelError: not one entry a level, not as many in each, or not finite px over 0.
    """
    try:
        array = np.asarray(raw, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ModelError(
            f"{where}: anchors must be numbers, as many in each level, but got {shorten(raw)}"
        ) from error
    paired = array.ndim == 3 and array.shape[2] == 2
    flat = array.ndim == 2 and array.shape[1] % 2 == 0
    if not array.size or not (paired or flat) or array.shape[0] != levels:
        raise ModelError(
            f"{where}: anchors must have {levels} levels (the inputs of Detect) of width,height pairs, "
            f"but got shape {array.shape}"
        )
    if not (np.isfinite(array) & (array > 0)).all():
        raise ModelError(f"{where}: anchors must be finite px over 0, but got {array.min()} to {array.max()}")
    pairs = array.reshape(levels, -1, 2).tolist()
    return tuple(tuple((width, height) for width, height in level) for level in pairs)


def placeholder_anchors(per_level: int, strides: tuple[int, ...]) -> Anchors:
    """Return squares from twice a level's stride up, in even steps of log size.

    They stand in where a file gives only a count.
    """
    steps = [2 ** (1 + step / per_level) for step in range(per_level)]
    return tuple(tuple((stride * step, stride * step) for step in steps) for stride in strides)


def order_anchors(anchors: Anchors, strides: tuple[int, ...]) -> tuple[Anchors, bool]:
    """Turn the levels round where mean areas fall from first to last and strides rise, or the other way about.

    Returns:
        The anchors, and whether they were turned.
    """
    areas = np.prod(np.asarray(anchors), axis=2).mean(axis=1)
    turned = bool((areas[-1] - areas[0]) * (strides[-1] - strides[0]) < 0)
    return (anchors[::-1] if turned else anchors), turned


def spread_anchors(anchors: Anchors, levels: int, where: str) -> Anchors:
    """Give another model's anchors to so many levels: small to large, as many to each.

    Raises:
        ModelError: they can't be shared out evenly; `where` opens the message.
    """
    if len(anchors) == levels:
        return anchors
    pairs = sorted((pair for level in anchors for pair in level), key=lambda pair: pair[0] * pair[1])
    if len(pairs) % levels:
        raise ModelError(f"{where}: {len(pairs)} anchors can't be shared out evenly to {levels} levels")
    each = len(pairs) // levels
    return tuple(tuple(pairs[level * each : (level + 1) * each]) for level in range(levels))


def level_name(stride: int) -> str:
    """Return "P3/8" for stride 8."""
    return f"P{log2(stride):.0f}/{stride}" if stride & (stride - 1) == 0 else f"stride {stride}"


def format_px(value: float) -> str:
    """Return px as a whole number, or with two decimals and never as 0.

    >>> format_px(10.0), format_px(10.126)
    ('10', '10.13')
    """
    return f"{value:.0f}" if value == int(value) else f"{max(value, 0.01):.2f}"
