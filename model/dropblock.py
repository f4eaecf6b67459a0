"""DropBlock: whole squares of a feature map are left out while training, more of them as training goes on."""

import torch
from torch import Tensor, nn
from torch.nn.functional import max_pool2d

BLOCK = 7  # cells, the side that the paper found best


class DropBlock(nn.Module):
    """Sets squares of every channel to 0 and scales up what is left, in train mode only. No state.

    Args:
        share: the share of values, 0 up to but not 1, that is dropped when the schedule has ended.
        block: side of a square in cells; smaller maps take their own smaller side.

    `rate` is the share dropped now: 0 at first, see `set_dropblock`.

    Source:
        Ghiasi et al. 2018, https://arxiv.org/abs/1810.12890, algorithm 1.
    """

    def __init__(self, share: float, block: int = BLOCK) -> None:
        super().__init__()
        if not 0 <= share < 1 or block < 1:
            raise ValueError(f"0 <= share < 1 and block >= 1 must hold, but got {share} and {block}")
        self.share = share
        self.block = block
        self.rate = 0.0

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, channels, rows, columns) to the same shape."""
        if not self.training or self.rate == 0 or x.numel() == 0:
            return x
        rows, columns = x.shape[2:]
        block = min(self.block, rows, columns)
        # Squares lie wholly inside: their first corners are drawn on the smaller map of places where they can start.
        places = (rows - block + 1, columns - block + 1)
        seeds = self.rate / block**2 * rows * columns / (places[0] * places[1])
        corners = torch.rand(*x.shape[:2], *places, device=x.device) < seeds
        padded = nn.functional.pad(corners.to(x.dtype), [block - 1] * 4)
        kept = 1 - max_pool2d(padded, block, stride=1)
        return x * kept * (kept.numel() / kept.sum(dtype=torch.float32).clamp(min=1)).to(x.dtype)

    def extra_repr(self) -> str:
        """Share, block and rate."""
        return f"share={self.share}, block={self.block}, rate={self.rate}"


def set_dropblock(detector: nn.Module, progress: float) -> None:
    """Let every DropBlock of a detector drop what the schedule asks for: linear from nothing to its share.

    A detector without DropBlock is left as it is, so a training loop may always call this.

    Args:
        detector: any module.
        progress: how much of the training is done, 0..1; beyond, the nearer end.
    """
    done = min(max(progress, 0.0), 1.0)
    for module in detector.modules():
        if isinstance(module, DropBlock):
            module.rate = module.share * done
