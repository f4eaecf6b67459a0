"""Checkpoints become other files, whole or not at all; trainings and predictions start from any of them."""

import cv2
import numpy as np
import pytest
import torch

from model import build
from model.export import onnx_bytes
from model.suppression import Suppression
from model.weights import read_checkpoint
from trainer import TrainConfig, TrainError, train
from trainer.checkpoint import load as load_checkpoint
from trainer.convert import Conversion, convert
from trainer.predict import load_detector, predict

ANCHORS = [[[5, 6], [7, 9], [9, 5]], [[20, 25], [30, 36], [40, 20]], [[60, 50], [70, 90], [80, 70]]]


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """A state dict of a detector with three classes and anchors of its own."""
    path = tmp_path_factory.mktemp("source") / "theirs.pt"
    torch.manual_seed(0)
    torch.save(
        {"state_dict": build("yolov5n", classes=3, anchors=ANCHORS).state_dict(), "names": ["x", "y", "z"]},
        path,
    )
    return path


def test_a_state_dict_becomes_a_checkpoint_that_predicts(source, tmp_path):
    target = tmp_path / "ours.pt"
    notes = convert(Conversion(source=source, target=target, model="yolov5n"))
    assert notes[0].startswith(f"started from {source} (state dict): 348 of 348 tensors taken")
    assert load_checkpoint(target)["names"] == ["x", "y", "z"]
    detector, names, size = load_detector(target)
    assert (names, size) == (("x", "y", "z"), 640)
    np.testing.assert_allclose(detector.anchors.numpy(), ANCHORS)
    image = np.full((64, 64, 3), 114, np.uint8)
    (boxes,) = predict(target, [image], image_size=64, suppression=Suppression(confidence=0.0))
    assert boxes.shape[1] == 6


@pytest.mark.parametrize("name", ["a.safetensors", "a.pt", "a.yaml"])
def test_what_is_written_says_its_model_and_is_read_back(name, source, tmp_path):
    convert(Conversion(source=source, target=tmp_path / name, model="yolov5n"))
    if name == "a.yaml":
        assert build(tmp_path / name).anchors.tolist() == ANCHORS
        return
    again = read_checkpoint(tmp_path / name)
    state = torch.load(source, weights_only=True)["state_dict"]
    assert again.spec.anchors[0][0] == (5.0, 6.0)
    assert all(torch.equal(tensor, state[key]) for key, tensor in again.state.items())
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_yolov5_state_dict_has_its_names_and_buffers(source, tmp_path):
    convert(Conversion(source=source, target=tmp_path / "out.pt", format="yolov5", model="yolov5n"))
    state = torch.load(tmp_path / "out.pt", weights_only=True)
    assert state.keys() == torch.load(source, weights_only=True)["state_dict"].keys()
    assert state["model.24.anchors"][0, 0].tolist() == [5 / 8, 6 / 8]


def test_onnx_is_checked_before_it_is_written(source, tmp_path):
    notes = convert(Conversion(source=source, target=tmp_path / "a.onnx", model="yolov5n", image_size=60))
    assert notes[1] == "input images (batch, 3, 64, 64), RGB from 0 to 1"
    assert "agrees with PyTorch to" in notes[2]


def test_a_detector_that_multiplies_rounding_is_converted_and_a_wrong_file_of_it_is_not(
    source, tmp_path, monkeypatch
):
    changed = torch.load(source, weights_only=True)
    for name, tensor in changed["state_dict"].items():
        if name.endswith("bn.weight"):
            tensor.mul_(3.3)
    torch.save(changed, tmp_path / "wild.pt")
    wanted = {"source": tmp_path / "wild.pt", "model": "yolov5n", "image_size": 64}
    notes = convert(Conversion(target=tmp_path / "a.onnx", **wanted))
    assert "this detector multiplies the rounding of float32 to 0.00" in notes[2]

    def of_another(described, sides, thresholds):
        with torch.no_grad():
            described.detector.model[0].bn.bias[0] += 0.05
        content = onnx_bytes(described, sides, thresholds)
        with torch.no_grad():
            described.detector.model[0].bn.bias[0] -= 0.05
        return content

    monkeypatch.setattr("trainer.convert.onnx_bytes", of_another)
    with pytest.raises(
        TrainError, match=r"b\.onnx is not written: it differs from PyTorch by [\d.]+, and the"
    ):
        convert(Conversion(target=tmp_path / "b.onnx", **wanted))
    assert not (tmp_path / "b.onnx").exists()


def test_what_cannot_be_is_refused_and_nothing_is_written(source, tmp_path):
    (tmp_path / "there.pt").write_bytes(b"kept")
    for wanted, message in (
        ({"target": tmp_path / "a.docx"}, r"format must be one of .*, but got 'a\.docx'"),
        ({"target": tmp_path / "a.pt", "format": "tflite"}, "format must be one of .*, but got 'tflite'"),
        ({"target": tmp_path / "there.pt"}, r"there\.pt exists already"),
        ({"target": tmp_path / "a.pt", "thresholds": (0.2, 0.4)}, "only ONNX has suppression inside"),
    ):
        with pytest.raises(TrainError, match=message):
            Conversion(source=source, **wanted)
    for given, message in (
        ({}, "does not say which model it is of"),
        ({"model": "yolov5s"}, "is not a whole checkpoint of yolov5s"),
        ({"model": "yolov9"}, "unknown model 'yolov9'"),
    ):
        with pytest.raises(TrainError, match=message):
            convert(Conversion(source=source, target=tmp_path / "a.pt", **given))
    (tmp_path / "cut.pt").write_bytes(source.read_bytes()[:5000])
    with pytest.raises(TrainError, match=r"cut\.pt cannot be read as a checkpoint"):
        convert(Conversion(source=tmp_path / "cut.pt", target=tmp_path / "a.pt"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cut.pt", "there.pt"]
    assert (tmp_path / "there.pt").read_bytes() == b"kept"


def test_a_training_takes_weights_and_anchors_and_says_what_it_took(source, tiny_dataset, tmp_path):
    settings = {"data": str(tiny_dataset), "model": "yolov5n", "epochs": 1, "batch_size": 8, "image_size": 64}
    result = train(
        TrainConfig(
            **settings, out=tmp_path / "out", weights=str(source), anchors="keep", threads=1, device="cpu"
        )
    )
    np.testing.assert_allclose(result.anchors, ANCHORS)
    assert "anchors come from the checkpoint" in result.notes
    assert any(note.startswith(f"started from {source} (state dict): 348 of 348") for note in result.notes)


def test_drawn_pictures_are_those_of_the_checkpoint_whatever_its_kind(source, tmp_path):
    image = np.random.default_rng(0).integers(0, 255, (64, 96, 3), dtype=np.uint8)
    assert cv2.imwrite(str(tmp_path / "a.png"), image)
    found = []
    for name in ("a.pt", "a.safetensors"):
        convert(Conversion(source=source, target=tmp_path / name, model="yolov5n"))
        found += predict(
            tmp_path / name, [tmp_path / "a.png"], image_size=96, suppression=Suppression(confidence=0.0)
        )
    np.testing.assert_array_equal(found[0], found[1])
