"""How raw numbers become boxes: the one rule that head and loss share."""

import torch
from torch import Tensor

LARGEST = 10.0  # sides beyond e¹⁰ anchors are no boxes, and would turn a loss into NaN


def decode_cells(raw: Tensor, sides: Tensor, scale_xy: Tensor | None) -> Tensor:
    """Turn raw box numbers into boxes in units of a cell, the centre relative to the cell's upper left corner.

    Args:
        raw: (..., 4) before any sigmoid, float32 or better.
        sides: (..., 2) widths and heights of the anchors, in cells (or px: the sides come out in the same unit).
        scale_xy: None, or what broadcasts to (..., 1): how far centres can reach, 1 for just their cell.

    Returns:
        (..., 4) x, y, width, height.

    Source:
        xy 2σ − 0.5, wh (2σ)² · anchor: YOLOv5, and Scaled-YOLOv4 before it. With `scale_xy`, xy σ · s − (s − 1) / 2
        and wh exp(t) · anchor: darknet, YOLOv3 (s = 1) and YOLOv4 ("eliminate grid sensitivity").
    """
    if scale_xy is None:
        scaled = raw.sigmoid() * 2
        return torch.cat((scaled[..., :2] - 0.5, scaled[..., 2:].square() * sides), -1)
    xy = raw[..., :2].sigmoid() * scale_xy - (scale_xy - 1) / 2
    return torch.cat((xy, raw[..., 2:].clamp(max=LARGEST).exp() * sides), -1)
