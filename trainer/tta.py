"""Test-time augmentation: each image is looked at in three sizes, once mirrored, and all predictions are kept."""

import math
from typing import cast

import torch
from torch import Tensor
from torch.nn.functional import interpolate, pad

from model import Detector

VIEWS = ((1.0, False), (0.83, True), (0.67, False))
"""Scale, and whether mirrored: the published choice of YOLOv5."""

GREY = 114 / 255


def augmented_predictions(detector: Detector, images: Tensor) -> Tensor:
    """Decoded predictions of all `VIEWS` of a batch, for one non-maximum suppression over them.

    Args:
        detector: In eval mode.
        images: (B, 3, H, W) in [0, 1], sides multiples of the detector's largest stride.

    Returns:
        (B, P, 5 + classes): xywh in px of `images`, objectness and class probabilities.
    """
    seen = [_view(detector, images, scale, mirrored) for scale, mirrored in VIEWS]
    return torch.cat(seen, dim=1)


def _view(detector: Detector, images: Tensor, scale: float, mirrored: bool) -> Tensor:
    height, width = images.shape[2:]
    small, x, y = images, 1.0, 1.0
    if scale != 1:
        size = (max(round(height * scale), 1), max(round(width * scale), 1))
        x, y = size[1] / width, size[0] / height
        small = interpolate(images, size, mode="bilinear", align_corners=False, antialias=True)
        stride = max(detector.strides)
        rest = [math.ceil(side / stride) * stride - side for side in size]
        small = pad(small, (0, rest[1], 0, rest[0]), value=GREY)
    if mirrored:
        small = small.flip(3)
    decoded = cast(Tensor, detector(small.contiguous(memory_format=torch.channels_last))[0])
    boxes = decoded[..., :4]
    centre = small.shape[3] - boxes[..., 0] if mirrored else boxes[..., 0]
    back = torch.stack((centre / x, boxes[..., 1] / y, boxes[..., 2] / x, boxes[..., 3] / y), dim=-1)
    return torch.cat((back, decoded[..., 4:]), dim=-1)
