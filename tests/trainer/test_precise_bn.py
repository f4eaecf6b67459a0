"""Statistics of batch normalisation that are estimated anew before an evaluation."""

import copy
import dataclasses

import pytest
import torch
from torch import nn

from model.options import with_options
from model.spec import load_spec
from trainer import train
from trainer.checkpoint import load as load_checkpoint
from trainer.precise_bn import RecentImages, estimate
from trainer.prepare import build_detector


def alone(total):
    return total


def norms_of(module):
    return [each for each in module.modules() if isinstance(each, nn.BatchNorm2d)]


@pytest.fixture
def images():
    return torch.rand(6, 3, 64, 64, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("norm", ["bn", "cmbn"])
def test_one_batch_gives_what_the_detector_sees_while_it_trains(images, norm):
    spec = load_spec(with_options("yolov5n", norm=norm), classes=3)
    detector = build_detector(spec, 0).eval()
    before = copy.deepcopy(detector.state_dict())
    trained = copy.deepcopy(detector).train()
    for each in norms_of(trained):
        each.momentum = 1.0
    trained(images)

    estimate(detector, norms_of(detector), [images], alone)

    for own, seen in zip(norms_of(detector), norms_of(trained), strict=True):
        torch.testing.assert_close(own.running_mean, seen.running_mean, rtol=1e-3, atol=1e-5)
        torch.testing.assert_close(own.running_var, seen.running_var, rtol=1e-3, atol=1e-6)
    assert not any(module.training for module in detector.modules())
    kept = {name for name in before if not name.endswith(("running_mean", "running_var"))}
    assert all(torch.equal(before[name], detector.state_dict()[name]) for name in kept)


def test_several_batches_count_by_their_pixels():
    norm = nn.BatchNorm2d(2).eval()
    batches = [torch.randn(4, 2, 5, 5), 3 + torch.randn(1, 2, 7, 9)]
    estimate(norm, [norm], batches, alone)
    pixels = torch.cat([batch.transpose(0, 1).flatten(1) for batch in batches], dim=1)
    torch.testing.assert_close(norm.running_mean, pixels.mean(1))
    torch.testing.assert_close(norm.running_var, pixels.var(1))


def test_no_batch_leaves_all_as_it_is():
    norm = nn.BatchNorm2d(2).eval()
    norm.running_mean.fill_(4.0)
    estimate(norm, [norm], [], alone)
    assert norm.running_mean.tolist() == [4.0, 4.0]


def test_processes_join_what_each_has_seen():
    mine, other = torch.randn(4, 2, 5, 5), 2 + torch.randn(4, 2, 5, 5)
    sums = []
    norm = nn.BatchNorm2d(2).eval()
    estimate(norm, [norm], [other], lambda total: sums.append(total.clone()) or total)
    estimate(norm, [norm], [mine], lambda total: total + sums[0])
    both = torch.cat([mine, other]).transpose(0, 1).flatten(1)
    torch.testing.assert_close(norm.running_mean, both.mean(1))
    torch.testing.assert_close(norm.running_var, both.var(1))


def test_the_hooks_are_gone_when_a_batch_fails():
    norm = nn.BatchNorm2d(2).eval()
    with pytest.raises(RuntimeError):
        estimate(norm, [norm], [torch.zeros(1, 3, 4, 4)], alone)
    assert not norm._forward_pre_hooks


def test_only_the_last_batches_are_kept_and_as_bytes():
    recent = RecentImages(2)
    for value in (0, 51, 255):
        recent.add(torch.full((1, 3, 2, 2), value, dtype=torch.uint8))
    recent.add(torch.full((1, 3, 2, 2), 0.2))
    kept = recent.take()
    assert [int(images[0, 0, 0, 0]) for images in kept] == [255, 51]
    assert all(images.dtype == torch.uint8 for images in kept)
    assert recent.take() == []
    nothing = RecentImages(0)
    nothing.add(torch.zeros(1, 3, 2, 2))
    assert nothing.take() == []


def test_a_training_goes_the_same_way_and_is_evaluated_with_statistics_of_its_own(config, tmp_path):
    followed, precise = (
        load_checkpoint(train(dataclasses.replace(config, out=tmp_path / str(most), precise_bn=most)).last)
        for most in (0, 2)
    )
    assert all(torch.equal(followed["weights"][name], tensor) for name, tensor in precise["weights"].items())
    different = {
        name.rpartition(".")[2]
        for name, tensor in precise["ema"]["weights"].items()
        if not torch.equal(followed["ema"]["weights"][name], tensor)
    }
    assert different == {"running_mean", "running_var"}


def test_frozen_layers_keep_their_statistics(config, tmp_path):
    state = load_checkpoint(train(dataclasses.replace(config, out=tmp_path / "out", freeze=(0, 1))).last)
    averaged, weights = state["ema"]["weights"], state["weights"]
    frozen = [name for name in weights if name.startswith(("model.0.", "model.1."))]
    assert [name for name in frozen if name.endswith("running_var")]
    assert all(torch.equal(averaged[name], weights[name]) for name in frozen)
