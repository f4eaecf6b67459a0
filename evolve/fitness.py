"""Fitness: one number for a trial, from the metrics of its best epoch."""

import math
from collections.abc import Mapping
from types import MappingProxyType

from evolve.space import EvolveError

# Precision and recall weigh nothing: they depend on one confidence threshold, average precision on none.
WEIGHTS: Mapping[str, float] = MappingProxyType({"map50": 0.1, "map50_95": 0.9})


class FitnessError(EvolveError):
    """Weights or metrics that make no fitness."""


def check_weights(weights: Mapping[str, float]) -> None:
    """Refuse weights that rank nothing.

    Raises:
        FitnessError: a weight is negative or not finite, or none is above 0.
    """
    for name, weight in weights.items():
        if not math.isfinite(weight) or weight < 0:
            raise FitnessError(f"the weight of {name} must be finite and >= 0, but got {weight}")
    if not any(weights.values()):
        raise FitnessError(f"a fitness must have a weight above 0, but got {dict(weights)}")


def fitness(metrics: Mapping[str, float | None], weights: Mapping[str, float] = WEIGHTS) -> float | None:
    """Weigh the metrics of one epoch into one number.

    >>> fitness({"map50": 0.5, "map50_95": 0.3, "recall": 0.9})
    0.32

    Args:
        metrics: name to value; only those with a weight above 0 are looked at.
        weights: name to weight, >= 0; they need not sum to 1.

    Returns:
        The weighted sum, or None where a metric that counts is None or not finite: the epoch failed.

    Raises:
        FitnessError: the weights rank nothing, or a metric that counts is not there.
    """
    check_weights(weights)
    total = 0.0
    for name, weight in weights.items():
        if not weight:
            continue
        if name not in metrics:
            raise FitnessError(f"metrics must hold {name}, but got only {sorted(metrics)}")
        value = metrics[name]
        if value is None or not math.isfinite(value):
            return None
        total += weight * value
    return total if math.isfinite(total) else None


def best_epoch(
    history: Mapping[int, Mapping[str, float | None]], weights: Mapping[str, float] = WEIGHTS
) -> tuple[int, float] | None:
    """Find the fittest epoch, the earlier one of equals.

    Args:
        history: epoch (from 0) to its metrics, as in `TrialState.reports`.
        weights: as `fitness`.

    Returns:
        (epoch, fitness), or None where no epoch has a fitness.

    Raises:
        FitnessError: as `fitness`.
    """
    rated = ((epoch, fitness(metrics, weights)) for epoch, metrics in history.items())
    scores = [(epoch, score) for epoch, score in rated if score is not None]
    return max(scores, key=lambda item: (item[1], -item[0]), default=None)
