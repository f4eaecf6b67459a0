"""Self-adversarial training: images that hide their objects from the detector as it is now, to learn from."""

import numpy as np
import torch
from torch import Tensor, nn

STREAM = 3
"""Keeps these draws apart from those of order and augmentation, which follow from (seed, epoch) too."""


def is_attacked(chance: float, seed: int, epoch: int, batch: int) -> bool:
    """Whether a batch is turned against the detector; the same on every device that shares the batch."""
    if chance == 0:
        return False
    return bool(np.random.default_rng([seed, epoch, batch, STREAM]).random() < chance)


def attack(detector: nn.Module, loss: nn.Module, images: Tensor, epsilon: float) -> Tensor:
    """Move every pixel a little, in the direction in which the detector sees fewer objects.

    The detector looks in eval mode, so no statistics move and nothing is dropped; its mode, and that of the loss,
    are left as they were, and no gradient is left in its weights.

    Args:
        detector: Gives (decoded, raw levels) in eval mode.
        loss: A `DetectionLoss`.
        images: (B, 3, H, W) in [0, 1].
        epsilon: How far, as a share of the range.

    Returns:
        (B, 3, H, W) in [0, 1].

    Source:
        Self-adversarial training of YOLOv4 (Bochkovskiy et al. 2020, https://arxiv.org/abs/2004.10934, section 3.3),
        with the step of the fast gradient sign method (Goodfellow et al. 2014, https://arxiv.org/abs/1412.6572).
    """
    modes = {module: module.training for part in (detector, loss) for module in part.modules()}
    for part in (detector, loss):
        part.eval()
    try:
        probe = images.detach().requires_grad_()
        _, raw = detector(probe)
        total, _ = loss(raw, images.new_zeros((0, 6), dtype=torch.float32))
        (slope,) = torch.autograd.grad(total, probe)
    finally:
        for module, training in modes.items():
            module.training = training
    return (images - epsilon * slope.sign()).clamp_(0, 1).detach()
