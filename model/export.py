"""A detector as files for other programs, as bytes; whoever calls writes them."""

import copy
import importlib
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from model.detector import Detector
from model.spec import ModelError
from model.suppression import Suppression

EXTRA = "pip install 'beagle-evolve[onnx]'"
CHECK_SEED = 0


@dataclass(frozen=True, kw_only=True)
class Described:
    """A detector and what is known of it.

    Attributes:
        detector: in eval mode.
        names: class names.
        image_size: px, that it was trained at.
    """

    detector: Detector
    names: Sequence[str]
    image_size: int

    def said(self) -> dict[str, Any]:
        """What files keep beside the weights, plain data."""
        spec = self.detector.spec.to_dict()
        return {"spec": spec, "names": list(self.names), "image_size": self.image_size}


def safetensors_bytes(described: Described) -> bytes:
    """Weights as safetensors, under YOLOv5's names, with the model's description as metadata."""
    state = {name: tensor.contiguous() for name, tensor in described.detector.state_dict().items()}
    return safetensors.torch.save(state, {"beagle": json.dumps(described.said())})


def state_dict_bytes(described: Described) -> bytes:
    """Weights as a state dict that the same model of YOLOv5 (v6.0 and later) loads strictly."""
    state: Mapping[str, Tensor] = {
        name: tensor.contiguous() for name, tensor in described.detector.state_dict().items()
    }
    buffer = io.BytesIO()
    torch.save(state, buffer)
    return buffer.getvalue()


def torch_export_bytes(described: Described, sides: tuple[int, int]) -> bytes:
    """The decoded output as a program of `torch.export`, for `torch.export.load`; the batch is free.

    Args:
        described: the detector.
        sides: rows and columns of images in px.
    """
    fused = described.detector.fuse()
    program = torch.export.export(
        fused, (_example(fused, sides),), dynamic_shapes={"images": {0: torch.export.Dim("batch")}}
    )
    buffer = io.BytesIO()
    torch.export.save(program, buffer, extra_files={"beagle.json": json.dumps(described.said())})
    return buffer.getvalue()


def onnx_bytes(
    described: Described, sides: tuple[int, int], thresholds: tuple[float, float] | None = None
) -> bytes:
    """The detector as ONNX; see `model.onnx_export.build_onnx`.

    Args:
        described: the detector.
        sides: rows and columns of images in px.
        thresholds: confidence and IoU of a suppression inside the graph; None leaves it out.

    Raises:
        ModelError: the packages for it are not installed.
    """
    module = _onnx_export()
    fused = described.detector.fuse()
    suppress = None if thresholds is None else Suppression(confidence=thresholds[0], iou=thresholds[1])
    content: bytes = module.build_onnx(fused, _example(fused, sides), described.said(), suppress)
    return content


def check_onnx(content: bytes, detector: Detector, images: Tensor) -> float:
    """Run an ONNX file without suppression by onnxruntime, beside PyTorch.

    Args:
        content: the file.
        detector: what it was made of.
        images: (batch, channels, rows, columns), float32.

    Returns:
        The largest difference of any number of the output, as a share of the number where that is over 1.

    Raises:
        ModelError: onnxruntime is not installed.
    """
    try:
        runtime = importlib.import_module("onnxruntime")
    except ModuleNotFoundError as error:
        raise ModelError(f"checking ONNX needs onnxruntime: {EXTRA}") from error
    session = runtime.InferenceSession(content, providers=["CPUExecutionProvider"])
    with torch.no_grad():
        expected = detector.eval()(images)[0]
    got = torch.from_numpy(session.run(None, {"images": images.numpy()})[0])
    return _difference(got, expected)


def rounding(detector: Detector, images: Tensor) -> float:
    """How far PyTorch's own output is from the exact one, for the rounding of float32: beside it in float64.

    A detector that was hardly trained, or whose batch norm divides by next to nothing, multiplies rounding.

    Args:
        detector: any.
        images: (batch, channels, rows, columns), float32.

    Returns:
        The largest difference, as in `check_onnx`.
    """
    with torch.no_grad():
        rounded = detector.eval()(images)[0]
        exact = copy.deepcopy(detector).double()(images.double())[0]
    return _difference(rounded.double(), exact)


def check_images(detector: Detector, sides: tuple[int, int], count: int = 2) -> Tensor:
    """Images of noise, the same each time."""
    generator = torch.Generator().manual_seed(CHECK_SEED)
    return torch.rand(count, detector.spec.channels, *sides, generator=generator)


def _difference(got: Tensor, expected: Tensor) -> float:
    return float(((got - expected).abs() / expected.abs().clamp(min=1)).max())


def _example(detector: Detector, sides: tuple[int, int]) -> Tensor:
    """An input to trace with: two images, as torch takes a batch of one for a constant."""
    return torch.zeros(2, detector.spec.channels, *sides)


def _onnx_export() -> Any:
    try:
        return importlib.import_module("model.onnx_export")
    except ModuleNotFoundError as error:
        raise ModelError(f"ONNX needs the package {error.name}: {EXTRA}") from error
