import csv
import dataclasses
import json

import numpy as np
import pytest
import torch
import yaml

from dataset import Dataset, Split, load
from trainer import Hyperparameters, TrainConfig, TrainError, train
from trainer.checkpoint import load as load_checkpoint

MEASURED = [
    "fitness",
    "map50",
    "map50_95",
    "precision",
    "recall",
    "box_loss",
    "obj_loss",
    "cls_loss",
    "lr",
    "seconds",
]


class StopError(Exception):
    """What a report raises to interrupt a training."""


@pytest.fixture
def config(tiny_dataset, tmp_path):
    """A training of seconds: two batches an epoch at 64 px."""
    hyp = Hyperparameters(mixup=0.2, degrees=5)
    settings = {"data": str(tiny_dataset), "model": "yolov5n", "out": tmp_path / "out", "hyp": hyp}
    return TrainConfig(**settings, epochs=3, batch_size=8, image_size=64, anchors="keep", threads=1)


def stop_after(epoch):
    def report(done, _):
        if done == epoch:
            raise StopError

    return report


def states_equal(first, second):
    if isinstance(first, torch.Tensor):
        return torch.equal(first, second)
    if isinstance(first, dict):
        return first.keys() == second.keys() and all(states_equal(first[key], second[key]) for key in first)
    if isinstance(first, list):
        return len(first) == len(second) and all(map(states_equal, first, second))
    return first == second


def without_times(state):
    """A checkpoint without what a clock or a folder name decides."""
    history = [{key: value for key, value in row.items() if key != "seconds"} for row in state["history"]]
    return {**state, "history": history, "config": None}


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_a_resumed_training_equals_an_unbroken_one_bit_for_bit(config, tmp_path, optimizer):
    config = dataclasses.replace(config, optimizer=optimizer)
    whole = train(config)
    broken = dataclasses.replace(config, out=tmp_path / "broken")
    for epoch in (0, 1):  # each boundary between two epochs
        with pytest.raises(StopError):
            train(dataclasses.replace(broken, resume=epoch > 0), report=stop_after(epoch))
    resumed = train(dataclasses.replace(broken, resume=True))
    assert resumed.epochs == whole.epochs == 3
    first, second = (without_times(load_checkpoint(result.last)) for result in (whole, resumed))
    assert [key for key in first if not states_equal(first[key], second[key])] == []


def test_the_same_seed_gives_the_same_training_and_another_seed_another(config, tmp_path):
    torch.manual_seed(99)
    before = torch.random.get_rng_state()
    weights = []
    for index, seed in enumerate((1, 1, 2)):
        changed = dataclasses.replace(config, seed=seed, epochs=1, out=tmp_path / str(index))
        weights.append(load_checkpoint(train(changed).last)["weights"])
    assert states_equal(weights[0], weights[1])
    assert not states_equal(weights[0], weights[2])
    assert torch.equal(torch.random.get_rng_state(), before), "the global generator must be left alone"


def test_a_training_writes_its_folder_and_reports_each_epoch_after_its_checkpoint(config):
    reported, bars = [], []

    def report(epoch, metrics):
        assert len(load_checkpoint(config.out / "weights" / "last.pt")["history"]) == epoch + 1
        reported.append(metrics)

    result = train(config, report, progress=lambda *step: bars.append(step))
    assert [list(row) for row in reported] == [MEASURED] * 3
    assert reported == result.history
    assert result.status == "finished"
    assert result.metrics == result.history[result.best_epoch]
    assert result.fitness == max(row["fitness"] for row in result.history)
    names = sorted(str(path.relative_to(config.out)) for path in config.out.rglob("*.*"))
    assert names == ["config.json", "hyp.yaml", "results.csv", "weights/best.pt", "weights/last.pt"]
    assert TrainConfig.from_dict(json.loads((config.out / "config.json").read_text())) == config
    hyp = Hyperparameters.from_dict(yaml.safe_load((config.out / "hyp.yaml").read_text()))
    assert hyp == config.hyp
    rows = list(csv.DictReader((config.out / "results.csv").read_text().splitlines()))
    assert [list(row) for row in rows] == [["epoch", *MEASURED]] * 3
    assert [float(row["box_loss"]) for row in rows] == [row["box_loss"] for row in result.history]
    assert bars[:3] == [("train", 1, 2), ("train", 2, 2), ("evaluate", 8, 8)]


def test_the_notes_say_what_was_decided(config):
    result = train(dataclasses.replace(config, epochs=1, image_size=65))
    said = " / ".join(result.notes)
    for part in (
        "image size 96 instead of 65",
        "steps of 8 images instead of 64",
        "warm-up of 0 iterations instead",
    ):
        assert part in said


def test_an_out_folder_with_something_in_it_is_refused(config):
    config.out.mkdir()
    (config.out / "thesis.txt").write_text("precious")
    with pytest.raises(TrainError, match="is not empty: choose another out folder, or resume"):
        train(config)
    assert [path.name for path in config.out.iterdir()] == ["thesis.txt"]


def test_resuming_a_finished_training_returns_its_result_at_once(config):
    first = train(dataclasses.replace(config, epochs=1))
    reported = []
    again = train(dataclasses.replace(config, epochs=1, resume=True), report=lambda *_: reported.append(_))
    assert again == first
    assert reported == []


def test_resuming_where_nothing_was_finished_starts_anew(config):
    config.out.mkdir()
    (config.out / "config.json").write_text("{}")
    assert train(dataclasses.replace(config, epochs=1, resume=True)).epochs == 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"epochs": 5}, "epochs is 3 there, 5 here"),
        ({"hyp": Hyperparameters(lr0=0.02, mixup=0.2, degrees=5)}, "lr0 is 0.01 there, 0.02 here"),
        ({"model": "yolov5s"}, "its model has other contents"),
        ({"seed": 4, "optimizer": "adam"}, "optimizer is auto there, adam here; seed is 0 there, 4 here"),
    ],
)
def test_a_checkpoint_of_another_configuration_is_refused(config, changes, message):
    with pytest.raises(StopError):
        train(config, report=stop_after(0))
    with pytest.raises(TrainError, match=f"cannot be resumed: {message}"):
        train(dataclasses.replace(config, resume=True, **changes))


def test_a_checkpoint_of_other_data_is_refused(config, tiny_dataset):
    with pytest.raises(StopError):
        train(config, report=stop_after(0))
    other = dataclasses.replace(load(tiny_dataset), fingerprint="0" * 64)
    with pytest.raises(TrainError, match="its data has other contents"):
        train(dataclasses.replace(config, resume=True), dataset=other)


def test_a_training_that_diverges_is_a_result(config):
    huge = Hyperparameters(lr0=1e6)
    result = train(dataclasses.replace(config, epochs=8, optimizer="sgd", hyp=huge))
    assert (result.status, result.fitness) == ("diverged", None)
    assert "in epoch" in result.reason or "after epoch" in result.reason
    assert result.epochs == len(result.history) < 8


STILL = {name: 0 for name in ("mosaic", "mixup", "translate", "hsv_h", "hsv_s", "hsv_v")} | {"scale": 0.1}


def test_losses_fall(config):
    result = train(
        dataclasses.replace(config, epochs=12, batch_size=4, hyp=Hyperparameters(lr0=0.03, **STILL))
    )
    for name in ("box_loss", "cls_loss"):
        losses = [row[name] for row in result.history]
        assert np.mean(losses[-3:]) < 0.93 * losses[0], name


@pytest.mark.slow
def test_boxes_are_found(config):
    result = train(
        dataclasses.replace(config, epochs=50, batch_size=4, hyp=Hyperparameters(lr0=0.03, **STILL))
    )
    first, last = result.history[0], result.history[-1]
    assert last["box_loss"] < 0.7 * first["box_loss"]
    assert last["cls_loss"] < 0.5 * first["cls_loss"]
    assert result.metrics["map50"] > max(0.2, 5 * first["map50"])


def test_anchors_that_miss_the_boxes_are_fitted_and_saved(config):
    far = [[[400, 400], [410, 410]], [[420, 420], [430, 430]], [[440, 440], [450, 450]]]
    model = config.out.parent / "far.yaml"
    from model.spec import load_spec, spec_to_yaml

    model.write_text(spec_to_yaml(load_spec("yolov5n", classes=3, anchors=far)))
    result = train(dataclasses.replace(config, model=str(model), anchors="auto", epochs=1))
    assert np.shape(result.anchors) == (3, 2, 2)
    assert np.max(result.anchors) < 100
    assert any(
        "anchors fitted, 2 per level: best possible recall 0.0000 -> " in note for note in result.notes
    )
    resumed = train(dataclasses.replace(config, model=str(model), anchors="auto", epochs=1, resume=True))
    assert resumed.anchors == result.anchors


@pytest.mark.parametrize(("anchors", "per_level"), [("auto", 5), ("keep", 3)])
def test_the_anchors_gene_changes_their_number_unless_they_are_kept(config, anchors, per_level):
    hyp = Hyperparameters(anchors=5)
    result = train(dataclasses.replace(config, anchors=anchors, hyp=hyp, epochs=1))
    assert np.shape(result.anchors) == (3, per_level, 2)
    assert any("hyp.anchors = 5 has no effect" in note for note in result.notes) == (anchors == "keep")


def test_given_anchors_are_taken_as_they_are(config):
    given = (((5.0, 6.0),), ((15.0, 16.0),), ((45.0, 46.0),))
    assert train(dataclasses.replace(config, anchors=given, epochs=1)).anchors == [
        [[5.0, 6.0]],
        [[15.0, 16.0]],
        [[45.0, 46.0]],
    ]
    with pytest.raises(TrainError, match="anchors must have 3 levels for yolov5n, but got 1"):
        train(dataclasses.replace(config, anchors=given[:1], out=config.out.parent / "other"))


def test_weights_of_another_training_are_started_from(config, tmp_path):
    first = train(dataclasses.replace(config, epochs=1))
    further = dataclasses.replace(config, epochs=1, weights=str(first.best), out=tmp_path / "further", seed=5)
    notes = train(further).notes
    assert any("started from" in note and "tensors taken" in note for note in notes)


def test_a_data_set_without_any_box_and_with_one_class_is_no_fault(config, tiny_dataset):
    data = load(tiny_dataset)
    bare = {name: empty_split(split) for name, split in data.splits.items()}
    nothing = dataclasses.replace(data, names=("thing",), splits=bare, fingerprint="1" * 64)
    result = train(dataclasses.replace(config, epochs=1, anchors="auto"), dataset=nothing)
    assert isinstance(nothing, Dataset)
    assert (result.status, result.fitness) == ("finished", 0.0)
    assert result.history[0]["cls_loss"] == 0


def empty_split(split: Split) -> Split:
    return dataclasses.replace(split, labels=tuple(np.zeros((0, 5), np.float32) for _ in split.labels))


def test_worker_processes_change_nothing(config, tmp_path):
    config = dataclasses.replace(config, epochs=1)
    alone = load_checkpoint(train(config).last)["weights"]
    helped = load_checkpoint(train(dataclasses.replace(config, workers=1, out=tmp_path / "w")).last)[
        "weights"
    ]
    assert states_equal(alone, helped)
