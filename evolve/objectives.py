"""Several objectives at once: what they are, the trials that none beats, and which of them is taken home.

Fitness grows, what a trial costs shrinks. Costs are what its trainer measured of it, under `costs` in its result.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from evolve.costs import FITNESS, costs_of, gains, objectives_of
from evolve.gene import EvolveError, unknown_name
from evolve.pareto import dominated
from evolve.run_state import RunState
from evolve.trial_state import TrialState

KNEE = "knee"


@dataclass(frozen=True)
class Choice:
    """One trial of the front.

    Attributes:
        trial: It.
        values: Each objective by name, as it was measured.
    """

    trial: TrialState
    values: dict[str, float]


def front(state: RunState) -> list[Choice]:
    """The trials that none beats in every objective, the fittest first; empty for a run of fitness alone."""
    names = objectives_of(state.header)
    if not names:
        return []
    trials, rows = [], []
    for trial in state.finished:
        row = gains(trial.fitness, costs_of(trial.result), names)
        if row is not None:
            trials.append(trial)
            rows.append(row)
    if not trials:
        return []
    beaten = dominated(rows)
    kept = [
        Choice(
            trial,
            {name: value if name == FITNESS else -value for name, value in zip(names, row, strict=True)},
        )
        for trial, row, out in zip(trials, rows, beaten, strict=True)
        if not out
    ]
    return sorted(kept, key=lambda each: (-each.values[FITNESS], each.trial.id))


def pick(state: RunState, how: str) -> TrialState:
    """The trial that is taken home.

    Args:
        state: The run's.
        how: "knee" (of the front, the nearest to the best of all objectives at once, each scaled to the front's
            range), an objective's name (its best), or "trial:N".

    Raises:
        EvolveError: There is no such trial, objective or front.
    """
    kind, _, number = how.partition(":")
    if kind == "trial":
        trial = state.trials.get(int(number)) if number.isdecimal() else None
        if trial is None or trial.fitness is None:
            raise EvolveError(f"trial:N must name a trial that finished, but got {how!r}")
        return trial
    choices = front(state)
    names = objectives_of(state.header)
    if not choices:
        raise EvolveError(
            "there is no front to pick from: the run has one objective, or no trial has them all yet"
        )
    if how != KNEE and how not in names:
        raise EvolveError(unknown_name("pick", how, (KNEE, "trial:N", *names)))
    table = np.array([gains(each.values[FITNESS], each.values, names) for each in choices], dtype=np.float64)
    if how != KNEE:
        return choices[int(table[:, names.index(how)].argmax())].trial
    return choices[int(_missed(table).argmin())].trial


def _missed(table: NDArray[np.float64]) -> NDArray[np.float64]:
    """How far each row (N,) is from the best of every column of (N, K), columns scaled to [0, 1]."""
    spread = table.max(axis=0) - table.min(axis=0)
    scaled = (table.max(axis=0) - table) / np.where(spread > 0, spread, 1.0)
    return np.asarray(np.linalg.norm(scaled, axis=1))


def hypervolume(table: NDArray[np.float64], reference: NDArray[np.float64]) -> float:
    """Volume that rows (N, K) dominate over a reference point (K,), all maximised; by slices, for few rows.

    >>> hypervolume(np.array([[2.0, 1.0], [1.0, 2.0]]), np.zeros(2))
    3.0
    """
    rows = table[(table > reference).all(axis=1)]
    if not len(rows):
        return 0.0
    if rows.shape[1] == 1:
        return float(rows.max() - reference[0])
    order = np.unique(rows[:, -1])[::-1]  # from the best of the last objective down
    volume = 0.0
    for place, level in enumerate(order):
        below = order[place + 1] if place + 1 < len(order) else reference[-1]
        slab = rows[rows[:, -1] >= level][:, :-1]
        volume += float(level - below) * hypervolume(slab, reference[:-1])
    return volume
