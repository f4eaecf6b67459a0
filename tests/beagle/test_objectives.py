"""An evolution of several objectives by the command: real trainings, their costs, the front, and what is exported."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from beagle.folders import CommandError
from beagle.genes import build_space
from beagle.setting_genes import check_setting_genes
from beagle.wiring import EvolveOptions, start_run, train_detector
from evolve.journal import Journal, fold, read_journal
from evolve.ladder import Ladder
from evolve.ledger import Ledger
from evolve.ray_driver import Resources
from evolve.trainable import run_trial
from trainer.config import Hyperparameters


def test_trials_measure_their_costs_and_the_one_picked_is_exported(
    beagle: Callable[..., Any], tiny: Path, tmp_path: Path
) -> None:
    space = tmp_path / "space.yaml"
    space.write_text(yaml.safe_dump({"lr0": [1e-3, 1e-1], "model": {"choices": ["yolov5n", "yolov5s"]}}))
    folder = tmp_path / "runs" / "several"
    options = EvolveOptions(
        data=str(tiny), model="yolov5n", trials=2, ladder=Ladder((1,)), batch_size=12, image_size=64, space=space,
        objectives=("fitness", "latency", "parameters"),
    )  # fmt: skip
    start_run(folder, options, Resources(), lambda _line: None)
    with Journal(folder / "journal.jsonl") as journal:
        ledger = Ledger(folder, journal)
        for number in range(2):
            trial = ledger.next_assignment()
            assert trial is not None
            ledger.ended(
                number,
                run_trial(trial, train_detector, lambda epoch, row, n=number: ledger.reported(n, epoch, row)),
            )
    state = fold(read_journal(folder / "journal.jsonl"))
    for each in state.trials.values():
        costs = each.result["costs"]
        assert costs["latency"] > 0
        assert costs["latency_spread"] >= 0
        assert costs["parameters"] == pytest.approx(
            1.76e6 if each.config["model"] == "yolov5n" else 7.02e6, rel=0.01
        )
    front = json.loads(beagle("status", folder, "--json").out)["front"]
    assert {row["trial"] for row in front} <= {0, 1}
    assert "Beaten by no other" in beagle("status", folder).out
    smallest = min(front, key=lambda row: row["parameters"])["trial"]
    said = beagle("export", folder, "--to", tmp_path / "small", "--pick", "parameters")
    assert said.code == 0, said.err
    facts = json.loads((tmp_path / "small" / "provenance.json").read_text())
    assert (facts["trial"], facts["picked"], facts["measured"]["trial"]) == (smallest, "parameters", smallest)
    refused = beagle("export", folder, "--to", tmp_path / "none", "--pick", "speed")
    assert (refused.code, (tmp_path / "none").exists()) == (1, False)


def test_models_with_other_levels_are_refused_as_a_gene() -> None:
    space = {"model": {"choices": ["yolov5n", "yolov5n6"]}}
    settings = {"data": "digits", "model": "yolov5n", "out": "out", "hyp": Hyperparameters().to_dict()}
    path = Path("space.yaml")
    path.write_text(yaml.safe_dump(space))
    with pytest.raises(CommandError, match="yolov5n6 has not"):
        check_setting_genes(build_space((), path, Hyperparameters(), settings).genes, settings)


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("--objectives", "latency,parameters"), "fitness and others"),
        (("--objectives", "fitness,speed"), "speed"),
        (("--objectives", "fitness,latency", "--search", "tpe"), "genetic alone"),
        (("--objectives", "fitness,latency", "--epochs", "1,2"), "no ladder"),
    ],
)
def test_objectives_that_cannot_be_are_refused_before_anything_is_written(
    untouched: Callable[..., str], tiny: Path, words: tuple[str, ...], why: str
) -> None:
    line = untouched("evolve", tiny, "--model", "yolov5n", "--image-size", 64, "--trials", 2, *words)
    assert why in line
