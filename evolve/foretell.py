"""What stopped trials would have been worth, told from those that went on, and how unsure that is.

From rung to rung a straight line: fitness at the next rung over fitness at this one, fitted to all trials that
reached both. Who goes on is chosen by the fitness at this rung alone, so the choice does not bend the line; it only
leaves few trials at its lower end, where the uncertainty grows. Steps are chained up to the full length.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_PRIOR_LOOKS = 2.0  # that a guess of the scatter counts for
_PRIOR_SCATTER = 0.1  # of the spread of the next rung's fitnesses
_LEAST_SCATTER = 0.05  # of their mean
_PRIOR_SLOPE = 0.5  # standard deviation of a slope before anything was seen, as a share of it
_ROUNDS = 5
_UNKNOWN_CLIMB, _UNKNOWN_SCATTER = 0.5, 0.15  # of the fitness, to a rung that nobody has reached


@dataclass(frozen=True)
class Foretold:
    """The fitness of a whole training that was not trained to its end.

    Attributes:
        mean: what is expected.
        deviation: standard deviation of what it might be; that of a measured one's noise is in it.
        scatter: the part of it by which trials differ from each other. The rest, how sure the lines are, moves all
            that were stopped at one rung up or down together, and does not change which of them is better.
    """

    mean: float
    deviation: float
    scatter: float


@dataclass(frozen=True)
class _Step:
    """A line from one rung to the next, with what is needed to say how sure it is."""

    centre: float
    height: float
    slope: float
    scatter: float
    looks: int
    width: float

    @classmethod
    def fit(cls, here: NDArray[np.float64], there: NDArray[np.float64]) -> "_Step":
        """From fitnesses (N,) here and at the next rung, N >= 1.

        Before any was seen a line through 0 is expected, growth in proportion, give or take half of its slope: the
        more the trials scatter about their line, the more that counts.
        """
        centre, height, looks = float(here.mean()), float(there.mean()), len(here)
        growth = max(height / centre, 1.0) if centre > 0 else 1.0
        spread = float(((here - centre) ** 2).sum())
        product = float(((here - centre) * (there - height)).sum())
        guess = max(_PRIOR_SCATTER * float(there.std()), _LEAST_SCATTER * abs(height), 1e-6)
        slope, scatter, width = growth, guess**2, spread
        for _ in range(_ROUNDS):
            # How sure the slope is follows from the scatter, and the scatter from the slope.
            prior = scatter / (_PRIOR_SLOPE * growth) ** 2
            width = spread + prior
            slope = max((product + prior * growth) / width, 0.0)
            left = there - height - slope * (here - centre)
            scatter = float((left**2).sum()) + _PRIOR_LOOKS * guess**2
            scatter /= max(looks - 2, 0) + _PRIOR_LOOKS
        return cls(centre, height, slope, scatter, looks, width)

    def __call__(self, mean: float, shared: float, own: float) -> tuple[float, float, float]:
        off, square = mean - self.centre, self.slope**2
        line = self.scatter * (1 / self.looks + off**2 / self.width)
        # The best so far never falls.
        return max(self.height + self.slope * off, mean), square * shared + line, square * own + self.scatter


def foretell(curves: Mapping[int, Sequence[float]], stopped: Iterable[int]) -> dict[int, Foretold]:
    """Foretell the final fitness of stopped trials.

    Args:
        curves: trial to its best fitness up to each rung that it reached, of stopped and of whole trials.
        stopped: those to foretell; each reached at least one rung, and not the last.

    Returns:
        Each of `stopped` and what is foretold of it.
    """
    stopped = set(stopped)
    # A rung lies above every stopped trial, also while nobody has reached it.
    rungs = max((len(curve) + (trial in stopped) for trial, curve in curves.items()), default=0)
    # By number, so that the order in which they were told does not matter.
    climbs = [curves[trial] for trial in sorted(curves)]
    steps = [_step(climbs, rung) for rung in range(rungs - 1)]
    found = {}
    for trial in sorted(stopped):
        mean, shared, own = float(curves[trial][-1]), 0.0, 0.0
        for rung in range(len(curves[trial]) - 1, rungs - 1):
            step = steps[rung]
            if step is None:  # nobody has come so far: it will climb for all, by nobody knows how much
                shared += (_UNKNOWN_CLIMB * mean) ** 2
                own += (_UNKNOWN_SCATTER * mean) ** 2 + 1e-12
            else:
                mean, shared, own = step(mean, shared, own)
        found[trial] = Foretold(mean, float(np.sqrt(shared + own)), float(np.sqrt(own)))
    return found


def _step(curves: Sequence[Sequence[float]], rung: int) -> _Step | None:
    both = [(curve[rung], curve[rung + 1]) for curve in curves if len(curve) > rung + 1]
    if not both:
        return None
    here, there = np.array(both, dtype=np.float64).T
    return _Step.fit(here, there)
