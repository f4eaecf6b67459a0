"""What the rows of a model file mean in numbers: arguments, channels and strides. No torch.

A row is `[from, number, module, args]`; `model.rules.RULES` says what each module makes of it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import ceil, prod

from model.errors import ModelError, nearest
from model.rules import KINDS, RULES, Argument, Rule, check_module

__all__ = [
    "IMAGE",
    "RULES",
    "Argument",
    "Layer",
    "ModelError",
    "Row",
    "check_module",
    "nearest",
    "plan_layers",
]

CHANNEL_MULTIPLE = 8
IMAGE = -1  # the absolute index that stands for the network's input


@dataclass(frozen=True)
class Row:
    """One row of a model file, as written.

    Attributes:
        sources: rows whose output it takes: -1 is the row before, -2 the one before that; 0 and up are absolute.
        number: repeats before `depth_multiple`.
        module: a name of `RULES`.
        args: its arguments before `width_multiple`; the names `nc` and `anchors` stand as strings.
    """

    sources: tuple[int, ...]
    number: int
    module: str
    args: tuple[Argument, ...]


@dataclass(frozen=True)
class Layer:
    """A row worked out: what the class must be given.

    Attributes:
        index: place in the model, from 0 over backbone and head.
        sources: absolute indices, each under `index`; `IMAGE` is the input.
        module: a name of `RULES`.
        args: what the constructor takes, in order (for Detect: the channels of its inputs).
        stack: how many in sequence, each with the same arguments.
        channels: channels of its output (0 for Detect).
        stride: image pixels per cell of its output.
    """

    index: int
    sources: tuple[int, ...]
    module: str
    args: tuple[Argument, ...]
    stack: int
    channels: int
    stride: Fraction


def repeats(number: int, depth: float) -> int:
    """Scale a row's `number` by `depth_multiple`: at least 1, and 1 stays 1."""
    return max(round(number * depth), 1) if number > 1 else number


def widen(channels: int, width: float) -> int:
    """Scale channels by `width_multiple`, up to the next multiple of `CHANNEL_MULTIPLE`."""
    return ceil(channels * width / CHANNEL_MULTIPLE) * CHANNEL_MULTIPLE


def plan_layers(
    rows: Sequence[Row], scales: tuple[float, float], where: str, channels: int
) -> tuple[Layer, ...]:
    """Work out every row: sources, channels, strides and constructor arguments.

    Args:
        rows: backbone and head, in order.
        scales: `depth_multiple` and `width_multiple`.
        where: the file's name, for messages.
        channels: channels of the image.

    Returns:
        One layer per row; the last is the only Detect.

    Raises:
        ModelError: a row's module, arguments or sources can't be; the message names file and row.
    """
    if len(rows) < 2:
        raise ModelError(
            f"{where}: backbone and head must have rows before Detect, but got {len(rows)} in all"
        )
    layers: list[Layer] = []
    for index, row in enumerate(rows):
        check_module(row.module, f"{where}: row {index}")
        at = f"{where}: row {index} ({row.module})"
        if (row.module == "Detect") != (index == len(rows) - 1):
            raise ModelError(
                f"{at}: the last row, and no other, must be Detect, but there are {len(rows)} rows"
            )
        _check_arguments(row, at)
        sources = tuple(_absolute(source, index, at) for source in row.sources)
        inputs = [channels if source == IMAGE else layers[source].channels for source in sources]
        strides = [Fraction(1) if source == IMAGE else layers[source].stride for source in sources]
        if row.module == "Concat" and len(set(strides)) > 1:
            listed = ", ".join(f"row {i} has {stride}" for i, stride in zip(sources, strides, strict=True))
            raise ModelError(f"{at}: its inputs must have one stride, but {listed}")
        blank = Layer(index, sources, row.module, (), 1, 0, strides[0])
        layers.append(_work_out(row, blank, inputs, scales, at))
    return tuple(layers)


def _absolute(source: int, index: int, at: str) -> int:
    absolute = index + source if source < 0 else source
    if not (0 <= absolute < index or (absolute == IMAGE and index == 0)):
        raise ModelError(f"{at}: from must name an earlier row, but got {source}")
    return absolute


def _check_arguments(row: Row, at: str) -> None:
    names = RULES[row.module].parameters
    if not RULES[row.module].required <= len(row.args) <= len(names):
        raise ModelError(f"{at}: args must be [{', '.join(names)}], but got {list(row.args)}")
    for name, value in zip(names, row.args, strict=False):
        valid, described = KINDS[name]
        if not valid(value):
            raise ModelError(f"{at}: {name} must be {described}, but got {value!r}")
    many = RULES[row.module].many
    if len(row.sources) != 1 and not (many and row.sources):
        raise ModelError(f"{at}: from must name {'rows' if many else 'one row'}, but got {list(row.sources)}")
    if row.number < 1 or (many and row.number > 1):
        raise ModelError(f"{at}: number must be {'1' if many else 'at least 1'}, but got {row.number}")


def _work_out(row: Row, blank: Layer, inputs: list[int], scales: tuple[float, float], at: str) -> Layer:
    rule = RULES[row.module]
    named = dict(zip(rule.parameters, row.args, strict=False))
    number = repeats(row.number, scales[0])
    stack = 1 if rule.repeats else number
    stride = blank.stride * prod([rule.factor(named)] * stack)
    args, out = row.args, sum(inputs)
    fault = None if rule.many else rule.fault(named, inputs[0])
    if fault is not None:
        raise ModelError(f"{at}: {fault}")
    if rule.channels in ("widen", "same"):
        args, out = _widened(row, inputs[0], number, scales[1])
        _check_channels(rule, inputs[0], out, stack, at)
    elif rule.channels == "none":
        out, args = 0, tuple(inputs)
    elif rule.channels == "own":
        args = (inputs[0],)
    elif rule.channels == "keep":
        out = _kept(inputs[0], rule.gain(named), stack, at)
    return Layer(blank.index, blank.sources, row.module, args, stack, out, stride)


def _widened(row: Row, channels: int, number: int, width: float) -> tuple[tuple[Argument, ...], int]:
    """Arguments of the constructor and channels out, of a row whose first argument is its channels."""
    rule, asked = RULES[row.module], row.args[0]
    out = widen(asked if isinstance(asked, int) else 1, width)
    if rule.channels == "same":
        return (out, *row.args[1:]), out
    return (channels, out, *((number,) if rule.repeats else ()), *row.args[1:]), out


def _check_channels(rule: Rule, channels: int, out: int, stack: int, at: str) -> None:
    if rule.channels == "same" and out != channels:
        raise ModelError(f"{at}: it must keep the channels, but {channels} go in and {out} are asked for")
    if stack > 1 and out != channels:
        raise ModelError(
            f"{at}: {stack} in a stack must keep the channels, but {channels} go in and {out} come out"
        )


def _kept(channels: int, gain: Fraction, stack: int, at: str) -> int:
    out = channels * prod([gain] * stack)
    if out.denominator != 1:
        raise ModelError(f"{at}: {stack} in a stack need more channels than the {channels} that go in")
    return int(out)
