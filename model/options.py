"""What any model can be told beside its rows: family, attention, DropBlock, normalisation, loss. No torch.

They are top-level keys of a model file, and may follow a model's name as `NAME?key=value&key=value`, which is how
the command's flags travel to wherever the model is built.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from reprlib import repr as shorten
from typing import Any

from model.errors import ModelError, nearest
from model.families import FAMILIES, Family

ATTENTIONS = ("sam", "sam-pointwise", "se", "cbam")
NORMS = ("bn", "cmbn")
SCHEMES = ("yolov5", "scaled-yolov4")
NAMED = ("activation", "anchors", "attention", "dropblock", "dropblock_size", "family", "loss", "norm")
"""What may follow a name."""


@dataclass(frozen=True)
class Options:
    """Options of a model; the defaults leave it as its rows say.

    Attributes:
        family: a name of `FAMILIES`, which says the activations and the loss.
        attention: one of `ATTENTIONS`, placed before every level's prediction; None is none.
        dropblock: share, from 0 to under 1, of what the neck takes from the backbone that is dropped when
            training ends; rising linearly from 0.
        dropblock_size: side of a dropped square, in cells.
        norm: "bn", or "cmbn": statistics over the micro-batches of a step.
        loss: one of `SCHEMES`; None is the family's.
        scale_xy: one factor a level: boxes are then decoded as darknet does, centre σ · s − (s − 1) / 2 and sides
            exp(t) · anchor. None is YOLOv5's decoding.
        image_size: px that the model is meant for.

    Raises:
        ModelError: a value can't be.
    """

    family: str = "yolov5"
    attention: str | None = None
    dropblock: float = 0.0
    dropblock_size: int = 7
    norm: str = "bn"
    loss: str | None = None
    scale_xy: tuple[float, ...] | None = None
    image_size: int | None = None

    def __post_init__(self) -> None:
        _check_choice("family", self.family, FAMILIES)
        _check_choice("norm", self.norm, NORMS)
        for name, choices in (("attention", ATTENTIONS), ("loss", SCHEMES)):
            if getattr(self, name) is not None:
                _check_choice(name, getattr(self, name), choices)
        if not (_is_number(self.dropblock) and 0 <= self.dropblock < 1):
            raise ModelError(f"dropblock must be a number from 0 to under 1, but got {self.dropblock!r}")
        for name in ("dropblock_size", "image_size"):
            value = getattr(self, name)
            if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
                raise ModelError(f"{name} must be a whole number from 1, but got {value!r}")
        scales = self.scale_xy
        if scales is not None and not (scales and all(_is_number(s) and 1 <= s <= 10 for s in scales)):
            raise ModelError(f"scale_xy must be numbers from 1 to 10, one a level, but got {scales!r}")

    @property
    def about(self) -> Family:
        """The family's figures."""
        return FAMILIES[self.family]

    @property
    def scheme(self) -> str:
        """The loss: the one asked for, else the family's."""
        return self.loss or self.about.loss

    def to_dict(self) -> dict[str, Any]:
        """Plain data: what differs from the defaults."""
        given = {f.name: getattr(self, f.name) for f in fields(self) if getattr(self, f.name) != f.default}
        return {name: list(value) if isinstance(value, tuple) else value for name, value in given.items()}


OPTION_KEYS = tuple(f.name for f in fields(Options))


def read_options(raw: Mapping[str, Any], where: str) -> Options:
    """Read the options among a model file's keys; `where` opens messages.

    Raises:
        ModelError: a value can't be.
    """
    given = {name: raw[name] for name in OPTION_KEYS if raw.get(name) is not None}
    for name in ("family", "attention", "norm", "loss"):
        if name in given and not isinstance(given[name], str):
            raise ModelError(f"{where}: {name} must be a name, but got {shorten(given[name])}")
    if given.get("attention") == "none":
        del given["attention"]
    if "scale_xy" in given:
        if not isinstance(given["scale_xy"], list | tuple):
            raise ModelError(f"{where}: scale_xy must be a list, but got {shorten(given['scale_xy'])}")
        given["scale_xy"] = tuple(given["scale_xy"])
    try:
        return Options(**given)
    except ModelError as error:
        raise ModelError(f"{where}: {error}") from error


def with_options(model: str, **options: object) -> str:
    """Return a model's name with options behind it, for `load_spec`; those that are None are left out.

    >>> with_options("yolov5s", attention="se", dropblock=None, activation="mish")
    'yolov5s?attention=se&activation=mish'
    """
    given = "&".join(f"{name}={value}" for name, value in options.items() if value is not None)
    return f"{model}{'&' if '?' in model else '?'}{given}" if given else model


def split_options(model: str) -> tuple[str, dict[str, Any]]:
    """Return a model's name or path and the options behind it.

    Raises:
        ModelError: what follows the name is no `key=value`, or no option.
    """
    name, _, tail = model.partition("?")
    options: dict[str, Any] = {}
    for piece in filter(None, tail.split("&")):
        key, equals, value = piece.partition("=")
        if not equals or key not in NAMED:
            raise ModelError(f"{model}: unknown option {piece!r}; {nearest(key, NAMED)}")
        options[key] = _read_value(key, value, model)
    return name, options


def _read_value(key: str, value: str, model: str) -> str | float | int:
    kind: Callable[[str], str | float | int] = {"dropblock": float, "dropblock_size": int}.get(key, str)
    try:
        return kind(value)
    except ValueError as error:
        raise ModelError(f"{model}: {key} must be a number, but got {value!r}") from error


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _check_choice(name: str, value: str, choices: Mapping[str, object] | tuple[str, ...]) -> None:
    if value not in choices:
        raise ModelError(f"unknown {name} {value!r:.80}; {nearest(value, choices)}")
