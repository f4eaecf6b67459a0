"""Each format of an export is read by a stand-in for its program, started by the export's own script."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from beagle.data_yaml import data_files
from beagle.export_formats import FORMATS, anchor_free
from beagle.export_training import Training
from beagle.folders import CommandError
from beagle.production import Wanted, export_best
from beagle.rescale import Length, nominal_step, rescale
from dataset import load
from evolve.journal import fold, read_journal
from model.spec import load_spec
from trainer.config import Hyperparameters

PROGRAMS = Path(__file__).with_name("programs")
OWN = ("yolov5", "scaled-yolov4", "ultralytics")
HYP = Hyperparameters().to_dict()


@pytest.fixture
def programs(tmp_path: Path) -> dict[str, str]:
    """Variables with which the scripts find the stand-ins."""
    line = "import sys; sys.path.insert(0, {place!r}); from reader import read; read({name!r})\n"
    found = dict(os.environ)
    for name, variable in (("yolov5", "YOLOV5"), ("scaled-yolov4", "SCALED_YOLOV4"), ("ultralytics", "PATH")):
        folder = tmp_path / f"a {name}"
        folder.mkdir()
        text = line.format(place=str(PROGRAMS), name=name)
        if name == "ultralytics":
            (folder / "yolo").write_text(f"#!{sys.executable}\n{text}")
            (folder / "yolo").chmod(0o755)
            found["PATH"] = f"{folder}{os.pathsep}{Path(sys.executable).parent}{os.pathsep}{found['PATH']}"
        else:
            (folder / "train.py").write_text(text)
            found[variable] = str(folder)
    return found


@pytest.mark.parametrize("name", OWN)
def test_an_export_is_accepted_by_a_reader_of_its_format(
    name: str, finished_run: Path, tmp_path: Path, programs: dict[str, str]
) -> None:
    notes: list[str] = []
    target = export_best(finished_run, tmp_path / "to production", Wanted(name, 40, 8), notes.append)
    answer = subprocess.run(
        [target / "train.sh"], env=programs, cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert answer.returncode == 0, answer.stderr
    run = "exp0_run" if name == "scaled-yolov4" else "run"
    found = json.loads((target / "training" / run / "read.json").read_text())
    best = fold(read_journal(finished_run / "journal.jsonl")).best()
    assert best is not None
    options, hyp = found["options"], found["hyp"]
    assert (options["epochs"], options["batch" if name == "ultralytics" else "batch_size"]) == ("40", "8")
    assert found["data"] == {"train": 12, "val": 6}
    if name != "ultralytics":
        assert np.reshape(found["model"]["anchors"], (3, 3, 2)) == pytest.approx(
            np.array(best.result["anchors"]), abs=0.006
        )
        assert options["noautoanchor"] == "True"
    # 4 images a step became 64; AdamW, whose rate these programs take as it is
    assert hyp["lr0"] == pytest.approx(best.config["lr0"] * 0.1 * 4)
    assert hyp["weight_decay"] == pytest.approx(0.0005 / 4)
    written = (target / "notes.md").read_text()
    assert all(" ".join(note.split()) in written for note in notes)
    assert any(
        "lr0 0.01 became 0.04: a step is of 64 images, in the trials it was of 4" in note for note in notes
    )
    for module in found["model"]["unknown"]:
        assert any(module in note and "own models do not use" in note for note in notes)


def test_what_a_program_has_no_place_for_is_said() -> None:
    hyp = Hyperparameters(lrf=0.05, label_smoothing=0.1, copy_paste=0.2).to_dict()
    settings = {"image_size": 640, "optimizer": "adamw", "schedule": "linear", "seed": 1}
    training = Training(hyp, load_spec("yolov5n"), Length(300, 16, 64), settings, "data.yaml", "start.pt")
    said = {name: " ".join(write(training).notes) for name, write in FORMATS.items()}
    assert said["beagle"] == ""
    for word in (
        "lrf 0.05 (it uses 0.2)",
        "copy_paste 0.2",
        "label_smoothing 0.1",
        "AdamW",
        "seed",
        "cosine",
        "C3, SPPF",
    ):
        assert word in said["scaled-yolov4"]
    for word in ("obj 1", "anchor_t 4", "label_smoothing 0.1", "no anchors", "start.pt"):
        assert word in said["ultralytics"]
    assert "is 0.1 of the evolved" in said["yolov5"]
    assert "--label-smoothing" in FORMATS["yolov5"](training).command


def told(name: str, **changed: Any) -> tuple[list[str], dict[str, Any], str]:
    """Command, hyperparameters and notes of a training whose hyperparameters or settings are these."""
    known = set(HYP)
    hyp = {**HYP, **{key: value for key, value in changed.items() if key in known}}
    own = {key: value for key, value in changed.items() if key not in known}
    settings = {"image_size": 640, "optimizer": "sgd", "schedule": "linear", "seed": 1, **own}
    written = FORMATS[name](
        Training(hyp, load_spec("yolov5n"), Length(300, 16, 64), settings, "data.yaml", batches=10)
    )
    return written.command, written.hyp, " ".join(written.notes)


def test_switches_are_options_where_the_program_has_them_and_said_where_it_has_not() -> None:
    on = dict.fromkeys(("rect", "multi_scale", "image_weights", "autobalance"), True)
    command, _, notes = told("yolov5", **on)
    assert {"--rect", "--multi-scale", "--image-weights"} <= set(command)
    assert "no option for these, which the trials had on: autobalance." in notes
    command, _, notes = told("scaled-yolov4", **on)
    assert {"--rect", "--multi-scale"} <= set(command)
    assert "had on: image_weights, autobalance." in notes
    command, _, notes = told("ultralytics", **on)
    assert "rect=True" in command
    assert not any(word.startswith("multi_scale") for word in command)
    assert "multi_scale=0.5 (Ultralytics 8.4" in notes
    assert "--rect" in told("beagle", **on)[0]


def test_a_loss_that_a_program_lacks_is_said() -> None:
    other = {"box_loss": "giou", "assignment": "iou", "difficult": "ignore", "loss": "scaled-yolov4"}
    notes = told("yolov5", **other)[2]
    for word in ("box_loss giou (it uses ciou)", "assignment iou", "difficult ignore", "loss scaled-yolov4"):
        assert word in notes
    assert "loss scaled-yolov4" not in told("scaled-yolov4", **other)[2]
    assert "difficult ignore (it uses learn)" in told("ultralytics", **other)[2]
    assert told("beagle", **other)[0][-2:] == ["--difficult", "ignore"]
    usual = {"box_loss": "ciou", "assignment": "ratio", "difficult": "learn", "loss": "auto"}
    assert "built in" not in told("yolov5", **usual)[2]


def test_what_only_beagle_does_for_an_evaluation_is_carried_to_it_and_said_of_others() -> None:
    own = {"precise_bn": 4, "ema_share": 0.0}
    assert told("beagle", **own)[0][-4:] == ["--precise-bn", "4", "--ema-share", "0.0"]
    for name, program in zip(OWN, ("YOLOv5", "Scaled-YOLOv4", "Ultralytics"), strict=True):
        assert f"evaluated with precise_bn 4, which {program} has not" in told(name, **own)[2]
        # A run from before these settings were kept had their defaults.
        assert f"evaluated with precise_bn 8 and ema_share 0.08, which {program} has not" in told(name)[2]
        assert "evaluated with" not in told(name, precise_bn=0, ema_share=0.0)[2]


def test_ultralytics_is_given_cutmix_only_where_it_was_evolved() -> None:
    assert "cutmix" not in told("ultralytics")[1]
    _, hyp, notes = told("ultralytics", cutmix=0.3)
    assert hyp["cutmix"] == 0.3
    assert "cutmix 0.3 needs Ultralytics 8.3.119" in notes
    assert "no place for these: cutmix 0.3" in told("yolov5", cutmix=0.3)[2]


@pytest.mark.parametrize("name", ["yolov5", "ultralytics"])
def test_what_a_program_does_otherwise_under_the_same_name_is_said(name: str) -> None:
    assert "polygons" in told(name, copy_paste=0.2)[2]
    assert "polygons" not in told(name)[2]
    assert "warmup_epochs 3 would be 30" in told(name)[2]
    assert "would be" not in told(name, warmup_epochs=20.0)[2]
    assert "patience" in " ".join(told(name)[0])


def test_rates_of_an_optimiser_are_not_given_to_another() -> None:
    hyp = Hyperparameters(sat=0.5).to_dict()
    settings = {"image_size": 640, "optimizer": "rmsprop", "seed": 1}
    training = Training(hyp, load_spec("yolov5n"), Length(300, 16, 64), settings, "data.yaml")
    for name in ("yolov5", "scaled-yolov4"):
        with pytest.raises(CommandError, match="has no rmsprop"):
            FORMATS[name](training)
    written = FORMATS["ultralytics"](training)
    assert "optimizer=RMSProp" in written.command
    assert written.hyp["lr0"] == pytest.approx(0.01 * hyp["lr0"])
    assert "The program has no place for these: sat 0.5." in written.notes


def test_an_anchor_free_model_is_the_same_but_for_its_anchors() -> None:
    own = yaml.safe_load(anchor_free(load_spec("yolov5n")))
    full = yaml.safe_load((PROGRAMS.parents[2] / "model/zoo/yolov5n.yaml").read_text())
    assert "anchors" not in own
    assert own["backbone"] == full["backbone"]
    assert own["head"][:-1] == full["head"][:-1]
    assert own["head"][-1][3] == ["nc"]


def test_the_same_step_changes_nothing_but_a_warm_up_that_was_capped() -> None:
    same = Length(10, 16, 64), Length(300, 16, 64)
    assert rescale(HYP, "sgd", *same, trial_warmup=60, batches=20) == (HYP, [])
    changed, notes = rescale(HYP, "sgd", *same, trial_warmup=50, batches=20)
    assert changed == {**HYP, "warmup_epochs": 2.5}
    assert notes == ["warmup_epochs 3 became 2.5: what the trial of 10 epochs had"]


@pytest.mark.parametrize(("optimizer", "factor"), [("sgd", 4.0), ("adamw", 2.0), ("adam", 2.0)])
def test_rates_go_with_the_step_and_rate_times_decay_stays(optimizer: str, factor: float) -> None:
    changed, notes = rescale(HYP, optimizer, Length(10, 16, 16), Length(300, 64, 64), 60, 20)
    assert changed["lr0"] == pytest.approx(HYP["lr0"] * factor)
    assert changed["lr0"] * changed["weight_decay"] == pytest.approx(HYP["lr0"] * HYP["weight_decay"])
    assert len(notes) == 2
    assert {name for name in HYP if changed[name] != HYP[name]} == {"lr0", "weight_decay"}


def test_a_step_is_a_whole_number_of_batches() -> None:
    assert [nominal_step(batch, 64) for batch in (1, 16, 24, 64, 200)] == [64, 64, 72, 64, 200]


def test_a_split_without_a_folder_of_its_own_is_a_list(tmp_path: Path, tiny: Path) -> None:
    data = load(tiny)
    texts, notes = data_files(data, tmp_path, absolute=False)
    assert notes == []
    content = yaml.safe_load(texts["data.yaml"])
    assert (content["path"], content["train"], content["val"]) == (
        str(tiny.parent),
        "images/train",
        "images/val",
    )
    listed = tmp_path / "listed"
    for kind in ("images", "labels"):
        (listed / kind).mkdir(parents=True)
    for image in data.train.images:
        (listed / "images" / image.name).write_bytes(image.read_bytes())
        (listed / "labels" / f"{image.stem}.txt").write_bytes(
            (tiny.parent / f"labels/train/{image.stem}.txt").read_bytes()
        )
    names = sorted(image.name for image in data.train.images)
    (listed / "a.txt").write_text("".join(f"./images/{name}\n" for name in names[:8]))
    (listed / "b.txt").write_text("".join(f"./images/{name}\n" for name in names[8:]))
    (listed / "data.yaml").write_text("train: a.txt\nval: b.txt\nnames: [red, green]\n")
    texts, _ = data_files(load(listed / "data.yaml"), tmp_path, absolute=False)
    assert len(texts["train.txt"].split()) == 8
    assert yaml.safe_load(texts["data.yaml"])["train"] == str(tmp_path / "train.txt")


def test_formats_and_lengths_that_can_not_be_are_refused(
    refused: Callable[..., str], finished_run: Path
) -> None:
    assert "did you mean 'yolov5'" in refused("export", finished_run, "--to", "x", "--format", "yolov")
    assert "epochs >= 1 must hold" in refused("export", finished_run, "--to", "x", "--epochs", "0")
    with pytest.raises(CommandError, match="batch_size >= 1"):
        Wanted(batch_size=0)


def test_the_terminal_says_what_could_not_be_carried(beagle: Callable[..., Any], finished_run: Path) -> None:
    said = beagle("export", finished_run, "--to", "x", "--format", "scaled-yolov4")
    assert said.code == 0, said
    assert "mosaic 1 (it uses 1)" in said.err
    assert "beagle verify x" in said.err
