"""The layers that detectors are made of: they know nothing of YAML.

Names of their parts are those of published weights, so that these load.
"""

from typing import ClassVar

import torch
from torch import Tensor, nn

from model.errors import ModelError

BATCH_NORM_EPS = 1e-3  # both as in YOLOv5, whose weights expect them
BATCH_NORM_MOMENTUM = 0.03


def batch_norm(channels: int) -> nn.BatchNorm2d:
    """Return batch normalisation with the figures of the YOLOv5 family."""
    return nn.BatchNorm2d(channels, eps=BATCH_NORM_EPS, momentum=BATCH_NORM_MOMENTUM)


class Conv2d(nn.Conv2d):
    """A convolution that trains to the same bits on one CPU thread as on several.

    On one thread PyTorch sends 1×1 kernels to another routine, whose sums are rounded otherwise; batch norm over few
    values magnifies that a thousandfold. Here oneDNN does them on any number of threads, in about the same time.
    Inference is left to PyTorch, and so is whatever may be exported or compiled.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Map (batch, channels in, rows, columns) to (batch, channels out, ...)."""
        padding = self.padding
        if self.training and self.kernel_size == (1, 1) and not isinstance(padding, str) and _strays(input):
            return torch.mkldnn_convolution(
                input, self.weight, self.bias, padding, self.stride, self.dilation, self.groups
            )
        return super().forward(input)


def _strays(x: Tensor) -> bool:
    """Whether PyTorch would take its own routine for a 1×1 kernel just because there is one thread."""
    return (
        torch.get_num_threads() == 1
        and x.device.type == "cpu"
        and x.dtype == torch.float32
        and x.shape[0] > 1
        and x.numel() > 0
        and torch._C._has_mkldnn
        and not torch.is_autocast_enabled("cpu")
        and not bool(torch.compiler.is_compiling())
    )


class Mish(nn.Mish):
    """Mish, x · tanh(softplus(x)), rounded as Scaled-YOLOv4's own where there is no fused kernel to agree with.

    PyTorch's CPU kernel differs from the formula in the last bit, which batch norm magnifies; on a GPU its fused
    kernel is taken.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Map a tensor to one of its shape."""
        if input.device.type == "cpu":
            return input * nn.functional.softplus(input).tanh()
        return super().forward(input)


class ZeroPad2d(nn.ZeroPad2d):
    """Zeros at the borders, laid on as pieces of their own.

    As one step they would be exported as ONNX's Pad, which onnxruntime melts into a pool behind it that
    pads with the least of all numbers: yolov3-tiny would then find other boxes.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Map (batch, channels, rows, columns) to (batch, channels, top + rows + bottom, left + columns + right)."""
        left, right, top, bottom = self.padding
        for dimension, sides in ((3, (left, right)), (2, (top, bottom))):
            first, last = (_zeros(input, dimension, width) for width in sides)
            input = torch.cat((*first, input, *last), dimension)
        return input


def _zeros(like: Tensor, dimension: int, width: int) -> list[Tensor]:
    """A border of zeros for one side of a tensor; nothing where it has no width."""
    shape = list(like.shape)
    shape[dimension] = width
    return [like.new_zeros(shape)] if width else []


class MP(nn.Module):
    """The maxima of each square of cells, which have no cell in common."""

    def __init__(self, kernel: int = 2) -> None:
        super().__init__()
        self.m = nn.MaxPool2d(kernel, kernel)

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, channels, rows, columns) to (batch, channels, rows / kernel, columns / kernel)."""
        y: Tensor = self.m(x)
        return y


class Conv(nn.Module):
    """Convolution without bias, batch normalisation, SiLU.

    Args:
        c_in: channels in.
        c_out: channels out.
        kernel: side of the kernel, or its (rows, columns).
        stride: step of the kernel, or its (rows, columns).
        padding: None is half the kernel, which keeps the size at stride 1.
        groups: groups of the convolution.
        activation: False leaves the SiLU out.
    """

    def __init__(
        self,
        c_in: int,
        c_out: int,
        kernel: int | tuple[int, int] = 1,
        stride: int | tuple[int, int] = 1,
        padding: int | None = None,
        groups: int = 1,
        activation: bool = True,
    ) -> None:
        super().__init__()
        self.conv = Conv2d(c_in, c_out, kernel, stride, _pad(kernel, padding), groups=groups, bias=False)
        self.bn = batch_norm(c_out)
        self.act: nn.Module = nn.SiLU(inplace=True) if activation else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, c_in, rows, columns) to (batch, c_out, rows / stride, columns / stride)."""
        y: Tensor = self.act(self.bn(self.conv(x)))
        return y


def _pad(kernel: int | tuple[int, int], padding: int | None) -> int | tuple[int, int]:
    if padding is not None:
        return padding
    return kernel // 2 if isinstance(kernel, int) else (kernel[0] // 2, kernel[1] // 2)


class Bottleneck(nn.Module):
    """A 1×1 and a 3×3 convolution, with a shortcut round both where the channels allow it."""

    def __init__(
        self, c_in: int, c_out: int, shortcut: bool = True, groups: int = 1, expansion: float = 0.5
    ) -> None:
        super().__init__()
        hidden = int(c_out * expansion)
        self.cv1 = Conv(c_in, hidden, 1)
        self.cv2 = Conv(hidden, c_out, 3, groups=groups)
        self.add = shortcut and c_in == c_out

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, c_in, rows, columns) to (batch, c_out, rows, columns)."""
        y: Tensor = self.cv2(self.cv1(x))
        return x + y if self.add else y


class CrossStage(nn.Module):
    """What cross-stage partial blocks share: one branch through an inner stage, one past it.

    Kinds differ in their convolutions (`lay_out`), in the inner stage (`stage`), in its width, and in whether its
    bottlenecks have shortcuts where a row does not say.

    Source: CSPNet (Wang et al. 2019), https://arxiv.org/abs/1911.11929.
    """

    shortcuts: ClassVar[bool] = True

    def __init__(
        self,
        c_in: int,
        c_out: int,
        number: int = 1,
        shortcut: bool | None = None,
        groups: int = 1,
        expansion: float = 0.5,
    ) -> None:
        super().__init__()
        hidden = self.width(c_out, expansion)
        self.lay_out(c_in, c_out, hidden)
        self.m = self.stage(hidden, number, self.shortcuts if shortcut is None else shortcut, groups)

    @staticmethod
    def width(c_out: int, expansion: float) -> int:
        """Channels of the inner stage."""
        return int(c_out * expansion)

    def lay_out(self, c_in: int, c_out: int, hidden: int) -> None:
        """Make the convolutions around the inner stage."""
        raise NotImplementedError

    def stage(self, hidden: int, number: int, shortcut: bool, groups: int) -> nn.Module:
        """Make the inner stage: bottlenecks in sequence that don't narrow inside."""
        return nn.Sequential(*(Bottleneck(hidden, hidden, shortcut, groups, 1.0) for _ in range(number)))


class C3(CrossStage):
    """Cross-stage partial block with three convolutions.

    Source: CSPNet as YOLOv5 v4 and later simplify it.
    """

    def lay_out(self, c_in: int, c_out: int, hidden: int) -> None:
        """Make the convolutions around the inner stage."""
        self.cv1 = Conv(c_in, hidden, 1)
        self.cv2 = Conv(c_in, hidden, 1)
        self.cv3 = Conv(2 * hidden, c_out, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, c_in, rows, columns) to (batch, c_out, rows, columns)."""
        y: Tensor = self.cv3(torch.cat((self.m(self.cv1(x)), self.cv2(x)), 1))
        return y


class SPP(nn.Module):
    """Spatial pyramid pooling: the input beside its maxima over windows of several sizes.

    Source: He et al. 2014, https://arxiv.org/abs/1406.4729, in the form of YOLOv3-SPP.
    """

    def __init__(self, c_in: int, c_out: int, kernels: tuple[int, ...] = (5, 9, 13)) -> None:
        super().__init__()
        hidden = c_in // 2
        self.cv1 = Conv(c_in, hidden, 1)
        self.cv2 = Conv(hidden * (len(kernels) + 1), c_out, 1)
        self.m = nn.ModuleList(nn.MaxPool2d(kernel, stride=1, padding=kernel // 2) for kernel in kernels)

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, c_in, rows, columns) to (batch, c_out, rows, columns)."""
        x = self.cv1(x)
        y: Tensor = self.cv2(torch.cat([x, *(pool(x) for pool in self.m)], 1))
        return y


class SPPF(nn.Module):
    """SPP by one small window three times over: with 5 it sees what 5, 9 and 13 see, at less cost."""

    def __init__(self, c_in: int, c_out: int, kernel: int = 5) -> None:
        super().__init__()
        hidden = c_in // 2
        self.cv1 = Conv(c_in, hidden, 1)
        self.cv2 = Conv(hidden * 4, c_out, 1)
        self.m = nn.MaxPool2d(kernel, stride=1, padding=kernel // 2)

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, c_in, rows, columns) to (batch, c_out, rows, columns)."""
        pooled = [self.cv1(x)]
        for _ in range(3):
            pooled.append(self.m(pooled[-1]))
        y: Tensor = self.cv2(torch.cat(pooled, 1))
        return y


class Focus(nn.Module):
    """Lays each 2×2 square of pixels into channels, then a Conv: half the size with nothing thrown away."""

    def __init__(
        self,
        c_in: int,
        c_out: int,
        kernel: int = 1,
        stride: int = 1,
        padding: int | None = None,
        groups: int = 1,
        activation: bool = True,
    ) -> None:
        super().__init__()
        self.conv = Conv(4 * c_in, c_out, kernel, stride, padding, groups, activation)

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, c_in, rows, columns), both even, to (batch, c_out, rows / 2, columns / 2)."""
        even, odd = x[..., ::2, :], x[..., 1::2, :]
        corners = (even[..., ::2], odd[..., ::2], even[..., 1::2], odd[..., 1::2])
        y: Tensor = self.conv(torch.cat(corners, 1))
        return y


class Concat(nn.Module):
    """Lays tensors together, along the channels unless told otherwise."""

    def __init__(self, dimension: int = 1) -> None:
        super().__init__()
        self.dimension = dimension

    def forward(self, inputs: list[Tensor]) -> Tensor:
        """Map tensors of one batch and size to one of all their channels, in the order given.

        Raises:
            ModelError: their sizes differ.
        """
        sizes = {tuple(x.shape[2:]) for x in inputs}
        if len(sizes) > 1:
            listed = ", ".join(f"{rows}×{columns}" for rows, columns in sorted(sizes))
            raise ModelError(f"its inputs must have one size, but got {listed} cells")
        return torch.cat(inputs, self.dimension)
