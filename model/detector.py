"""Spec in, `Detector` out."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn

from model.blocks_csp import SPPCSP, BottleneckCSP, BottleneckCSP2
from model.cmbn import use_cmbn
from model.dropblock import DropBlock
from model.errors import ModelError
from model.families import SILU, Activation
from model.fuse import fuse
from model.head import Detect
from model.layers import LAYERS
from model.rows import RULES, Layer
from model.spec import ModelSpec, load_spec


class Detector(nn.Module):
    """A detector of the YOLO family.

    In train mode it maps images (batch, 3, rows, columns), RGB in [0, 1], to the raw levels, each
    (batch, anchors, rows / stride, columns / stride, 5 + classes). In eval mode it gives a pair: the decoded
    predictions (batch, P, 5 + classes), boxes as x, y, w, h in px and probabilities, and the raw levels.

    Keys of its state are those of published YOLOv5 weights. A training step on a CPU is 10 to 20 % shorter where
    detector and images are both `torch.channels_last`.
    """

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        self.spec = spec
        self.model = nn.ModuleList(_build_layer(layer, spec) for layer in spec.layers)
        _follow_options(self.model, spec)
        self._dropping = {row: place for place, row in enumerate(dropping_rows(spec))}
        if self._dropping:  # else no empty list among the modules: published programs have none
            share, size = spec.options.dropblock, spec.options.dropblock_size
            self.dropped = nn.ModuleList(DropBlock(share, size) for _ in self._dropping)
        wanted = (source for layer in spec.layers for source in layer.sources if source != layer.index - 1)
        self._kept = frozenset(wanted)  # outputs that a later row comes back for; others may be freed at once

    @property
    def classes(self) -> int:
        """Number of classes."""
        return self.spec.classes

    @property
    def strides(self) -> tuple[int, ...]:
        """Image pixels per cell of each level, in the order of the raw levels."""
        return self.spec.strides

    @property
    def head(self) -> Detect:
        """The last row, which predicts."""
        return cast(Detect, self.model[-1])

    @property
    def scale_xy(self) -> tuple[float, ...] | None:
        """One factor a level where boxes are decoded as darknet does; see `model.options`."""
        return self.spec.options.scale_xy

    @property
    def anchors(self) -> Tensor:
        """Anchors in px, (levels, per level, 2), as the loaded state has them."""
        return self.head.anchors_px

    def fuse(self) -> "Detector":
        """Copy it for use: in eval mode, batch norms folded into convolutions; outputs agree to rounding."""
        return fuse(self)

    def forward(self, images: Tensor) -> list[Tensor] | tuple[Tensor, list[Tensor]]:
        """Predict; see the class for shapes.

        Raises:
            ModelError: the images' sides are no multiples of the largest stride.
        """
        stride = max(self.strides)
        if images.ndim != 4 or images.shape[2] % stride or images.shape[3] % stride:
            raise ModelError(
                f"images must be (batch, channels, rows, columns), both sides multiples of {stride}, "
                f"but got {tuple(images.shape)}"
            )
        kept: dict[int, Tensor] = {}
        x = images
        for layer, module in zip(self.spec.layers, self.model, strict=True):
            inputs = [kept.get(source, x) for source in layer.sources]
            try:
                x = module(inputs if RULES[layer.module].many else inputs[0])
            except ModelError as error:
                raise ModelError(f"{self.spec.name}: row {layer.index} ({layer.module}): {error}") from error
            if layer.index in self._dropping:
                x = self.dropped[self._dropping[layer.index]](x)
            if layer.index in self._kept:
                kept[layer.index] = x
        return cast(list[Tensor] | tuple[Tensor, list[Tensor]], x)


def build(
    model: str | Path | Mapping[str, Any] | ModelSpec,
    classes: int | None = None,
    anchors: ArrayLike | None = None,
) -> Detector:
    """Build a detector with fresh weights, drawn from torch's generator.

    Args:
        model: a zoo name ("yolov5n"), a path that ends in .yaml, a spec, or what `ModelSpec.to_dict` gave.
        classes: takes the place of the file's number of classes.
        anchors: takes the place of the file's anchors, px, (levels, per level, 2).

    Returns:
        The detector, in train mode.

    Raises:
        ModelError: no such model, or something in its file can't be.
    """
    return Detector(load_spec(model, classes=classes, anchors=anchors))


def _build_layer(layer: Layer, spec: ModelSpec) -> nn.Module:
    if layer.module == "Detect":
        channels = tuple(spec.layers[source].channels for source in layer.sources)
        return Detect(
            spec.classes,
            torch.tensor(spec.anchors),
            spec.strides,
            channels,
            attention=spec.options.attention,
            scale_xy=spec.options.scale_xy,
        )
    try:
        stack = [LAYERS[layer.module](*layer.args) for _ in range(layer.stack)]
    except (TypeError, ValueError, RuntimeError) as error:
        # What the rules can't see, such as groups that don't divide the channels.
        raise ModelError(
            f"{spec.name}: row {layer.index} ({layer.module}): can't be built: {error}"
        ) from error
    return stack[0] if len(stack) == 1 else nn.Sequential(*stack)


def _follow_options(rows: nn.ModuleList, spec: ModelSpec) -> None:
    """Give fresh rows the activations, the normalisation and its eps that spec and family ask for."""
    about = spec.options.about
    for index, row in enumerate(rows):
        own = about.backbone if index < len(spec.backbone) else about.head
        if spec.layers[index].module not in ("nn.SiLU", "Detect"):
            _replace_silu(row, spec.activation or own, spec.activation or about.joint)
    for module in rows.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eps = about.eps
    if spec.options.norm == "cmbn":
        use_cmbn(rows)


def _replace_silu(module: nn.Module, activation: Activation, joint: Activation) -> None:
    for name, child in module.named_children():
        if isinstance(child, nn.SiLU):
            ours = joint if isinstance(module, BottleneckCSP | BottleneckCSP2 | SPPCSP) else activation
            if ours != SILU:
                setattr(module, name, _build_activation(ours))
        else:
            _replace_silu(child, activation, joint)


def _build_activation(activation: Activation) -> nn.Module:
    slope = [] if activation.slope is None else [activation.slope]
    in_place = {"inplace": True} if "in_place" in RULES[activation.module].parameters else {}
    return LAYERS[activation.module](*slope, **in_place)


def dropping_rows(spec: ModelSpec) -> tuple[int, ...]:
    """Rows of the backbone that the head takes from, whose outputs DropBlock thins out; empty without it."""
    if not spec.options.dropblock:
        return ()
    first = len(spec.backbone)
    taken = {source for layer in spec.layers[first:] for source in layer.sources if 0 <= source < first}
    return tuple(sorted(taken))
