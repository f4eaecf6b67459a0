"""What production gets of a run: the best configuration as a folder, its training command, and where it came from."""

import importlib.metadata
import math
import platform
import shutil
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from beagle.data_yaml import data_files
from beagle.export_formats import FORMATS
from beagle.export_training import Training
from beagle.folders import CommandError
from beagle.rescale import Length, nominal_step, rescale
from beagle.setting_genes import overlaid
from beagle.verification import VERIFY, expectation
from dataset import DataError, Dataset, load
from evolve.command_trainable import TRAINER
from evolve.export import ExportFiles, export_run
from evolve.journal import RunState, TrialState
from evolve.space import unknown_name
from evolve.wording import belief_words
from model.spec import load_spec
from trainer.config import Hyperparameters

PRODUCTION_EPOCHS = 300
PUBLISHED_NOMINAL_BATCH = 64
START = "start"


@dataclass(frozen=True)
class Wanted:
    """What an export is for.

    Attributes:
        format: The program that trains: one of `beagle.export_formats.FORMATS`; None for the run's own.
        epochs: Of the production training; None for 300 or, where they were longer, the trials'.
        batch_size: Images per forward pass; None for the trials'.
        choice: Which trial, as `evolve.objectives.pick` has it; None for the best by fitness.
    """

    format: str | None = None
    epochs: int | None = None
    batch_size: int | None = None
    choice: str | None = None

    def __post_init__(self) -> None:
        if self.format is not None and self.format not in FORMATS:
            raise CommandError(unknown_name("format", self.format, FORMATS))
        for name in ("epochs", "batch_size"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise CommandError(f"{name} >= 1 must hold, but got {value}")


def provenance(data: Dataset) -> dict[str, Any]:
    """What one must know to do it again: versions, the data's hash, and the commit of the working folder."""
    packages = ("beagle-evolve", "torch", "ray", "mlflow", "numpy", "scipy", "opencv-python-headless")
    return {"versions": versions(*packages), "data_hash": data.fingerprint, "git_commit": git_commit()}


def versions(*packages: str) -> dict[str, str]:
    """Versions of Python and of these packages."""
    found = {"python": platform.python_version()}
    for package in packages:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "not installed"
    return found


def git_commit() -> str | None:
    """Commit of the current folder, "-dirty" when it has changes; None outside a repository."""
    git = shutil.which("git")
    if git is None:
        return None
    command = [git, "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    return answer.stdout.strip() or None


def export_best(
    folder: Path, target: Path, wanted: Wanted | None = None, note: Callable[[str], None] | None = None
) -> Path:
    """Write the folder that production trains from: the best trial's configuration, model, weights and command.

    Args:
        folder: The run folder.
        target: Must not exist.
        wanted: Program and length.
        note: Told what could not be carried and what was rescaled; `notes.md` in the folder says it too.

    Raises:
        ExportError: Nothing can be exported, or the target exists.
        CommandError: The run's trainer is a command, which has its own format.
    """
    asked = wanted or Wanted()

    def files(state: RunState, best: TrialState) -> ExportFiles:
        if TRAINER in state.header["settings"]:
            from beagle.command_run import command_files

            if asked.format is not None:
                raise CommandError(
                    f"--format must be left out: the run evolved a command, so {asked.format} can't train from it"
                )
            made = command_files(state, best, epochs=asked.epochs, batch_size=asked.batch_size)
        else:
            made = _detector_files(state, best, asked, target, folder)
        measured = state.measured()
        if note is not None and measured is not None:
            for line in (belief_words(measured), *made.notes):
                note(line)
        return made

    return export_run(folder, target, build_files=files, choice=asked.choice)


def _detector_files(
    state: RunState, best: TrialState, wanted: Wanted, target: Path, folder: Path
) -> ExportFiles:
    settings = overlaid(state.header["settings"], best.config)
    table = np.asarray(best.result["anchors"], dtype=np.float64)
    spec = load_spec(settings["model"], classes=settings["classes"], anchors=table)
    name = wanted.format or "beagle"
    trial_hyp = Hyperparameters.from_dict(settings["hyp"]).to_dict()
    data, notes = _data(settings["data"])
    images = state.header.get("data", {}).get("images") or (len(data.train.images) if data else None)
    hyp, length, why = _rescaled(settings, trial_hyp, images, wanted, name)
    begun = settings.get("weights")
    start = START + Path(begun).suffix if begun else ""
    batches = math.ceil((images or 0) / length.batch_size)
    training = Training(hyp, spec, length, settings, settings["data"], start, batches)
    written = FORMATS[name](training)
    texts = dict(written.texts)
    if data is not None:
        more, about = data_files(data, target, absolute=name == "scaled-yolov4")
        texts |= more
        notes += about if name != "beagle" else []
    texts[VERIFY] = expectation(state, best, written, trial_hyp, training)
    return ExportFiles(
        command=written.command,
        hyp=written.hyp,
        texts=texts,
        copies={start: Path(begun)} if begun else {},
        notes=[*why, *written.notes, *notes],
        directory=written.directory,
        variables=written.variables,
        facts={"format": name},
    )


def _data(source: str) -> tuple[Dataset | None, list[str]]:
    try:
        return load(source), []
    except DataError as error:
        return None, [f"The data was not there for the export ({error}), so there is no data.yaml."]


def at_another_length(
    settings: Mapping[str, Any], hyp: Mapping[str, float], trial_epochs: int, dataset: Dataset
) -> dict[str, Any]:
    """Settings of a training that is longer or shorter than the trials: what production would train.

    Args:
        settings: Of the training; `epochs` is its own length.
        hyp: Hyperparameters of the trial.
        trial_epochs: Of the trials.
        dataset: The data.

    Returns:
        "hyp" and "nominal_batch", the images per step that the trials had.
    """
    trial = {**settings, "epochs": trial_epochs}
    wanted = Wanted(epochs=int(settings["epochs"]))
    changed, length, _ = _rescaled(trial, dict(hyp), len(dataset.train.images), wanted, "beagle")
    return {"hyp": changed, "nominal_batch": length.images_per_step}


def _rescaled(
    settings: dict[str, Any], hyp: dict[str, float], images: int | None, wanted: Wanted, name: str
) -> tuple[dict[str, float], Length, list[str]]:
    """Hyperparameters, length and notes of production."""
    from trainer.optim import plan_steps, warmup_iterations

    epochs, batch = int(settings["epochs"]), int(settings["batch_size"])
    to_epochs = wanted.epochs or max(PRODUCTION_EPOCHS, epochs)
    to_batch = wanted.batch_size or batch
    if images is None:
        step = nominal_step(to_batch, PUBLISHED_NOMINAL_BATCH)
        note = "The data was not there, so the trials' step is not known and nothing was rescaled."
        return hyp, Length(to_epochs, to_batch, step), [note]
    plan = plan_steps(images, batch, epochs, settings.get("nominal_batch"))
    trial = Length(epochs, batch, plan.images)
    # Beagle can be told the step that was evolved; the other programs accumulate to 64 images.
    nominal = plan.images if name == "beagle" else PUBLISHED_NOMINAL_BATCH
    production = Length(to_epochs, to_batch, nominal_step(to_batch, nominal))
    batches = math.ceil(images / batch)
    warmup, _ = warmup_iterations(hyp["warmup_epochs"], batches, epochs)
    optimizer = settings.get("optimizer", "sgd")
    changed, why = rescale(hyp, optimizer, trial, production, warmup, batches)
    return changed, production, why
