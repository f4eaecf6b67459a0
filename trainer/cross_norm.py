"""Batch normalisation over the batch of all processes, for devices for which PyTorch has none."""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn


class _SumOverRanks(torch.autograd.Function):
    """The sum of a tensor over all processes. What depends on it does so in each of them, so gradients add up too."""

    @staticmethod
    def forward(ctx: Any, own: Tensor) -> Tensor:
        total = own.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *slopes: Tensor) -> Tensor:
        total = slopes[0].clone()
        dist.all_reduce(total)
        return total


class CrossRankBatchNorm(nn.BatchNorm2d):
    """A batch norm whose mean and variance are those of all processes' shares of a batch together.

    Its state is that of a plain batch norm, and in eval mode it is one.
    """

    @classmethod
    def like(cls, norm: nn.BatchNorm2d) -> "CrossRankBatchNorm":
        """A norm that shares another one's weights and statistics."""
        joined = cls(norm.num_features, norm.eps, norm.momentum)
        joined.weight, joined.bias = norm.weight, norm.bias
        joined.running_mean, joined.running_var = norm.running_mean, norm.running_var
        joined.num_batches_tracked = norm.num_batches_tracked
        return joined.train(norm.training)

    def forward(self, input: Tensor) -> Tensor:
        """Map (batch, channels, rows, columns) to the same shape; batches may differ from process to process."""
        if not self.training:
            return super().forward(input)
        values = input.to(torch.promote_types(input.dtype, torch.float32))
        count = values.new_tensor(values.numel() // values.shape[1])
        dist.all_reduce(count)
        mean = _sum_over_ranks(values.sum((0, 2, 3))) / count
        centred = values - mean.view(1, -1, 1, 1)
        # The squares of differences, not the difference of squares: that would cost the variance its last digits.
        variance = _sum_over_ranks(centred.square().sum((0, 2, 3))) / count
        self._follow(mean.detach(), variance.detach() * (count / (count - 1).clamp(min=1)))
        scale = (self.weight * torch.rsqrt(variance + self.eps)).view(1, -1, 1, 1)
        return (centred * scale + self.bias.view(1, -1, 1, 1)).to(input.dtype)

    def _follow(self, mean: Tensor, variance: Tensor) -> None:
        if self.running_mean is None or self.running_var is None or self.num_batches_tracked is None:
            return
        momentum = 0.1 if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean, momentum)
        self.running_var.lerp_(variance, momentum)
        self.num_batches_tracked.add_(1)


def _sum_over_ranks(own: Tensor) -> Tensor:
    apply: Any = _SumOverRanks.apply  # untyped in torch
    total: Tensor = apply(own)
    return total
