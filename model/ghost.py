"""Thrifty convolutions: depth-wise, of mixed kernels, and ghost ones, which convolve half of their output cheaply.

Source: GhostNet (Han et al. 2019), https://arxiv.org/abs/1911.11907, and MixConv (Tan and Le 2019),
https://arxiv.org/abs/1907.09595, with the parts' names of YOLOv5's weights.
"""

from math import gcd

import torch
from torch import Tensor, nn

from model.blocks import C3, Conv, Conv2d, batch_norm


class DWConv(Conv):
    """Convolution in as many groups as the channels in and out allow: depth-wise where they are equal."""

    def __init__(
        self, c_in: int, c_out: int, kernel: int = 1, stride: int = 1, activation: bool = True
    ) -> None:
        super().__init__(c_in, c_out, kernel, stride, groups=gcd(c_in, c_out), activation=activation)


class DWConvTranspose2d(nn.ConvTranspose2d):
    """Transposed convolution in as many groups as the channels in and out allow."""

    def __init__(self, c_in: int, c_out: int, kernel: int = 1, stride: int = 1, padding: int = 0) -> None:
        super().__init__(c_in, c_out, kernel, stride, padding, groups=gcd(c_in, c_out))


class MixConv2d(nn.Module):
    """Convolutions of several kernels side by side, each to its equal share of the channels."""

    def __init__(self, c_in: int, c_out: int, kernels: tuple[int, ...] = (1, 3), stride: int = 1) -> None:
        super().__init__()
        # The first of k kernels gets the odd channels: as many as there are whole steps of n / k under its end.
        ends = [-(-c_out * (place + 1) // len(kernels)) for place in range(len(kernels))]
        shares = [end - begin for begin, end in zip([0, *ends], ends, strict=False)]
        self.m = nn.ModuleList(
            Conv2d(c_in, c, kernel, stride, kernel // 2, groups=gcd(c_in, c), bias=False)
            for c, kernel in zip(shares, kernels, strict=True)
        )
        self.bn = batch_norm(c_out)
        self.act: nn.Module = nn.SiLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, c_in, rows, columns) to (batch, c_out, rows / stride, columns / stride)."""
        y: Tensor = self.act(self.bn(torch.cat([convolution(x) for convolution in self.m], 1)))
        return y


class GhostConv(nn.Module):
    """A convolution to half the channels, and a 5×5 depth-wise one to the other half."""

    def __init__(
        self,
        c_in: int,
        c_out: int,
        kernel: int = 1,
        stride: int = 1,
        groups: int = 1,
        activation: bool = True,
    ) -> None:
        super().__init__()
        half = c_out // 2
        self.cv1 = Conv(c_in, half, kernel, stride, None, groups, activation)
        self.cv2 = Conv(half, half, 5, 1, None, half, activation)

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, c_in, rows, columns) to (batch, c_out, rows / stride, columns / stride)."""
        y = self.cv1(x)
        return torch.cat((y, self.cv2(y)), 1)


class GhostBottleneck(nn.Module):
    """Two ghost convolutions with a shortcut; at stride 2 both ways are halved by depth-wise convolutions."""

    def __init__(self, c_in: int, c_out: int, kernel: int = 3, stride: int = 1) -> None:
        super().__init__()
        hidden = c_out // 2
        halved = stride == 2
        self.conv = nn.Sequential(
            GhostConv(c_in, hidden, 1, 1),
            DWConv(hidden, hidden, kernel, stride, activation=False) if halved else nn.Identity(),
            GhostConv(hidden, c_out, 1, 1, activation=False),
        )
        self.shortcut: nn.Module = nn.Identity()
        if halved:
            self.shortcut = nn.Sequential(
                DWConv(c_in, c_in, kernel, stride, activation=False), Conv(c_in, c_out, 1, activation=False)
            )

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, c_in, rows, columns) to (batch, c_out, rows / stride, columns / stride)."""
        y: Tensor = self.conv(x) + self.shortcut(x)
        return y


class C3Ghost(C3):
    """C3 whose bottlenecks are ghost ones."""

    def stage(self, hidden: int, number: int, shortcut: bool, groups: int) -> nn.Module:
        """Make the inner stage."""
        return nn.Sequential(*(GhostBottleneck(hidden, hidden) for _ in range(number)))
