"""Attention: modules that weigh channels or places of a feature map and keep its shape.

All take (channels, ...), so that a row of a model file or an option can place them anywhere.
"""

from typing import Any

import torch
from torch import Tensor, nn

from model.blocks import C3, Conv

RATIO = 16  # channels per unit of the squeezed layer, in the papers of SE and CBAM


class ChannelAttention(nn.Module):
    """Weighs channels by what their mean and maximum say, through one shared bottleneck.

    Source: CBAM (Woo et al. 2018), https://arxiv.org/abs/1807.06521, section 3.
    """

    def __init__(self, channels: int, ratio: int = RATIO) -> None:
        super().__init__()
        squeezed = max(channels // ratio, 1)
        self.f1 = nn.Conv2d(channels, squeezed, 1, bias=False)
        self.relu = nn.ReLU(inplace=True)
        self.f2 = nn.Conv2d(squeezed, channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, channels, rows, columns) to the same shape."""
        mean = self.f2(self.relu(self.f1(x.mean((2, 3), keepdim=True))))
        weight: Tensor = mean + self.f2(self.relu(self.f1(x.amax((2, 3), keepdim=True))))
        return x * weight.sigmoid()


class SAM(nn.Module):
    """Weighs places by a convolution over the mean and the maximum of their channels.

    Source: the spatial attention module of CBAM (Woo et al. 2018), which YOLOv4 starts from.
    """

    def __init__(self, channels: int, kernel: int = 7) -> None:
        super().__init__()
        if kernel % 2 == 0:
            raise ValueError(f"kernel must be odd, but got {kernel}")
        self.conv = nn.Conv2d(2, 1, kernel, padding=kernel // 2, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, channels, rows, columns) to the same shape."""
        both = torch.cat((x.mean(1, keepdim=True), x.amax(1, keepdim=True)), 1)
        weight: Tensor = self.conv(both)
        return x * weight.sigmoid()


class PointwiseSAM(nn.Module):
    """Weighs every value by a 1×1 convolution, batch normalisation and a sigmoid: no pooling.

    Source: YOLOv4 (Bochkovskiy et al. 2020), https://arxiv.org/abs/2004.10934, section 3.4 and figure 5.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = Conv(channels, channels, 1, activation=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, channels, rows, columns) to the same shape."""
        weight: Tensor = self.conv(x)
        return x * weight.sigmoid()


class SE(nn.Module):
    """Squeeze and excitation: weighs channels by what their means say.

    Source: Hu et al. 2017, https://arxiv.org/abs/1709.01507.
    """

    def __init__(self, channels: int, ratio: int = RATIO) -> None:
        super().__init__()
        squeezed = max(channels // ratio, 1)
        self.fc1 = nn.Conv2d(channels, squeezed, 1)
        self.relu = nn.ReLU(inplace=True)
        self.fc2 = nn.Conv2d(squeezed, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, channels, rows, columns) to the same shape."""
        weight: Tensor = self.fc2(self.relu(self.fc1(x.mean((2, 3), keepdim=True))))
        return x * weight.sigmoid()


class CBAM(nn.Module):
    """Channel attention, then spatial attention.

    Source: Woo et al. 2018, https://arxiv.org/abs/1807.06521.
    """

    def __init__(self, channels: int, ratio: int = RATIO, kernel: int = 7) -> None:
        super().__init__()
        self.channel_attention = ChannelAttention(channels, ratio)
        self.spatial_attention = SAM(channels, kernel)

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, channels, rows, columns) to the same shape."""
        y: Tensor = self.spatial_attention(self.channel_attention(x))
        return y


class CBAMC3(C3):
    """C3 whose output passes channel and spatial attention."""

    def __init__(self, c_in: int, c_out: int, *stage: Any) -> None:
        super().__init__(c_in, c_out, *stage)
        self.channel_attention = ChannelAttention(c_out)
        self.spatial_attention = SAM(c_out)

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, c_in, rows, columns) to (batch, c_out, rows, columns)."""
        y: Tensor = self.spatial_attention(self.channel_attention(super().forward(x)))
        return y


ATTENTION: dict[str, type[nn.Module]] = {"sam": SAM, "sam-pointwise": PointwiseSAM, "se": SE, "cbam": CBAM}
"""What the option `attention` of a model can be."""
