"""`beagle verify`: an honest export passes; one whose hyperparameters, anchors or weights were changed does not."""

import dataclasses
import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from beagle.production import Wanted, export_best, versions
from beagle.verification import compare, other_versions, read_expectation, trial_hyperparameters
from beagle.wiring import EvolveOptions, start_run, train_detector
from evolve.journal import Journal
from evolve.ladder import Ladder
from evolve.ledger import Ledger
from evolve.resources import Resources
from evolve.trainable import run_trial

Beagle = Callable[..., Any]


@pytest.fixture(scope="module")
def exports(finished_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """``exports("yolov5")``: an export in that format, made once; read only."""
    made: dict[str, Path] = {}

    def export(name: str) -> Path:
        if name not in made:
            made[name] = export_best(finished_run, tmp_path_factory.mktemp("exports") / name, Wanted(name))
        return made[name]

    return export


@pytest.fixture
def copy(exports: Callable[[str], Path], tmp_path: Path) -> Path:
    """An export that a test may spoil."""
    return Path(shutil.copytree(exports("beagle"), tmp_path / "production"))


@pytest.mark.parametrize("name", ["beagle", "yolov5", "scaled-yolov4", "ultralytics"])
def test_an_honest_export_repeats_what_the_trial_measured(
    name: str, exports: Callable[[str], Path], beagle: Beagle
) -> None:
    said = beagle("verify", exports(name), "--device", "cpu", "--json")
    assert said.code == 0, said.err
    found = json.loads(said.out)
    assert found["holds"]
    rows = {row["what"]: row for row in found["checks"]}
    assert {"best.pt: map50", "epoch 1: box_loss", "epoch 2: map50_95"} <= set(rows)
    for row in found["checks"]:
        assert row["found"] == pytest.approx(row["expected"], rel=1e-4, abs=1e-6)


def test_a_training_that_began_from_weights_takes_them_along(
    finished_run: Path, options: EvolveOptions, tmp_path: Path, beagle: Beagle
) -> None:
    weights = str(finished_run / "trials/0000/training/weights/best.pt")
    begun = dataclasses.replace(
        options, ladder=Ladder((1,)), trials=1, training={"device": "cpu", "weights": weights}
    )
    run = tmp_path / "begun"
    start_run(run, begun, Resources(), lambda _line: None)
    with Journal(run / "journal.jsonl") as journal:
        ledger = Ledger(run, journal)
        trial = ledger.next_assignment()
        assert trial is not None
        ledger.ended(0, run_trial(trial, train_detector, lambda epoch, row: ledger.reported(0, epoch, row)))
    target = export_best(run, tmp_path / "production")
    assert (target / "start.pt").read_bytes() == Path(weights).read_bytes()
    assert "--weights start.pt" in (target / "train.sh").read_text()
    said = beagle("verify", target, "--device", "cpu", "--json")
    assert said.code == 0, said.err
    assert "epoch 1: box_loss" in {row["what"] for row in json.loads(said.out)["checks"]}


def test_hyperparameters_come_back_as_the_trial_had_them(
    exports: Callable[[str], Path], finished_run: Path
) -> None:
    trial = yaml.safe_load((finished_run / "trials/0000/training/hyp.yaml").read_text())
    for name in ("beagle", "yolov5", "scaled-yolov4", "ultralytics"):
        folder = exports(name)
        assert trial_hyperparameters(folder, read_expectation(folder)).to_dict() == trial


def spoil_hyp(folder: Path) -> None:
    hyp = yaml.safe_load((folder / "hyp.yaml").read_text())
    (folder / "hyp.yaml").write_text(yaml.safe_dump({**hyp, "box": hyp["box"] * 1.2}))


def spoil_anchors(folder: Path) -> None:
    model = yaml.safe_load((folder / "model.yaml").read_text())
    model["anchors"] = [[side * 1.3 for side in row] for row in model["anchors"]]
    (folder / "model.yaml").write_text(yaml.safe_dump(model))


def spoil_weights(folder: Path) -> None:
    state = torch.load(folder / "best.pt", weights_only=True)
    for key, tensor in state["ema"]["weights"].items():
        if key.endswith("m.0.weight") or key.endswith("m.0.bias"):
            tensor.neg_()
    torch.save(state, folder / "best.pt")


SPOILED: dict[str, tuple[Callable[[Path], None], str]] = {
    "hyp": (spoil_hyp, "hyp.yaml"),
    "anchors": (spoil_anchors, "model.yaml"),
    "weights": (spoil_weights, "best.pt"),
}


@pytest.mark.parametrize("what", SPOILED)
def test_a_changed_file_is_told_by_its_hash(what: str, copy: Path, refused: Callable[..., str]) -> None:
    spoil, name = SPOILED[what]
    spoil(copy)
    assert f"{name}: the file was changed since the export" in refused("verify", copy)


@pytest.mark.parametrize("what", ["hyp", "anchors"])
def test_a_changed_file_whose_hash_was_changed_too_is_told_by_training(
    what: str, copy: Path, refused: Callable[..., str]
) -> None:
    spoil, name = SPOILED[what]
    spoil(copy)
    forge(copy, name)
    line = refused("verify", copy, "--device", "cpu")
    assert "checks do not hold, the first: epoch 1: " in line


def forge(folder: Path, name: str) -> None:
    facts = json.loads((folder / "provenance.json").read_text())
    facts["files"][name] = hashlib.sha256((folder / name).read_bytes()).hexdigest()
    (folder / "provenance.json").write_text(json.dumps(facts))


def test_changed_weights_whose_hash_was_changed_too_are_told_by_measuring(
    copy: Path, refused: Callable[..., str]
) -> None:
    # The least detector after two epochs finds nothing yet: what it promises is raised, as better weights would.
    facts = json.loads((copy / "verify.json").read_text())
    facts["best_weights"]["map50"] += 0.1
    (copy / "verify.json").write_text(json.dumps(facts))
    forge(copy, "verify.json")
    assert "the first: best.pt: map50 must be" in refused("verify", copy, "--epochs", "0", "--device", "cpu")


def test_a_folder_that_is_no_export_or_lacks_a_file_is_refused(
    copy: Path, tmp_path: Path, refused: Callable[..., str]
) -> None:
    assert "is no export: provenance.json can't be read" in refused("verify", tmp_path)
    (copy / "train.sh").unlink()
    assert "train.sh: the file is missing" in refused("verify", copy)
    assert "epochs >= 0 must hold" in refused("verify", copy, "--epochs", "-1")


def test_other_data_is_no_ground_to_compare_on(
    copy: Path, write_set: Callable[..., Path], refused: Callable[..., str]
) -> None:
    other = write_set({"a": "0 .5 .5 .3 .3", "b": "1 .4 .4 .2 .2"})
    assert "the data is not that of the evolution" in refused("verify", copy, "--data", other)


def test_the_data_may_lie_elsewhere(copy: Path, tiny: Path, tmp_path: Path, beagle: Beagle) -> None:
    moved = shutil.copytree(tiny.parent, tmp_path / "moved")
    said = beagle("verify", copy, "--data", moved / "data.yaml", "--epochs", "1", "--device", "cpu")
    assert said.code == 0, said.err
    assert "is what it says" in said.err


def test_another_version_of_what_trained_is_said() -> None:
    (line,) = other_versions({"provenance": {"versions": {"torch": "0.1", "numpy": "0.1"}}})
    assert "the trials ran with 0.1" in line
    assert list(other_versions({"provenance": provenance_now()})) == []


def provenance_now() -> dict[str, Any]:
    return {"versions": versions("torch", "beagle-evolve")}


def test_differences_are_judged_by_the_stated_tolerance() -> None:
    tolerance = {"loss": 0.03, "map": 0.02}
    recorded: list[dict[str, float | None]] = [{"box_loss": 1.0, "map50": 0.5, "map50_95": None}]
    for row, holds in (
        ({"box_loss": 1.02, "map50": 0.49}, [True, True]),
        ({"box_loss": 0.9, "map50": 0.6}, [False, False]),
    ):
        assert [finding.holds for finding in compare(recorded, [row], tolerance)] == holds
    assert list(compare([], [], tolerance)) == []
