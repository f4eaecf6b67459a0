"""Files for other programs give what the detector gives."""

import importlib
import io
import json
import sys
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor

from model import Detector, build
from model.export import (
    Described,
    check_images,
    check_onnx,
    onnx_bytes,
    safetensors_bytes,
    state_dict_bytes,
    torch_export_bytes,
)
from model.nms import non_max_suppression
from model.spec import ModelError, load_spec
from model.suppression import Suppression
from model.transfer import build_from
from model.weights import read_checkpoint

SIDES = (64, 96)
MEMBERS = [
    ("yolov5n", None),
    ("yolov5s", None),
    ("yolov5s-v3.1", None),
    ("yolov3-tiny", None),
    ("yolov4-tiny", None),
    ("yolov4", 0.25),
    ("yolov4-csp", 0.25),
    ("yolov5l-cbam", 0.25),
]


def lively(classes: int = 3, model: str = "yolov5n", width: float | None = None) -> Detector:
    """A detector whose fresh weights and norms are changed so that it finds many boxes of all classes."""
    torch.manual_seed(0)
    spec = load_spec(model)
    detector = build(spec if width is None else {**spec.to_dict(), "width_multiple": width}, classes=classes)
    with torch.no_grad():
        for name, tensor in detector.state_dict().items():
            if name.endswith(("running_mean", "bn.bias")):
                tensor.normal_(0, 0.3)
            elif name.endswith(("running_var", "bn.weight")):
                tensor.uniform_(0.7, 1.4)
        for convolution in detector.head.m:
            convolution.weight.normal_(0, 0.4)
            convolution.bias.normal_(0, 1)
    return detector.eval()


@pytest.fixture(scope="module")
def described() -> Described:
    return Described(detector=lively(), names=("a", "b", "c"), image_size=96)


@pytest.fixture(scope="module")
def content(described: Described) -> bytes:
    return onnx_bytes(described, SIDES)


def run_onnx(content: bytes, images: Tensor) -> np.ndarray:
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    return session.run(None, {"images": images.numpy()})[0]


def test_a_fused_detector_gives_the_same_and_the_other_stays_as_it_is(described: Described) -> None:
    detector = described.detector
    before = {name: tensor.clone() for name, tensor in detector.state_dict().items()}
    fused = detector.fuse()
    images = check_images(detector, SIDES)
    torch.testing.assert_close(fused(images)[0], detector(images)[0].detach(), atol=1e-3, rtol=1e-4)
    assert not [m for m in fused.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    assert not [p for p in fused.parameters() if p.requires_grad]
    assert not fused.training
    assert detector.state_dict().keys() == before.keys()
    assert all(torch.equal(tensor, before[name]) for name, tensor in detector.state_dict().items())
    assert len(fused.fuse().state_dict()) == len(fused.state_dict())


def test_onnx_gives_the_decoded_predictions_for_any_batch(described: Described, content: bytes) -> None:
    for count in (1, 3):
        images = check_images(described.detector, SIDES, count)
        assert check_onnx(content, described.detector, images) < 1e-3
    said = json.loads(onnx.load_from_string(content).metadata_props[0].value)
    assert (said["names"], said["image_size"]) == (["a", "b", "c"], 96)


def photographs(shared: Path, sides: tuple[int, int]) -> Tensor:
    files = sorted((shared / "data/bccd").rglob("*.jpg"))[:4]
    assert len(files) == 4
    pixels = [cv2.resize(cv2.imread(str(file)), sides[::-1])[:, :, ::-1] for file in files]
    return torch.from_numpy(np.stack(pixels).transpose(0, 3, 1, 2).astype(np.float32) / 255)


@pytest.mark.shared
def test_onnx_agrees_with_torch_on_photographs(described: Described, content: bytes, shared: Path) -> None:
    images = photographs(shared, SIDES)
    assert check_onnx(content, described.detector, images) < 1e-3


@pytest.mark.parametrize("classes", [pytest.param(1, marks=pytest.mark.slow), 3])
def test_suppression_inside_the_graph_is_that_of_torch(classes: int) -> None:
    detector = lively(classes)
    described = Described(detector=detector, names=[str(i) for i in range(classes)], image_size=96)
    content = onnx_bytes(described, SIDES, (0.3, 0.4))
    images = check_images(detector, SIDES, 3)
    with torch.no_grad():
        compare_detections(run_onnx(content, images), detector(images)[0])


def compare_detections(found: np.ndarray, decoded: Tensor, confidence: float = 0.3) -> None:
    """Detections of a graph with suppression are those of torch."""
    wanted = non_max_suppression(decoded, Suppression(confidence=confidence, iou=0.4))
    assert found.shape == (len(decoded), 300, 6)
    for rows, expected in zip(found, wanted, strict=True):
        assert 5 < len(expected) < 300
        there = rows[: len(expected)]
        assert (np.diff(there[:, 4]) <= 0).all()
        # Rounding may exchange two of nearly equal confidence, so each looks for its like.
        apart = np.abs(there[:, None] - expected.numpy()[None]).max(axis=2)
        assert apart.min(axis=0).max() < 2e-3
        assert len(set(apart.argmin(axis=0))) == len(expected)
        assert not rows[len(expected) :].any()


def test_zeros_at_a_border_stay_zeros_in_onnx() -> None:
    """Onnxruntime melts ONNX's Pad into a pool, which then pads with the least of all numbers."""
    rows = [
        [-1, 1, "Conv", [8, 3, 16]],
        [-1, 1, "nn.ZeroPad2d", [[0, 1, 0, 1]]],
        [-1, 1, "nn.MaxPool2d", [2, 1, 0]],
    ]
    head = [[[-1], 1, "Detect", ["nc", "anchors"]]]
    detector = build(
        {"nc": 2, "anchors": 1, "backbone": rows, "head": head, "activation": "nn.Identity"}
    ).eval()
    with torch.no_grad():
        detector.model[0].bn.bias.fill_(-1)  # so that a zero wins over every neighbour
        detector.head.m[0].weight.normal_(0, 1)
    described = Described(detector=detector, names=("a", "b"), image_size=96)
    assert check_onnx(onnx_bytes(described, SIDES), detector, check_images(detector, SIDES)) < 1e-4


@pytest.mark.slow
@pytest.mark.shared
@pytest.mark.parametrize(("name", "width"), MEMBERS)
def test_members_agree_on_photographs_with_and_without_suppression(
    name: str, width: float | None, shared: Path
) -> None:
    detector, sides = lively(3, name, width), (160, 224)
    described = Described(detector=detector, names=("a", "b", "c"), image_size=224)
    images = photographs(shared, sides)
    with torch.no_grad():
        decoded = detector(images)[0]
    sure = (
        (decoded[..., 4:5] * decoded[..., 5:]).amax(2).topk(100, 1).values.min().item()
    )  # leaves some 100 boxes
    plain, thinned = onnx_bytes(described, sides), onnx_bytes(described, sides, (sure, 0.4))
    for batch in (images, images[:1]):
        assert check_onnx(plain, detector, batch) < 1e-3
        # From one decoded output: made-up weights give many equal confidences, which rounding would sort.
        compare_detections(run_onnx(thinned, batch), torch.from_numpy(run_onnx(plain, batch)), sure)
    program = torch.export.load(io.BytesIO(torch_export_bytes(described, sides)))
    expected = detector(images)[0].detach()
    torch.testing.assert_close(program.module()(images)[0], expected, atol=1e-3, rtol=1e-3)


def test_thresholds_outside_0_to_1_are_refused(described: Described) -> None:
    with pytest.raises(ModelError, match=r"0 <= iou <= 1 must hold, but got 1\.5"):
        onnx_bytes(described, SIDES, (0.5, 1.5))


def test_without_the_packages_the_error_says_what_to_install(
    described: Described, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "model.onnx_export", raising=False)
    monkeypatch.setitem(sys.modules, "onnx", None)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ModelError, match=r"ONNX needs the package onnx: pip install 'beagle-evolve\[onnx\]'"):
        onnx_bytes(described, SIDES)
    with pytest.raises(ModelError, match="checking ONNX needs onnxruntime"):
        check_onnx(b"", described.detector, torch.zeros(1))


@pytest.mark.slow
def test_a_torch_export_program_gives_the_same_for_any_batch(described: Described) -> None:
    program = torch.export.load(io.BytesIO(torch_export_bytes(described, SIDES)))
    images = check_images(described.detector, SIDES, 3)
    expected = described.detector(images)[0].detach()
    torch.testing.assert_close(program.module()(images)[0], expected, atol=1e-3, rtol=1e-4)


@pytest.mark.parametrize("write", [safetensors_bytes, state_dict_bytes])
def test_weights_go_out_and_come_back(
    write: Callable[[Described], bytes], described: Described, tmp_path
) -> None:
    path = tmp_path / "out.bin"
    path.write_bytes(write(described))
    checkpoint = read_checkpoint(path)
    detector, _ = build_from(checkpoint, described.detector.spec)
    for name, tensor in described.detector.state_dict().items():
        assert torch.equal(detector.state_dict()[name], tensor)
    if write is safetensors_bytes:
        assert (checkpoint.spec, checkpoint.names) == (described.detector.spec, ("a", "b", "c"))


def test_reading_weights_and_exporting_import_no_onnx_before_they_need_it() -> None:
    source = importlib.import_module("model.export")
    assert "onnx" not in vars(source)
