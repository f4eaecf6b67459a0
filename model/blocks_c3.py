"""Kin of C3 in which something else takes the place of the bottlenecks, and rearrangements of pixels.

Names of the parts are those of published YOLOv5 weights.
"""

from torch import Tensor, nn

from model.blocks import C3, SPP, Conv


class CrossConv(nn.Module):
    """A 1×k and a k×1 convolution instead of one k×k, with a shortcut round both where asked and possible."""

    def __init__(
        self,
        c_in: int,
        c_out: int,
        kernel: int = 3,
        stride: int = 1,
        groups: int = 1,
        expansion: float = 1.0,
        shortcut: bool = False,
    ) -> None:
        super().__init__()
        hidden = int(c_out * expansion)
        self.cv1 = Conv(c_in, hidden, (1, kernel), (1, stride))
        self.cv2 = Conv(hidden, c_out, (kernel, 1), (stride, 1), groups=groups)
        self.add = shortcut and c_in == c_out and stride == 1

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, c_in, rows, columns) to (batch, c_out, rows / stride, columns / stride)."""
        y: Tensor = self.cv2(self.cv1(x))
        return x + y if self.add else y


class C3x(C3):
    """C3 whose bottlenecks are cross convolutions."""

    def stage(self, hidden: int, number: int, shortcut: bool, groups: int) -> nn.Module:
        """Make the inner stage."""
        return nn.Sequential(*(CrossConv(hidden, hidden, 3, 1, groups, 1.0, shortcut) for _ in range(number)))


class C3SPP(C3):
    """C3 with spatial pyramid pooling in the place of the bottlenecks."""

    def __init__(self, c_in: int, c_out: int, kernels: tuple[int, ...] = (5, 9, 13)) -> None:
        super().__init__(c_in, c_out, 0)
        self.m = SPP(c_out // 2, c_out // 2, kernels)


class TransformerLayer(nn.Module):
    """Self-attention and two linear layers, each with a shortcut, without layer normalisation.

    Source: Dosovitskiy et al. 2020, https://arxiv.org/abs/2010.11929, in the form of YOLOv5.
    """

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.q = nn.Linear(channels, channels, bias=False)
        self.k = nn.Linear(channels, channels, bias=False)
        self.v = nn.Linear(channels, channels, bias=False)
        self.ma = nn.MultiheadAttention(embed_dim=channels, num_heads=heads)
        self.fc1 = nn.Linear(channels, channels, bias=False)
        self.fc2 = nn.Linear(channels, channels, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map (places, batch, channels) to the same shape."""
        x = self.ma(self.q(x), self.k(x), self.v(x), need_weights=False)[0] + x
        y: Tensor = self.fc2(self.fc1(x)) + x
        return y


class TransformerBlock(nn.Module):
    """Transformer layers over the places of a feature map, with a learnt embedding of what stands there."""

    def __init__(self, channels: int, heads: int, number: int) -> None:
        super().__init__()
        self.linear = nn.Linear(channels, channels)
        self.tr = nn.Sequential(*(TransformerLayer(channels, heads) for _ in range(number)))

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, channels, rows, columns) to the same shape."""
        places = x.flatten(2).permute(2, 0, 1)
        y: Tensor = self.tr(places + self.linear(places))
        return y.permute(1, 2, 0).reshape(x.shape)


class C3TR(C3):
    """C3 with transformer layers of four heads in the place of the bottlenecks."""

    def stage(self, hidden: int, number: int, shortcut: bool, groups: int) -> nn.Module:
        """Make the inner stage."""
        return TransformerBlock(hidden, 4, number)


class Contract(nn.Module):
    """Lays each gain × gain square of cells into channels."""

    def __init__(self, gain: int = 2) -> None:
        super().__init__()
        self.gain = gain

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, channels, rows, columns) to (batch, channels · gain², rows / gain, columns / gain)."""
        batch, channels, rows, columns = x.shape
        gain = self.gain
        squares = x.view(batch, channels, rows // gain, gain, columns // gain, gain)
        laid = squares.permute(0, 3, 5, 1, 2, 4).contiguous()
        return laid.view(batch, channels * gain**2, rows // gain, columns // gain)


class Expand(nn.Module):
    """Lays channels out into gain × gain squares of cells."""

    def __init__(self, gain: int = 2) -> None:
        super().__init__()
        self.gain = gain

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, channels, rows, columns) to (batch, channels / gain², rows · gain, columns · gain)."""
        batch, channels, rows, columns = x.shape
        gain = self.gain
        squares = x.reshape(batch, gain, gain, channels // gain**2, rows, columns)
        laid = squares.permute(0, 3, 4, 1, 5, 2).contiguous()
        return laid.view(batch, channels // gain**2, rows * gain, columns * gain)


class ChannelSlice(nn.Module):
    """One of several equal groups of channels, as darknet's route with groups."""

    def __init__(self, groups: int, index: int) -> None:
        super().__init__()
        self.groups = groups
        self.index = index

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, channels, rows, columns) to (batch, channels / groups, rows, columns)."""
        return x.chunk(self.groups, 1)[self.index]
