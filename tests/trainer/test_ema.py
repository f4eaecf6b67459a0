import math

import numpy as np
import pytest
import torch
from torch import nn

from trainer.ema import MovingAverage, decay_at


def network(value: float) -> nn.Module:
    module = nn.Sequential(nn.Linear(1, 1), nn.BatchNorm1d(1))
    for tensor in module.state_dict().values():
        tensor.fill_(value)
    return module


@pytest.mark.parametrize(
    ("update", "expected"), [(0, 0.0), (2000, 0.9999 * (1 - math.exp(-1))), (10**6, 0.9999)]
)
def test_the_decay_follows_its_formula(update, expected):
    assert decay_at(update) == pytest.approx(expected)


@pytest.mark.parametrize("updates", [300, 3000])
def test_with_a_share_the_average_spans_that_share_of_the_updates_however_few(updates):
    kept = np.array([decay_at(update, 0.08) for update in range(1, updates + 1)])
    weights = (1 - kept) * np.append(np.cumprod(kept[:0:-1])[::-1], 1.0)
    assert weights.sum() == pytest.approx(1)
    age = float((weights * np.arange(updates)[::-1]).sum())
    assert age / updates == pytest.approx(0.08 / 1.08, rel=0.05)


def test_a_share_never_shortens_the_published_average_and_ends_at_its_limit():
    updates = [1, 100, 2000, 15_000, 20_000, 10**6]
    assert all(decay_at(update, 0.08) >= decay_at(update) for update in updates)
    assert decay_at(100, 0.08) == pytest.approx(8 / 9)
    assert decay_at(20_000, 0.08) == decay_at(20_000)
    assert decay_at(10**6, 0.08) == pytest.approx(0.9999)


def test_updates_average_floating_state_and_copy_counters():
    average = MovingAverage(network(0))
    for _ in range(3):
        average.update(network(8))
    expected = 0.0
    for update in (1, 2, 3):
        expected = decay_at(update) * expected + (1 - decay_at(update)) * 8
    state = average.detector.state_dict()
    assert average.updates == 3
    assert state["0.weight"].item() == pytest.approx(expected)
    assert state["1.running_mean"].item() == pytest.approx(expected)
    assert state["1.num_batches_tracked"].item() == 8


def test_a_share_enters_the_average():
    average = MovingAverage(network(0), share=0.5)
    average.update(network(9))
    assert average.detector.state_dict()["0.weight"].item() == pytest.approx(6)


def test_the_average_of_a_still_detector_is_that_detector():
    still = network(3)
    average = MovingAverage(still)
    for _ in range(5):
        average.update(still)
    for key, value in average.detector.state_dict().items():
        torch.testing.assert_close(value, still.state_dict()[key], msg=key)


def test_the_average_is_a_copy_in_eval_mode_that_asks_for_no_gradients():
    original = network(1).train()
    average = MovingAverage(original)
    assert not average.detector.training
    assert not any(parameter.requires_grad for parameter in average.detector.parameters())
    average.update(network(5))
    assert original.training
    assert original.state_dict()["0.weight"].item() == 1


def test_an_average_goes_on_from_its_state():
    first = MovingAverage(network(0))
    first.update(network(4))
    second = MovingAverage(network(9))
    second.load_state_dict(first.state_dict())
    for average in (first, second):
        average.update(network(4))
    assert second.updates == 2
    for key, value in first.detector.state_dict().items():
        assert torch.equal(value, second.detector.state_dict()[key])
