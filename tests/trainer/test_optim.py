import itertools
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from model import build
from trainer import Hyperparameters
from trainer.optim import (
    Schedule,
    apply_step,
    build_optimizer,
    choose_optimizer,
    parameter_groups,
    plan_steps,
    schedule_factor,
    warmup_iterations,
)


def small_network() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4), nn.Conv2d(4, 2, 1))


def schedule(**changes) -> Schedule:
    settings = {"hyp": Hyperparameters(), "kind": "linear", "optimizer": "sgd"}
    settings |= {"epochs": 10, "batches": 100, "warmup": 200, "accumulate": 4}
    return Schedule(**(settings | changes))


@pytest.mark.parametrize("network", ["small", "yolov5n"])
def test_the_three_groups_cover_every_parameter_once(network):
    detector = small_network() if network == "small" else build("yolov5n", classes=3)
    grouped = [id(parameter) for group in parameter_groups(detector).values() for parameter in group]
    assert len(grouped) == len(set(grouped))
    assert set(grouped) == {id(parameter) for parameter in detector.parameters()}


def test_biases_and_norms_are_not_decayed_and_weights_are():
    optimizer = build_optimizer(
        small_network(), "sgd", Hyperparameters(weight_decay=0.0005), decay_factor=0.5
    )
    decay = {group["name"]: (group["weight_decay"], len(group["params"])) for group in optimizer.param_groups}
    assert decay == {"bias": (0.0, 2), "norm": (0.0, 1), "weight": (0.00025, 2)}


def test_a_shared_parameter_and_a_frozen_one_are_counted_rightly():
    shared = nn.Linear(2, 2)
    network = nn.Sequential(shared, nn.Sequential(nn.ReLU(), shared), nn.Linear(2, 2).requires_grad_(False))
    groups = parameter_groups(network)
    assert (len(groups["bias"]), len(groups["norm"]), len(groups["weight"])) == (1, 0, 1)


@pytest.mark.parametrize(
    ("kind", "expected"), [("sgd", torch.optim.SGD), ("adamw", torch.optim.AdamW), ("adam", torch.optim.Adam)]
)
def test_each_kind_gives_its_optimiser(kind, expected):
    optimizer = build_optimizer(small_network(), kind, Hyperparameters(lr0=0.01, momentum=0.9))
    group = optimizer.param_groups[0]
    assert type(optimizer).__base__ is expected
    if kind == "sgd":
        assert (group["nesterov"], group["momentum"]) == (True, 0.9)
    else:
        assert group["betas"] == (0.9, 0.999)


def test_sgd_without_momentum_is_plain():
    assert not build_optimizer(small_network(), "sgd", Hyperparameters(momentum=0)).param_groups[0][
        "nesterov"
    ]


@pytest.mark.parametrize(
    ("kind", "epoch", "expected"),
    [
        ("linear", 0, 1.0),
        ("linear", 25, 0.7525),
        ("linear", 100, 0.01),
        ("cosine", 0, 1.0),
        ("cosine", 50, 0.505),
        ("cosine", 25, (1 - math.cos(math.pi / 4)) / 2 * -0.99 + 1),
        ("cosine", 100, 0.01),
    ],
)
def test_the_schedules_have_their_published_values(kind, epoch, expected):
    assert schedule_factor(kind, epoch, 100, 0.01) == pytest.approx(expected)


@given(st.sampled_from(["linear", "cosine"]), st.integers(1, 300), st.floats(0.01, 1))
def test_a_schedule_never_rises_and_stays_between_its_ends(kind, epochs, lrf):
    factors = [schedule_factor(kind, epoch, epochs, lrf) for epoch in range(epochs + 1)]
    assert all(later <= earlier + 1e-12 for earlier, later in itertools.pairwise(factors))
    assert factors[0] == pytest.approx(1)
    assert factors[-1] == pytest.approx(lrf)


def test_the_warm_up_starts_from_its_own_rates_and_ends_in_the_schedule():
    first, middle, warm = (schedule().at(iteration) for iteration in (0, 100, 200))
    assert (first.lr, first.bias_lr, first.momentum, first.accumulate) == (0, 0.1, 0.8, 1)
    rate = 0.01 * schedule_factor("linear", 1, 10, 0.01)
    assert middle.lr == pytest.approx(rate / 2)
    assert middle.bias_lr == pytest.approx((0.1 + rate) / 2)
    assert middle.momentum == pytest.approx((0.8 + 0.937) / 2)
    assert middle.accumulate == 2
    assert warm.lr == warm.bias_lr == pytest.approx(0.01 * schedule_factor("linear", 2, 10, 0.01))
    assert (warm.momentum, warm.accumulate) == (0.937, 4)


def test_adam_runs_at_a_tenth_of_the_rates():
    sgd, adam = schedule(), schedule(optimizer="adamw")
    assert all(adam.at(i).lr == pytest.approx(sgd.at(i).lr / 10) for i in (0, 50, 500))
    assert adam.at(0).bias_lr == pytest.approx(0.01)


@pytest.mark.parametrize(
    ("kind", "iterations", "expected"),
    [("auto", 9_999, "adamw"), ("auto", 10_000, "sgd"), ("sgd", 10, "sgd"), ("adam", 10**6, "adam")],
)
def test_auto_takes_adamw_for_short_trainings_and_says_so(kind, iterations, expected):
    chosen, note = choose_optimizer(kind, iterations)
    assert chosen == expected
    assert (note is not None) == (kind == "auto")


def test_without_warm_up_the_first_iteration_runs_at_full_rate():
    assert schedule(warmup=0).at(0).lr == pytest.approx(0.01)


def test_an_optimiser_takes_the_rates_of_a_step():
    optimizer = build_optimizer(small_network(), "sgd", Hyperparameters())
    apply_step(optimizer, schedule().at(0))
    rates = {group["name"]: (group["lr"], group["momentum"]) for group in optimizer.param_groups}
    assert rates == {"bias": (0.1, 0.8), "norm": (0, 0.8), "weight": (0, 0.8)}


def test_adam_keeps_its_beta():
    optimizer = build_optimizer(small_network(), "adamw", Hyperparameters())
    apply_step(optimizer, schedule(optimizer="adamw").at(0))
    assert all(group["betas"] == (0.937, 0.999) for group in optimizer.param_groups)


@pytest.mark.parametrize(
    ("warmup_epochs", "batches", "epochs", "expected"),
    [
        (3, 1000, 100, 3000),
        (3, 10, 100, 100),
        (0, 1000, 100, 100),
        (3, 10, 9, 30),
        (2.5, 100, 100, 250),
        (3, 1, 1, 0),
    ],
)
def test_the_warm_up_has_a_floor_of_100_iterations_and_a_cap_of_a_third(
    warmup_epochs, batches, epochs, expected
):
    iterations, note = warmup_iterations(warmup_epochs, batches, epochs)
    assert iterations == expected
    assert (note is not None) == (max(round(warmup_epochs * batches), 100) > batches * epochs // 3)


def test_a_large_training_accumulates_to_the_published_batch():
    plan = plan_steps(images=118_000, batch_size=16, epochs=300)
    assert (plan.accumulate, plan.images, plan.decay_factor, plan.note) == (4, 64, 1.0, None)


def test_a_small_training_accumulates_less_and_says_so():
    plan = plan_steps(images=205, batch_size=16, epochs=50)
    assert (plan.accumulate, plan.images, plan.decay_factor) == (1, 16, 0.25)
    assert "steps of 16 images instead of 64" in plan.note


def test_a_stated_nominal_batch_is_kept_however_small_the_training():
    plan = plan_steps(images=205, batch_size=16, epochs=50, nominal_batch=64)
    assert (plan.accumulate, plan.note) == (4, None)


@given(st.integers(1, 5000), st.integers(1, 128), st.integers(1, 300), st.none() | st.integers(1, 256))
def test_a_step_never_holds_less_than_a_batch_and_automatic_ones_no_more_than_64_images(
    images, batch_size, epochs, nominal
):
    plan = plan_steps(images, batch_size, epochs, nominal)
    assert plan.accumulate >= 1
    assert plan.images == plan.accumulate * batch_size
    if nominal is None:
        published = plan_steps(images, batch_size, epochs, 64)
        assert plan.accumulate <= published.accumulate
        # It lowers the batch only where steps are short, and no further than it must.
        assert plan.note is None or published.steps < 1000
        assert plan.note is not None or plan == published
