"""Cross-stage partial blocks with one batch normalisation over both branches: YOLOv5 up to v3.1 and Scaled-YOLOv4.

Source: CSPNet (Wang et al. 2019), https://arxiv.org/abs/1911.11929, and Scaled-YOLOv4 (Wang et al. 2020),
https://arxiv.org/abs/2011.08036. Names of the parts are those of published weights.
"""

import torch
from torch import Tensor, nn

from model.blocks import Conv, Conv2d, CrossStage, batch_norm


class BottleneckCSP(CrossStage):
    """Cross-stage partial block with plain convolutions and one batch normalisation over both branches."""

    def lay_out(self, c_in: int, c_out: int, hidden: int) -> None:
        """Make the convolutions around the inner stage."""
        self.cv1 = Conv(c_in, hidden, 1)
        self.cv2 = Conv2d(c_in, hidden, 1, bias=False)
        self.cv3 = Conv2d(hidden, hidden, 1, bias=False)
        self.cv4 = Conv(2 * hidden, c_out, 1)
        self.bn = batch_norm(2 * hidden)
        self.act: nn.Module = nn.SiLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, c_in, rows, columns) to (batch, c_out, rows, columns)."""
        both = torch.cat((self.cv3(self.m(self.cv1(x))), self.cv2(x)), 1)
        y: Tensor = self.cv4(self.act(self.bn(both)))
        return y


class BottleneckCSP2(CrossStage):
    """The reversed block (rCSP) of Scaled-YOLOv4's neck: both branches start from one 1×1 convolution.

    `expansion` is taken, as files give it, and has no effect: the block doesn't narrow.
    """

    shortcuts = False

    @staticmethod
    def width(c_out: int, expansion: float) -> int:
        """Channels of the inner stage."""
        return c_out

    def lay_out(self, c_in: int, c_out: int, hidden: int) -> None:
        """Make the convolutions around the inner stage."""
        self.cv1 = Conv(c_in, hidden, 1)
        self.cv2 = Conv2d(hidden, hidden, 1, bias=False)
        self.cv3 = Conv(2 * hidden, c_out, 1)
        self.bn = batch_norm(2 * hidden)
        self.act: nn.Module = nn.SiLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, c_in, rows, columns) to (batch, c_out, rows, columns)."""
        stem = self.cv1(x)
        both = torch.cat((self.m(stem), self.cv2(stem)), 1)
        y: Tensor = self.cv3(self.act(self.bn(both)))
        return y


class SPPCSP(nn.Module):
    """Spatial pyramid pooling in a cross-stage partial block, where Scaled-YOLOv4's neck begins.

    `number`, `shortcut` and `groups` are taken, as files give them, and have no effect.
    """

    def __init__(
        self,
        c_in: int,
        c_out: int,
        number: int = 1,
        shortcut: bool = False,
        groups: int = 1,
        expansion: float = 0.5,
        kernels: tuple[int, ...] = (5, 9, 13),
    ) -> None:
        super().__init__()
        hidden = int(2 * c_out * expansion)
        self.cv1 = Conv(c_in, hidden, 1)
        self.cv2 = Conv2d(c_in, hidden, 1, bias=False)
        self.cv3 = Conv(hidden, hidden, 3)
        self.cv4 = Conv(hidden, hidden, 1)
        self.m = nn.ModuleList(nn.MaxPool2d(kernel, stride=1, padding=kernel // 2) for kernel in kernels)
        self.cv5 = Conv((len(kernels) + 1) * hidden, hidden, 1)
        self.cv6 = Conv(hidden, hidden, 3)
        self.bn = batch_norm(2 * hidden)
        self.act: nn.Module = nn.SiLU(inplace=True)
        self.cv7 = Conv(2 * hidden, c_out, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, c_in, rows, columns) to (batch, c_out, rows, columns)."""
        inner = self.cv4(self.cv3(self.cv1(x)))
        pooled = self.cv6(self.cv5(torch.cat([inner, *(pool(inner) for pool in self.m)], 1)))
        both = torch.cat((pooled, self.cv2(x)), 1)
        y: Tensor = self.cv7(self.act(self.bn(both)))
        return y


class VoVCSP(nn.Module):
    """Half the channels pass two 3×3 convolutions, whose outputs are laid together: OSANet of Scaled-YOLOv4.

    Whatever else a file gives (`number`, `shortcut`, `groups`, `expansion`) is taken and has no effect.
    """

    def __init__(self, c_in: int, c_out: int, *_: object) -> None:
        super().__init__()
        if c_in % 2 or c_out % 2:
            raise ValueError(f"channels must be even, but {c_in} go in and {c_out} come out")
        self.cv1 = Conv(c_in // 2, c_out // 2, 3)
        self.cv2 = Conv(c_out // 2, c_out // 2, 3)
        self.cv3 = Conv(c_out, c_out, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, c_in, rows, columns) to (batch, c_out, rows, columns)."""
        first = self.cv1(x.chunk(2, 1)[1])
        y: Tensor = self.cv3(torch.cat((first, self.cv2(first)), 1))
        return y
