"""What the placeholders of a command come to, and the hyperparameters that it is handed."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from evolve.aside import write_aside
from evolve.command_spec import CommandSpec, Scalar
from evolve.command_words import fields_of, fill_all
from evolve.gene import Value


def placeholder_values(
    spec: CommandSpec,
    settings: Mapping[str, Any],
    config: Mapping[str, Value],
    environment: Mapping[str, str],
) -> dict[str, object]:
    """Values of the placeholders that hold for a run; those of a trial's files are its own.

    Args:
        spec: The trainer.
        settings: Of the run.
        config: A trial's genes.
        environment: Says by CUDA_VISIBLE_DEVICES which GPUs the trial was given.
    """
    handed = spec.handover.values({})
    known = {
        gene.name: handed.get(spec.handover.names.get(gene.name, gene.name), gene.first)
        for gene in spec.genes
    }
    return {
        **{f"gene:{name}": value for name, value in {**known, **config}.items()},
        **devices(str(settings.get("device", "auto")), float(settings.get("gpus") or 0), environment),
        "epochs": settings["epochs"],
        "seed": settings["seed"],
        "data": settings.get("data") or "",
        "model": settings.get("model") or "",
        "batch": settings["batch_size"],
        "image_size": settings.get("image_size") or "",
        "cwd": settings.get("cwd") or ".",
        "spec": Path(spec.source).parent,
    }


def devices(wanted: str, gpus: float, environment: Mapping[str, str]) -> dict[str, str]:
    """The placeholders of the device.

    Ray has set CUDA_VISIBLE_DEVICES for the worker. Programs that set it again from their own option (YOLOv5,
    Ultralytics) must be given these very ids, or all trials run on GPU 0.

    >>> devices("auto", 1, {"CUDA_VISIBLE_DEVICES": "3"})
    {'device': '3', 'device_index': '0', 'cpu': ''}
    """
    visible = environment.get("CUDA_VISIBLE_DEVICES", "")
    if wanted == "cpu" or (wanted == "auto" and not (gpus and visible)):
        return {"device": "cpu", "device_index": "cpu", "cpu": "cpu"}
    ids = visible or wanted.partition(":")[2] or "0"
    return {"device": ids, "device_index": ",".join(map(str, range(len(ids.split(","))))), "cpu": ""}


def command_words(
    spec: CommandSpec,
    values: Mapping[str, object],
    config: Mapping[str, Value],
    *,
    resume: bool = False,
) -> list[str]:
    """The words of a trial's command.

    Args:
        spec: The trainer.
        values: Of all placeholders.
        config: The trial's genes.
        resume: Those that go on from the last checkpoint.
    """
    if resume:
        return fill_all(spec.resume, values)
    words = fill_all(spec.command, values)
    named = {name.removeprefix("gene:") for word in spec.command for name in fields_of(word)}
    keys = {spec.handover.names.get(name, name) for name in named}
    for key, value in hyperparameters(spec, config).items():
        if key in keys or value is None:
            continue  # it stands in the command by its name, or means the program's own default
        # Plain replacement: a value is no template, whatever stands in it.
        words += [w.replace("{name}", key).replace("{value}", str(value)) for w in spec.handover.arguments]
    return words


def hyperparameters(spec: CommandSpec, config: Mapping[str, Value]) -> dict[str, Scalar]:
    """All that the command is handed, under its own keys: fixed values, starts of genes not evolved, the genes."""
    starts = {gene.name: gene.first for gene in spec.genes if gene.start is not None}
    return spec.handover.values({**starts, **config})


def write_hyp(folder: Path, spec: CommandSpec, config: Mapping[str, Value]) -> None:
    """Write the file of hyperparameters, where the command takes one."""
    if spec.handover.file is not None:
        text = yaml.safe_dump(hyperparameters(spec, config), sort_keys=False, allow_unicode=True)
        write_aside(folder / spec.handover.file, text)


def at_length(
    spec: CommandSpec, config: dict[str, Value], trial: int, production: int
) -> tuple[dict[str, Value], list[str]]:
    """A configuration for a longer training: genes counted in epochs keep their share of it.

    Args:
        spec: Says by `per_length` which genes those are.
        config: Of the trial.
        trial: Its epochs.
        production: Epochs of the production training.

    Returns:
        The configuration, and a line for each gene that changed.
    """
    changed: dict[str, Value] = dict(config)
    notes: list[str] = []
    for name in spec.per_length:
        if name in config and production != trial:
            value = float(config[name]) * production / trial
            integer = next(gene.integer for gene in spec.genes if gene.name == name)
            changed[name] = round(value) if integer else float(f"{value:.5g}")
            before, after = float(config[name]), float(changed[name])
            notes.append(
                f"{name}: {before:g} of {trial} epochs became {after:g} of {production}, the same share"
            )
    return changed, notes
