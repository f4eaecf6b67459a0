"""Darknet's `.weights`: float32 numbers one after another, in the order of the convolutions of its configuration.

Nothing in the file is named, so a model must say the order. It is that of the rows, and a level's prediction comes
right after the row that feeds it. Models of the family "darknet" compute what darknet does; YOLOv3 and its likes are
here as YOLOv5's program has them, and are given darknet's activation, epsilon and decoding for its weights.

Source: the layout is that of darknet's `load_weights`: a header; then, per convolution, bias (or shift, scale,
running mean and running variance), then the kernel.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from model.blocks import SPP
from model.detector import Detector
from model.rows import ModelError
from model.spec import ModelSpec, load_spec

MAX_CLASSES = 10_000
FAMILY = "darknet"
KNOWN = frozenset(
    {
        *(
            "Conv",
            "Bottleneck",
            "SPP",
            "MP",
            "Concat",
            "ChannelSlice",
            "Detect",
            "nn.Upsample",
            "nn.MaxPool2d",
        ),
        *("nn.ZeroPad2d", "nn.ReplicationPad2d", "nn.Identity"),
    }
)
"""Modules whose convolutions stand in darknet's files in the order of ours."""
REACHING = "nn.ReplicationPad2d"
NUMBERED = re.compile(
    r"module_list\.(\d+)\.(?:(?:Conv2d|conv_\d+)\.(weight|bias)"
    r"|(?:BatchNorm2d|batch_norm_\d+)\.(weight|bias|running_mean|running_var|num_batches_tracked))"
)
NUMBERED_EPS = 1e-4
"""Of the batch norms of programs whose checkpoints are numbered; they hold no modules that would say it."""


@dataclass(frozen=True)
class _Piece:
    """One convolution: names of its tensors, and the kernel's shape. `norm` is None where it has a bias instead.

    Its input is laid together of `blocks` equal ones, which darknet takes in the opposite order.
    """

    kernel: str
    norm: str | None
    shape: tuple[int, ...]
    blocks: int = 1

    def in_our_order(self, kernel: Tensor) -> Tensor:
        """A kernel of darknet, its input's channels in our order."""
        out, channels, *window = self.shape
        return kernel.view(out, self.blocks, channels // self.blocks, *window).flip(1).reshape(self.shape)

    @property
    def count(self) -> int:
        return prod(self.shape) + self.shape[0] * (4 if self.norm else 1)


def as_darknet(spec: ModelSpec) -> ModelSpec:
    """The model as darknet computes it; one of its family is taken as it is.

    Raises:
        ModelError: it has blocks of which darknet's configurations know nothing.
    """
    strange = next((layer for layer in spec.layers if layer.module not in KNOWN), None)
    if strange is not None:
        raise ModelError(
            f"{spec.name} is no model of darknet's: its row {strange.index} ({strange.module}) is none of its layers"
        )
    if spec.options.family == FAMILY:
        return spec
    raw = spec.to_dict() | {"family": FAMILY, "activation": "nn.LeakyReLU(0.1)"}
    # Where darknet's pool reaches beyond the image, it takes what is there; zeros would win over negative numbers.
    for part in ("backbone", "head"):
        raw[part] = [[REACHING if cell == "nn.ZeroPad2d" else cell for cell in row] for row in raw[part]]
    return load_spec({**raw, "scale_xy": [1.0] * len(spec.strides)})


def is_numbered(state: Mapping[str, Tensor]) -> bool:
    """Whether tensors are named by the number of their layer in a darknet configuration."""
    return bool(state) and all(name.startswith("module_list.") for name in state)


def name_numbered(state: Mapping[str, Tensor], spec: ModelSpec) -> tuple[dict[str, Tensor], int]:
    """Give our names to tensors that a PyTorch program has numbered by darknet's layers.

    Such are the checkpoints of ultralytics/yolov3 up to 2020, of PyTorch_YOLOv4 and of Scaled-YOLOv4's branch csp.

    Args:
        state: `module_list.N.Conv2d.weight`, `module_list.N.BatchNorm2d.bias` and so on.
        spec: the model; its number of classes doesn't matter.

    Returns:
        (tensors by our names, number of classes).

    Raises:
        ModelError: they are not those of that model.
    """
    layers: dict[int, dict[str, Tensor]] = {}
    for name, tensor in state.items():
        match = NUMBERED.fullmatch(name)
        if match is None:
            raise ModelError(f"its tensor {name[:100]!r} belongs to no layer of a darknet configuration")
        layers.setdefault(int(match[1]), {})[match[2] or f"norm.{match[3]}"] = tensor
    outputs = [len(layer["bias"]) for layer in layers.values() if "bias" in layer]
    classes = outputs[0] // len(spec.anchors[0]) - 5 if outputs else 0
    pieces = list(_pieces(_shape_of(spec, max(classes, 1))))
    if len(pieces) != len(layers):
        raise ModelError(f"it has {len(layers)} convolutions, but {spec.name} has {len(pieces)}")
    named: dict[str, Tensor] = {}
    for piece, (number, layer) in zip(pieces, sorted(layers.items()), strict=True):
        kernel = layer.get("weight")
        if kernel is None or tuple(kernel.shape) != piece.shape:
            shape = "none" if kernel is None else "×".join(map(str, kernel.shape))
            raise ModelError(
                f"the kernel of its layer {number} is {shape}, but {spec.name} has "
                f"{'×'.join(map(str, piece.shape))} there"
            )
        named |= _named_tensors(piece, {**layer, "weight": piece.in_our_order(kernel)})
    return named, classes


def _named_tensors(piece: "_Piece", layer: Mapping[str, Tensor]) -> dict[str, Tensor]:
    named = {f"{piece.kernel}.{name}": layer[name] for name in ("weight", "bias") if name in layer}
    norms = {name.removeprefix("norm."): tensor for name, tensor in layer.items() if name.startswith("norm.")}
    return named | {f"{piece.norm}.{name}": tensor for name, tensor in norms.items()}


def is_darknet(path: Path) -> bool:
    """Whether a file is called as darknet's are: `yolov3.weights`, or `yolov4.conv.137` for a backbone."""
    return path.suffix == ".weights" or (path.suffix[1:].isdecimal() and path.stem.endswith(".conv"))


def read_darknet(path: Path, spec: ModelSpec) -> tuple[dict[str, Tensor], int | None]:
    """Read a file of weights for a model.

    Args:
        path: the file.
        spec: the model; its number of classes doesn't matter.

    Returns:
        (tensors by our names, number of classes of the file). A file of a backbone (such as `yolov4.conv.137`)
        gives the tensors that it has, and None.

    Raises:
        ModelError: the file does not hold the numbers of that model.
    """
    data = path.read_bytes()
    if len(data) < 20:
        raise ModelError("it is cut short: the header is missing")
    major, minor = np.frombuffer(data, "<i4", 2).tolist()
    start = 20 if major * 10 + minor >= 2 else 16
    if not (0 <= major < 1000 and 0 <= minor < 1000) or (len(data) - start) % 4:
        raise ModelError("its header is not that of a darknet file, or it is cut short")
    numbers = np.frombuffer(data, "<f4", offset=start)
    classes = _count_classes(spec, len(numbers))
    pieces = list(_pieces(_shape_of(spec, classes or 1)))
    state: dict[str, Tensor] = {}
    at = 0
    for piece in pieces:
        if at == len(numbers) and classes is None:
            break
        if at + piece.count > len(numbers):
            raise ModelError(
                f"it has {len(numbers):,} numbers, which are neither those of {spec.name} nor of its first rows"
            )
        state.update(_tensors(piece, numbers[at : at + piece.count]))
        at += piece.count
    return state, classes


def _shape_of(spec: ModelSpec, classes: int) -> Detector:
    with torch.device("meta"):
        return Detector(load_spec(spec, classes=classes))


def count_numbers(spec: ModelSpec, classes: int) -> int:
    """How many numbers, behind the header, a file of a model with so many classes has."""
    return sum(piece.count for piece in _pieces(_shape_of(spec, classes)))


def _count_classes(spec: ModelSpec, count: int) -> int | None:
    """The number of classes with which the model has so many numbers; None where there is none."""
    one, two = (count_numbers(spec, n) for n in (1, 2))
    classes, rest = divmod(count - one, two - one)
    return None if rest or not 0 <= classes < MAX_CLASSES else classes + 1


def _pieces(detector: Detector) -> Iterator[_Piece]:
    levels = detector.spec.layers[-1].sources
    last = len(detector.model) - 1
    for index, module in enumerate(detector.model[:-1]):
        yield from _convolutions(f"model.{index}", module)
        if index in levels:
            level = levels.index(index)
            yield from _convolutions(f"model.{last}.m.{level}", detector.head.m[level])


def _convolutions(prefix: str, module: nn.Module) -> Iterator[_Piece]:
    if isinstance(module, nn.Conv2d):
        yield _Piece(prefix, None, tuple(module.weight.shape))
        return
    children = dict(module.named_children())
    if isinstance(children.get("conv"), nn.Conv2d) and isinstance(children.get("bn"), nn.BatchNorm2d):
        yield _Piece(f"{prefix}.conv", f"{prefix}.bn", tuple(children["conv"].get_parameter("weight").shape))
        return
    for name, child in children.items():
        blocks = len(module.m) + 1 if isinstance(module, SPP) and name == "cv2" else 1
        for piece in _convolutions(f"{prefix}.{name}", child):
            yield replace(piece, blocks=blocks)


def _tensors(piece: _Piece, numbers: np.ndarray[tuple[int, ...], np.dtype[np.float32]]) -> dict[str, Tensor]:
    out = piece.shape[0]
    values = torch.from_numpy(numbers.copy())
    laid = values[len(values) - prod(piece.shape) :].view(piece.shape)
    kernel = {f"{piece.kernel}.weight": piece.in_our_order(laid)}
    if piece.norm is None:
        return {f"{piece.kernel}.bias": values[:out]} | kernel
    shift, scale, mean, variance = values[: 4 * out].view(4, out)
    names = ("weight", "bias", "running_mean", "running_var")
    norm = dict(zip((f"{piece.norm}.{name}" for name in names), (scale, shift, mean, variance), strict=True))
    return norm | kernel
