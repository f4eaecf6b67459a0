"""Which hyperparameters are evolved, in which ranges, and how a user says otherwise."""

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import yaml

from beagle.folders import CommandError
from beagle.setting_genes import SETTING_GENES, setting_gene
from evolve import Gene, Space
from trainer.config import RANGES, Hyperparameters, check_names

GENES: Mapping[str, tuple[float, float, bool, bool]] = {
    # name: (low, high, log, integer); the ranges in which people evolve YOLO detectors
    "lr0": (1e-5, 0.1, True, False),
    "lrf": (0.01, 1.0, True, False),
    "momentum": (0.6, 0.98, False, False),
    "weight_decay": (0.0, 0.001, False, False),
    "warmup_epochs": (0.0, 5.0, False, False),
    "warmup_momentum": (0.0, 0.95, False, False),
    "warmup_bias_lr": (0.0, 0.2, False, False),
    "box": (0.02, 0.2, True, False),
    "cls": (0.2, 4.0, True, False),
    "cls_pw": (0.5, 2.0, True, False),
    "obj": (0.2, 4.0, True, False),
    "obj_pw": (0.5, 2.0, True, False),
    "anchor_t": (2.0, 8.0, True, False),
    "hsv_h": (0.0, 0.1, False, False),
    "hsv_s": (0.0, 0.9, False, False),
    "hsv_v": (0.0, 0.9, False, False),
    "degrees": (0.0, 45.0, False, False),
    "translate": (0.0, 0.9, False, False),
    "scale": (0.0, 0.9, False, False),
    "shear": (0.0, 10.0, False, False),
    "flipud": (0.0, 1.0, False, False),
    "mosaic": (0.0, 1.0, False, False),
    "mixup": (0.0, 1.0, False, False),
}
"""Genes that are evolved unless the user names others."""

OPTIONAL_GENES: Mapping[str, tuple[float, float, bool, bool]] = {
    "anchors": (2, 10, False, True),
    "fl_gamma": (0.0, 2.0, False, False),
    "label_smoothing": (0.0, 0.2, False, False),
    "perspective": (0.0, 0.001, False, False),
    "fliplr": (0.0, 1.0, False, False),
    "cutmix": (0.0, 1.0, False, False),
    "copy_paste": (0.0, 1.0, False, False),
    "erasing": (0.0, 1.0, False, False),
    "cutout": (0.0, 1.0, False, False),
    "hide_and_seek": (0.0, 1.0, False, False),
    "gridmask": (0.0, 1.0, False, False),
    "sat": (0.0, 1.0, False, False),
    "sat_eps": (0.0, 0.05, False, False),
    "iou_t": (0.1, 0.7, False, False),
}
"""Genes that are evolved when the user names them; so are those of `beagle.setting_genes`."""

ANCHORS_PER_LEVEL = 3


def load_hyp(path: Path | None) -> Hyperparameters:
    """Hyperparameters of a YAML file, those it does not name at their defaults; all defaults without a file.

    Raises:
        CommandError: The file can't be read or is no map of names to numbers.
        TrainError: A name is unknown or a value out of range.
    """
    if path is None:
        return Hyperparameters()
    return Hyperparameters.from_dict(load_yaml_map(path, "hyperparameters"))


def load_yaml_map(path: Path, what: str) -> dict[str, Any]:
    """A YAML file that holds a map.

    Raises:
        CommandError: There is no such file, or it holds something else.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise CommandError(f"{path}: {what} can't be read ({error.strerror})") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise CommandError(f"{path}: {what} must be YAML, but {' '.join(str(error).split())}") from error
    if not isinstance(content, dict):
        raise CommandError(f"{path}: {what} must be a map of names, but got {type(content).__name__}")
    return {str(key): value for key, value in content.items()}


def build_space(
    genes: tuple[str, ...],
    space: Path | None,
    hyp: Hyperparameters,
    training: Mapping[str, Any] = MappingProxyType({}),
) -> Space:
    """The genes to evolve, each starting at its value in `hyp`.

    Args:
        genes: Names; empty for all of `GENES`.
        space: YAML file of `name: [low, high]`, `name: {low, high, log, integer, start, when}` or
            `name: {choices: [...], start, when}`; overrides `genes`. `when: {other: value or [values]}` names a gene
            above: elsewhere this one rests at its start.
        hyp: The starting configuration.
        training: Settings of the training, where genes of settings start.

    Raises:
        CommandError: A gene that no training reads, or bounds beyond what the trainer accepts.
        TrainError: An unknown gene; the nearest known one is named.
        SpaceError: Bounds that are no interval, or a start outside them.
    """
    start = hyp.to_dict()
    # Of hyperparameters 0 keeps the model's number, but a gene needs a number to breed from.
    start["anchors"] = start["anchors"] or ANCHORS_PER_LEVEL
    known = {**GENES, **OPTIONAL_GENES}
    if space is not None:
        rows = load_yaml_map(space, "the search space")
        check_names(rows, (*RANGES, *SETTING_GENES), f"gene in {space}:")
        chosen = [
            setting_gene(name, row, training, str(space))
            if name in SETTING_GENES
            else _gene_from_row(name, row, start[name], space)
            for name, row in rows.items()
        ]
    else:
        check_names(genes, (*known, *SETTING_GENES), "gene")
        chosen = []
        for name in genes or GENES:
            if name in SETTING_GENES:
                chosen.append(setting_gene(name, None, training, "--genes"))
                continue
            low, high, log, integer = known[name]
            chosen.append(Gene(name, low, high, start=start[name], log=log, integer=integer))
    for gene in chosen:
        if gene.name in SETTING_GENES:
            continue
        low, high = RANGES[gene.name]
        least, most = _extremes(gene)
        if least < low or most > high:
            raise CommandError(
                f"gene {gene.name}: bounds must lie in [{low:g}, {high:g}], but got [{least:g}, {most:g}]"
            )
    return Space(chosen)


def _extremes(gene: Gene) -> tuple[float, float]:
    """Least and greatest value of a gene; a hyperparameter is a number even where it is one of a few."""
    if not gene.choices:
        return gene.low, gene.high
    if not all(isinstance(choice, int | float) for choice in gene.choices):
        raise CommandError(f"gene {gene.name}: choices must be numbers, but got {list(gene.choices)}")
    numbers = [float(choice) for choice in gene.choices]
    return min(numbers), max(numbers)


def _gene_from_row(name: str, row: Any, start: float, path: Path) -> Gene:
    default = GENES.get(name) or OPTIONAL_GENES.get(name) or (*RANGES[name], False, False)
    values: dict[str, Any] = {"log": default[2], "integer": default[3], "start": start}
    if isinstance(row, list) and len(row) == 2:
        values |= {"low": row[0], "high": row[1]}
    elif isinstance(row, dict):
        keys = ("low", "high", "start", "log", "integer", "choices", "when")
        check_names(map(str, row), keys, f"key of gene {name} in {path}:")
        if "choices" in row:
            # The default is the start where it is a choice.
            own = {"start": start} if start in (row["choices"] or ()) else {}
            return Gene.from_dict({"name": name, **own, **row})
        values |= {"low": default[0], "high": default[1], **row}
    else:
        raise CommandError(f"{path}: gene {name} must be [low, high] or a map, but got {row!r}")
    for key in ("low", "high", "start"):
        try:
            values[key] = float(values[key])
        except (TypeError, ValueError):
            raise CommandError(
                f"{path}: gene {name}: {key} must be a number, but got {values[key]!r}"
            ) from None
    if values["low"] <= 0:
        values["log"] = bool(isinstance(row, dict) and row.get("log"))
    return Gene.from_dict({"name": name, **values})
