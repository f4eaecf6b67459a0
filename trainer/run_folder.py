"""The folder of one training: config.json, hyp.yaml, results.csv, weights/best.pt and weights/last.pt."""

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

import yaml

from dataset import Dataset
from model.spec import ModelSpec
from trainer import checkpoint
from trainer.config import Hyperparameters, TrainConfig, TrainError

ELSEWHERE = (
    *("out", "resume", "device", "devices", "workers", "threads", "amp", "data", "model", "weights"),
    *("compile", "pictures", "patience", "cache", "pipeline"),
)
"""Settings that may differ on a resume: where and how it runs. Data and model are compared by content instead."""

BEFORE = {"precise_bn": 0, "ema_share": 0.0}
"""What was in effect before there was a setting, where that is not its default."""


class RunFolder:
    """Where a training writes.

    Attributes:
        path: The folder.
        best: Checkpoint of the best epoch: averaged weights and what is needed to use them.
        last: Checkpoint of the last epoch: what a resume needs.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.best = path / "weights" / "best.pt"
        self.last = path / "weights" / "last.pt"

    def check_free(self) -> None:
        """Refuse a folder that holds something.

        Raises:
            TrainError: It does, or it cannot be looked into.
        """
        try:
            if self.path.exists() and any(self.path.iterdir()):
                raise TrainError(f"{self.path} is not empty: choose another out folder, or resume")
        except OSError as error:
            raise TrainError(f"{self.path} cannot be a folder to write in: {error.strerror}") from error

    def make(self) -> None:
        """Make the folder: not before everything that may be refused has been accepted.

        Raises:
            TrainError: It cannot be made.
        """
        try:
            self.best.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise TrainError(f"{self.path} cannot be a folder to write in: {error.strerror}") from error

    def write_inputs(self, config: TrainConfig) -> None:
        """Write config.json and hyp.yaml."""
        text = json.dumps(config.to_dict(), indent=2, allow_nan=False)
        checkpoint.write_text(self.path / "config.json", text + "\n")
        text = yaml.safe_dump(config.hyp.to_dict(), sort_keys=False)
        checkpoint.write_text(self.path / "hyp.yaml", text)

    def write_results(self, history: Sequence[Mapping[str, float]]) -> None:
        """Write results.csv anew: a row per epoch, counted from 0."""
        text = io.StringIO()
        writer = csv.DictWriter(text, ["epoch", *history[0]], lineterminator="\n")
        writer.writeheader()
        writer.writerows({"epoch": epoch, **row} for epoch, row in enumerate(history))
        checkpoint.write_text(self.path / "results.csv", text.getvalue())

    def load_last(self, expected: Mapping[str, Any]) -> dict[str, Any] | None:
        """The state to go on from, or None when no epoch was finished yet.

        Args:
            expected: The `identity` of the training that is to go on.

        Raises:
            TrainError: The checkpoint cannot be read, or is that of another training.
        """
        if not self.last.exists():
            return None
        state = checkpoint.load(self.last)
        found = _with_defaults(state["identity"])
        differing = [key for key in {**found, **expected} if found.get(key) != expected.get(key)]
        if differing:
            raise TrainError(
                f"{self.last} was written by another training and cannot be resumed: "
                + "; ".join(_difference(key, found.get(key), expected.get(key)) for key in differing)
            )
        return state


def identity(config: TrainConfig, spec: ModelSpec, dataset: Dataset) -> dict[str, Any]:
    """What makes a training this one, as plain data: settings, the model's description, the data's fingerprint.

    Args:
        config: Settings.
        spec: The model before its anchors were fitted.
        dataset: The data.
    """
    settings = {key: value for key, value in config.to_dict().items() if key not in ELSEWHERE}
    return {**settings, "model": spec.to_dict(), "data": dataset.fingerprint}


def _with_defaults(found: Mapping[str, Any]) -> dict[str, Any]:
    """An identity whose settings that are newer than its checkpoint have the value that they had in effect."""
    settings = {
        field.name: list(field.default) if isinstance(field.default, tuple) else field.default
        for field in fields(TrainConfig)
        if field.default is not MISSING and field.name not in ELSEWHERE
    }
    return {**settings, **BEFORE, **found, "hyp": {**Hyperparameters().to_dict(), **found.get("hyp", {})}}


def _difference(key: str, found: Any, expected: Any) -> str:
    """One difference between two identities in words; that of long values names no values."""
    if key == "hyp":
        names = [name for name in {**found, **expected} if found.get(name) != expected.get(name)]
        return ", ".join(f"{name} is {found.get(name)} there, {expected.get(name)} here" for name in names)
    if key in ("model", "data"):
        return f"its {key} has other contents"
    return f"{key} is {found} there, {expected} here"
