"""The processes that train one detector together, or the one that trains it alone."""

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from trainer.cross_norm import CrossRankBatchNorm


@dataclass(frozen=True)
class Team:
    """One process's place among those that train together; with `world` 1 everything here is free.

    Attributes:
        rank: From 0. The first evaluates, writes and reports.
        world: How many there are.
    """

    rank: int = 0
    world: int = 1

    @property
    def is_first(self) -> bool:
        """Whether this process evaluates, writes and reports."""
        return self.rank == 0

    def sum_(self, tensor: Tensor) -> Tensor:
        """Replace a tensor by its sum over all processes."""
        if self.world > 1:
            dist.all_reduce(tensor)
        return tensor

    def tell(self, numbers: Sequence[float], device: torch.device) -> list[float]:
        """The first process's numbers, in every process; the others give as many of their own."""
        if self.world == 1:
            return list(numbers)
        table = torch.tensor(numbers, dtype=torch.float64, device=device)
        dist.broadcast(table, 0)
        return [float(number) for number in table.tolist()]

    def level_buffers(self, modules: Sequence[nn.Module]) -> None:
        """Give every process the first one's buffers: statistics of shares of a batch differ a little.

        Done at each end of an epoch, so that a resumed training, which starts from the first one's, goes on exactly.
        """
        if self.world > 1:
            for module in modules:
                for buffer in module.buffers():
                    dist.broadcast(buffer, 0)

    def wrap(self, detector: nn.Module) -> nn.Module:
        """The detector's forward pass, whose backward pass averages the gradients of all processes."""
        if self.world == 1:
            return detector
        return DistributedDataParallel(detector, forward_sync_buffers=False, gradient_as_bucket_view=True)

    def quiet(self, forward: Any, waits: bool) -> Any:
        """A context in which gradients stay at home, for micro-batches that another one of the same step follows."""
        if waits and isinstance(forward, DistributedDataParallel):
            return forward.no_sync()
        return nullcontext()

    def counts(self, counts: Sequence[int], images: int, device: torch.device) -> Tensor:
        """Matches by level as a process must count them, so that all shares' losses add up to that of the batch.

        A share's loss is a mean over its own matches, times its images. Were the batch in one process, the mean would
        be over all matches and the factor all images.

        Args:
            counts: Of this share, by level.
            images: Of this share.
            device: Where the loss is computed.

        Returns:
            (levels,) float32: all matches, times this share of the images.
        """
        table = torch.tensor([*counts, images], dtype=torch.float32, device=device)
        if self.world == 1:
            return table[:-1]
        dist.all_reduce(table)
        return table[:-1] * (images / table[-1])

    def mean(self, values: Tensor) -> Tensor:
        """The mean over all processes; detached."""
        if self.world == 1:
            return values.detach()
        return self.sum_(values.detach().clone()) / self.world


SOLO = Team()


def join_norms(detector: nn.Module, device: torch.device) -> nn.Module:
    """Let every batch normalisation see the batch of all processes.

    On CUDA PyTorch's own; it has none for CPUs, so there ours.
    """
    if device.type == "cuda":
        convert: Any = nn.SyncBatchNorm.convert_sync_batchnorm  # untyped in torch
        joined: nn.Module = convert(detector)
        return joined
    for name, child in detector.named_children():
        if type(child) is nn.BatchNorm2d:
            setattr(detector, name, CrossRankBatchNorm.like(child))
        else:
            join_norms(child, device)
    return detector
