"""Fixtures of the model room: golden vectors, and model files of other generations."""

import json
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

GOLDEN = Path(__file__).resolve().parents[1] / "golden"
GAIN = 1.6


@dataclass(frozen=True)
class Golden:
    """What a reference implementation gave for made-up weights and images."""

    meta: dict[str, Any]
    images: Tensor
    raw: list[Tensor]
    decoded: Tensor | None

    def fill(self, detector: nn.Module) -> None:
        """Give the detector the weights that both sides make from their keys."""
        state = detector.state_dict()
        for key, tensor in state.items():
            if key.endswith("num_batches_tracked") or "anchor" in key:
                continue
            rng = np.random.default_rng([self.meta["seed"], zlib.crc32(key.encode())])
            normal = rng.standard_normal(tuple(tensor.shape))
            if key.endswith("running_var"):
                value = 1 + 0.1 * abs(normal)
            elif key.endswith("running_mean") or (tensor.ndim == 1 and not key.endswith("weight")):
                value = 0.1 * normal
            elif tensor.ndim == 1:
                value = 1 + 0.1 * normal
            else:
                value = normal * GAIN / np.sqrt(np.prod(tensor.shape[1:]))
            state[key] = torch.from_numpy(value).to(tensor.dtype)
        detector.load_state_dict(state)


@pytest.fixture(scope="session")
def golden() -> Callable[[str], Golden]:
    """Return a reader of golden vectors by the model's name."""

    def read(name: str) -> Golden:
        home = (
            "yolov5v4" if name.endswith("v4") else "scaled_yolov4" if name.startswith("yolov4") else "yolov5"
        )
        with np.load(GOLDEN / f"model_{home}.npz") as file:
            meta = json.loads(str(file["meta"]))[name]
            levels = range(len(meta["strides"]))
            raw = [torch.from_numpy(file[f"{name}/train_raw{level}"]) for level in levels]
            key = f"{name}/decoded"
            decoded = torch.from_numpy(file[key]) if key in file.files else None
        images = np.random.default_rng([meta["seed"], 7]).random((2, 3, *meta["size"])).astype(np.float32)
        return Golden(meta, torch.from_numpy(images), raw, decoded)

    return read


TINY = """
nc: 80
depth_multiple: 1.0
width_multiple: 1.0
anchors:
  - [10,14, 23,27, 37,58]
  - [81,82, 135,169, 344,319]
backbone:
  [[-1, 1, Conv, [16, 3, 1]],
   [-1, 1, nn.MaxPool2d, [2, 2, 0]],
   [-1, 1, Conv, [32, 3, 1]],
   [-1, 1, nn.MaxPool2d, [2, 2, 0]],
   [-1, 1, Conv, [64, 3, 1]],
   [-1, 1, nn.MaxPool2d, [2, 2, 0]],
   [-1, 1, Conv, [128, 3, 1]],
   [-1, 1, nn.MaxPool2d, [2, 2, 0]],
   [-1, 1, Conv, [256, 3, 1]],
   [-1, 1, nn.MaxPool2d, [2, 2, 0]],
   [-1, 1, Conv, [512, 3, 1]],
   [-1, 1, nn.ZeroPad2d, [[0, 1, 0, 1]]],
   [-1, 1, nn.MaxPool2d, [2, 1, 0]]]
head:
  [[-1, 1, Conv, [1024, 3, 1]],
   [-1, 1, Conv, [256, 1, 1]],
   [-1, 1, Conv, [512, 3, 1]],
   [-2, 1, Conv, [128, 1, 1]],
   [-1, 1, nn.Upsample, [None, 2, 'nearest']],
   [[-1, 8], 1, Concat, [1]],
   [-1, 1, Conv, [256, 3, 1]],
   [[19, 15], 1, Detect, [nc, anchors]]]
"""

SMALL_V4 = """
nc: 80
depth_multiple: 0.33
width_multiple: 0.50
anchors:
  - [10,13, 16,30, 33,23]
  - [30,61, 62,45, 59,119]
  - [116,90, 156,198, 373,326]
backbone:
  [[-1, 1, Focus, [64, 3]],
   [-1, 1, Conv, [128, 3, 2]],
   [-1, 3, C3, [128]],
   [-1, 1, Conv, [256, 3, 2]],
   [-1, 9, C3, [256]],
   [-1, 1, Conv, [512, 3, 2]],
   [-1, 9, C3, [512]],
   [-1, 1, Conv, [1024, 3, 2]],
   [-1, 1, SPP, [1024, [5, 9, 13]]],
   [-1, 3, C3, [1024, False]]]
head:
  [[-1, 1, Conv, [512, 1, 1]],
   [-1, 1, nn.Upsample, [None, 2, 'nearest']],
   [[-1, 6], 1, Concat, [1]],
   [-1, 3, C3, [512, False]],
   [-1, 1, Conv, [256, 1, 1]],
   [-1, 1, nn.Upsample, [None, 2, "nearest"]],
   [[-1, 4], 1, Concat, [1]],
   [-1, 3, C3, [256, False]],
   [-1, 1, Conv, [256, 3, 2]],
   [[-1, 14], 1, Concat, [1]],
   [-1, 3, C3, [512, False]],
   [-1, 1, Conv, [512, 3, 2]],
   [[-1, 10], 1, Concat, [1]],
   [-1, 3, C3, [1024, False]],
   [[17, 20, 23], 1, Detect, [nc, anchors]]]
"""


@pytest.fixture
def user_file(tmp_path: Path) -> Callable[..., Path]:
    """Return a writer of users' model files: `tiny` (YOLOv3) or `small_v4` (YOLOv5s v4), with edits (old, new)."""

    def write(kind: str, *edits: tuple[str, str]) -> Path:
        text = {"tiny": TINY, "small_v4": SMALL_V4}[kind]
        for old, new in edits:
            if old not in text:
                raise LookupError(old)
            text = text.replace(old, new)
        path = tmp_path / f"{kind}.yaml"
        path.write_text(text, encoding="utf-8")
        return path

    return write
