"""YAML in, frozen `ModelSpec` out: no torch, no eval.

The files are YOLOv5's: `nc`, `depth_multiple`, `width_multiple`, `anchors`, `backbone` and `head` of rows
`[from, number, module, args]`, so that users' own load as they are.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from reprlib import repr as shorten
from typing import Any

import yaml
from numpy.typing import ArrayLike

from model.errors import ModelError, nearest
from model.families import FAMILIES, Activation, guess_family
from model.notation import (
    Anchors,
    flow,
    format_px,
    level_name,
    order_anchors,
    placeholder_anchors,
    plain_row,
    read_activation,
    read_anchors,
    read_factor,
    read_rows,
    read_whole,
    spread_anchors,
)
from model.options import OPTION_KEYS, Options, read_options, split_options
from model.rows import Layer, Row, plan_layers
from model.zoo import zoo_names, zoo_text

__all__ = [
    "Activation",
    "ModelError",
    "ModelSpec",
    "Options",
    "Row",
    "load_spec",
    "spec_to_yaml",
    "zoo_names",
]

MINIMAL_GRID = 32  # image sizes are multiples of at least this, whatever the strides, as in YOLOv5
MAX_CLASSES = 100_000
MAX_ANCHORS = 1_000
KEYS = (
    *("nc", "depth_multiple", "width_multiple", "anchors", "backbone", "head", "activation", "ch", "name"),
    *OPTION_KEYS,
)


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
        return _strides(self.layers, self.name)

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


def load_spec(
    name_or_path: str | Path | Mapping[str, Any] | ModelSpec,
    *,
    classes: int | None = None,
    anchors: ArrayLike | None = None,
) -> ModelSpec:
    """Read a model's description.

    Args:
        name_or_path: a zoo name ("yolov5n") or a path that ends in .yaml or .yml, either with options behind it
            (see `model.options`); a spec; or what its `to_dict` gave.
        classes: takes the place of the file's `nc`.
        anchors: takes the place of the file's, px, shape (levels, per level, 2) or (levels, per level * 2).

    Returns:
        The spec. Anchors whose sizes run against the strides are turned round, and `notes` says so.

    Raises:
        ModelError: no such model or file, or something in it can't be.
    """
    if isinstance(name_or_path, ModelSpec):
        where, raw, notes = name_or_path.name, name_or_path.to_dict(), name_or_path.notes
    elif isinstance(name_or_path, Mapping):
        where, raw, notes = str(name_or_path.get("name", "model")), dict(name_or_path), ()
    else:
        where, raw, notes = _read(name_or_path)
    if classes is not None:
        raw["nc"] = classes
    if anchors is not None:
        raw["anchors"] = anchors
    spec = _from_mapping(raw, where)
    return replace(spec, notes=tuple(dict.fromkeys(notes + spec.notes)))


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


def _read(name_or_path: str | Path) -> tuple[str, dict[str, Any], tuple[str, ...]]:
    """Return where messages shall point, the file's mapping with the options behind its name, and notes."""
    name, options = split_options(str(name_or_path))
    where, text = _read_text(name)
    try:
        raw = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ModelError(f"{where}: not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(raw, dict):
        raise ModelError(
            f"{where}: a model file must be a mapping with {', '.join(KEYS[:6])}, but got {shorten(raw)}"
        )
    raw = {"name": Path(name).stem if name not in zoo_names() else name, **raw, **options}
    return where, *_with_family(raw, where)


def _read_text(name: str) -> tuple[str, str]:
    path = Path(name)
    if name in zoo_names():
        return name, zoo_text(name)
    if path.suffix not in (".yaml", ".yml"):
        raise ModelError(f"unknown model {name!r}, and no path to a .yaml; {nearest(name, zoo_names())}")
    try:
        return name, path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        hint = f"; the name {path.stem!r} is in the zoo" if path.stem in zoo_names() else ""
        raise ModelError(f"{path}: there is no such file{hint}") from error
    except (OSError, UnicodeDecodeError) as error:
        raise ModelError(f"{path}: the file can't be read: {error}") from error


def _with_family(raw: dict[str, Any], where: str) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Say which program a file without `family` was written for: only files of other programs come without."""
    if raw.get("family") is not None or not all(
        isinstance(raw.get(key), list) for key in ("backbone", "head")
    ):
        return raw, ()
    family = guess_family(read_rows(raw["backbone"] + raw["head"], 0, where))
    if family == "yolov5":
        return raw, ()
    about = FAMILIES[family]
    note = (
        f"{where}: its modules are those of {family}, whose activations are taken: {about.backbone}, "
        f"and {about.joint} where blocks join (the key family says otherwise)"
    )
    return {**raw, "family": family}, (note,)


def _from_mapping(raw: Mapping[str, Any], where: str) -> ModelSpec:
    notes = _check_keys(raw, where)
    backbone = read_rows(raw["backbone"], 0, f"{where}: backbone")
    head = read_rows(raw["head"], len(backbone), f"{where}: head")
    depth, width = (
        read_factor(raw.get(key, 1.0), f"{where}: {key}") for key in ("depth_multiple", "width_multiple")
    )
    channels = read_whole(raw.get("ch", 3), 1, MAX_CLASSES, f"{where}: ch (image channels)")
    strides = _strides(plan_layers(backbone + head, (depth, width), where, channels), where)
    anchors, mended = _mend_anchors(raw["anchors"], strides, where)
    options = read_options(raw, where)
    activation = read_activation(raw.get("activation"), where)
    if {activation} == {options.about.backbone, options.about.head, options.about.joint}:
        activation = None
    return ModelSpec(
        name=str(raw.get("name", "model")),
        classes=read_whole(raw["nc"], 1, MAX_CLASSES, f"{where}: nc (classes)"),
        depth=depth,
        width=width,
        anchors=anchors,
        backbone=backbone,
        head=head,
        channels=channels,
        activation=activation,
        options=options,
        notes=notes + mended,
    )


def _strides(layers: tuple[Layer, ...], where: str) -> tuple[int, ...]:
    strides = [layers[source].stride for source in layers[-1].sources]
    if any(stride.denominator != 1 for stride in strides):
        raise ModelError(
            f"{where}: strides of Detect must be whole px, but got {', '.join(map(str, strides))}"
        )
    return tuple(int(stride) for stride in strides)


def _mend_anchors(raw: Any, strides: tuple[int, ...], where: str) -> tuple[Anchors, tuple[str, ...]]:
    if isinstance(raw, str):
        return _borrow_anchors(raw, strides, where)
    if isinstance(raw, int):  # YOLOv5 takes a bare count for "fit them to the data"
        count = read_whole(raw, 1, MAX_ANCHORS, f"{where}: anchors per level")
        note = f"{where}: anchors are only counted ({count} a level): squares stand in until they are fitted"
        return placeholder_anchors(count, strides), (note,)
    anchors, turned = order_anchors(read_anchors(raw, len(strides), where), strides)
    note = (
        f"{where}: anchors ran against strides {', '.join(map(str, strides))}: their levels were turned round"
    )
    return anchors, (note,) * turned


def _borrow_anchors(lender: str, strides: tuple[int, ...], where: str) -> tuple[Anchors, tuple[str, ...]]:
    """The anchors of another model, named by zoo name or path."""
    if isinstance(_read(lender)[1].get("anchors"), str):
        raise ModelError(f"{where}: anchors must be those of {lender}, but that model has none of its own")
    spec = load_spec(lender)
    lent = spread_anchors(spec.anchors, len(strides), f"{where}: anchors of {lender}")
    note = f"{where}: the anchors are those of {spec.name}, which is meant for {spec.image_size} px"
    return order_anchors(lent, strides)[0], (note,)


def _check_keys(raw: Mapping[str, Any], where: str) -> tuple[str, ...]:
    notes = []
    for key in map(str, raw.keys() - set(KEYS)):
        hint = nearest(key, KEYS)
        if hint.startswith("did"):
            raise ModelError(f"{where}: unknown key {key!r}; {hint}")
        notes.append(f"{where}: key {key!r} is not used")
    for key in ("nc", "anchors", "backbone", "head"):
        if raw.get(key) is None:
            raise ModelError(
                f"{where}: key {key!r} must be given, but the file has {', '.join(map(str, raw))}"
            )
    return tuple(sorted(notes))
