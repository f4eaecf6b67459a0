"""The check of an export whose trainer is a command: the command is run from the folder for its first epochs."""

import json
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from beagle.folders import absolute_source
from beagle.verification import (
    EPOCHS_KEPT,
    VERSION,
    Finding,
    VerifyError,
    read_expectation,
    read_hyp,
    scaled_back,
)
from evolve.command_spec import CommandSpec
from evolve.command_trainable import TRAINER, run_command
from evolve.journal import RunState, TrialState
from evolve.trainable import Assignment

TOLERANCE = 0.03
"""Of the fitness, absolute: programs of others are seldom the same to the last digit."""


def command_expectation(
    state: RunState, best: TrialState, exported: Mapping[str, Any], settings: Mapping[str, Any]
) -> str:
    """The text of `verify.json` for a command.

    Args:
        state: The run.
        best: Its winner.
        exported: Values of the folder's hyp.yaml, under the command's own keys.
        settings: Of the trials.
    """
    spec = CommandSpec.from_dict(settings[TRAINER])
    trial = spec.handover.values(best.config)
    names = {spec.handover.names.get(name, name): name for name in best.config}
    rows = [best.reports[epoch].get("fitness") for epoch in sorted(best.reports)][:EPOCHS_KEPT]
    facts = {
        "version": VERSION,
        "format": "command",
        "what": "what the winning trial measured; `beagle verify` runs the command as it did, and compares",
        "settings": {**settings, "batch_size": best.result.get("batch", settings["batch_size"])},
        "names": names,
        "rescaled": {key: [exported[key], trial[key]] for key in names if exported[key] != trial[key]},
        "first_epochs": rows,
        "tolerance": TOLERANCE,
    }
    return json.dumps(facts, indent=2, allow_nan=False) + "\n"


def verify_command_export(folder: Path, data: str | None, epochs: int, device: str) -> Iterator[Finding]:
    """Run the command for its first epochs, and compare their fitness.

    Args:
        folder: The export, whose hashes were checked.
        data: Where the data lies; None where it lay.
        epochs: How many, at most as many as were recorded.
        device: "auto", "cpu", "cuda" or "cuda:N".

    Yields:
        What was compared.

    Raises:
        VerifyError: The command can't be run from the folder.
    """
    facts = read_expectation(folder)
    recorded = facts["first_epochs"][:epochs]
    if not recorded:
        return
    settings = {**facts["settings"], "device": device, **({"data": absolute_source(data)} if data else {})}
    hyp = read_hyp(folder)
    config = scaled_back(hyp, facts, folder)
    settings[TRAINER]["handover"]["fixed"] = {key: hyp[key] for key in hyp if key not in facts["names"]}
    rows = _first_epochs(folder, config, settings, len(recorded))
    for epoch, expected in enumerate(recorded):
        found = rows.get(epoch)
        if expected is not None:
            holds = found is not None and abs(found - expected) <= facts["tolerance"]
            yield Finding(f"epoch {epoch + 1}: fitness", expected, "none" if found is None else found, holds)


def _first_epochs(
    folder: Path, config: dict[str, float], settings: dict[str, Any], epochs: int
) -> dict[int, float | None]:
    """Epoch to fitness of the first few epochs of the command."""
    rows: dict[int, float | None] = {}

    def report(epoch: int, metrics: dict[str, float]) -> None:
        rows[epoch] = metrics.get("fitness")
        if len(rows) >= epochs:
            raise SystemExit  # as a search does that ends a trial early: the command is ended with it

    with tempfile.TemporaryDirectory(prefix="beagle-verify-") as place:
        trial_folder = Path(place) / "trials" / "0000"
        trial_folder.mkdir(parents=True)
        try:
            outcome = run_command(Assignment(0, dict(config), settings, str(trial_folder)), report)
        except SystemExit:
            return rows
        except RuntimeError as error:
            raise VerifyError(f"{folder}: {error}") from error
    if outcome.reason:
        raise VerifyError(f"{folder}: {outcome.reason}")
    return rows
