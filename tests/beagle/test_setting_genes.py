"""Genes that are no hyperparameters: what a training is told by words and switches can be evolved too."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import yaml

from beagle.folders import CommandError
from beagle.genes import GENES, OPTIONAL_GENES, build_space
from beagle.production import export_best
from beagle.setting_genes import SETTING_GENES, SWITCHES, check_setting_genes, overlaid
from beagle.wiring import EvolveOptions, start_run, train_detector
from evolve.journal import Journal, fold, read_journal
from evolve.ladder import Ladder
from evolve.ledger import Ledger
from evolve.ray_driver import Resources
from evolve.trainable import run_trial
from model.spec import ModelError, load_spec
from trainer.checkpoint import load as load_checkpoint
from trainer.config import CHOICES, RANGES, Hyperparameters, TrainConfig, TrainError
from trainer.predict import load_detector

SETTINGS = {"data": "digits", "model": "yolov5n", "out": "out", "hyp": Hyperparameters().to_dict()}
SOME = ("optimizer", "box_loss", "image_weights", "multi_scale", "dropblock", "attention")


def write(path: Path, content: object) -> Path:
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    return path


def test_all_that_is_a_number_word_or_switch_of_the_learning_is_a_gene() -> None:
    numbers = {*GENES, *OPTIONAL_GENES}
    assert numbers == RANGES.keys()
    where_it_runs = {"amp", "cache", "pipeline", "difficult"}
    assert CHOICES.keys() - where_it_runs <= SETTING_GENES.keys()
    assert set(SWITCHES) <= {field.name for field in dataclasses.fields(TrainConfig)}


def test_every_choice_is_accepted_by_a_training() -> None:
    space = build_space(tuple(SETTING_GENES), None, Hyperparameters())
    assert space.names == tuple(SETTING_GENES)
    check_setting_genes(space.genes, SETTINGS)


def test_genes_start_where_the_training_is() -> None:
    training = {"box_loss": "giou", "rect": True, "optimizer": "auto"}
    space = build_space(("box_loss", "rect", "multi_scale", "optimizer"), None, Hyperparameters(), training)
    assert space.start == {"box_loss": "giou", "rect": "on", "multi_scale": "off", "optimizer": "sgd"}


def test_a_space_file_names_choices_ranges_and_switches(tmp_path: Path) -> None:
    rows = {
        "lr0": [1e-3, 1e-1],
        "optimizer": {"choices": ["adamw", "sgd"]},
        "momentum": {"low": 0.8, "high": 0.98, "when": {"optimizer": "sgd"}},
        "autobalance": {"choices": [True, False]},  # as YAML reads the words on and off
        "dropblock": [0, 0.2],
    }
    space = build_space((), write(tmp_path / "space.yaml", rows), Hyperparameters())
    assert space["autobalance"].choices == ("on", "off")
    assert (space["dropblock"].low, space["dropblock"].high, space["dropblock"].start) == (0, 0.2, 0)
    assert space["momentum"].when == ("optimizer", ("sgd",))


@pytest.mark.parametrize("row", [[0, 1], "ciou", {"low": 0, "high": 1}])
def test_a_gene_of_words_without_words_is_refused(tmp_path: Path, row: object) -> None:
    with pytest.raises(CommandError, match=r"space\.yaml: gene box_loss must be a map with choices"):
        build_space((), write(tmp_path / "space.yaml", {"box_loss": row}), Hyperparameters())


@pytest.mark.parametrize(
    ("name", "choices", "error", "message"),
    [
        ("box_loss", ["ciou", "eiou"], TrainError, "box_loss must be one of ciou, diou, giou, iou"),
        ("attention", ["none", "sma"], ModelError, "attention"),
    ],
)
def test_a_choice_that_a_trial_would_refuse_refuses_the_run(
    tmp_path: Path, options: EvolveOptions, name: str, choices: list[str], error: type, message: str
) -> None:
    space = write(tmp_path / "space.yaml", {name: {"choices": choices}})
    with pytest.raises(error, match=message):
        start_run(
            tmp_path / "run", dataclasses.replace(options, space=space, genes=()), Resources(), lambda _: None
        )
    assert not (tmp_path / "run").exists()


def test_a_trial_s_settings_are_the_run_s_with_its_genes_in_their_places() -> None:
    config = {"lr0": 0.02, "box_loss": "diou", "rect": "on", "dropblock": 0.1, "attention": "none"}
    found = overlaid(SETTINGS, config)
    assert found["hyp"]["lr0"] == 0.02
    assert found["hyp"]["mosaic"] == 1
    assert (found["box_loss"], found["rect"]) == ("diou", True)
    assert load_spec(found["model"], classes=3).options.dropblock == 0.1
    assert SETTINGS["hyp"]["lr0"] == 0.01
    assert overlaid(SETTINGS, {}) == SETTINGS


def test_a_trial_trains_with_its_genes_and_production_is_told_them(
    tmp_path: Path, options: EvolveOptions
) -> None:
    rows: dict[str, Any] = {
        name: {"choices": list(SETTING_GENES[name])[::-1]} for name in SOME if name != "dropblock"
    }
    rows |= {"dropblock": {"low": 0, "high": 0.2, "start": 0.1}, "lr0": [1e-3, 0.1]}
    rows["attention"] = {"choices": ["se", "none"]}
    space = write(tmp_path / "space.yaml", rows)
    folder = tmp_path / "run"
    start_run(
        folder,
        dataclasses.replace(options, space=space, genes=(), ladder=Ladder((1,)), training={"device": "cpu"}),
        Resources(),
        lambda _: None,
    )
    with Journal(folder / "journal.jsonl") as journal:
        ledger = Ledger(folder, journal)
        first = ledger.next_assignment()
        assert first is not None
        ledger.ended(0, run_trial(first, train_detector, lambda epoch, row: ledger.reported(0, epoch, row)))
    trial = fold(read_journal(folder / "journal.jsonl")).trials[0]
    assert trial.fitness is not None, trial.reason
    trained = load_checkpoint(folder / "trials/0000/training/weights/best.pt")
    for name in ("optimizer", "box_loss"):
        assert trained["config"][name] == trial.config[name]
    for name in ("image_weights", "multi_scale"):
        assert trained["config"][name] == (trial.config[name] == "on")
    learnt = load_detector(folder / "trials/0000/training/weights/best.pt")[0].spec.options
    assert learnt.dropblock == trial.config["dropblock"] == 0.1
    assert learnt.attention == trial.config["attention"] == "se"
    target = export_best(folder, tmp_path / "production")
    command = (target / "train.sh").read_text()
    assert f"--optimizer {trial.config['optimizer']}" in command
    assert f"--box-loss {trial.config['box_loss']}" in command
    assert ("--image-weights" in command) == (trial.config["image_weights"] == "on")
    exported = load_spec(str(target / "model.yaml"), classes=2)
    assert (exported.options.dropblock, exported.options.attention) == (0.1, "se")
    assert not SETTING_GENES.keys() & yaml.safe_load((target / "hyp.yaml").read_text()).keys()
