"""Whole models of every generation of YOLOv5 and Scaled-YOLOv4 load, tensor for tensor, and detect the same."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from model.spec import ModelError
from model.transfer import build_from
from model.weights import read_checkpoint

SCRIPT = Path(__file__).with_name("generations.py")
ROOT = SCRIPT.parents[2]
FAMILIES = {
    "v2": ("yolov5-v3.1", "nn.LeakyReLU(0.1)"),
    "v3.1": ("yolov5-v3.1", None),
    "v4": ("yolov5", None),
    "v5": ("yolov5", None),
    "v5-fused": ("yolov5", None),
    "v6": ("yolov5", None),
    "v7": ("yolov5", None),
    "v7-backend": ("yolov5", None),
    "measured": ("yolov5", None),
    "scaled-csp": ("scaled-yolov4", None),
    "scaled-p5": ("scaled-yolov4", None),
    "scaled-p6-fused": ("scaled-yolov4", None),
}
SIZES = {"v7": 512, "scaled-csp": 896, "scaled-p5": 896}
OTHER_EPS = ("scaled-csp", "scaled-p6-fused")


@pytest.fixture(scope="session")
def generations(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of what a process with the other programs' classes has saved, and what its models detect."""
    folder = tmp_path_factory.mktemp("generations")
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    environment = {**os.environ, "PYTHONPATH": path}
    subprocess.run([sys.executable, "-W", "ignore", str(SCRIPT), str(folder)], env=environment, check=True)
    return folder


@pytest.fixture(scope="session")
def truth(generations: Path) -> dict[str, Any]:
    return torch.load(generations / "truth.pt", weights_only=True)


@pytest.mark.parametrize("name", FAMILIES)
def test_a_whole_model_loads_and_detects_the_same(
    name: str, generations: Path, truth: dict[str, Any]
) -> None:
    checkpoint = read_checkpoint(generations / f"{name}.pt")
    assert (checkpoint.kind, checkpoint.notes) == ("pickled model", ())
    assert checkpoint.names == ("cat", "dog", "bird")
    assert checkpoint.image_size == SIZES.get(name)
    detector, report = build_from(checkpoint)
    assert report.complete, report.lines()
    activation = detector.spec.activation
    found = (detector.spec.options.family, activation and str(activation))
    assert found == FAMILIES[name]
    if not name.endswith("fused"):
        wanted = {key: t for key, t in truth[name]["state"].items() if "anchor" not in key}
        assert checkpoint.state.keys() == wanted.keys()
        assert all(torch.equal(checkpoint.state[key], tensor) for key, tensor in wanted.items())
        ours = detector.state_dict()
        moved = [key for key, tensor in wanted.items() if not torch.equal(ours[key], tensor)]
        # Another epsilon is made up for in the scales of the norms, and nowhere else.
        assert all(key.endswith("weight") and ours[key].ndim == 1 for key in moved)
        assert bool(moved) == (name in OTHER_EPS)
    images = torch.load(generations / "images.pt", weights_only=True)
    with torch.no_grad():
        decoded = detector(images)[0]
    torch.testing.assert_close(decoded, truth[name]["decoded"], atol=1e-3, rtol=1e-4)


def test_activations_that_no_family_has_are_refused(generations: Path) -> None:
    checkpoint = read_checkpoint(generations / "strange.pt")
    assert checkpoint.spec is None
    with pytest.raises(
        ModelError, match=r"no family has its activations, 'torch\.nn\.modules\.activation\.GELU'"
    ):
        build_from(checkpoint)
