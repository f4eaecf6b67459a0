"""Optimiser groups, and the learning rate, momentum and accumulation of every iteration as pure functions.

Nothing here keeps a state of its own: what an iteration does follows from its number, so a resumed training
goes on exactly.
"""

import inspect
import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TypeVar

import torch
from torch import nn

from trainer.config import Hyperparameters, TrainConfig

OptimizerT = TypeVar("OptimizerT", bound=torch.optim.Optimizer)

PUBLISHED_NOMINAL_BATCH = 64
"""Images per step for which the published rates, decays and loss gains were tuned."""

LEAST_STEPS = 1000
"""Below so many steps in all, accumulating to 64 images leaves a training too few steps to learn anything."""

LEAST_WARMUP = 100
"""Iterations of warm-up however short the epochs are, unless that is more than a third of the training."""

LEAST_SGD = 10_000
"""Iterations under which "auto" takes AdamW. SGD at the published rates is sound but slow: yolov5n on 205 images
of blood cells, 195 iterations, reached mAP@0.5 0.39 with SGD (0.01) and 0.77 with AdamW (0.002)."""

RATE_FACTORS: Mapping[str, float] = MappingProxyType({"sgd": 1.0, "adam": 0.1, "adamw": 0.1, "rmsprop": 0.01})
"""Share of `lr0` and `warmup_bias_lr` that an optimiser takes: rates tuned for SGD (0.01) are a tenth for Adam
(0.001), which normalises its steps. RMSprop does too, and its momentum (0.937) then adds sixteen of them up."""


@dataclass(frozen=True)
class StepPlan:
    """How many images make one optimiser step.

    Attributes:
        accumulate: Micro-batches per step once warm.
        images: Images per step, `batch_size * accumulate`.
        steps: Optimiser steps of the whole training, warm-up not counted.
        decay_factor: Of the weight decay, so that its effect per image is the published one.
        note: One line when the published nominal batch was lowered, else None.
    """

    accumulate: int
    images: int
    steps: int
    decay_factor: float
    note: str | None = None


def plan_steps(images: int, batch_size: int, epochs: int, nominal_batch: int | None = None) -> StepPlan:
    """Choose how many micro-batches are accumulated per optimiser step.

    With `nominal_batch` None, 64 images make a step as published, but on small sets as few as one batch, such
    that the training holds `LEAST_STEPS` steps or as many as it can.

    Args:
        images: Of the training split.
        batch_size: Per forward pass.
        epochs: Of the whole training.
        nominal_batch: Images per step; None for the rule above.
    """
    batches = math.ceil(images / batch_size)
    accumulate = max(round((nominal_batch or PUBLISHED_NOMINAL_BATCH) / batch_size), 1)
    note = None
    if nominal_batch is None and epochs * math.ceil(batches / accumulate) < LEAST_STEPS and accumulate > 1:
        published = epochs * math.ceil(batches / accumulate)
        accumulate = min(max(epochs * batches // LEAST_STEPS, 1), accumulate)
        note = (
            f"steps of {batch_size * accumulate} images instead of {PUBLISHED_NOMINAL_BATCH}: the training "
            f"would hold only {published} steps (set nominal_batch to have it otherwise)"
        )
    together = batch_size * accumulate
    return StepPlan(
        accumulate=accumulate,
        images=together,
        steps=epochs * math.ceil(batches / accumulate),
        decay_factor=together / PUBLISHED_NOMINAL_BATCH,
        note=note,
    )


def warmup_iterations(warmup_epochs: float, batches: int, epochs: int) -> tuple[int, str | None]:
    """Iterations of warm-up, and a note when the published floor of 100 was capped.

    Published is `max(round(warmup_epochs * batches), 100)`; on small sets that swallows whole trainings, so
    it is capped at a third of all iterations.

    Returns:
        (iterations, note or None)
    """
    wanted = max(round(warmup_epochs * batches), LEAST_WARMUP)
    cap = batches * epochs // 3
    if wanted <= cap:
        return wanted, None
    return cap, f"warm-up of {cap} iterations instead of {wanted}: a third of the training is its most"


def schedule_factor(kind: str, epoch: float, epochs: int, lrf: float) -> float:
    """Factor of the initial rate in an epoch: 1 at epoch 0, `lrf` at `epochs`.

    Args:
        kind: "linear" or "cosine".
        epoch: From 0.
        epochs: Of the whole training.
        lrf: The final factor.

    >>> schedule_factor("linear", 50, 100, 0.0), schedule_factor("cosine", 100, 100, 0.5)
    (0.5, 0.5)
    """
    if kind == "cosine":
        return (1 - math.cos(epoch * math.pi / epochs)) / 2 * (lrf - 1) + 1
    return (1 - epoch / epochs) * (1 - lrf) + lrf


@dataclass(frozen=True)
class Step:
    """What one iteration runs with."""

    lr: float
    bias_lr: float
    momentum: float
    accumulate: int


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """Rates of a whole training; `at(iteration)` is all there is to it.

    Attributes:
        hyp: Gives lr0, lrf, momentum and the warm-up's start values.
        kind: "linear" or "cosine".
        optimizer: "sgd", "adamw" or "adam"; for the Adam kinds `lr0` and `warmup_bias_lr` are taken a tenth.
        epochs: Of the whole training.
        batches: Iterations per epoch.
        warmup: Iterations of warm-up.
        accumulate: Micro-batches per step once warm.
        decay_factor: Of the weight decay, see `StepPlan`.
    """

    hyp: Hyperparameters
    kind: str
    optimizer: str
    epochs: int
    batches: int
    warmup: int
    accumulate: int
    decay_factor: float = 1.0

    def at(self, iteration: int) -> Step:
        """The rates of an iteration, counted from 0 over all epochs.

        In the warm-up the rate goes from 0 (that of the biases from `warmup_bias_lr`), momentum from
        `warmup_momentum` and the accumulation from 1, all linearly in the iteration.
        """
        factor = RATE_FACTORS[self.optimizer]
        epoch = iteration // self.batches
        lr = factor * self.hyp.lr0 * schedule_factor(self.kind, epoch, self.epochs, self.hyp.lrf)
        if iteration >= self.warmup:
            return Step(lr, lr, self.hyp.momentum, self.accumulate)
        done = iteration / self.warmup
        return Step(
            lr=lr * done,
            bias_lr=_between(factor * self.hyp.warmup_bias_lr, lr, done),
            momentum=_between(self.hyp.warmup_momentum, self.hyp.momentum, done),
            accumulate=max(round(_between(1, self.accumulate, done)), 1),
        )


def build_schedule(config: TrainConfig, images: int) -> tuple[Schedule, list[str]]:
    """The schedule of a training, and notes on where it leaves the published one.

    Args:
        config: Settings.
        images: Of the training split.
    """
    steps = plan_steps(images, config.batch, config.epochs, config.nominal_batch)
    batches = math.ceil(images / config.batch)
    optimizer, why = choose_optimizer(config.optimizer, batches * config.epochs)
    warmup, note = warmup_iterations(config.hyp.warmup_epochs, batches, config.epochs)
    schedule = Schedule(
        hyp=config.hyp,
        kind=config.schedule,
        optimizer=optimizer,
        epochs=config.epochs,
        batches=batches,
        warmup=warmup,
        accumulate=steps.accumulate,
        decay_factor=steps.decay_factor,
    )
    return schedule, [line for line in (why, steps.note, note) if line]


def choose_optimizer(kind: str, iterations: int) -> tuple[str, str | None]:
    """What "auto" means for a training of so many iterations; other kinds are kept.

    Returns:
        (kind, a note when it was chosen)
    """
    if kind != "auto":
        return kind, None
    if iterations >= LEAST_SGD:
        return "sgd", f"optimiser SGD: the training has {LEAST_SGD} iterations or more"
    return "adamw", f"optimiser AdamW: the training has fewer than {LEAST_SGD} iterations"


def build_optimizer(
    detector: nn.Module, kind: str, hyp: Hyperparameters, decay_factor: float = 1.0
) -> torch.optim.Optimizer:
    """An optimiser over three named groups: "bias" and "norm" without decay, "weight" with it.

    Args:
        detector: Its parameters; each falls in exactly one group.
        kind: "sgd" (Nesterov), "rmsprop", "adamw" or "adam" (`momentum` is the beta1 of these two).
        hyp: Gives lr0, momentum and weight_decay.
        decay_factor: Of the weight decay, from `StepPlan`.
    """
    groups = [
        {"name": name, "params": params, "weight_decay": hyp.weight_decay * decay_factor * (name == "weight")}
        for name, params in parameter_groups(detector).items()
        if params
    ]
    lr = RATE_FACTORS[kind] * hyp.lr0
    # All tensors in one call. On a CPU the fused kernel of AdamW takes half of foreach's time, a hundredth of a step,
    # but a training that it resumes is not the unbroken one to the last bit.
    if kind == "sgd":
        # Nesterov's rule is defined for a positive momentum only.
        nesterov = hyp.momentum > 0
        return _eager(torch.optim.SGD)(groups, lr=lr, momentum=hyp.momentum, nesterov=nesterov, foreach=True)
    if kind == "rmsprop":
        return _eager(torch.optim.RMSprop)(groups, lr=lr, momentum=hyp.momentum, foreach=True)
    adam = torch.optim.AdamW if kind == "adamw" else torch.optim.Adam
    return _eager(adam)(groups, lr=lr, betas=(hyp.momentum, 0.999), foreach=True)


def _eager(kind: type[OptimizerT]) -> type[OptimizerT]:
    """The same optimiser, without the wrappers by which torch keeps its compiler out of it.

    They import all of that compiler, 2 of the 4 s before a training's first step, and no optimiser is compiled here.
    """
    kept = ("add_param_group", "zero_grad", "state_dict", "load_state_dict")
    body = {name: inspect.unwrap(getattr(kind, name)) for name in kept}
    body["step"] = torch.no_grad()(inspect.unwrap(kind.step))
    return type(kind.__name__, (kind,), body)


def parameter_groups(detector: nn.Module) -> dict[str, list[nn.Parameter]]:
    """Sort all trainable parameters into "bias", "norm" (weights of normalisations) and "weight" (others)."""
    groups: dict[str, list[nn.Parameter]] = {"bias": [], "norm": [], "weight": []}
    seen: set[int] = set()
    for module in detector.modules():
        norm = isinstance(module, nn.modules.batchnorm._NormBase | nn.GroupNorm | nn.LayerNorm)
        for name, parameter in module.named_parameters(recurse=False):
            if id(parameter) in seen or not parameter.requires_grad:
                continue
            seen.add(id(parameter))
            groups["bias" if name.endswith("bias") else "norm" if norm else "weight"].append(parameter)
    return groups


def apply_step(optimizer: torch.optim.Optimizer, step: Step) -> None:
    """Set the rates of an iteration.

    Adam keeps its beta1: its bias correction assumes that it never changes.
    """
    for group in optimizer.param_groups:
        group["lr"] = step.bias_lr if group["name"] == "bias" else step.lr
        if "momentum" in group:
            group["momentum"] = step.momentum


def _between(start: float, end: float, done: float) -> float:
    return start + (end - start) * done
