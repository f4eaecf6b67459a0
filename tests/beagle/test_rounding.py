"""An image size that is no multiple of the stride is no error: it is rounded up, and said."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest


@pytest.mark.parametrize("command", ["check", "fit"])
def test_anchors_say_the_image_size_that_they_use(
    command: str, beagle: Callable[..., Any], tiny: Path
) -> None:
    said = beagle("anchors", command, tiny, "--model", "yolov5n", "--image-size", "100")
    assert said.code == 0, said
    assert "image size 100 is no multiple of 32: 128 is used" in said.err


def test_training_says_the_image_size_that_it_uses(beagle: Callable[..., Any], tiny: Path) -> None:
    said = beagle(
        *("train", tiny, "--model", "yolov5n", "--image-size", "70", "--batch-size", "6"),
        *("--epochs", "1", "--device", "cpu", "--out", "training"),
    )
    assert said.code == 0, said
    assert "image size 96 instead of 70" in said.err
    assert said.out == "training/weights/best.pt\n"
    assert Path("training/weights/best.pt").is_file()


def test_a_multiple_is_not_spoken_of(beagle: Callable[..., Any], tiny: Path) -> None:
    said = beagle("anchors", "check", tiny, "--model", "yolov5n", "--image-size", "64")
    assert said.code == 0
    assert "image size" not in said.err
