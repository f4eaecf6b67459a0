"""What production gets of a run: the best configuration as a folder, its training command, and where it came from."""

import importlib.metadata
import platform
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from dataset import Dataset
from evolve.export import ExportFiles, export_run
from evolve.journal import RunState, TrialState
from model.spec import load_spec, spec_to_yaml

PRODUCTION_EPOCHS = 300


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
    if settings.get("weights"):
        options["weights"] = settings["weights"]
    for name, value in options.items():
        words += [f"--{name}", str(value)]
    return words + [f"--{name}" for name in ("rect", "multi-scale") if settings.get(name.replace("-", "_"))]
