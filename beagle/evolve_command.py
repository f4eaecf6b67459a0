"""`beagle evolve`: a genetic search over full trainings."""

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from beagle import console
from beagle.fidelity_flags import (
    Confirm,
    ConfirmEpochs,
    ConfirmSeeds,
    EpochBudget,
    Epochs,
    Grace,
    Patience,
    Reduction,
    chosen_ladder,
    chosen_plan,
)
from beagle.flags import (
    Cache,
    Difficult,
    EmaShare,
    Json,
    MultiScale,
    Pipeline,
    PreciseBn,
    Rect,
    Schedule,
    Silence,
    Workers,
)
from beagle.model_flags import (
    Activation,
    AnchorsFrom,
    Assign,
    Attention,
    BoxLoss,
    Dropblock,
    Loss,
    changed_model,
)
from beagle.resume_command import finish, resume

if TYPE_CHECKING:
    from evolve.confirm import Plan
    from evolve.resources import Resources


def evolve(
    context: typer.Context,
    data: Annotated[
        str | None, typer.Argument(help="data.yaml, instances.json, a folder, or digits.", show_default=False)
    ] = None,
    trainer: Annotated[
        str | None,
        typer.Option(
            "--trainer",
            help="Evolve a command instead of Beagle's trainer: yolov5, ultralytics, or a file command.yaml.",
        ),
    ] = None,
    model: Annotated[
        str, typer.Option("--model", help="A model of `beagle model list`, or a YAML file.")
    ] = "yolov5s",
    trials: Annotated[int, typer.Option("--trials")] = 300,
    epochs: Epochs = "10",
    grace: Grace = None,
    reduction: Reduction = 3.0,
    patience: Patience = None,
    epoch_budget: EpochBudget = None,
    confirm: Confirm = 0,
    confirm_epochs: ConfirmEpochs = None,
    confirm_seeds: ConfirmSeeds = 3,
    image_size: Annotated[int, typer.Option("--image-size", help="Longer image side in px.")] = 640,
    batch_size: Annotated[int, typer.Option("--batch-size")] = 16,
    hyp: Annotated[
        Path | None, typer.Option("--hyp", help="YAML file: the first trial, and all not evolved.")
    ] = None,
    genes: Annotated[
        str, typer.Option("--genes", help="Names to evolve, with commas; the usual ones by default.")
    ] = "",
    space: Annotated[
        Path | None, typer.Option("--space", help="YAML file of genes and their bounds.")
    ] = None,
    search: Annotated[
        str,
        typer.Option("--search", help="genetic, or a sampler of Optuna: tpe, cmaes, gp, nsga2, qmc, random."),
    ] = "genetic",
    warm_start: Annotated[
        str | None,
        typer.Option(
            "--warm-start",
            help="Earlier results: a run, evolve.csv, tune_results.ndjson, an MLflow experiment.",
        ),
    ] = None,
    objectives: Annotated[
        str,
        typer.Option("--objectives", help="Several at once, with commas: fitness,latency,parameters."),
    ] = "",
    anchors: Annotated[
        str, typer.Option("--anchors", help="auto fits poor anchors, fit always, keep never.")
    ] = "auto",
    activation: Activation = None,
    attention: Attention = None,
    dropblock: Dropblock = None,
    anchors_from: AnchorsFrom = None,
    loss: Loss = "auto",
    box_loss: BoxLoss = "ciou",
    assignment: Assign = "ratio",
    optimizer: Annotated[
        str, typer.Option("--optimizer", help="sgd, adamw, adam, or auto: adamw for short trainings.")
    ] = "auto",
    schedule: Schedule = "linear",
    weights: Annotated[
        str | None, typer.Option("--weights", help="Checkpoint that every trial starts from.")
    ] = None,
    device: Annotated[str, typer.Option("--device", help="auto, cpu or cuda.")] = "auto",
    workers: Workers = 0,
    cache: Cache = "ram",
    rect: Rect = False,
    multi_scale: MultiScale = False,
    pipeline: Pipeline = "auto",
    difficult: Difficult = "learn",
    precise_bn: PreciseBn = 8,
    ema_share: EmaShare = 0.08,
    cpus: Annotated[float, typer.Option("--cpus", help="CPUs per trial.")] = 1.0,
    gpus: Annotated[float, typer.Option("--gpus", help="GPUs per trial; 0.5 lets two share one.")] = 0.0,
    concurrent: Annotated[int | None, typer.Option("--concurrent", help="Most trials at once.")] = None,
    retries: Annotated[int, typer.Option("--retries", help="New attempts of a trial that crashed.")] = 2,
    address: Annotated[
        str | None, typer.Option("--ray-address", help="Ray cluster; by default this machine.")
    ] = None,
    silence: Silence = None,
    seed: Annotated[int, typer.Option("--seed")] = 0,
    out: Annotated[
        Path | None, typer.Option("--out", help="Run folder, or s3://BUCKET/NAME; runs/evolve by default.")
    ] = None,
    go_on: Annotated[
        bool,
        typer.Option("--resume", help="Go on with the run in --out where there is one, as it was begun."),
    ] = False,
    as_json: Json = False,
) -> None:
    """Evolve hyperparameters: many full trainings, bred from the best."""
    from beagle.folders import CommandError, has_run, run_folder, unused_folder
    from beagle.genes import load_hyp
    from beagle.wiring import EvolveOptions, start_run
    from evolve.resources import Resources
    from evolve.stored_run import run_label

    model = changed_model(model, activation, attention, dropblock, anchors_from)
    folder = unused_folder(Path("runs"), "evolve") if out is None else run_folder(out)
    if out is not None and go_on and has_run(folder):
        resume(out, as_json=as_json)
        return
    resources = Resources(cpus, gpus, concurrent, retries, address, silence)
    ladder = chosen_ladder(epochs, grace, reduction)
    plan = chosen_plan(confirm, confirm_epochs, confirm_seeds)
    if trainer is not None:
        _evolve_command(context, folder, resources, plan, as_json=as_json)
        return
    if data is None:
        raise CommandError("DATA must be given: a data.yaml, an instances.json, a folder, or digits")
    options = EvolveOptions(
        data=data,
        model=model,
        trials=trials,
        ladder=ladder,
        confirm=plan,
        patience=patience,
        epoch_budget=epoch_budget,
        batch_size=batch_size,
        image_size=image_size,
        hyp=load_hyp(hyp),
        genes=gene_names(genes),
        space=space,
        anchors=anchors,
        training={
            "optimizer": optimizer,
            "schedule": schedule,
            "loss": loss,
            "box_loss": box_loss,
            "assignment": assignment,
            "device": device,
            "workers": workers,
            "cache": cache,
            "rect": rect,
            "multi_scale": multi_scale,
            "pipeline": pipeline,
            "difficult": difficult,
            "precise_bn": precise_bn,
            "ema_share": ema_share,
            "weights": str(Path(weights).resolve()) if weights else None,
        },
        seed=seed,
        search=search,
        warm_start=warm_start,
        objectives=gene_names(objectives),
    )

    def begin(check: Callable[[], object]) -> str:
        found = start_run(folder, options, resources, console.note, check)
        return (
            f"evolving {model} on {data}: {planned_words(trials, ladder.words, epoch_budget)} in {run_label(folder)} "
            f"(anchors reach {found.after.bpr:.4f} of the boxes)"
        )

    _begin_and_finish(folder, resources, begin, as_json=as_json)


def _begin_and_finish(
    folder: Path, resources: "Resources", begin: Callable[[Callable[[], object]], str], *, as_json: bool
) -> None:
    """Begin a run once Ray has room for its trials, say so, and drive it to its end in that session."""
    from evolve.ray_driver import session_with_room

    with ExitStack() as stack:
        console.err.print(begin(lambda: stack.enter_context(session_with_room(resources))))
        finish(folder, as_json=as_json)


def planned_words(trials: int, each: str, epoch_budget: int | None) -> str:
    """What is to be run: so many trials, each of so many epochs, and in all no more than may be used."""
    if epoch_budget is None:
        return f"{trials} trials of {each}"
    return f"{trials} trials of {each}, until they have used {epoch_budget} epochs,"


def gene_names(text: str) -> tuple[str, ...]:
    """Names of genes from a text with commas."""
    return tuple(name.strip() for name in text.split(",") if name.strip())


NOT_OF_A_COMMAND = (
    "objectives",
    *("anchors", "optimizer", "schedule", "weights", "workers"),
    *("activation", "attention", "dropblock", "anchors_from", "loss", "box_loss", "assignment"),
    *("cache", "rect", "multi_scale", "pipeline", "difficult", "precise_bn", "ema_share"),
)


def _evolve_command(
    context: typer.Context, folder: Path, resources: "Resources", confirm: "Plan | None", *, as_json: bool
) -> None:
    """Evolve a trainer that is a command: what was not given is as the trainer's file says."""
    from beagle.command_run import CommandOptions, start_command_run
    from beagle.folders import CommandError
    from evolve.stored_run import run_label

    # By name: typer brings its own copy of the enumeration.
    given = {
        name: value
        for name, value in context.params.items()
        if getattr(context.get_parameter_source(name), "name", "") != "DEFAULT"
    }
    for name in NOT_OF_A_COMMAND:
        if name in given:
            raise CommandError(
                f"--{name.replace('_', '-')} has no meaning with --trainer: it belongs into the command of its file"
            )
    same = (
        "trainer",
        "data",
        "model",
        "trials",
        "batch_size",
        "image_size",
        "hyp",
        "space",
        "device",
        "seed",
        "search",
        "warm_start",
        "patience",
        "epoch_budget",
    )
    words = {name: given[name] for name in same if name in given}
    ladder = None
    if "epochs" in given or "grace" in given or "reduction" in given:
        if "epochs" not in given:
            raise CommandError("--epochs must be given where --grace or --reduction is")
        ladder = chosen_ladder(given["epochs"], given.get("grace"), given.get("reduction", 3.0))
    options = CommandOptions(
        **words, genes=gene_names(given.get("genes", "")), ladder=ladder, confirm=confirm
    )

    def begin(check: Callable[[], object]) -> str:
        settings = start_command_run(folder, options, resources, console.note, check)
        each = ladder.words if ladder else f"{settings['epochs']} epochs"
        planned = planned_words(options.trials, each, options.epoch_budget)
        return f"evolving {settings['trainer']['name']}: {planned} in {run_label(folder)}"

    _begin_and_finish(folder, resources, begin, as_json=as_json)
