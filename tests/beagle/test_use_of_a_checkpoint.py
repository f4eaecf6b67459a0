"""`beagle val` and `beagle predict`: what a checkpoint is for."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import pytest

Beagle = Callable[..., Any]


@pytest.fixture
def best(finished_run: Path) -> Path:
    return finished_run / "trials/0000/training/weights/best.pt"


def test_a_checkpoint_is_measured_over_all_classes_and_for_each(
    beagle: Beagle, best: Path, tiny: Path
) -> None:
    said = beagle("val", best, tiny, "--device", "cpu", "--json")
    assert said.code == 0, said
    found = json.loads(said.out)
    assert 0 <= found["map50_95"] <= found["map50"] <= 1
    assert [row["name"] for row in found["classes"]] == ["red", "green"]
    table = beagle("val", best, tiny, "--device", "cpu")
    assert table.code == 0
    assert all(word in table.out for word in ("all", "red", "green"))


def test_validation_repeats_what_the_training_measured(
    beagle: Beagle, best: Path, tiny: Path, finished_run: Path
) -> None:
    trial = json.loads(beagle("status", finished_run, "--json").out)["best"]
    found = json.loads(beagle("val", best, tiny, "--device", "cpu", "--batch-size", "4", "--json").out)
    assert found["map50"] == pytest.approx(trial["metrics"]["map50"], abs=1e-6)


def test_predictions_are_drawn_on_a_picture_each(beagle: Beagle, best: Path, tiny: Path) -> None:
    images = sorted((tiny.parent / "images/val").iterdir())
    said = beagle("predict", best, tiny.parent / "images/val", "--out", "drawn", "--confidence", "0.001")
    assert said.code == 0, said
    drawn = sorted(Path("drawn").iterdir())
    assert [path.stem for path in drawn] == [path.stem for path in images]
    before, after = cv2.imread(str(images[0])), cv2.imread(str(drawn[0]))
    assert before is not None
    assert after is not None
    assert before.shape == after.shape
    assert (before != after).any()


@pytest.mark.parametrize("kind", ["diou", "soft"])
def test_boxes_are_thinned_out_as_asked(kind: str, beagle: Beagle, best: Path, tiny: Path) -> None:
    options = (
        "--confidence",
        "0.0005",
        "--iou",
        "0.3",
        "--max-detections",
        "20",
        "--json",
        "--device",
        "cpu",
    )
    images = tiny.parent / "images/val"
    boxes = {}
    for nms in ("greedy", kind):
        said = beagle("predict", best, images, "--out", nms, "--nms", nms, *options)
        assert said.code == 0, said
        boxes[nms] = [each["boxes"] for each in json.loads(said.out)]
        assert all(len(found) <= 20 for found in boxes[nms])
    assert boxes["greedy"] != boxes[kind]
    said = beagle("val", best, tiny, "--nms", kind, "--agnostic", "--json", "--device", "cpu")
    assert said.code == 0, said
    assert 0 <= json.loads(said.out)["map50"] <= 1


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--nms", "difu"), "unknown kind of suppression 'difu'; did you mean 'diou'?"),
        (("--iou", "1.5"), "0 <= iou <= 1 must hold, but got 1.5"),
        (("--confidence", "-1"), "0 <= confidence <= 1 must hold, but got -1.0"),
        (("--max-detections", "0"), "max_detections >= 1 must hold, but got 0"),
    ],
)
def test_a_suppression_that_cannot_be_is_refused_before_anything_is_written(
    flags: tuple[str, str], message: str, beagle: Beagle, best: Path, tiny: Path
) -> None:
    for command in (("predict", best, tiny.parent / "images/val", "--out", "none"), ("val", best, tiny)):
        said = beagle(*command, *flags)
        assert said.code == 1
        assert message in said.err
    assert not Path("none").exists()
