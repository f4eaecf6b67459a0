"""What an exported folder promises, and whether it holds: hashes, the weights' figures, and a short retraining.

`verify.json` records what the winning trial measured in its first epochs, and how to make its hyperparameters from
those of the folder. A check trains from the folder alone for as many epochs, with the same seed, and compares.
"""

import hashlib
import importlib.metadata
import json
import math
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from beagle.export_training import Training, Written
from beagle.folders import CommandError
from evolve.export import HYP, PROVENANCE
from evolve.journal import RunState, TrialState
from trainer.config import Hyperparameters, TrainConfig

VERIFY, VERSION = "verify.json", 1
EPOCHS_KEPT = 5
LOSSES, MEASURES = ("box_loss", "obj_loss", "cls_loss"), ("map50", "map50_95")
ELSEWHERE = (
    "data",
    "model",
    "hyp",
    "anchors",
    "classes",
    "weights",
    "device",
    "workers",
    "resume",
    "threads",
)
"""Settings of a run that a check takes from the folder, or from the machine that it runs on."""
TOLERANCE = {"loss": 0.01, "map": 0.03, "weights": 0.005}
"""Of losses by their size, of mAP absolute. The same machine repeats both to the last digit. Measured on digits with
yolov5n, two epochs: other threads move losses by up to 0.13 %, lr0 times 1.2 by 1 %, boxes' gain or anchors times 1.2
by over 10 %."""


class VerifyError(CommandError):
    """An exported folder that is not what it says."""


@dataclass(frozen=True)
class Finding:
    """One check of a folder.

    Attributes:
        what: What was compared.
        expected: What the folder promises.
        found: What it is.
        holds: Whether they agree.
    """

    what: str
    expected: float | str
    found: float | str
    holds: bool


def expectation(
    state: RunState, best: TrialState, written: Written, hyp: Mapping[str, float], training: Training
) -> str:
    """The text of `verify.json`.

    Args:
        state: The run.
        best: Its winner.
        written: The training in the target's own words.
        hyp: The trial's hyperparameters, under Beagle's names.
        training: The production training.
    """
    settings, header = state.header["settings"], state.header
    back = {
        key: [written.hyp[key], hyp[name]]
        for key, name in written.names.items()
        if written.hyp[key] != hyp[name]
    }
    kept = {name: value for name, value in hyp.items() if name not in written.names.values()}
    # A gene of anchors per level has done its work: the model's file holds the anchors.
    kept["anchors"] = 0
    rows = [best.reports[epoch] for epoch in sorted(best.reports)][:EPOCHS_KEPT]
    facts = {
        "version": VERSION,
        "format": written.format,
        "what": "what the winning trial measured; `beagle verify` trains from this folder as it did, and compares",
        "model": written.model_file,
        "weights": Path(str(best.result["best"])).name if best.result.get("best") else None,
        "data": settings["data"],
        "data_hash": header.get("provenance", {}).get("data_hash"),
        "training": {
            key: value for key, value in settings.items() if key not in ELSEWHERE and value is not None
        },
        "threads": max(int(header.get("resources", {}).get("cpus", 1)), 1),
        "start": training.start or None,
        "names": written.names,
        "rescaled": back,
        "not_carried": kept,
        "first_epochs": [{key: row.get(key) for key in (*LOSSES, *MEASURES)} for row in rows],
        "best_weights": {key: best.metrics.get(key) for key in MEASURES},
        "tolerance": TOLERANCE,
    }
    return json.dumps(facts, indent=2, allow_nan=False) + "\n"


def check_hashes(folder: Path) -> dict[str, Any]:
    """Compare every file of a folder with its hash.

    Returns:
        What provenance.json says.

    Raises:
        VerifyError: It is no export, or a file is missing or changed. Further files are left alone.
    """
    facts = _read_json(folder / PROVENANCE)
    hashes = facts.get("files")
    if not isinstance(hashes, dict):
        raise VerifyError(f"{folder / PROVENANCE}: it holds no hashes of files")
    for name, expected in hashes.items():
        path = folder / name
        if Path(name).name != name or not path.is_file():
            raise VerifyError(f"{path}: the file is missing")
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if found != expected:
            raise VerifyError(
                f"{path}: the file was changed since the export (sha256 {found[:12]}…, not {expected[:12]}…)"
            )
    return facts


def other_versions(facts: Mapping[str, Any]) -> Iterator[str]:
    """A line for each package of the run that is of another version here: figures may differ for it alone."""
    for name, version in facts.get("provenance", {}).get("versions", {}).items():
        if name in ("torch", "beagle-evolve"):
            try:
                here = importlib.metadata.version(name)
            except importlib.metadata.PackageNotFoundError:
                here = "not installed"
            if here != version:
                yield f"{name} is {here} here, the trials ran with {version}: figures may differ for that alone"


def verify(folder: Path, data: str | None, epochs: int, device: str) -> Iterator[Finding]:
    """Check an export of Beagle's own trainer by its weights and by a short training.

    Args:
        folder: The export, whose hashes were checked.
        data: Where the data lies; None where it lay at the export.
        epochs: How many to train, at most as many as were recorded.
        device: "auto", "cpu", "cuda" or "cuda:N".

    Yields:
        What was compared, as it is.

    Raises:
        VerifyError: There is no data, it is another, or the folder can't be trained from.
    """
    from dataset import load

    facts = read_expectation(folder)
    found = load(data or facts["data"], difficult=facts["training"].get("difficult", "learn"))
    if facts.get("data_hash") not in (None, found.fingerprint):
        raise VerifyError(
            f"{found.source}: the data is not that of the evolution (fingerprint {found.fingerprint[:12]}…, not "
            f"{str(facts['data_hash'])[:12]}…)"
        )
    source = data or facts["data"]
    yield from _check_weights(folder, facts, source, device)
    yield from _check_training(folder, facts, source, epochs, device)


def read_expectation(folder: Path) -> dict[str, Any]:
    """What verify.json says.

    Raises:
        VerifyError: It is missing, damaged, or of a newer version.
    """
    facts = _read_json(folder / VERIFY)
    if facts.get("version") != VERSION:
        raise VerifyError(f"{folder / VERIFY}: version must be {VERSION}, but got {facts.get('version')!r}")
    return facts


def trial_hyperparameters(folder: Path, facts: Mapping[str, Any]) -> Hyperparameters:
    """The winning trial's hyperparameters, from those in the folder.

    A value that was rescaled is scaled back, so that one that was changed by hand stays changed.

    Raises:
        VerifyError: hyp.yaml lacks a key.
    """
    return Hyperparameters.from_dict({**facts["not_carried"], **scaled_back(read_hyp(folder), facts, folder)})


def scaled_back(hyp: Mapping[str, Any], facts: Mapping[str, Any], folder: Path) -> dict[str, float]:
    """Values of a folder's hyp.yaml as the trial had them, under Beagle's names or those of its genes.

    Args:
        hyp: Under the folder's own keys.
        facts: Of `verify.json`: "names" (key to name) and "rescaled" (key to exported and trial value).
        folder: For messages.

    Raises:
        VerifyError: A key is missing, or no number.
    """
    values = {}
    for key, name in facts["names"].items():
        value = hyp.get(key)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise VerifyError(f"{folder / HYP}: {key} must be a number, but got {value!r}")
        exported, trial = facts["rescaled"].get(key, (value, value))
        values[name] = trial if value == exported else trial * value / exported if exported else value
    return values


def _check_weights(folder: Path, facts: Mapping[str, Any], data: str, device: str) -> Iterator[Finding]:
    from trainer.predict import Measuring, validate

    if not facts.get("weights"):
        return
    batch = int(facts["training"]["batch_size"])
    measured = validate(
        folder / facts["weights"],
        data,
        "val",
        how=Measuring(batch_size=batch, device=device),
        difficult=facts["training"].get("difficult", "learn"),
    )
    tolerance = float(facts["tolerance"]["weights"])
    for key in MEASURES:
        expected = facts["best_weights"].get(key)
        if expected is not None:
            found = float(measured[key])
            yield Finding(f"{facts['weights']}: {key}", expected, found, abs(found - expected) <= tolerance)


class _EnoughError(Exception):
    """As many epochs were trained as are compared."""


def _check_training(
    folder: Path, facts: Mapping[str, Any], data: str, epochs: int, device: str
) -> Iterator[Finding]:
    from trainer import train

    recorded = facts["first_epochs"][:epochs]
    rows: list[dict[str, float]] = []

    def report(epoch: int, metrics: dict[str, float]) -> None:
        rows.append(metrics)
        if len(rows) >= len(recorded):
            raise _EnoughError

    with tempfile.TemporaryDirectory(prefix="beagle-verify-") as place:
        config = TrainConfig.from_dict(
            {
                **facts["training"],
                "data": data,
                "model": str(folder / facts["model"]),
                "out": str(Path(place) / "training"),
                "hyp": trial_hyperparameters(folder, facts),
                "anchors": "keep",
                "device": device,
                "threads": facts["threads"],
                "weights": str(folder / facts["start"]) if facts["start"] else None,
            }
        )
        try:
            result = train(config, report=report)
        except _EnoughError:
            pass
        else:
            yield Finding("training", "no divergence", str(result.reason), result.status != "diverged")
    yield from compare(recorded, rows, facts["tolerance"])


def compare(
    recorded: list[dict[str, float | None]], rows: list[dict[str, float]], tolerance: Mapping[str, float]
) -> Iterator[Finding]:
    """Epoch by epoch, what was recorded and what was measured now.

    Args:
        recorded: Of the trial.
        rows: Of the short training.
        tolerance: "loss" relative, "map" absolute.
    """
    for epoch, (expected, found) in enumerate(zip(recorded, rows, strict=False), start=1):
        for key, value in expected.items():
            if value is None:
                continue
            near = (
                math.isclose(found[key], value, rel_tol=tolerance["loss"], abs_tol=1e-6)
                if key in LOSSES
                else abs(found[key] - value) <= tolerance["map"]
            )
            yield Finding(f"epoch {epoch}: {key}", value, found[key], near)


def read_hyp(folder: Path) -> dict[str, Any]:
    """Hyperparameters of an export, under its own keys; VerifyError where they can't be read."""
    try:
        content = yaml.safe_load((folder / HYP).read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise VerifyError(f"{folder / HYP}: it can't be read ({' '.join(str(error).split())})") from error
    if not isinstance(content, dict):
        raise VerifyError(f"{folder / HYP}: it must be a map of hyperparameters")
    return content


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise VerifyError(
            f"{path.parent} is no export: {path.name} can't be read ({error.strerror})"
        ) from error
    except ValueError as error:
        raise VerifyError(f"{path}: it is damaged, no JSON ({error})") from error
    if not isinstance(content, dict):
        raise VerifyError(f"{path}: it must hold a map")
    return content
