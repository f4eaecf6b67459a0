"""Raw and decoded predictions."""

import math

import torch
from torch import Tensor, nn

from model.attention import ATTENTION
from model.blocks import Conv2d
from model.decoding import decode_cells

INITIAL_OBJECTS = 8  # objects that the head expects in a fresh image of 640 px (facts of the YOLOv5 family)
INITIAL_SIZE = 640
INITIAL_CLASS_SHARE = 0.6


class Detect(nn.Module):
    """One 1×1 convolution per level: for each cell and anchor x, y, w, h, objectness and the classes.

    Args:
        classes: number of classes.
        anchors: px, (levels, per level, 2).
        strides: image pixels per cell, one for each level.
        channels: channels of each level's input.
        attention: a name of `ATTENTION`: such a module stands before each level's convolution.
        scale_xy: one factor a level for darknet's decoding; None for YOLOv5's. See `model.decoding`.

    The buffer `anchors` is in cells of its level, as in published weights; `anchors_px` is in px.
    """

    anchors: Tensor

    def __init__(
        self,
        classes: int,
        anchors: Tensor,
        strides: tuple[int, ...],
        channels: tuple[int, ...],
        *,
        attention: str | None = None,
        scale_xy: tuple[float, ...] | None = None,
    ) -> None:
        super().__init__()
        self.classes = classes
        self.strides = strides
        self.scale_xy = scale_xy
        self.per_level = anchors.shape[1]
        self.register_buffer("anchors", anchors / torch.tensor(strides, dtype=anchors.dtype).view(-1, 1, 1))
        self.m = nn.ModuleList(Conv2d(c, self.per_level * self.outputs, 1) for c in channels)
        if attention is not None:
            self.attention = nn.ModuleList(ATTENTION[attention](c) for c in channels)
        self._initialise_biases()

    @property
    def outputs(self) -> int:
        """Numbers per prediction: 5 + classes."""
        return 5 + self.classes

    @property
    def anchors_px(self) -> Tensor:
        """Anchors in px, (levels, per level, 2)."""
        return self.anchors * self.anchors.new_tensor(self.strides).view(-1, 1, 1)

    def forward(self, features: list[Tensor]) -> list[Tensor] | tuple[Tensor, list[Tensor]]:
        """Predict from one feature map per level.

        Args:
            features: for each level (batch, channels, rows, columns).

        Returns:
            In train mode the raw levels, each (batch, anchors, rows, columns, 5 + classes). In eval mode the
            decoded predictions as of `decode`, and the raw levels.
        """
        if hasattr(self, "attention"):
            features = [module(x) for module, x in zip(self.attention, features, strict=True)]
        raw = [self._predict(convolution, x) for convolution, x in zip(self.m, features, strict=True)]
        return raw if self.training else (self.decode(raw), raw)

    def decode(self, raw: list[Tensor]) -> Tensor:
        """Turn raw levels into boxes and probabilities.

        Args:
            raw: levels as `forward` gives them in train mode.

        Returns:
            (batch, P, 5 + classes), at least float32: box as centre x, y, width, height in px, then objectness
            and class probabilities in [0, 1]. P runs over levels, anchors, rows, columns, the last fastest.

        Source:
            (xy + cell) · stride, with xy and wh of `model.decoding`.
        """
        scales = [None] * len(raw) if self.scale_xy is None else list(self.anchors.new_tensor(self.scale_xy))
        levels = zip(raw, self.anchors_px, self.strides, scales, strict=True)
        return torch.cat([_decode_level(*level) for level in levels], 1)

    def _predict(self, convolution: nn.Module, x: Tensor) -> Tensor:
        batch, _, rows, columns = x.shape
        raw: Tensor = convolution(x).view(batch, self.per_level, self.outputs, rows, columns)
        return raw.permute(0, 1, 3, 4, 2).contiguous()

    @torch.no_grad()
    def _initialise_biases(self) -> None:
        """Start from few objects and even classes, or the first steps only unlearn false positives.

        Source:
            Focal loss (Lin et al. 2017, https://arxiv.org/abs/1708.02002, section 3.3), YOLOv5's figures.
        """
        for convolution, stride in zip(self.m, self.strides, strict=True):
            biases = convolution.get_parameter("bias").view(self.per_level, self.outputs)
            biases[:, 4] = math.log(INITIAL_OBJECTS / (INITIAL_SIZE / stride) ** 2)
            biases[:, 5:] = math.log(INITIAL_CLASS_SHARE / (self.classes - 0.99999))


def _decode_level(raw: Tensor, anchors_px: Tensor, stride: int, scale_xy: Tensor | None) -> Tensor:
    # Half precision can't tell neighbouring pixels apart beyond 2048: boxes are worked out in float32 or better.
    raw = raw.to(torch.promote_types(raw.dtype, torch.float32))
    batch, per_level, rows, columns, outputs = raw.shape
    # The grid is made anew each time: it costs microseconds, and a kept one must follow sizes, devices, copies.
    y = torch.arange(rows, device=raw.device, dtype=raw.dtype).view(rows, 1).expand(rows, columns)
    x = torch.arange(columns, device=raw.device, dtype=raw.dtype).expand(rows, columns)
    boxes = decode_cells(raw[..., :4], anchors_px.to(raw.dtype).view(per_level, 1, 1, 2), scale_xy)
    xy = (boxes[..., :2] + torch.stack((x, y), -1)) * stride
    decoded = torch.cat((xy, boxes[..., 2:], raw[..., 4:].sigmoid()), -1)
    return decoded.reshape(batch, per_level * rows * columns, outputs)
