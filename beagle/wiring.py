"""Where the rooms meet: evolve is handed a trainer, and genes are checked against what the trainer knows.

Light to import: torch, ray and mlflow are only reached inside the functions that need them.
"""

import importlib.metadata
import math
import platform
import shutil
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from anchors import AnchorFit, fit, metrics
from beagle.folders import CommandError, absolute_source, check_new_folder
from beagle.genes import build_space
from dataset import Dataset, load
from evolve.export import ExportFiles, export_run
from evolve.journal import Journal, RunState, TrialState, fold, read_journal
from evolve.ledger import OnEvent
from evolve.search import SearchSettings
from evolve.space import EvolveError
from evolve.trainable import Assignment, Outcome, Report
from model.spec import ModelSpec, load_spec, spec_to_yaml
from trainer.config import Hyperparameters, TrainConfig

if TYPE_CHECKING:
    from evolve.ray_driver import Resources

SAMPLED_SHAPES = 2000
PRODUCTION_EPOCHS = 300


@dataclass(frozen=True, kw_only=True)
class EvolveOptions:
    """One evolution as the command line gives it.

    Attributes:
        data: What `dataset.load` reads.
        model: A model of the zoo or a YAML file.
        trials: How many trials to run.
        epochs: Epochs of each trial.
        batch_size: Images per forward pass.
        image_size: Longer side in px.
        hyp: Hyperparameters of the first trial, and of all that is not evolved.
        genes: Names to evolve; empty for the usual ones.
        space: A YAML file of genes and bounds instead.
        anchors: "auto" fits when the model's reach too few boxes, "fit" always, "keep" never.
        optimizer: As `TrainConfig` takes it, or "auto"; the same for all trials and for production.
        training: Further fields of `TrainConfig` for every trial (schedule, device, ...).
        seed: Of the search and of each training.
    """

    data: str
    model: str
    trials: int
    epochs: int
    batch_size: int = 16
    image_size: int = 640
    hyp: Hyperparameters = field(default_factory=Hyperparameters)
    genes: tuple[str, ...] = ()
    space: Path | None = None
    anchors: str = "auto"
    optimizer: str = "auto"
    training: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 0

    def __post_init__(self) -> None:
        if self.trials < 1:
            raise CommandError(f"trials >= 1 must hold, but got {self.trials}")
        if self.anchors not in ("auto", "fit", "keep"):
            raise CommandError(f"anchors must be auto, fit or keep, but got {self.anchors!r}")


@dataclass(frozen=True, eq=False)
class FittedAnchors:
    """Anchors for a model on a data set.

    Attributes:
        anchors: (levels, per_level, 2) px.
        before: The model's own, judged on the same boxes.
        after: The same figures for `anchors`.
        fitted: The fit; None where the model's own were kept.
    """

    anchors: NDArray[np.float64]
    before: metrics.AnchorMetrics
    after: metrics.AnchorMetrics
    fitted: AnchorFit | None


def fit_anchors(
    data: Dataset,
    spec: ModelSpec,
    image_size: int,
    *,
    mode: str = "auto",
    threshold: float = 4.0,
    seed: int = 0,
    progress: Callable[[float], None] | None = None,
) -> FittedAnchors:
    """Anchors of `spec` judged on `data`, and refitted as `mode` says.

    Args:
        data: Its training boxes are used.
        spec: Gives levels, anchors per level and the anchors to start from.
        image_size: px.
        mode: "auto", "fit" or "keep".
        threshold: Largest side ratio of a match.
        seed: Of the search.
        progress: Called with the share that is done.

    Raises:
        AnchorError: Fewer distinct shapes than anchors.
    """
    wh_px = data.shapes(image_size)
    own = np.asarray(spec.anchors, dtype=np.float64)
    before = metrics.evaluate(wh_px, own, threshold)
    if mode == "keep" or (mode == "auto" and before.bpr >= 0.98):
        return FittedAnchors(own, before, before, None)
    levels, per_level = own.shape[:2]
    fitted = fit(wh_px, levels, per_level, threshold, seed=seed, start=own, progress=progress)
    return FittedAnchors(fitted.anchors, before, fitted.after, fitted)


def round_image_size(image_size: int, grid: int) -> int:
    """The next multiple of `grid` px from `image_size` on, at least two cells.

    Raises:
        CommandError: It is no positive number of px.

    >>> round_image_size(641, 32)
    672
    """
    if image_size < 1:
        raise CommandError(f"image size >= 1 px must hold, but got {image_size}")
    return max(-(-image_size // grid), 2) * grid


def start_run(
    folder: Path, options: EvolveOptions, resources: "Resources", note: Callable[[str], None]
) -> FittedAnchors:
    """Make a run folder whose journal holds the header: all that a driver needs.

    Args:
        folder: Must not exist.
        options: The evolution.
        resources: What each trial gets.
        note: Told what was decided on the way.

    Returns:
        The anchors of all trials.

    Raises:
        CommandError: The folder exists.
        ValueError: Whatever the rooms refuse; nothing is written then.
    """
    check_new_folder(folder)
    space = build_space(options.genes, options.space, options.hyp)
    data = load(options.data)
    for line in data.notes:
        note(line)
    spec = load_spec(options.model, classes=len(data.names))
    image_size = round_image_size(options.image_size, spec.grid)
    if image_size != options.image_size:
        note(f"image size {options.image_size} is no multiple of {spec.grid}: {image_size} is used")
    fitted = fit_anchors(data, spec, image_size, mode=options.anchors, seed=options.seed)
    training = {
        "data": absolute_source(options.data),
        "model": absolute_source(options.model),
        "epochs": options.epochs,
        "batch_size": options.batch_size,
        "image_size": image_size,
        "seed": options.seed,
        **options.training,
        "optimizer": _optimizer(options, len(data.train.images)),
        "hyp": options.hyp.to_dict(),
        "anchors": np.round(fitted.anchors, 2).tolist(),
    }
    TrainConfig.from_dict({**training, "out": str(folder)})  # refused now rather than in every trial
    shapes = data.shapes(image_size)
    pick = np.random.default_rng(options.seed).permutation(len(shapes))[:SAMPLED_SHAPES]
    header = {
        "event": "run",
        "version": 1,
        "name": folder.name,
        "trials": options.trials,
        "seed": options.seed,
        "space": space.to_dict(),
        "search": SearchSettings().to_dict(),
        "settings": {**training, "classes": len(data.names)},
        "resources": resources.to_dict(),
        "provenance": provenance(data),
        "shapes": {
            "wh": np.round(shapes[pick], 2).tolist(),
            "image_size": image_size,
            "anchors_before": np.asarray(spec.anchors).tolist(),
            "before": asdict(fitted.before),
            "after": asdict(fitted.after),
        },
    }
    existed = folder.exists()
    try:
        with Journal(folder / "journal.jsonl") as journal:
            journal.append(header)
    except EvolveError:
        if not existed:
            shutil.rmtree(folder, ignore_errors=True)  # it would stand in the way of the next try
        raise
    return fitted


def _optimizer(options: EvolveOptions, images: int) -> str:
    """What "auto" means for a trial: production must train with the same, though it trains longer."""
    from trainer.optim import choose_optimizer

    return choose_optimizer(options.optimizer, math.ceil(images / options.batch_size) * options.epochs)[0]


def reopen_run(folder: Path, trials: int | None) -> RunState:
    """Write into the journal that the run goes on, with a new budget where one is given.

    Args:
        folder: The run folder.
        trials: New budget; None keeps the old one.

    Raises:
        CommandError: The new budget is smaller than the number of trials already asked.
        JournalError: Another driver holds the run.
    """
    with Journal(folder / "journal.jsonl") as journal:
        state = fold(read_journal(journal.path))
        budget = state.budget if trials is None else trials
        if budget < len(state.trials):
            raise CommandError(
                f"trials >= {len(state.trials)} must hold, since so many were asked, but got {budget}"
            )
        state.apply(journal.append({"event": "resume", "trials": budget}))
        return state


def drive(folder: Path, on_event: OnEvent | None = None) -> RunState:
    """Run the evolution in `folder` on Ray until its budget is used up.

    Raises:
        EvolveError: See `evolve.ray_driver.run_evolution`.
        KeyboardInterrupt: Interrupted; `beagle resume` goes on.
    """
    from evolve.ray_driver import run_evolution

    return run_evolution(folder, train_detector, on_event)


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
    settings |= {"hyp": {**settings["hyp"], **assignment.config}, "out": str(out), "resume": resume}
    if "anchors" in assignment.config:
        settings["anchors"] = "auto"  # the gene asks for a number per level, so each trial fits its own
    config = TrainConfig.from_dict(settings | {"threads": max(int(assignment.cpus), 1)})
    result = train(config, report=report)
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
            "artifacts": [
                str(path.relative_to(run_folder))
                for path in (out / "hyp.yaml", out / "results.csv")
                if path.is_file()
            ],
        },
    )


def provenance(data: Dataset) -> dict[str, Any]:
    """What one must know to do it again: versions, the data's hash, and the commit of the working folder."""
    packages = ("beagle-evolve", "torch", "ray", "mlflow", "numpy", "scipy", "opencv-python-headless")
    versions = {"python": platform.python_version()}
    for package in packages:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = "not installed"
    return {"versions": versions, "data_hash": data.fingerprint, "git_commit": git_commit()}


def git_commit() -> str | None:
    """Commit of the current folder, "-dirty" when it has changes; None outside a repository."""
    git = shutil.which("git")
    if git is None:
        return None
    command = [git, "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    return answer.stdout.strip() or None


def export_best(folder: Path, target: Path) -> Path:
    """Write the folder that production trains from: the best trial's configuration, model, weights and command.

    Args:
        folder: The run folder.
        target: Must not exist.

    Raises:
        ExportError: Nothing can be exported, or the target exists.
    """
    return export_run(folder, target, build_files=_detector_files)


def _detector_files(state: RunState, best: TrialState) -> ExportFiles:
    settings = state.header["settings"]
    table = np.asarray(best.result["anchors"], dtype=np.float64)
    spec = load_spec(settings["model"], classes=settings["classes"], anchors=table)
    return ExportFiles(
        command=production_command(settings),
        # model.yaml holds the anchors, so production need not fit any: 0 keeps the model's.
        hyp={**settings["hyp"], **best.config, "anchors": 0},
        texts={"model.yaml": spec_to_yaml(spec)},
    )


def production_command(settings: Mapping[str, Any]) -> list[str]:
    """The training that production starts from an exported folder, run inside it."""
    words = ["beagle", "train", str(settings["data"]), "--model", "model.yaml", "--hyp", "hyp.yaml"]
    options = {
        "image-size": settings["image_size"],
        "batch-size": settings["batch_size"],
        "epochs": max(PRODUCTION_EPOCHS, settings["epochs"]),
        "optimizer": settings.get("optimizer", "sgd"),
        "schedule": settings.get("schedule", "linear"),
        "anchors": "keep",
        "seed": settings.get("seed", 0),
    }
    for name, value in options.items():
        words += [f"--{name}", str(value)]
    return words
