"""YAML in, frozen `ModelSpec` out: no torch, no eval.

The files are YOLOv5's: `nc`, `depth_multiple`, `width_multiple`, `anchors`, `backbone` and `head` of rows
`[from, number, module, args]`, so that users' own load as they are.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from reprlib import repr as shorten
from typing import Any

import yaml
from numpy.typing import ArrayLike

from model.errors import ModelError, nearest
from model.families import FAMILIES, Activation, guess_family
from model.model_spec import MAX_CLASSES, ModelSpec, detection_strides, round_image_size, spec_to_yaml
from model.notation import (
    Anchors,
    order_anchors,
    placeholder_anchors,
    read_activation,
    read_anchors,
    read_factor,
    read_rows,
    read_whole,
    spread_anchors,
)
from model.options import OPTION_KEYS, Options, read_options, split_options
from model.rows import CHANNEL_MULTIPLE, Row, plan_layers
from model.zoo import zoo_names, zoo_text

__all__ = [
    "Activation",
    "ModelError",
    "ModelSpec",
    "Options",
    "Row",
    "load_spec",
    "round_image_size",
    "spec_to_yaml",
    "zoo_names",
]

MAX_ANCHORS = 1_000
KEYS = (
    *("nc", "depth_multiple", "width_multiple", "anchors", "backbone", "head", "activation", "ch", "name"),
    "channel_multiple",
    *OPTION_KEYS,
)


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
    strides = detection_strides(plan_layers(backbone + head, (depth, width), where, channels), where)
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
    if raw.get("channel_multiple") not in (None, CHANNEL_MULTIPLE):
        raise ModelError(
            f"{where}: channel_multiple must be {CHANNEL_MULTIPLE}, to which all published models round their "
            f"channels, but got {raw['channel_multiple']!r:.80}"
        )
    for key in ("nc", "anchors", "backbone", "head"):
        if raw.get(key) is None:
            raise ModelError(
                f"{where}: key {key!r} must be given, but the file has {', '.join(map(str, raw))}"
            )
    return tuple(sorted(notes))
