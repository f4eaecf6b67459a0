"""What each module of a model file takes, and what it does to channels and stride. No torch.

`RULES` is half of the registry; `model.layers.LAYERS` says which class a module is. A new one is a line in each.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from math import isfinite
from typing import Literal, TypeAlias

from model.errors import ModelError, nearest

Argument: TypeAlias = int | float | str | tuple[int, ...] | None
Arguments: TypeAlias = Mapping[str, Argument]


def _no_fault(args: Arguments, channels: int) -> str | None:
    return None


@dataclass(frozen=True)
class Rule:
    """How a module reads its row.

    Attributes:
        parameters: names of its args in order, each a key of `KINDS`.
        required: how many of them a row must give.
        channels: `widen`: args[0] is the output's channels before `width_multiple`, and the class takes (input
            channels, output channels, ...); `same`: likewise, but they must be the input's, and the class takes
            (channels, ...); `keep`: as many out as in, times `gain`; `own`: as many out as in, which the class takes
            whatever the row says; `sum`: the inputs laid together; `none`: no output.
        factor: what one such module does to the stride.
        gain: what one such module does to the channels, where these are kept.
        repeats: the class takes `number` itself, as its third argument, instead of being stacked.
        fault: what is wrong with args and channels in, as the end of a message; None where nothing is.
    """

    parameters: tuple[str, ...] = ()
    required: int = 0
    channels: Literal["widen", "same", "keep", "own", "sum", "none"] = "keep"
    factor: Callable[[Arguments], Fraction] = lambda args: Fraction(1)
    gain: Callable[[Arguments], Fraction] = lambda args: Fraction(1)
    repeats: bool = False
    fault: Callable[[Arguments, int], str | None] = _no_fault

    @property
    def many(self) -> bool:
        """Whether the module takes a list of tensors."""
        return self.channels in ("sum", "none")


def whole_number(value: Argument, low: int) -> bool:
    """Whether `value` is a whole number from `low` to a million."""
    return isinstance(value, int) and not isinstance(value, bool) and low <= value < 1_000_000


def _positive(value: Argument) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and isfinite(value) and value > 0


def _several(value: Argument, low: int, count: int | None = None) -> bool:
    if not isinstance(value, tuple) or len(value) != (count or max(len(value), 1)):
        return False
    return all(whole_number(item, low) for item in value)


KINDS: dict[str, tuple[Callable[[Argument], bool], str]] = {
    "channels": (lambda v: whole_number(v, 1), "a whole number from 1"),
    "kernel": (lambda v: whole_number(v, 1), "a whole number from 1"),
    "kernels": (lambda v: _several(v, 1), "a list of whole numbers from 1"),
    "stride": (lambda v: whole_number(v, 1), "a whole number from 1"),
    "padding": (lambda v: v is None or whole_number(v, 0), "None or a whole number from 0"),
    "groups": (lambda v: whole_number(v, 1), "a whole number from 1"),
    "index": (lambda v: whole_number(v, 0), "a whole number from 0"),
    "gain": (lambda v: whole_number(v, 1), "a whole number from 1"),
    "ratio": (lambda v: whole_number(v, 1), "a whole number from 1"),
    "sides": (lambda v: _several(v, 0, 4), "a list [left, right, top, bottom] of whole numbers"),
    "expansion": (_positive, "a number over 0"),
    "slope": (_positive, "a number over 0"),
    "activation": (lambda v: isinstance(v, bool), "True or False"),
    "shortcut": (lambda v: isinstance(v, bool), "True or False"),
    "in_place": (lambda v: isinstance(v, bool), "True or False"),
    "dimension": (lambda v: whole_number(v, 1) and v == 1, "1 (channels)"),
    "size": (lambda v: v is None, "None (give a scale)"),
    "scale": (lambda v: whole_number(v, 1), "a whole number from 1"),
    "mode": (lambda v: v in ("nearest", "bilinear", "bicubic"), "'nearest', 'bilinear' or 'bicubic'"),
    "nc": (lambda v: v == "nc", "the name nc"),
    "anchors": (lambda v: v == "anchors", "the name anchors"),
}


def _number(args: Arguments, *names: str) -> Fraction:
    """Return the first of the named arguments that a row gives, or 1."""
    given = (args[name] for name in names if name in args)
    return Fraction(next((value for value in given if isinstance(value, int)), 1))


def _stride(args: Arguments) -> Fraction:
    return _number(args, "stride")


def _ghost_stride(args: Arguments) -> Fraction:
    return Fraction(2 if _number(args, "stride") == 2 else 1)


def _pooled(args: Arguments) -> Fraction:
    return _number(args, "kernel") if "kernel" in args else Fraction(2)


def _share_fault(args: Arguments, channels: int) -> str | None:
    groups, index = _number(args, "groups"), _number(args, "index")
    if channels % groups:
        return f"{groups} groups must divide its input's channels, but {channels} go in"
    return None if index < groups else f"index must be under groups, but got {index} of {groups}"


def _expand_fault(args: Arguments, channels: int) -> str | None:
    square = (_number(args, "gain") if "gain" in args else Fraction(2)) ** 2
    return (
        f"gain² = {square} must divide its input's channels, but {channels} go in"
        if channels % square
        else None
    )


def _gain(args: Arguments) -> Fraction:
    return _number(args, "gain") if "gain" in args else Fraction(2)


def _half_fault(args: Arguments, channels: int) -> str | None:
    return None if channels % 2 == 0 else f"its input's channels must be even, but {channels} go in"


def _transposed_fault(args: Arguments, channels: int) -> str | None:
    kernel, stride, padding = (_number(args, name) for name in ("kernel", "stride", "padding"))
    padding = padding if "padding" in args else Fraction(0)
    fits = kernel == stride + 2 * padding
    return None if fits else f"kernel must be stride + 2 · padding, but got {kernel}, {stride} and {padding}"


_CONV = ("channels", "kernel", "stride", "padding", "groups", "activation")
_BLOCK = ("channels", "shortcut", "groups", "expansion")

RULES: dict[str, Rule] = {
    "Conv": Rule(_CONV, 1, "widen", _stride),
    "DWConv": Rule(("channels", "kernel", "stride", "activation"), 1, "widen", _stride),
    "DWConvTranspose2d": Rule(
        ("channels", "kernel", "stride", "padding"),
        3,
        "widen",
        lambda args: 1 / _stride(args),
        fault=_transposed_fault,
    ),
    "MixConv2d": Rule(("channels", "kernels", "stride"), 1, "widen", _stride),
    "CrossConv": Rule(
        ("channels", "kernel", "stride", "groups", "expansion", "shortcut"), 1, "widen", _stride
    ),
    "Focus": Rule(_CONV, 1, "widen", lambda args: 2 * _stride(args)),
    "Bottleneck": Rule(_BLOCK, 1, "widen"),
    "BottleneckCSP": Rule(_BLOCK, 1, "widen", repeats=True),
    "BottleneckCSP2": Rule(_BLOCK, 1, "widen", repeats=True),
    "VoVCSP": Rule(_BLOCK, 1, "widen", repeats=True, fault=_half_fault),
    "C3": Rule(_BLOCK, 1, "widen", repeats=True),
    "C3x": Rule(_BLOCK, 1, "widen", repeats=True),
    "C3TR": Rule(_BLOCK, 1, "widen", repeats=True),
    "C3Ghost": Rule(_BLOCK, 1, "widen", repeats=True),
    "C3SPP": Rule(("channels", "kernels"), 1, "widen"),
    "CBAMC3": Rule(_BLOCK, 1, "widen", repeats=True),
    "GhostConv": Rule(("channels", "kernel", "stride", "groups", "activation"), 1, "widen", _stride),
    "GhostBottleneck": Rule(("channels", "kernel", "stride"), 1, "widen", _ghost_stride),
    "SPP": Rule(("channels", "kernels"), 1, "widen"),
    "SPPF": Rule(("channels", "kernel"), 1, "widen"),
    "SPPCSP": Rule((*_BLOCK, "kernels"), 1, "widen", repeats=True),
    "MP": Rule(("kernel",), 0, "keep", _pooled),
    "SE": Rule(("channels", "ratio"), 1, "same"),
    "SAM": Rule(("channels", "kernel"), 1, "same"),
    "PointwiseSAM": Rule(("channels",), 1, "same"),
    "CBAM": Rule(("channels", "ratio", "kernel"), 1, "same"),
    "Concat": Rule(("dimension",), 0, "sum"),
    "ChannelSlice": Rule(
        ("groups", "index"), 2, "keep", gain=lambda args: 1 / _number(args, "groups"), fault=_share_fault
    ),
    "Contract": Rule(("gain",), 0, "keep", _gain, lambda args: _gain(args) ** 2),
    "Expand": Rule(
        ("gain",),
        0,
        "keep",
        lambda args: 1 / _gain(args),
        lambda args: 1 / _gain(args) ** 2,
        fault=_expand_fault,
    ),
    "nn.Conv2d": Rule(("channels", "kernel", "stride", "padding"), 2, "widen", _stride),
    "nn.ConvTranspose2d": Rule(
        ("channels", "kernel", "stride", "padding"),
        3,
        "widen",
        lambda args: 1 / _stride(args),
        fault=_transposed_fault,
    ),
    "nn.BatchNorm2d": Rule(("channels",), 0, "own"),
    "nn.Upsample": Rule(("size", "scale", "mode"), 2, "keep", lambda args: 1 / _number(args, "scale")),
    "nn.MaxPool2d": Rule(
        ("kernel", "stride", "padding"), 1, "keep", lambda args: _number(args, "stride", "kernel")
    ),
    "nn.ZeroPad2d": Rule(("sides",), 1),
    "nn.ReplicationPad2d": Rule(("sides",), 1),
    "nn.Identity": Rule(),
    "nn.ReLU": Rule(("in_place",)),
    "nn.SiLU": Rule(("in_place",)),
    "nn.Mish": Rule(("in_place",)),
    "nn.Hardswish": Rule(("in_place",)),
    "nn.LeakyReLU": Rule(("slope", "in_place")),
    "Detect": Rule(("nc", "anchors"), 2, "none"),
}


def check_module(name: object, at: str) -> None:
    """Raise ModelError, opened by `at`, where `name` is no key of `RULES`."""
    if not isinstance(name, str) or name not in RULES:
        raise ModelError(f"{at}: unknown module {name!r:.80}; {nearest(str(name), RULES)}")
