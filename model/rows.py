"""What the rows of a model file mean in numbers: arguments, channels and strides. No torch.

A row is `[from, number, module, args]`. `RULES` says what each module's args are and what it does to channels and
stride; `model.layers.LAYERS` says which class it is. A new module is a line in each.
"""

import difflib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import ceil, isfinite, prod
from typing import Literal, TypeAlias

Argument: TypeAlias = int | float | str | tuple[int, ...] | None

IMAGE = -1  # the absolute index that stands for the network's input


class ModelError(ValueError):
    """A model file or name that the user can mend; the message is one line that says where."""


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


@dataclass(frozen=True)
class Rule:
    """How a module reads its row.

    Attributes:
        parameters: names of its args in order, each a key of `KINDS`.
        required: how many of them a row must give.
        channels: `widen`: args[0] is the output's channels before `width_multiple`, and the class takes (input
            channels, output channels, ...); `keep`: as many out as in; `sum`: the inputs laid together; `none`:
            no output.
        factor: what one such module does to the stride.
        repeats: the class takes `number` itself, as its third argument, instead of being stacked.
    """

    parameters: tuple[str, ...] = ()
    required: int = 0
    channels: Literal["widen", "keep", "sum", "none"] = "keep"
    factor: Callable[[Mapping[str, Argument]], Fraction] = lambda args: Fraction(1)
    repeats: bool = False

    @property
    def many(self) -> bool:
        """Whether the module takes a list of tensors."""
        return self.channels in ("sum", "none")


def _whole(value: Argument, low: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and low <= value < 1_000_000


def _positive(value: Argument) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and isfinite(value) and value > 0


def _several(value: Argument, low: int, count: int | None = None) -> bool:
    if not isinstance(value, tuple) or len(value) != (count or max(len(value), 1)):
        return False
    return all(_whole(item, low) for item in value)


KINDS: dict[str, tuple[Callable[[Argument], bool], str]] = {
    "channels": (lambda v: _whole(v, 1), "a whole number from 1"),
    "kernel": (lambda v: _whole(v, 1), "a whole number from 1"),
    "kernels": (lambda v: _several(v, 1), "a list of whole numbers from 1"),
    "stride": (lambda v: _whole(v, 1), "a whole number from 1"),
    "padding": (lambda v: v is None or _whole(v, 0), "None or a whole number from 0"),
    "groups": (lambda v: _whole(v, 1), "a whole number from 1"),
    "sides": (lambda v: _several(v, 0, 4), "a list [left, right, top, bottom] of whole numbers"),
    "expansion": (_positive, "a number over 0"),
    "slope": (_positive, "a number over 0"),
    "activation": (lambda v: isinstance(v, bool), "True or False"),
    "shortcut": (lambda v: isinstance(v, bool), "True or False"),
    "in_place": (lambda v: isinstance(v, bool), "True or False"),
    "dimension": (lambda v: _whole(v, 1) and v == 1, "1 (channels)"),
    "size": (lambda v: v is None, "None (give a scale)"),
    "scale": (lambda v: _whole(v, 1), "a whole number from 1"),
    "mode": (lambda v: v in ("nearest", "bilinear", "bicubic"), "'nearest', 'bilinear' or 'bicubic'"),
    "nc": (lambda v: v == "nc", "the name nc"),
    "anchors": (lambda v: v == "anchors", "the name anchors"),
}


def _number(args: Mapping[str, Argument], *names: str) -> Fraction:
    """Return the first of the named arguments that a row gives, or 1."""
    given = (args[name] for name in names if name in args)
    return Fraction(next((value for value in given if isinstance(value, int)), 1))


_CONV = ("channels", "kernel", "stride", "padding", "groups", "activation")
_BLOCK = ("channels", "shortcut", "groups", "expansion")

RULES: dict[str, Rule] = {
    "Conv": Rule(_CONV, 1, "widen", lambda args: _number(args, "stride")),
    "Focus": Rule(_CONV, 1, "widen", lambda args: 2 * _number(args, "stride")),
    "Bottleneck": Rule(_BLOCK, 1, "widen"),
    "BottleneckCSP": Rule(_BLOCK, 1, "widen", repeats=True),
    "C3": Rule(_BLOCK, 1, "widen", repeats=True),
    "SPP": Rule(("channels", "kernels"), 1, "widen"),
    "SPPF": Rule(("channels", "kernel"), 1, "widen"),
    "Concat": Rule(("dimension",), 0, "sum"),
    "nn.Upsample": Rule(("size", "scale", "mode"), 2, "keep", lambda args: 1 / _number(args, "scale")),
    "nn.MaxPool2d": Rule(
        ("kernel", "stride", "padding"), 1, "keep", lambda args: _number(args, "stride", "kernel")
    ),
    "nn.ZeroPad2d": Rule(("sides",), 1),
    "nn.Identity": Rule(),
    "nn.ReLU": Rule(("in_place",)),
    "nn.SiLU": Rule(("in_place",)),
    "nn.Mish": Rule(("in_place",)),
    "nn.Hardswish": Rule(("in_place",)),
    "nn.LeakyReLU": Rule(("slope", "in_place")),
    "Detect": Rule(("nc", "anchors"), 2, "none"),
}


def nearest(name: str, known: Iterable[str]) -> str:
    """Return the end of a message: the known name most like `name`, or all of them where none is."""
    known = list(known)
    name = name[:80]
    lowered = {other.lower(): other for other in known}
    close = difflib.get_close_matches(name.lower(), lowered, n=1)
    return f"did you mean {lowered[close[0]]!r}?" if close else f"known: {', '.join(known)}"


def check_module(name: object, at: str) -> None:
    """Raise ModelError, opened by `at`, where `name` is no key of `RULES`."""
    if not isinstance(name, str) or name not in RULES:
        raise ModelError(f"{at}: unknown module {name!r:.80}; {nearest(str(name), RULES)}")


def repeats(number: int, depth: float) -> int:
    """Scale a row's `number` by `depth_multiple`: at least 1, and 1 stays 1."""
    return max(round(number * depth), 1) if number > 1 else number


def widen(channels: int, width: float) -> int:
    """Scale channels by `width_multiple`, up to the next multiple of 8."""
    return ceil(channels * width / 8) * 8


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
    args = row.args
    number = repeats(row.number, scales[0])
    stack = 1 if rule.repeats else number
    stride = blank.stride * prod([rule.factor(dict(zip(rule.parameters, args, strict=False)))] * stack)
    if rule.channels == "widen":
        out = widen(int(_number({"channels": args[0]}, "channels")), scales[1])
        args = (inputs[0], out, number, *args[1:]) if rule.repeats else (inputs[0], out, *args[1:])
        if stack > 1 and out != inputs[0]:
            raise ModelError(
                f"{at}: {stack} in a stack must keep the channels, but {inputs[0]} go in and {out} come out"
            )
    elif rule.channels == "none":
        out, args = 0, tuple(inputs)
    else:
        out = sum(inputs)
    return Layer(blank.index, blank.sources, row.module, args, stack, out, stride)
