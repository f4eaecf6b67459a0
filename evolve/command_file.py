"""Reading a trainer's file: every mistake in it is one line with the file and the key.

`load_trainer("yolov5" | "ultralytics" | "command.yaml")` gives a frozen `CommandSpec`.
"""

import math
import re
from pathlib import Path
from typing import Any

import yaml

from evolve.command_section import Section
from evolve.command_spec import CommandSpec, Handover, Limits, Results, SpecError
from evolve.command_words import fields_of
from evolve.space import Gene, Space, SpaceError, unknown_name

READY_MADE = Path(__file__).with_name("trainers")
FORMATS = ("csv", "json", "jsonl", "regex", "mlflow")


def ready_made() -> list[str]:
    """Names of the trainers that Beagle knows."""
    return sorted(path.stem for path in READY_MADE.glob("*.yaml"))


def load_trainer(name_or_path: str) -> CommandSpec:
    """Read a trainer's file, or a ready-made one by its name.

    Raises:
        SpecError: There is no such file, or something in it can't be: file, key and what must hold.
    """
    path = Path(name_or_path).expanduser()
    if name_or_path in ready_made():
        path = READY_MADE / f"{name_or_path}.yaml"
    elif path.suffix not in (".yaml", ".yml"):
        known = unknown_name("trainer", name_or_path, ready_made())
        raise SpecError(f"{known}; or give a file command.yaml")
    return _build(Section(_read(path), str(path), ""), path.resolve())


def _read(path: Path) -> Any:
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SpecError(f"{path}: the file can't be read ({error.strerror})") from error
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise SpecError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from error


TOP = (
    *("name", "command", "working_directory", "environment", "hyperparameters", "genes", "results"),
    *("checkpoint", "artifacts", "limits", "defaults", "production"),
)


def _build(top: Section, path: Path) -> CommandSpec:
    top.only(*TOP)
    top.need("command")
    checkpoint, production, defaults = (top.section(key) for key in ("checkpoint", "production", "defaults"))
    checkpoint.only("last", "best", "resume")
    production.only("epochs", "per_length")
    defaults.only("model", "epochs", "batch", "image_size")
    handover = _handover(top.section("hyperparameters"))
    genes = _genes(top.section("genes"), handover)
    environment = top.section("environment")
    spec = CommandSpec(
        name=top.text("name", path.stem),
        source=str(path),
        command=top.words("command"),
        resume=checkpoint.words("resume"),
        checkpoint=checkpoint.text("last", template=True),
        best=checkpoint.text("best", template=True),
        artifacts=top.words("artifacts"),
        working_directory=_folder(top, path),
        environment={key: environment.text(key, template=True) for key in environment.values},
        handover=handover,
        results=_results(top.section("results")),
        limits=_limits(top.section("limits")),
        genes=genes,
        defaults=_defaults(defaults),
        production_epochs=production.whole("epochs", 300, 1),
        per_length=_known_genes(production, genes),
    )
    _check_words(top, spec)
    return spec


def load_genes(path: Path, spec: CommandSpec) -> tuple[Gene, ...]:
    """Genes and bounds of a user's file in place of a trainer's: `name: [low, high]` or a map.

    Args:
        path: YAML file.
        spec: Gives what a row leaves out, and the names that can be.

    Raises:
        SpecError: A gene that the trainer does not know, or bounds that can't be.
    """
    section = Section(_read(path), str(path), "")
    usual = {gene.name: gene.to_dict() for gene in spec.genes}
    section.only(*usual, *(key for key in spec.handover.fixed if key not in usual))
    for name, row in section.values.items():
        given = {"low": row[0], "high": row[1]} if isinstance(row, list) and len(row) == 2 else row
        if isinstance(given, dict):
            known = {key: value for key, value in usual.get(name, {}).items() if key != "name"}
            section.values[name] = {**known, **given}
    return _genes(section, spec.handover)


def _defaults(section: Section) -> dict[str, Any]:
    known: dict[str, Any] = {"model": section.text("model")} if "model" in section.values else {}
    for key in ("epochs", "batch", "image_size"):
        if key in section.values:
            known[key] = section.whole(key, 1, 1)
    return known


def _folder(top: Section, path: Path) -> str:
    """The working directory; one that is relative lies below the file."""
    text = top.text("working_directory", "{cwd}", template=True)
    return text if text.startswith("{") else str((path.parent / Path(text).expanduser()).resolve())


def _known_genes(production: Section, genes: tuple[Gene, ...]) -> tuple[str, ...]:
    names = production.words("per_length", template=False)
    for name in names:
        if name not in {gene.name for gene in genes}:
            raise production.error("per_length", unknown_name("gene", name, [gene.name for gene in genes]))
    return names


def _handover(section: Section) -> Handover:
    section.only("file", "arguments", "names", "fixed")
    file = section.values.get("file", None if section.values.get("arguments") else "hyp.yaml")
    if file is not None and (not isinstance(file, str) or Path(file).name != file):
        raise section.error("file", f"must be a plain file name, but got {file!r:.60}")
    arguments = section.words("arguments", template=False)
    for word in arguments:
        if "{name}" not in word and "{value}" not in word:
            raise section.error("arguments", f"each word must hold {{name}} or {{value}}, but got {word!r}")
    names, fixed = section.section("names"), section.section("fixed")
    for key, value in fixed.values.items():
        if not isinstance(value, int | float | str | bool | None):
            raise fixed.error(key, f"must be one value, but got {value!r:.60}")
    return Handover(file, arguments, {key: names.text(key) for key in names.values}, fixed.values)


def _genes(section: Section, handover: Handover) -> tuple[Gene, ...]:
    genes = []
    for name, row in section.values.items():
        gene = section.section(name) if isinstance(row, dict) else _pair(section, name, row)
        gene.only("low", "high", "start", "log", "integer")
        start = handover.fixed.get(handover.names.get(name, name))
        if "start" not in gene.values and isinstance(start, int | float) and not isinstance(start, bool):
            gene.values["start"] = start
        numbers = {key: gene.number(key, None, -math.inf) for key in ("low", "high", "start")}
        for key in ("low", "high"):
            if numbers[key] is None:
                raise gene.error(key, "must be given")
        flags = {key: gene.values.get(key, False) for key in ("log", "integer")}
        for key, flag in flags.items():
            if not isinstance(flag, bool):
                raise gene.error(key, f"must be true or false, but got {flag!r}")
        try:
            genes.append(Gene.from_dict({"name": name, **numbers, **flags}))
        except SpaceError as error:
            raise section.error("", str(error)) from None
    if not genes:
        raise section.error("", "must name a gene at least: NAME: [low, high]")
    Space(genes)
    return tuple(genes)


def _pair(section: Section, name: str, row: Any) -> Section:
    if not isinstance(row, list) or len(row) != 2:
        raise section.error(name, f"must be [low, high] or a map, but got {row!r:.60}")
    return Section({"low": row[0], "high": row[1]}, section.file, f"{section.key}.{name}")


def _results(section: Section) -> Results:
    section.only("format", "file", "fitness", "metrics", "epoch", "rows", "pattern")
    kind = section.need("format")
    if kind not in FORMATS:
        raise section.error("format", f"must be one of {', '.join(FORMATS)}, but got {kind!r:.60}")
    if kind not in ("regex", "mlflow"):
        section.need("file")
    wanted, metrics, epoch = section.need("fitness"), section.section("metrics"), section.values.get("epoch")
    if isinstance(wanted, str):
        weights = {wanted: 1.0}
    else:
        named = section.section("fitness")
        weights = {column: named.number(column, None, -math.inf) or 0.0 for column in named.values}
    first = 0
    if isinstance(epoch, dict):
        row = section.section("epoch")
        row.only("column", "first")
        epoch, first = row.need("column"), row.whole("first", 0, 0)
    if epoch is not None and not isinstance(epoch, str):
        raise section.error("epoch", f"must be a column, but got {epoch!r:.60}")
    pattern = section.text("pattern")
    if kind == "regex":
        _check_pattern(section, pattern, {*weights, *([epoch] if epoch else [])})
    return Results(
        format=kind,
        file=section.text("file", template=True),
        fitness=weights,
        metrics={name: metrics.text(name) for name in metrics.values},
        epoch=epoch,
        first=first,
        rows=section.text("rows"),
        pattern=pattern,
    )


def _check_pattern(section: Section, pattern: str, columns: set[str]) -> None:
    section.need("pattern")
    try:
        groups = re.compile(pattern).groupindex
    except re.error as error:
        raise section.error("pattern", f"must be a regular expression, but {error}") from None
    for column in sorted(columns):
        if column not in groups:
            raise section.error(
                "pattern", f"must have a group (?P<{column}>...), but has {', '.join(groups) or 'none'}"
            )


def _limits(section: Section) -> Limits:
    section.only("silent_s", "total_s", "stop_s", "halvings")
    usual = Limits()
    return Limits(
        silent_s=section.number("silent_s", usual.silent_s, 0.1),
        total_s=section.number("total_s", usual.total_s, 0.1),
        stop_s=section.number("stop_s", usual.stop_s, 0) or 0.0,
        halvings=section.whole("halvings", usual.halvings, 0),
    )


def _check_words(top: Section, spec: CommandSpec) -> None:
    """What holds between the keys."""
    names = {gene.name for gene in spec.genes}
    _check_gene_names(top, spec, names)
    used = spec.fields()
    if spec.handover.arguments == () and "hyp" not in used and not any(n.startswith("gene:") for n in used):
        raise top.error(
            "command", "must be handed the genes: by {hyp}, by {gene:NAME} or by hyperparameters.arguments"
        )
    if "hyp" in used and spec.handover.file is None:
        raise top.error("hyperparameters.file", "must be given, since the command names {hyp}")
    if any("checkpoint" in fields_of(word) for word in spec.command):
        raise top.error("command", "must not name {checkpoint}: that is for checkpoint.resume")
    if spec.resume and not spec.checkpoint:
        raise top.error("checkpoint.last", "must be given, since there is a resume")
    _check_places(top, spec)


def _check_gene_names(top: Section, spec: CommandSpec, names: set[str]) -> None:
    for key, words in (("command", spec.command), ("checkpoint.resume", spec.resume)):
        for name in sorted(set().union(*(fields_of(word) for word in words))):
            if name.startswith("gene:") and name[5:] not in names:
                raise top.error(key, unknown_name("gene", name[5:], sorted(names)))
    for name in spec.handover.names:
        if name not in names:
            raise top.error("hyperparameters.names", unknown_name("gene", name, sorted(names)))


def _check_places(top: Section, spec: CommandSpec) -> None:
    """Trials run side by side: what one writes must be its own."""
    places = {
        "results.file": spec.results.file,
        "checkpoint.last": spec.checkpoint,
        "checkpoint.best": spec.best,
    }
    for key, place in places.items():
        if place and spec.results.format != "mlflow" and not fields_of(place) & {"out", "folder", "trial"}:
            raise top.error(
                key, f"must lie in {{out}} or {{folder}}, since trials run side by side, but got {place!r}"
            )
