"""A Gaussian process over encoded genes: what a search believes of configurations that it has not tried.

Everything is numpy and scipy, and deterministic.
"""

import math

import numpy as np
from scipy.linalg import cho_solve, solve_triangular
from scipy.linalg.lapack import dpotrs
from scipy.special import log_ndtr, ndtr

from evolve.kernel import JITTER, Kernel, Points, hills

_REACH = 6.0


class Process:
    """A Gaussian process given its looks at a function."""

    def __init__(self, kernel: Kernel, points: Points, scores: Points, extra: Points | None = None) -> None:
        """Condition on (N, F) points and their (N,) scores; `extra` as in `fit_kernel`."""
        self.kernel = kernel
        self.points = points
        noise = kernel.noise + (np.zeros(len(points)) if extra is None else extra)
        total = kernel.between(points, points) + np.diag(noise + JITTER)
        self._factor = np.asfortranarray(np.linalg.cholesky(total))  # as LAPACK takes it without a copy
        self._weights = cho_solve((self._factor, True), scores, check_finite=False)
        self._noise = noise
        self._scores = scores

    def predict(self, points: Points) -> tuple[Points, Points]:
        """Mean (M,) and standard deviation (M,) of the function, noise left out, at (M, F) points."""
        cross = self.kernel.between(points, self.points)
        reduced = solve_triangular(self._factor, cross.T, lower=True, check_finite=False)
        variance = self.kernel.at(points) - (reduced**2).sum(0)
        return cross @ self._weights, np.sqrt(np.maximum(variance, 1e-12))

    def slopes(self, points: Points) -> tuple[Points, Points, Points, Points]:
        """Mean (M,), deviation (M,), and the gradients (M, F) of both, at (M, F) points."""
        kernel = self.kernel
        ahead, behind = points / kernel.lengths, self.points / kernel.lengths
        near, decay, cross = hills(ahead, behind, kernel.signal)
        tended = (kernel.tendency(points), kernel.tendency(self.points)) if kernel.trend else None
        if tended:
            cross += kernel.trend * (tended[0] @ tended[1].T)
        solved = dpotrs(self._factor, cross.T, lower=1)[0].T
        variance = np.maximum(kernel.at(points) - (cross * solved).sum(1), 1e-12)
        deviation = np.sqrt(variance)
        # Of the covariance with each look: -5/3 (1 + a) e^-a (x - look) / length^2.
        pull = (-5.0 / 3.0) * near * decay
        of_mean, of_variance = pull * self._weights, -2.0 * pull * solved
        to_mean = (of_mean.sum(1)[:, None] * ahead - of_mean @ behind) / kernel.lengths
        to_variance = (of_variance.sum(1)[:, None] * ahead - of_variance @ behind) / kernel.lengths
        if tended:
            here, seen = tended
            to_mean += kernel.tendency_pull(points, (self._weights @ seen)[None])
            to_variance += kernel.tendency_pull(points, 2.0 * (here - solved @ seen))
        return cross @ self._weights, deviation, to_mean, to_variance / (2.0 * deviation[:, None])

    def mean(self, points: Points) -> Points:
        """Mean (M,) alone."""
        mean: Points = self.kernel.between(points, self.points) @ self._weights
        return mean

    def believing(self, points: Points) -> "Process":
        """The same process after looks at (P, F) more points that showed its own mean: surer, but of no other mind.

        Source: Ginsbourger, Le Riche, Carraro 2010 (the kriging believer).
        """
        if not len(points):
            return self
        grown = Process.__new__(Process)
        grown.kernel = self.kernel
        grown.points = np.vstack([self.points, points])
        grown._noise = np.concatenate([self._noise, np.full(len(points), self.kernel.noise)])
        grown._scores = np.concatenate([self._scores, self.mean(points)])
        # The factor grows by a block row; that costs less than a new one.
        corner = solve_triangular(
            self._factor, self.kernel.between(self.points, points), lower=True, check_finite=False
        )
        rest = self.kernel.between(points, points) + np.diag(np.full(len(points), self.kernel.noise + JITTER))
        below = np.linalg.cholesky(rest - corner.T @ corner)
        top = np.hstack([self._factor, np.zeros((len(self.points), len(points)))])
        grown._factor = np.asfortranarray(np.vstack([top, np.hstack([corner.T, below])]))
        grown._weights = cho_solve((grown._factor, True), grown._scores, check_finite=False)
        return grown


def standard_scores(fitness: Points) -> Points:
    """Fitnesses (N,) about 0 with variance 1, outliers at the lower end drawn in; all 0 where they are all the same.

    Only the lower end: what tells the best from the good must not be flattened. An outlier is what lies farther below
    the median than six times the step from the median to the 84 % quantile (one standard deviation of a normal).
    """
    if len(fitness) < 2:
        return np.zeros(len(fitness))
    drawn = _drawn(fitness)
    scores: Points = (drawn - drawn.mean()) / score_scale(fitness)
    return scores


def score_scale(fitness: Points) -> float:
    """By what `standard_scores` divides, so that a deviation of fitness can be made one of scores; over 0."""
    drawn = _drawn(fitness)
    spread = float(drawn.std())
    return spread if spread > 1e-12 * float(np.abs(drawn).max(initial=0.0)) else math.inf


def _drawn(fitness: Points) -> Points:
    middle, upper = np.quantile(fitness, (0.5, 0.84))
    reach = float(upper - middle) or float(fitness.std())
    drawn: Points = np.maximum(fitness, middle - _REACH * reach)
    return drawn


def log_improvement(mean: Points, deviation: Points, best: float, noise: float = 0.0) -> Points:
    """Logarithm (M,) of the expected improvement over `best`; finite where the improvement itself is too small.

    With noise it is discounted where one look would tell little, so that a search does not stay where it has looked
    often for a promise that is noise: by 1 less the share of a look's standard deviation that is noise.

    Args:
        mean: (M,) what is believed.
        deviation: (M,) how sure, noise left out; above 0.
        best: what is to be improved on.
        noise: variance of one look.

    Source: Ament et al. 2023, "Unexpected improvements to expected improvement for Bayesian optimization"; Huang,
    Allen, Notz, Zeng 2006, "Global optimization of stochastic black-box systems via sequential kriging meta-models".
    """
    gain: Points = _log_gain((mean - best) / deviation) + np.log(deviation)
    return gain + _log_told(deviation, noise)[0]


def _log_told(deviation: Points, noise: float) -> tuple[Points, Points]:
    """Logarithm (M,) of 1 - sqrt(noise / (noise + deviation^2)), and its derivative (M,); 0 without noise."""
    left = np.sqrt(noise / (noise + deviation**2))
    # 1 - left is (1 - left^2) / (1 + left), and 1 - left^2 = deviation^2 / (noise + deviation^2) loses no digits.
    told = np.log(deviation**2 / (noise + deviation**2)) - np.log1p(left)
    return told, left * (1.0 + left) / deviation


def _log_gain(z: Points) -> Points:
    """Logarithm of phi(z) + z Phi(z)."""
    near, far = np.maximum(z, -5.0), np.minimum(z, -5.0)
    plain = np.exp(-0.5 * near**2) / math.sqrt(2 * math.pi) + near * ndtr(near)
    # Far below it is the difference of two equal numbers: its series is phi(z) / z^2 (1 - 3 / z^2 + 15 / z^4 - ...).
    series = -0.5 * far**2 - 0.5 * math.log(2 * math.pi) - 2 * np.log(-far)
    series += np.log1p(-3 / far**2 + 15 / far**4 - 105 / far**6)
    gain: Points = np.where(z > -5.0, np.log(plain), series)
    return gain


def improvement_slopes(process: Process, points: Points, best: float) -> tuple[Points, Points]:
    """`log_improvement` of a process, with its noise, at points (M, F): values (M,) and gradients (M, F)."""
    mean, deviation, to_mean, to_deviation = process.slopes(points)
    z = (mean - best) / deviation
    gain = _log_gain(z)
    told, by_told = _log_told(deviation, process.kernel.noise)
    by_mean = np.exp(log_ndtr(z) - gain) / deviation
    by_deviation = np.exp(-0.5 * z**2 - 0.5 * math.log(2 * math.pi) - gain) / deviation + by_told
    values: Points = gain + np.log(deviation) + told
    return values, by_mean[:, None] * to_mean + by_deviation[:, None] * to_deviation
