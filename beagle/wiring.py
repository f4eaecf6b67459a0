"""Where the rooms meet: evolve is handed a trainer, and genes are checked against what the trainer knows.

Light to import: torch, ray and mlflow are only reached inside the functions that need them.
"""

import io
import logging
import math
import shutil
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from beagle.fitting import fit_anchors, load_inputs
from beagle.folders import CommandError, absolute_source, check_new_folder, write_bytes
from beagle.genes import build_space
from beagle.production import at_another_length, provenance
from beagle.run_header import begin_run, fidelity_header
from beagle.searching import search_header
from beagle.setting_genes import check_setting_genes, overlaid
from dataset import load
from evolve.command_trainable import TRAINER, run_command
from evolve.confirm import Plan
from evolve.journal import RunState, fold, read_journal
from evolve.ladder import Ladder
from evolve.ledger import OnEvent
from evolve.resources import Resources
from evolve.tracking import ANCHOR_PICTURE
from evolve.trainable import Assignment, Outcome, Report
from trainer.autoanchor import Choice
from trainer.config import Hyperparameters, TrainConfig

SAMPLED_SHAPES = 2000

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class EvolveOptions:
    """One evolution as the command line gives it.

    Attributes:
        data: What `dataset.load` reads.
        model: A model of the zoo or a YAML file.
        trials: How many trials to run.
        ladder: Epochs of each trial, and where hopeless ones are stopped.
        confirm: What is trained again at the end; None for nothing.
        patience: Trials without a better configuration after which the search ends; None for all of the trials.
        epoch_budget: Epochs of all trials after which the search ends; None for as many as they take.
        batch_size: Images per forward pass.
        image_size: Longer side in px.
        hyp: Hyperparameters of the first trial, and of all that is not evolved.
        genes: Names to evolve; empty for the usual ones.
        space: A YAML file of genes and bounds instead.
        anchors: "auto" fits when the model's reach too few boxes, "fit" always, "keep" never.
        training: Further fields of `TrainConfig` for every trial (optimizer, schedule, device, ...).
        seed: Of the search and of each training.
        search: "genetic", or a sampler of Optuna.
        warm_start: Earlier results to begin with; see `beagle.searching`.
        objectives: What is sought at once, of `evolve.costs`, fitness among them; empty for fitness alone.
    """

    data: str
    model: str
    trials: int
    ladder: Ladder
    confirm: Plan | None = None
    patience: int | None = None
    epoch_budget: int | None = None
    batch_size: int = 16
    image_size: int = 640
    hyp: Hyperparameters = field(default_factory=Hyperparameters)
    genes: tuple[str, ...] = ()
    space: Path | None = None
    anchors: str = "auto"
    training: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 0
    search: str = "genetic"
    warm_start: str | None = None
    objectives: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.trials < 1:
            raise CommandError(f"trials >= 1 must hold, but got {self.trials}")
        if self.objectives and self.ladder.judged:
            raise CommandError("--objectives needs whole trainings: give --epochs one number, no ladder")
        if self.anchors not in ("auto", "fit", "keep"):
            raise CommandError(f"anchors must be auto, fit or keep, but got {self.anchors!r}")


def start_run(
    folder: Path,
    options: EvolveOptions,
    resources: Resources,
    note: Callable[[str], None],
    check: Callable[[], object] | None = None,
) -> Choice:
    """Make a run folder whose journal holds the header: all that a driver needs.

    Args:
        folder: Must not exist.
        options: The evolution.
        resources: What each trial gets.
        note: Told what was decided on the way.
        check: Called when all else is well, before anything is written; what it raises refuses the run.

    Returns:
        The anchors of all trials.

    Raises:
        CommandError: The folder exists.
        ValueError: Whatever the rooms refuse; nothing is written then.
    """
    check_new_folder(folder)
    begun = {**options.training, "model": absolute_source(options.model)}
    space = build_space(options.genes, options.space, options.hyp, begun)
    inputs = load_inputs(
        options.data, options.model, options.image_size, note, options.training.get("difficult", "learn")
    )
    data, image_size = inputs.data, inputs.image_size
    training = {
        "data": absolute_source(options.data),
        "model": absolute_source(options.model),
        "epochs": options.ladder.full,
        "batch_size": options.batch_size,
        "image_size": image_size,
        "seed": options.seed,
        # Said even where nobody chose them, so that production evaluates as the trials did.
        "precise_bn": TrainConfig.precise_bn,
        "ema_share": TrainConfig.ema_share,
        **options.training,
        "hyp": options.hyp.to_dict(),
    }
    # Refused now rather than in every trial.
    config = TrainConfig.from_dict({**training, "out": str(folder), "devices": devices_of(resources.gpus)})
    check_setting_genes(space.genes, {**training, "out": str(folder)})
    if config.weights and not Path(config.weights).is_file():
        raise CommandError(f"{config.weights}: there are no such weights to start from")
    fitted = fit_anchors(inputs, mode=options.anchors, hyp=options.hyp, seed=options.seed)
    training["optimizer"] = _optimizer(config, len(data.train.images))
    training["anchors"] = np.round(fitted.anchors, 2).tolist()
    shapes = data.shapes(image_size)
    pick = np.random.default_rng(options.seed).permutation(len(shapes))[:SAMPLED_SHAPES]
    facts = {
        "trials": options.trials,
        "seed": options.seed,
        "space": space.to_dict(),
        "search": search_header(
            options.search,
            options.warm_start,
            space,
            shapes,
            note,
            racing=not options.ladder.judged,
            objectives=options.objectives,
        ),
        "settings": {**training, "classes": len(data.names)},
        "resources": resources.to_dict(),
        **fidelity_header(options.ladder, options.confirm, options.patience, options.epoch_budget),
        "provenance": provenance(data),
        "data": {"images": len(data.train.images), "names": list(data.names)},
        "shapes": {
            "wh": np.round(shapes[pick], 2).tolist(),
            "image_size": image_size,
            "anchors_before": np.asarray(inputs.spec.anchors).tolist(),
            "before": asdict(fitted.before),
            "after": asdict(fitted.after),
        },
    }
    begin_run(folder, facts, check)
    if fitted.fitted is not None:
        _draw_fit(folder / ANCHOR_PICTURE, shapes, np.asarray(inputs.spec.anchors), fitted, options.hyp)
    return fitted


def _draw_fit(
    path: Path, shapes: NDArray[np.float64], own: NDArray[np.float64], fitted: Choice, hyp: Hyperparameters
) -> None:
    """Keep the picture of a fit beside the journal, from where MLflow gets it too."""
    from anchors.plot import plot_before_after

    picture = io.BytesIO()
    plot_before_after(shapes, own, fitted.anchors, picture, threshold=hyp.anchor_t)
    try:
        write_bytes(path, picture.getvalue())
    except CommandError as error:
        logger.warning("%s; the evolution goes on", error)


def _optimizer(config: TrainConfig, images: int) -> str:
    """What "auto" means for a trial: production must train with the same, though it trains longer."""
    from trainer.optim import choose_optimizer

    return choose_optimizer(config.optimizer, math.ceil(images / config.batch) * config.epochs)[0]


def drive(folder: Path, on_event: OnEvent | None = None) -> RunState:
    """Run the evolution in `folder` on Ray until its budget is used up.

    Raises:
        EvolveError: See `evolve.ray_driver.run_evolution`.
        KeyboardInterrupt: Interrupted; `beagle resume` goes on.
    """
    from evolve.ray_driver import run_evolution

    settings = fold(read_journal(folder / "journal.jsonl")).header.get("settings", {})
    objective = run_command if TRAINER in settings else train_detector
    return run_evolution(folder, objective, on_event, between_trainings)


def devices_of(gpus: float) -> int:
    """How many processes train one trial together: one for each of its GPUs, else one."""
    return max(int(gpus), 1)


def between_trainings() -> str | None:
    """Called in a worker after each trial: what torch keeps for good would fall to the next one."""
    if "torch" not in sys.modules:
        return None
    from trainer.tidy import tidy_torch

    return tidy_torch()


def train_detector(assignment: Assignment, report: Report) -> Outcome:
    """The objective of a detector evolution: one full training, continued where an earlier attempt stopped.

    Args:
        assignment: Genes overlay the run's hyperparameters.
        report: Called after each epoch, once its checkpoint is safe.

    Raises:
        TrainError: The training can't run.
    """
    from trainer import train

    out = Path(assignment.folder) / "training"
    resume = (out / "weights" / "last.pt").is_file()
    if not resume and out.exists():
        shutil.rmtree(out)  # an attempt that died before its first checkpoint leaves nothing to go on from
    settings = {key: value for key, value in assignment.settings.items() if key != "classes"}
    settings = overlaid(settings, assignment.config) | {"out": str(out), "resume": resume}
    length, dataset = settings.pop("trial_epochs", None), None
    if length not in (None, settings["epochs"]):  # it confirms what production will train
        dataset = load(settings["data"], difficult=settings.get("difficult", "learn"))
        settings |= at_another_length(settings, settings["hyp"], int(length), dataset)
    if "anchors" in assignment.config:
        settings["anchors"] = "auto"  # the gene asks for a number per level, so each trial fits its own
    devices = devices_of(assignment.gpus)  # several GPUs of a trial share each batch
    settings |= {"threads": max(int(assignment.cpus) // devices, 1), "devices": devices}
    config, pieces = TrainConfig.from_dict(settings), 2**assignment.micro_batch_halvings
    result = train(config, report=report, dataset=dataset, pieces=pieces)
    costs = {}
    if assignment.costs and result.status != "diverged":
        from trainer.speed import measure_costs

        costs = {"costs": measure_costs(result.best, assignment.costs, str(settings.get("device", "auto")))}
    run_folder = Path(assignment.folder).parents[1]
    diverged = result.status == "diverged"
    return Outcome(
        fitness=None if diverged else result.fitness,
        metrics=result.metrics,
        history=result.history,
        reason=result.reason if diverged else None,
        seconds=result.seconds,
        result={
            "anchors": result.anchors,
            "best": str(result.best.relative_to(run_folder)),
            "best_epoch": result.best_epoch,
            "notes": list(result.notes),
            **costs,
            "artifacts": [
                str(path.relative_to(run_folder))
                for path in (out / "hyp.yaml", out / "results.csv")
                if path.is_file()
            ],
        },
    )
