"""Cross mini-batch normalisation: batch norm over all micro-batches of one optimiser step."""

import torch
from torch import Tensor, nn


class CmBN(nn.BatchNorm2d):
    """Batch norm whose statistics are gathered over the micro-batches since the last change of its weights.

    Where gradients are accumulated over several forward passes, pass k is normalised with the statistics of passes
    1 to k of that step; gradients flow through its own share of them. The layer tells a new step by itself: an
    optimiser's step changes `weight` in place, which PyTorch counts. Its state is that of a batch norm.

    Source:
        YOLOv4 (Bochkovskiy et al. 2020), https://arxiv.org/abs/2004.10934, section 3.4 and figure 4, after CBN
        (Yao et al. 2020), https://arxiv.org/abs/2002.05712.
    """

    gathered: Tensor
    running_mean: Tensor
    running_var: Tensor
    num_batches_tracked: Tensor

    def __init__(self, channels: int, eps: float, momentum: float) -> None:
        super().__init__(channels, eps=eps, momentum=momentum)
        # Rows: mean, sum of squared differences from it, count. Of one step only, so no part of the state.
        self.register_buffer("gathered", torch.zeros(3, channels), persistent=False)
        self._version = -1

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, channels, rows, columns) to the same shape."""
        if not self.training:
            out: Tensor = super().forward(x)
            return out
        if self.weight._version != self._version:
            self.gathered.zero_()
            self._version = self.weight._version
        return self._normalise(x) if x.numel() else x

    def _normalise(self, x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            values = x.to(torch.promote_types(x.dtype, torch.float32))
            own = x.numel() // x.shape[1]
            own_variance, own_mean = torch.var_mean(values, (0, 2, 3), correction=0)
            before, squares, already = self.gathered.clone()
            # Chan's rule for joining two samples: no cancellation, where sums of squares would have it.
            count = already + own
            apart = own_mean - before
            mean = before + apart * (own / count)
            squares = squares + own_variance * own + apart.square() * (already * own / count)
            with torch.no_grad():
                self.gathered.copy_(torch.stack((mean, squares, count)))
                self._follow(mean, squares, count)
            scale = self.weight * torch.rsqrt(squares / count + self.eps)
            centred = values - mean.view(1, -1, 1, 1)
            out: Tensor = centred * scale.view(1, -1, 1, 1) + self.bias.view(1, -1, 1, 1)
            return out.to(x.dtype)

    def _follow(self, mean: Tensor, squares: Tensor, count: Tensor) -> None:
        """Move the running statistics towards those of the step so far, the variance unbiased, as batch norm does."""
        momentum = 0.0 if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean, momentum)
        self.running_var.lerp_(squares / (count - 1).clamp(min=1), momentum)
        self.num_batches_tracked += 1


def use_cmbn(module: nn.Module) -> None:
    """Put a `CmBN` of the same figures in the place of every fresh batch norm inside `module`."""
    for name, child in module.named_children():
        if type(child) is nn.BatchNorm2d:
            momentum = 0.1 if child.momentum is None else child.momentum
            setattr(module, name, CmBN(child.num_features, child.eps, momentum))
        else:
            use_cmbn(child)
