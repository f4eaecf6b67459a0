"""What stopped trials would have been worth, told from those that went on, and how unsure that is.

From rung to rung a straight line: fitness at the next rung over fitness at this one, fitted to all trials that
reached both. Who goes on is chosen by the fitness at this rung and by genes, of which both are asked here, so the
choice bends nothing; it only leaves few trials at the lower end of the line, where the uncertainty grows. Steps are
chained up to the full length.

Curves cross where genes make a trial fast at first and poor in the end, or slow and good: what a trial ends above or
below its line is told from its genes, by a Gaussian process over those that went on.
Source: Kennedy, O'Hagan 2000, "Predicting the output from a complex computer code when fast approximations are
available" (the line, and the process of what it leaves).
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from evolve.surrogate import Process

_PRIOR_LOOKS = 2.0  # that a guess of the scatter counts for
_PRIOR_SCATTER = 0.1  # of the spread of the next rung's fitnesses
_LEAST_SCATTER = 0.05  # of their mean
_PRIOR_SLOPE = 0.5  # standard deviation of a slope before anything was seen, as a share of it
_ROUNDS = 5
_UNKNOWN_CLIMB, _UNKNOWN_SCATTER = 0.5, 0.15  # of the fitness, to a rung that nobody has reached
_LEAST_CLIMBS = 8  # that reached both rungs, before genes are asked
_MOST_CLIMBS = 240  # the newest of them; more hardly change what the genes say, and cost their cube
_LENGTH, _NOISE = 1.0, 0.3  # what is thought of the process beforehand: smooth, and a third of it noise


@dataclass(frozen=True)
class Foretold:
    """The fitness of a whole training that was not trained to its end.

    Attributes:
        mean: what is expected.
        deviation: standard deviation of what it might be; that of a measured one's noise is in it.
        scatter: that of the noise with which it is a look of its own beside the other stopped ones. How sure the
            lines are is not in it: that moves all that were stopped at one rung up or down together, and does not
            change which of them is better. What is not known of its genes is, as often as others share it: all that
            have such genes are off alike, and many of them would otherwise look like certainty.
    """

    mean: float
    deviation: float
    scatter: float


@dataclass(frozen=True)
class _Lean:
    """How far above or below their line trials end, as their genes tell it."""

    scale: float
    process: "Process"

    @classmethod
    def fit(cls, points: NDArray[np.float64], left: NDArray[np.float64]) -> "_Lean | None":
        """From encoded genes (N, F) and what the line leaves of each trial (N,); None where too few tell of it."""
        scale = float(np.sqrt((left**2).mean()))
        if len(left) < _LEAST_CLIMBS or scale < 1e-9:
            return None
        points, scores = points[-_MOST_CLIMBS:], left[-_MOST_CLIMBS:] / scale
        return cls(scale, _fitted(points.tobytes(), scores.tobytes()))

    def noise_of(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        """Variances (N,) of independent noise by which looks at genes (N, F) are no surer together than they are.

        A matrix of covariances is at most the diagonal of its rows' sums.
        """
        kernel, seen = self.process.kernel, self.process.points
        cross = kernel.between(points, seen)
        looks = kernel.between(seen, seen) + (kernel.noise + 1e-8) * np.eye(len(seen))
        shared = kernel.between(points, points) - cross @ np.linalg.solve(looks, cross.T)
        found: NDArray[np.float64] = self.scale**2 * (np.abs(shared).sum(1) + kernel.noise)
        return found

    def at(self, points: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """What is expected of genes (N, F), and by what variance (N,) each may be off, a trial's noise included."""
        mean, deviation = self.process.predict(points)
        return self.scale * mean, self.scale**2 * (deviation**2 + self.process.kernel.noise)


@lru_cache(maxsize=8)
def _fitted(points: bytes, scores: bytes) -> "Process":
    """The process of encoded genes and scores, both as plain numbers of 8 bytes.

    Most trials that are told were stopped at the first rung and change no line, so an ask or a verdict mostly needs
    the processes of the one before.
    """
    # scipy is only loaded by a search that has something to model.
    from evolve.kernel import Prior, fit_kernel
    from evolve.surrogate import Process

    worth = np.frombuffer(scores)
    genes = np.frombuffer(points).reshape(len(worth), -1)
    return Process(fit_kernel(genes, worth, prior=Prior(_LENGTH, noise=_NOISE)), genes, worth)


@dataclass(frozen=True)
class _Says:
    """What a trial's genes say beside a step's line.

    Attributes:
        above: how far above the line it ends.
        variance: of that, its luck included.
        noise: the same as noise of its own (see `Foretold.scatter`).
    """

    above: float
    variance: float
    noise: float


@dataclass(frozen=True)
class _Step:
    """A line from one rung to the next, with what is needed to say how sure it is, and what genes say beside it."""

    centre: float
    height: float
    slope: float
    scatter: float
    looks: int
    width: float
    lean: _Lean | None = None

    @classmethod
    def fit(
        cls,
        here: NDArray[np.float64],
        there: NDArray[np.float64],
        points: NDArray[np.float64] | None = None,
    ) -> "_Step":
        """From fitnesses (N,) here and at the next rung, N >= 1, and the encoded genes (N, F) where they count.

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
        left = there - height - slope * (here - centre)
        lean = None if points is None else _Lean.fit(points, left)
        return cls(centre, height, slope, scatter, looks, width, lean)

    def ends(
        self, means: NDArray[np.float64], unknown: NDArray[np.float64], points: NDArray[np.float64]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """What is expected at the next rung of fitnesses (N,) here, of trials with encoded genes (N, F).

        Args:
            means: fitnesses here.
            unknown: (N,) variances by which those may be off.
            points: encoded genes.

        Returns:
            (fitnesses (N,), the variances (N,) by which trials may be off beside each other)
        """
        above, more = (0.0, self.scatter) if self.lean is None else self.lean.at(points)
        return self._end(means, above), self.slope**2 * unknown + more

    def __call__(self, mean: float, variance: float, noise: float, says: _Says) -> tuple[float, float, float]:
        """Mean, variance and noise of one trial at the next rung, from those at this one."""
        off, square = mean - self.centre, self.slope**2
        line = self.scatter * (1 / self.looks + off**2 / self.width)
        end = float(self._end(mean, says.above))
        return end, square * variance + line + says.variance, square * noise + says.noise

    def _end(
        self, here: float | NDArray[np.float64], above: float | NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """The next rung's fitness by the line and what lies above it; the best so far never falls."""
        found: NDArray[np.float64] = np.maximum(self.height + self.slope * (here - self.centre) + above, here)
        return found


def foretell(
    curves: Mapping[int, Sequence[float]],
    stopped: Iterable[int],
    genes: Mapping[int, NDArray[np.float64]] | None = None,
) -> dict[int, Foretold]:
    """Foretell the final fitness of stopped trials.

    Args:
        curves: trial to its best fitness up to each rung that it reached, of stopped and of whole trials.
        stopped: those to foretell; each reached at least one rung, and not the last.
        genes: encoded genes (F,) of all of `curves`, in [0, 1]; None to go by the lines alone, which costs nothing.

    Returns:
        Each of `stopped` and what is foretold of it.
    """
    stopped = set(stopped)
    # A rung lies above every stopped trial, also while nobody has reached it.
    rungs = max((len(curve) + (trial in stopped) for trial, curve in curves.items()), default=0)
    steps = [_step(curves, genes, rung) for rung in range(rungs - 1)]
    told = [_told_by_genes(step, curves, stopped, genes, rung) for rung, step in enumerate(steps)]
    found = {}
    for trial in sorted(stopped):
        mean, variance, noise = float(curves[trial][-1]), 0.0, 0.0
        for rung in range(len(curves[trial]) - 1, rungs - 1):
            step = steps[rung]
            if step is None:  # nobody has come so far: it will climb for all, by nobody knows how much
                scatter = (_UNKNOWN_SCATTER * mean) ** 2 + 1e-12
                variance, noise = variance + (_UNKNOWN_CLIMB * mean) ** 2 + scatter, noise + scatter
            else:
                plain = _Says(0.0, step.scatter, step.scatter)
                mean, variance, noise = step(mean, variance, noise, told[rung].get(trial, plain))
        found[trial] = Foretold(mean, float(np.sqrt(variance)), float(np.sqrt(noise)))
    return found


def _told_by_genes(
    step: _Step | None,
    curves: Mapping[int, Sequence[float]],
    stopped: set[int],
    genes: Mapping[int, NDArray[np.float64]] | None,
    rung: int,
) -> dict[int, _Says]:
    """What genes say beside a step's line, of each trial that was stopped at its rung or below."""
    ids = [trial for trial in sorted(stopped) if len(curves[trial]) <= rung + 1]
    if step is None or step.lean is None or genes is None or not ids:
        return {}
    points = np.array([genes[trial] for trial in ids])
    columns = (*step.lean.at(points), step.lean.noise_of(points))
    return dict(zip(ids, (_Says(*each) for each in np.array(columns).T.tolist()), strict=True))


def foretell_from(
    curves: Mapping[int, Sequence[float]], genes: Mapping[int, NDArray[np.float64]], rung: int
) -> dict[int, tuple[float, float]]:
    """The final fitness that a rung foretells of all trials that reached it, whatever is known of them beyond it.

    Args:
        curves: trial to its best fitness up to each rung that it reached.
        genes: encoded genes (F,) of all of them, in [0, 1].
        rung: place of the rung, from 0.

    Returns:
        Trial to what is expected, and to the standard deviation by which it may be off beside others: by luck, and by
        its genes where no trial of such genes went on. 0 while nobody has come further.
    """
    rungs = max((len(curve) for curve in curves.values()), default=0)
    steps = [step for each in range(rung, rungs - 1) if (step := _step(curves, genes, each)) is not None]
    there = [trial for trial, curve in curves.items() if len(curve) > rung]
    ends = np.array([curves[trial][rung] for trial in there], dtype=np.float64)
    unknown, points = np.zeros(len(there)), np.array([genes[trial] for trial in there])
    for step in steps:
        ends, unknown = step.ends(ends, unknown, points)
    return dict(zip(there, zip(ends.tolist(), np.sqrt(unknown).tolist(), strict=True), strict=True))


def _step(
    curves: Mapping[int, Sequence[float]], genes: Mapping[int, NDArray[np.float64]] | None, rung: int
) -> _Step | None:
    # By number, so that the order in which they were told does not matter.
    both = [trial for trial in sorted(curves) if len(curves[trial]) > rung + 1]
    if not both:
        return None
    here, there = np.array([curves[trial][rung : rung + 2] for trial in both], dtype=np.float64).T
    return _Step.fit(here, there, None if genes is None else np.array([genes[trial] for trial in both]))
