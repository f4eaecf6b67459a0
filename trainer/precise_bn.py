"""Precise BN: statistics of batch normalisation that belong to the weights that are evaluated.

While it trains, a batch norm follows the mean and variance of its inputs with a momentum of 0.03: it remembers about
the last 33 batches, and the averaged weights remember those remembrances. In a training of a few hundred steps both
lag behind weights that still change fast, and an evaluation measures the lag as much as the weights.

Source: Wu and Johnson 2021, "Rethinking 'Batch' in BatchNorm", https://arxiv.org/abs/2105.07576, section 3.
"""

from collections import deque
from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

Join = Callable[[Tensor], Tensor]
"""Replaces a tensor by its sum over all processes."""


class RecentImages:
    """The images of the last few batches of an epoch, as bytes."""

    def __init__(self, most: int) -> None:
        """Keep those of `most` batches; 0 keeps none."""
        self._kept: deque[Tensor] = deque(maxlen=most)

    def add(self, images: Tensor) -> None:
        """Keep a batch as the loader gave it (B, 3, H, W), uint8, or float in [0, 1]; the oldest one goes."""
        if self._kept.maxlen:
            whole = images.mul(255).round_().to(torch.uint8) if images.is_floating_point() else images
            self._kept.append(whole)

    def take(self) -> list[Tensor]:
        """All that are kept, oldest first; none are kept from then on."""
        kept = list(self._kept)
        self._kept.clear()
        return kept


@torch.no_grad()
def estimate(
    detector: nn.Module, norms: Iterable[nn.BatchNorm2d], batches: Iterable[Tensor], join: Join
) -> None:
    """Replace running statistics by those of some batches, each layer's seen behind layers that see the batch alike.

    Args:
        detector: In eval mode, and stays so; of its state nothing but running means and variances changes.
        norms: Those of its layers that are estimated.
        batches: Inputs (B, 3, H, W) of the detector. Each counts by its pixels. None leave all as it is.
        join: Of all processes that have batches at the same time.
    """
    sums = {
        norm: torch.zeros(3, norm.num_features, dtype=torch.float64, device=norm.weight.device)
        for norm in norms
    }

    def look(norm: nn.BatchNorm2d, inputs: tuple[Tensor]) -> None:
        values = inputs[0].float()
        variance, mean = torch.var_mean(values, (0, 2, 3), correction=0)
        count = values.numel() // values.shape[1]
        sums[norm] += torch.stack((mean, variance + mean.square(), torch.ones_like(mean))).double() * count
        _set(norm, mean, variance)

    hooks = [norm.register_forward_pre_hook(look) for norm in sums]
    try:
        for images in batches:
            detector(images)
    finally:
        for hook in hooks:
            hook.remove()
    for norm, total in sums.items():
        mean, square, count = join(total)
        if not count[0]:
            continue
        mean, square = mean / count, square / count
        _set(norm, mean, (square - mean.square()).clamp(min=0) * (count / (count - 1).clamp(min=1)))


def _set(norm: nn.BatchNorm2d, mean: Tensor, variance: Tensor) -> None:
    if norm.running_mean is not None and norm.running_var is not None:
        norm.running_mean.copy_(mean)
        norm.running_var.copy_(variance)
