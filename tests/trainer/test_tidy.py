"""What a training leaves in torch, taken away again."""

import torch

from trainer.tidy import tidy_torch


def test_switches_and_generators_are_as_in_a_fresh_process() -> None:
    assert tidy_torch() is None
    drawn = torch.rand(3)
    torch.set_default_dtype(torch.float64)
    torch.set_grad_enabled(False)
    torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.benchmark = True
    torch.manual_seed(5)
    assert tidy_torch() is None
    assert torch.equal(torch.rand(3), drawn)
    assert torch.is_grad_enabled()
    assert torch.get_default_dtype() == torch.float32
    assert not torch.are_deterministic_algorithms_enabled()
    assert not torch.backends.cudnn.benchmark
