"""Where the rooms meet."""

import dataclasses
import json
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import typer
import yaml
from hypothesis import given
from hypothesis import strategies as st

from anchors import AnchorError, metrics
from beagle import production, reopening, wiring
from beagle.cli import app
from beagle.fitting import Inputs, fit_anchors
from beagle.folders import CommandError
from beagle.wiring import EvolveOptions
from dataset import DataError, load
from evolve.journal import Journal, JournalError, fold, read_journal
from evolve.ray_driver import Resources
from evolve.search import search_from_events
from evolve.space import SpaceError
from evolve.trainable import Assignment
from model.spec import ModelError, load_spec, round_image_size
from trainer import checkpoint, prepare
from trainer.config import Hyperparameters, TrainConfig, TrainError

RESOURCES = Resources(cpus=1.0, concurrent=2)


def silent(_line: str) -> None:
    """A note that nobody reads."""


def changed(options: EvolveOptions, **changes: Any) -> EvolveOptions:
    return dataclasses.replace(options, **changes)


@given(st.integers(1, 5000), st.sampled_from([32, 64, 128]))
def test_an_image_size_is_rounded_as_the_trainer_rounds_it(size: int, grid: int) -> None:
    rounded = round_image_size(size, grid)
    assert rounded == prepare.round_image_size(size, grid)[0]
    assert rounded >= size
    assert rounded % grid == 0


@pytest.mark.parametrize(("changes", "match"), [({"trials": 0}, "trials >= 1"), ({"anchors": "no"}, "'no'")])
def test_options_that_can_not_be_are_refused_at_birth(
    changes: dict[str, Any], match: str, options: EvolveOptions
) -> None:
    with pytest.raises(CommandError, match=match):
        changed(options, **changes)


@pytest.mark.parametrize("mode", ["keep", "auto", "fit"])
def test_anchors_are_never_worse_than_the_model_s(mode: str, tiny: Path) -> None:
    data, spec = load(tiny), load_spec("yolov5n")
    found = fit_anchors(Inputs(data, spec, 64), mode=mode)
    assert (found.fitted is not None) == (mode == "fit")
    assert found.before == metrics.evaluate(data.shapes(64), np.asarray(spec.anchors))
    assert found.after == metrics.evaluate(data.shapes(64), found.anchors)
    assert found.after.fitness >= found.before.fitness
    if mode != "fit":  # the model's own reach these boxes
        np.testing.assert_array_equal(found.anchors, spec.anchors)


def test_auto_fits_anchors_that_reach_too_few_boxes(tiny: Path) -> None:
    spec = load_spec("yolov5n", anchors=np.asarray(load_spec("yolov5n").anchors) * 20)
    found = fit_anchors(Inputs(load(tiny), spec, 64))
    assert found.before.bpr < 0.98 <= found.after.bpr
    assert found.fitted is not None


def test_progress_of_a_fit_ends_at_one(tiny: Path) -> None:
    shares: list[float] = []
    fit_anchors(Inputs(load(tiny), load_spec("yolov5n"), 64), mode="fit", progress=shares.append)
    assert shares == sorted(shares)
    assert shares[-1] == 1.0


def test_a_new_run_has_a_header_that_the_search_and_the_trainer_read(
    tmp_path: Path, options: EvolveOptions
) -> None:
    notes: list[str] = []
    folder = tmp_path / "runs" / "new"
    found = wiring.start_run(folder, changed(options, image_size=70, anchors="fit"), RESOURCES, notes.append)

    events = read_journal(folder / "journal.jsonl")
    assert [event["event"] for event in events] == ["run"]
    state = fold(events)
    assert (state.name, state.budget, state.header["seed"]) == ("new", 2, 0)
    assert state.header["resources"] == RESOURCES.to_dict()
    assert search_from_events(events).ask().config == {"lr0": 0.01, "mosaic": 1.0}
    assert any("70 is no multiple of 32: 96 is used" in note for note in notes)
    settings = {key: value for key, value in state.header["settings"].items() if key != "classes"}
    config = TrainConfig.from_dict({**settings, "out": "x"})
    assert (config.image_size, config.data, config.model) == (96, options.data, "yolov5n")
    np.testing.assert_allclose(config.anchors, found.anchors, atol=0.006)
    shapes = state.header["shapes"]
    assert len(shapes["wh"]) == 24
    assert shapes["after"]["fitness"] > shapes["before"]["fitness"]
    assert (folder / "anchors.png").read_bytes().startswith(b"\x89PNG")
    assert state.header["provenance"]["data_hash"] == load(options.data).fingerprint


def _voc_with_difficult_objects(root: Path) -> Path:
    """Four images, each with an easy square and a difficult sliver."""
    for name in ("Annotations", "ImageSets/Main", "JPEGImages"):
        (root / name).mkdir(parents=True)
    corners = "<xmin>{}</xmin><ymin>4</ymin><xmax>{}</xmax><ymax>36</ymax>"
    box = f"<object><name>a</name><difficult>{{}}</difficult><bndbox>{corners}</bndbox></object>"
    for number in range(4):
        cv2.imwrite(str(root / f"JPEGImages/{number}.jpg"), np.full((64, 64, 3), 40 * number, np.uint8))
        size = "<size><width>64</width><height>64</height><depth>3</depth></size>"
        objects = box.format(0, 4, 36) + box.format(1, 50, 53)
        page = f"<annotation><filename>{number}.jpg</filename>{size}{objects}</annotation>"
        (root / f"Annotations/{number}.xml").write_text(page)
    (root / "ImageSets/Main/train.txt").write_text("0\n1\n2\n")
    (root / "ImageSets/Main/val.txt").write_text("3\n")
    return root


def test_difficult_objects_are_left_out_of_all_that_an_evolution_does(
    tmp_path: Path, options: EvolveOptions
) -> None:
    data, folder = _voc_with_difficult_objects(tmp_path / "voc"), tmp_path / "run"
    training = {**options.training, "difficult": "ignore"}
    wiring.start_run(folder, changed(options, data=str(data), training=training), RESOURCES, silent)
    header = fold(read_journal(folder / "journal.jsonl")).header
    assert header["shapes"]["wh"] == [[32.0, 32.0]] * 3
    assert header["provenance"]["data_hash"] == load(data, difficult="ignore").fingerprint


def test_a_relative_data_path_means_the_same_in_a_worker(
    options: EvolveOptions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = Path(options.data)
    monkeypatch.chdir(data.parent)
    wiring.start_run(tmp_path / "run", changed(options, data=data.name), RESOURCES, silent)
    assert fold(read_journal(tmp_path / "run" / "journal.jsonl")).header["settings"]["data"] == str(data)


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"data": "nowhere"}, DataError),
        ({"model": "yolov5q"}, ModelError),
        ({"genes": ("lr9",)}, TrainError),
        ({"hyp": Hyperparameters(lr0=0.5)}, SpaceError),
        ({"training": {"val_every": 0}}, TrainError),
        ({"training": {"device": "gpu"}}, TrainError),
        ({"training": {"devise": "cpu"}}, TrainError),
        ({"image_size": 0}, ModelError),
        ({"training": {"weights": "nowhere.pt"}}, CommandError),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else value.__name__,
)
def test_nothing_is_written_when_a_room_refuses(
    changes: dict[str, Any], error: type[Exception], tmp_path: Path, options: EvolveOptions
) -> None:
    with pytest.raises(error):
        wiring.start_run(tmp_path / "runs" / "new", changed(options, **changes), RESOURCES, silent)
    assert not (tmp_path / "runs").exists()


def test_nothing_is_written_when_anchors_can_not_be_fitted(
    tmp_path: Path, options: EvolveOptions, write_set: Callable[..., Path]
) -> None:
    data = write_set({"a": "0 .5 .5 .3 .3"})
    with pytest.raises(AnchorError, match="distinct box shapes"):
        wiring.start_run(tmp_path / "new", changed(options, data=str(data), anchors="fit"), RESOURCES, silent)
    assert not (tmp_path / "new").exists()


def test_a_run_is_not_started_over_another(tmp_path: Path, options: EvolveOptions) -> None:
    wiring.start_run(tmp_path / "run", options, RESOURCES, silent)
    before = (tmp_path / "run" / "journal.jsonl").read_bytes()
    with pytest.raises(CommandError, match="exists already"):
        wiring.start_run(tmp_path / "run", options, RESOURCES, silent)
    assert (tmp_path / "run" / "journal.jsonl").read_bytes() == before


def test_a_run_is_reopened_with_a_new_budget_or_the_old(tmp_path: Path, options: EvolveOptions) -> None:
    folder = tmp_path / "run"
    wiring.start_run(folder, options, RESOURCES, silent)
    assert reopening.reopen_run(folder, None).budget == 2
    assert reopening.reopen_run(folder, 5).budget == 5
    state = fold(read_journal(folder / "journal.jsonl"))
    assert (state.budget, state.resumes) == (5, 2)


def test_a_run_that_is_being_driven_is_not_reopened(tmp_path: Path, options: EvolveOptions) -> None:
    wiring.start_run(tmp_path / "run", options, RESOURCES, silent)
    with (
        Journal(tmp_path / "run" / "journal.jsonl"),
        pytest.raises(JournalError, match="being written by process"),
    ):
        reopening.reopen_run(tmp_path / "run", None)


def assignment_in(folder: Path, settings: dict[str, Any], **genes: float) -> Assignment:
    trial = folder / "trials" / "0000"
    trial.mkdir(parents=True, exist_ok=True)
    return Assignment(trial=0, config=genes, settings=settings, folder=str(trial))


@pytest.fixture
def settings(tmp_path: Path, options: EvolveOptions) -> dict[str, Any]:
    """What the header of a run says for every trial: two epochs."""
    wiring.start_run(tmp_path / "run", options, RESOURCES, silent)
    found: dict[str, Any] = fold(read_journal(tmp_path / "run" / "journal.jsonl")).header["settings"]
    return found


class StoppedError(RuntimeError):
    """The end of an attempt in the middle of a training."""


def test_a_trial_goes_on_from_its_last_checkpoint(tmp_path: Path, settings: dict[str, Any]) -> None:
    assignment = assignment_in(tmp_path / "run", settings, lr0=0.02, mosaic=0.5)
    first: list[int] = []

    def stop_after_one(epoch: int, metrics: dict[str, float]) -> None:
        first.append(epoch)
        raise StoppedError

    with pytest.raises(StoppedError):
        wiring.train_detector(assignment, stop_after_one)
    second: dict[int, dict[str, float]] = {}
    outcome = wiring.train_detector(assignment, second.__setitem__)

    assert (first, list(second)) == (
        [0],
        [0, 1],
    )  # its last epoch once more, since it may not have been heard
    assert len(outcome.history) == 2
    assert outcome.history[1] == second[1]
    assert outcome.fitness == max(row["fitness"] for row in outcome.history)
    assert outcome.reason is None
    # The whole of it is JSON, as it crosses to the driver, and paths are the run's.
    assert json.loads(json.dumps(outcome.to_dict())) == outcome.to_dict()
    assert (tmp_path / "run" / outcome.result["best"]).is_file()
    assert all((tmp_path / "run" / path).is_file() for path in outcome.result["artifacts"])
    np.testing.assert_allclose(outcome.result["anchors"], settings["anchors"])
    hyp = yaml.safe_load((tmp_path / "run/trials/0000/training/hyp.yaml").read_text())
    assert hyp == {**settings["hyp"], "lr0": 0.02, "mosaic": 0.5}

    third: list[int] = []
    again = wiring.train_detector(assignment, lambda epoch, row: third.append(epoch))
    assert third == []
    assert again == outcome


def test_an_attempt_that_died_before_its_first_checkpoint_is_begun_anew(
    tmp_path: Path, settings: dict[str, Any]
) -> None:
    assignment = assignment_in(tmp_path / "run", {**settings, "epochs": 1})
    debris = tmp_path / "run/trials/0000/training/weights"
    debris.mkdir(parents=True)
    (debris / "last.pt.part").write_bytes(b"half")
    epochs: list[int] = []
    wiring.train_detector(assignment, lambda epoch, row: epochs.append(epoch))
    assert epochs == [0]
    assert not (debris / "last.pt.part").exists()


def test_the_gene_of_anchors_per_level_gives_each_trial_its_own(
    tmp_path: Path, settings: dict[str, Any]
) -> None:
    outcome = wiring.train_detector(
        assignment_in(tmp_path / "run", {**settings, "epochs": 1}, anchors=2), lambda epoch, row: None
    )
    assert np.shape(outcome.result["anchors"]) == (3, 2, 2)


def test_an_attempt_after_want_of_memory_processes_each_batch_in_smaller_parts(
    tmp_path: Path, settings: dict[str, Any]
) -> None:
    plain = assignment_in(tmp_path / "plain", {**settings, "epochs": 1})
    halved = dataclasses.replace(
        assignment_in(tmp_path / "halved", {**settings, "epochs": 1}), micro_batch_halvings=1, attempt=1
    )
    states = []
    for assignment in (plain, halved):
        wiring.train_detector(assignment, lambda epoch, row: None)
        states.append(checkpoint.load(Path(assignment.folder) / "training/weights/last.pt"))
    assert [state["pieces"] for state in states] == [1, 2]
    assert states[0]["config"] | {"out": ""} == states[1]["config"] | {"out": ""}  # the batch is the same


def test_a_trial_with_two_gpus_is_trained_by_two_processes() -> None:
    assert [wiring.devices_of(gpus) for gpus in (0, 0.25, 1, 2, 8)] == [1, 1, 1, 2, 8]


def test_a_batch_that_the_gpus_of_a_trial_can_not_share_is_refused_before_anything_is_written(
    tmp_path: Path, options: EvolveOptions
) -> None:
    with pytest.raises(ValueError, match="batch_size must be a multiple of devices"):
        wiring.start_run(tmp_path / "run", options, Resources(gpus=3), lambda _line: None)
    assert not (tmp_path / "run").exists()


def test_a_training_that_diverges_is_an_outcome_with_a_reason(
    tmp_path: Path, settings: dict[str, Any]
) -> None:
    hyp = {**settings["hyp"], "lr0": 1e6, "warmup_epochs": 0}
    diverging = {**settings, "hyp": hyp, "optimizer": "sgd", "epochs": 8}
    outcome = wiring.train_detector(assignment_in(tmp_path / "run", diverging), lambda epoch, row: None)
    assert outcome.fitness is None
    assert outcome.reason is not None
    assert len(outcome.history) < 8


def test_the_production_command_is_one_that_the_command_takes(finished_run: Path, tmp_path: Path) -> None:
    header = fold(read_journal(finished_run / "journal.jsonl")).header
    settings = header["settings"]
    target = production.export_best(finished_run, tmp_path / "production")
    script = (target / "train.sh").read_text()
    words = shlex.split(script.splitlines()[-1].removeprefix("exec "))[:-1]
    assert words[:2] == ["beagle", "train"]
    assert f"DATA={settings['data']}" in script
    group: Any = typer.main.get_command(app)
    given_ = group.commands["train"].make_context("train", words[2:]).params
    assert (given_["data"], given_["model"], given_["hyp"]) == ("$DATA", "model.yaml", Path("hyp.yaml"))
    assert (given_["image_size"], int(given_["batch_size"]), given_["seed"]) == (64, 4, 0)
    assert (given_["anchors"], given_["epochs"], given_["nominal_batch"]) == ("keep", 300, 4)
    assert given_["optimizer"] == settings["optimizer"]
    assert TrainConfig(
        **{name: given_[name] for name in ("data", "model", "optimizer", "schedule", "epochs")},
        out=Path("out"),
        hyp=Hyperparameters(),
    )


def test_an_export_trains_with_the_best_trial_s_anchors_and_genes(finished_run: Path, tmp_path: Path) -> None:
    target = production.export_best(finished_run, tmp_path / "production")
    best = fold(read_journal(finished_run / "journal.jsonl")).best()
    assert best is not None
    hyp = yaml.safe_load((target / "hyp.yaml").read_text())
    assert Hyperparameters.from_dict(hyp).to_dict() | best.config == Hyperparameters.from_dict(hyp).to_dict()
    spec = load_spec(target / "model.yaml")
    assert spec.classes == 2
    np.testing.assert_allclose(spec.anchors, best.result["anchors"], atol=0.006)
    written = json.loads((target / "provenance.json").read_text())
    assert (written["trial"], written["fitness"], written["seed"]) == (0, best.fitness, 0)
    assert written["provenance"]["data_hash"]
    assert written["provenance"]["versions"]["torch"]
    assert "beagle train" in (target / "train.sh").read_text()


def test_versions_and_data_are_provenance(tiny: Path) -> None:
    data = load(tiny)
    found = production.provenance(data)
    assert found["data_hash"] == data.fingerprint
    assert {"python", "torch", "ray", "mlflow", "numpy", "beagle-evolve"} <= set(found["versions"])
    assert json.loads(json.dumps(found)) == found


def test_outside_a_repository_there_is_no_commit(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(workplace.parent))
    assert production.git_commit() is None
