"""An evolution whose trainer is a command: its options, its journal's header, and what production gets of it."""

import hashlib
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from beagle.folders import CommandError, absolute_source, check_new_folder
from beagle.genes import load_yaml_map
from beagle.production import git_commit, versions
from beagle.run_header import begin_run, fidelity_header
from beagle.searching import search_header
from beagle.verification import VERIFY
from beagle.verify_run import command_expectation
from evolve.command_file import load_genes, load_trainer
from evolve.command_spec import CommandSpec
from evolve.command_trainable import TRAINER
from evolve.command_values import at_length, command_words, hyperparameters, placeholder_values
from evolve.command_words import fill
from evolve.confirm import Plan
from evolve.export import HERE, HYP, ExportFiles
from evolve.journal import RunState, TrialState
from evolve.ladder import Ladder
from evolve.space import Gene, Space, unknown_name

if TYPE_CHECKING:
    from evolve.resources import Resources

PRODUCTION_OUT = "training"


@dataclass(frozen=True, kw_only=True)
class CommandOptions:
    """One evolution of a command, as the command line gives it; None takes what the trainer's file says.

    Attributes:
        trainer: A ready-made trainer, or a YAML file.
        data: What `{data}` stands for.
        model: What `{model}` stands for.
        trials: How many trials to run.
        ladder: Epochs of each trial, and where hopeless ones are stopped.
        confirm: What is trained again at the end; None for nothing.
        patience: Trials without a better configuration after which the search ends; None for all of the trials.
        epoch_budget: Epochs of all trials after which the search ends; None for as many as they take.
        batch_size: What `{batch}` stands for.
        image_size: px.
        hyp: YAML file of values under the command's own keys.
        genes: Names to evolve; empty for all of the trainer's file.
        space: YAML file of genes and bounds instead.
        device: "auto", "cpu", "cuda" or "cuda:N".
        seed: Of the search and of each training.
        search: "genetic", or a sampler of Optuna.
        warm_start: Earlier results to begin with; see `beagle.searching`.
    """

    trainer: str
    data: str | None = None
    model: str | None = None
    trials: int = 300
    ladder: Ladder | None = None
    confirm: Plan | None = None
    patience: int | None = None
    epoch_budget: int | None = None
    batch_size: int | None = None
    image_size: int | None = None
    hyp: Path | None = None
    genes: tuple[str, ...] = ()
    space: Path | None = None
    device: str = "auto"
    seed: int = 0
    search: str = "genetic"
    warm_start: str | None = None

    def __post_init__(self) -> None:
        for name, low in (("trials", 1), ("batch_size", 1), ("image_size", 1), ("seed", 0)):
            value = getattr(self, name)
            if value is not None and value < low:
                raise CommandError(f"{name} >= {low} must hold, but got {value}")
        if not (self.device in ("auto", "cpu", "cuda") or self.device.removeprefix("cuda:").isdecimal()):
            raise CommandError(f'device must be "auto", "cpu", "cuda" or "cuda:N", but got {self.device!r}')


def start_command_run(
    folder: Path,
    options: CommandOptions,
    resources: "Resources",
    note: Callable[[str], None],
    check: Callable[[], object] | None = None,
) -> dict[str, Any]:
    """Make a run folder whose journal holds the header: all that a driver needs.

    Args:
        folder: Must not exist.
        options: The evolution.
        resources: What each trial gets.
        note: Told what was decided on the way.
        check: Called when all else is well, before anything is written; what it raises refuses the run.

    Returns:
        The settings of all trials.

    Raises:
        CommandError: The folder exists, DATA is missing, or the program is not there.
        EvolveError: Whatever the trainer's file gets wrong; nothing is written then.
    """
    check_new_folder(folder)
    spec = chosen_trainer(options, note)
    space = Space(spec.genes)
    settings = _settings(spec, options)
    _check_words(spec, settings, local=resources.address is None)
    used = spec.fields()
    if options.data and "data" not in used:
        note(f"{spec.name}: the command has no {{data}}, so {options.data} is not handed to it")
    if not resources.gpus and options.device == "auto" and used & {"device", "device_index", "cpu"}:
        note("trials are given no GPU (--gpus), so the command is told to use the CPU")
    facts = {
        "trials": options.trials,
        "seed": options.seed,
        "space": space.to_dict(),
        "search": search_header(
            options.search,
            options.warm_start,
            space,
            None,
            note,
            racing=options.ladder is None or not options.ladder.judged,
        ),
        "settings": settings,
        "resources": resources.to_dict(),
        **fidelity_header(options.ladder, options.confirm, options.patience, options.epoch_budget),
        "provenance": {
            "versions": versions("beagle-evolve", "ray", "mlflow"),
            "git_commit": git_commit(),
            "trainer_hash": _hash(spec.source),
            "data_hash": _hash(settings["data"]),
        },
    }
    begin_run(folder, facts, check)
    return settings


def chosen_trainer(options: CommandOptions, note: Callable[[str], None]) -> CommandSpec:
    """The trainer as a user's options change it: values, genes and bounds."""
    spec = load_trainer(options.trainer)
    if options.hyp is not None:
        spec = _with_values(spec, load_yaml_map(options.hyp, "hyperparameters"), options.hyp, note)
    genes = spec.genes
    if options.space is not None:
        genes = load_genes(options.space, spec)
    elif options.genes:
        known = {gene.name: gene for gene in spec.genes}
        for name in options.genes:
            if name not in known:
                raise CommandError(unknown_name("gene", name, known))
        genes = tuple(known[name] for name in options.genes)
    left = {spec.handover.names.get(g.name, g.name): g.first for g in spec.genes if g.start is not None}
    fixed = {**left, **spec.handover.fixed}
    return replace(
        spec,
        genes=genes,
        handover=replace(spec.handover, fixed=fixed),
        per_length=tuple(name for name in spec.per_length if name in {gene.name for gene in genes}),
    )


def _with_values(
    spec: CommandSpec, values: dict[str, Any], path: Path, note: Callable[[str], None]
) -> CommandSpec:
    keys = {spec.handover.names.get(gene.name, gene.name): gene.name for gene in spec.genes}
    starts: dict[str, float] = {}
    for key, value in values.items():
        if key not in keys and key not in spec.handover.fixed:
            note(f"{path}: {key} is no hyperparameter that {spec.name} names; it is handed on as it is")
        if key in keys:
            try:
                starts[keys[key]] = float(value)
            except (TypeError, ValueError):
                raise CommandError(f"{path}: {key} must be a number, but got {value!r}") from None
    genes = tuple(
        Gene.from_dict({**gene.to_dict(), "start": starts[gene.name]}) if gene.name in starts else gene
        for gene in spec.genes
    )
    return replace(
        spec, genes=genes, handover=replace(spec.handover, fixed={**spec.handover.fixed, **values})
    )


def _settings(spec: CommandSpec, options: CommandOptions) -> dict[str, Any]:
    data = absolute_source(options.data) if options.data else None
    if data is None and "data" in spec.fields():
        raise CommandError(f"{spec.name}: DATA must be given, since its command names {{data}}")
    usual = spec.defaults
    return {
        "data": data,
        "model": options.model or usual.get("model"),
        "epochs": options.ladder.full if options.ladder else usual.get("epochs", 10),
        "batch_size": options.batch_size or usual.get("batch", 16),
        "image_size": options.image_size or usual.get("image_size", 640),
        "seed": options.seed,
        "device": options.device,
        "cwd": str(Path.cwd()),
        TRAINER: spec.to_dict(),
    }


def _check_words(spec: CommandSpec, settings: dict[str, Any], *, local: bool) -> None:
    """Refuse now what would fail in every trial."""
    import sys

    known = {name: name for name in ("hyp", "cpus", "out", "folder", "trial", "checkpoint")} | {
        "python": sys.executable
    }
    values = {**placeholder_values(spec, settings, Space(spec.genes).start, {}), **known}
    program = command_words(spec, values, {})[0]
    directory = Path(fill(spec.working_directory, values))
    if not local:
        return
    if not directory.is_dir():
        raise CommandError(f"{spec.source}: working_directory: {directory} is not there")
    if shutil.which(program, path=None) is None and not (directory / program).is_file():
        raise CommandError(
            f"{spec.source}: command: there is no program {program!r} (is it installed, and in PATH?)"
        )
    script = next((word for word in spec.command[1:2] if word.endswith(".py") and "{" not in word), None)
    if script is not None and not (directory / script).is_file():
        raise CommandError(
            f"{spec.source}: command: there is no {script} in {directory} (start there, or set working_directory)"
        )


def _hash(path: str | None) -> str | None:
    if path is None or not Path(path).is_file():
        return None
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def command_files(
    state: RunState, best: TrialState, *, epochs: int | None = None, batch_size: int | None = None
) -> ExportFiles:
    """What an export holds of a command: its hyperparameters in its own keys, and itself at production length.

    Args:
        state: The run.
        best: Its winner.
        epochs: Of production; None for what the trainer's file says.
        batch_size: Of production; None for the trial's. Its rate is left alone: what a batch does to it is the
            command's own affair.
    """
    settings = state.header["settings"]
    spec = CommandSpec.from_dict(settings[TRAINER])
    length = epochs or max(spec.production_epochs, int(settings["epochs"]))
    config, notes = at_length(spec, best.config, int(settings["epochs"]), length)
    trial_batch = int(best.result.get("batch", settings["batch_size"]))
    batch = batch_size or trial_batch
    if batch != trial_batch:
        notes.append(f"The batch is {batch}, in the trial it was {trial_batch}; no rate was rescaled for it.")
    values = placeholder_values(spec, {**settings, "epochs": length, "batch_size": batch}, config, {})
    values |= {
        **{"device": "0", "device_index": "0", "cpu": ""},
        **{
            "hyp": f"{HERE}/{HYP}",
            "out": f"{HERE}/{PRODUCTION_OUT}",
            "folder": HERE,
            "cpus": 8,
            "trial": best.id,
        },
        "python": "python",
    }
    hyp = hyperparameters(spec, config)
    return ExportFiles(
        command=command_words(spec, values, config),
        hyp=hyp,
        texts={VERIFY: command_expectation(state, best, hyp, settings)},
        directory=fill(spec.working_directory, values),
        environment={key: fill(word, values) for key, word in spec.environment.items()},
        notes=notes,
        facts={"format": "command"},
    )
