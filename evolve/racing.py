"""Who leads when trials are noisy: configurations ranked by the lower bound of their mean over repeated trials."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

_Z = (
    1.645  # standard errors below the mean that a configuration is ranked by: it is better in 95 of 100 cases
)

# Two-sided 90 % quantiles of Student's t for 1, 2, ... degrees of freedom; beyond the list the normal's.
_T90 = (
    6.314,
    2.920,
    2.353,
    2.132,
    2.015,
    1.943,
    1.895,
    1.860,
    1.833,
    1.812,
    1.796,
    1.782,
    1.771,
    1.761,
    1.753,
)
_NORMAL90 = 1.645

START = 0  # id of the trial of the start configuration
_CROWN = 1.0  # standard errors of the difference by which another must lead the start to come before it


@dataclass(frozen=True)
class Standing:
    """One configuration in the race.

    Attributes:
        trial: id of its first trial.
        mean: of its finished trials.
        low: the lower bound that ranks it: 1.645 standard errors below the mean.
        margin: half the width of the mean's 90 % interval; None while no configuration was tried twice, since then
            nothing is known of the noise.
        runs: finished trials of it.
        failures: failed ones.
    """

    trial: int
    mean: float
    low: float
    margin: float | None
    runs: int
    failures: int = 0


def noise_of(groups: Iterable[list[float]]) -> tuple[float, int] | None:
    """Pooled standard deviation within groups of repeated trials, and its degrees of freedom; None without any."""
    squares, degrees = 0.0, 0
    for group in groups:
        mean = math.fsum(group) / len(group) if group else 0.0
        squares += math.fsum((value - mean) ** 2 for value in group)
        degrees += max(len(group) - 1, 0)
    return (math.sqrt(squares / degrees), degrees) if degrees else None


def standings(runs: Iterable[tuple[int, float | None]]) -> list[Standing]:
    """Rank configurations.

    The noise is taken to be the same everywhere and is pooled over all that were tried more than once: with it, one
    lucky trial does not beat three good ones. A configuration one of whose trials failed comes after all others.

    The start keeps its place before any whose mean is not a standard error of their difference above its own: of many
    that are no better, one always looks better, and a user would give up her defaults for it.

    Args:
        runs: (id of the configuration's first trial, fitness or None for a failure), in the order of the trials. The
            start's is 0.

    Returns:
        Configurations with at least one finished trial, the best lower bound first, the earlier one of equals; the
        start before them where none leads it.

    >>> [s.trial for s in standings([(0, 0.50), (1, 0.61), (2, 0.60), (2, 0.58), (0, 0.54)])]
    [1, 2, 0]
    """
    groups: dict[int, list[float]] = {}
    failures: dict[int, int] = {}
    for first, fitness in runs:
        group = groups.setdefault(first, [])
        if fitness is None:
            failures[first] = failures.get(first, 0) + 1
        else:
            group.append(fitness)
    noise = noise_of(groups.values())
    spread = noise[0] if noise else 0.0
    quantile = _quantile(noise[1]) if noise else 0.0
    table = [
        Standing(
            trial=first,
            mean=math.fsum(group) / len(group),
            low=math.fsum(group) / len(group) - _Z * spread / math.sqrt(len(group)),
            margin=quantile * spread / math.sqrt(len(group)) if noise else None,
            runs=len(group),
            failures=failures.get(first, 0),
        )
        for first, group in groups.items()
        if group
    ]
    ranked = sorted(table, key=lambda s: (s.failures > 0, -s.low, s.trial))
    start = next((each for each in ranked if each.trial == START), None)
    if start is None or start.failures or _leads(ranked[0], start, spread):
        return ranked
    return [start, *(each for each in ranked if each is not start)]


def _leads(leader: Standing, start: Standing, spread: float) -> bool:
    """Whether a leader's mean is far enough above the start's, or nothing is known of the noise."""
    error = spread * math.sqrt(1 / leader.runs + 1 / start.runs)
    return leader is not start and leader.mean - start.mean >= _CROWN * error


def _quantile(degrees: int) -> float:
    return _T90[degrees - 1] if degrees <= len(_T90) else _NORMAL90
