"""A Gaussian process over encoded genes: what a search believes of configurations that it has not tried.

Matérn-5/2 with a length per gene and noise, its hyperparameters at the maximum of their posterior. Everything is
numpy and scipy, and deterministic.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve, solve_triangular
from scipy.linalg.lapack import dpotrf, dpotrs
from scipy.optimize import minimize
from scipy.special import log_ndtr, ndtr

Points = NDArray[np.float64]

_ROOT5 = math.sqrt(5.0)
_JITTER = 1e-8
_LENGTH_SPREAD = 1.0  # of the prior of a log length
_SIGNAL_SPREAD = 1.0
_NOISE_SPREAD = 1.5
_ITERATIONS = 60
_BEND = 3.0  # of a tendency, against its slope: a valley inside the space bends more than it slopes
_TREND_MEAN = math.log(0.5)
_TREND_SPREAD = 1.5
_NO_TREND = -14.0
_REACH = 6.0


@dataclass(frozen=True, eq=False)
class Kernel:
    """Hyperparameters of a process over F features.

    Attributes:
        lengths: (F,) in units of the features; long for a gene that hardly matters.
        signal: variance of the function.
        noise: variance of one look at it.
        trend: variance of a broad tendency, a slope and a bend for each gene: most landscapes have one, and 30
            trials tell it where they say nothing yet of hills.
    """

    lengths: Points
    signal: float
    noise: float
    trend: float = 0.0

    def at(self, points: Points) -> Points:
        """Variance (M,) of the function at points (M, F)."""
        variance: Points = self.signal + self.trend * (self.tendency(points) ** 2).sum(1)
        return variance

    def tendency(self, points: Points) -> Points:
        """A slope and a bend for each feature (N, 2F), both the less the longer its length."""
        middle = points - 0.5
        return np.hstack([middle / self.lengths, _BEND * (middle**2 - 1 / 12) / self.lengths])

    def tendency_pull(self, points: Points, pulled: Points) -> Points:
        """Gradient (M, F) at points (M, F) of the tendency's covariance with the sum `pulled` (M, 2F) of others."""
        slopes, bends = np.split(pulled, 2, axis=1)
        pull: Points = self.trend * (slopes + bends * 2 * _BEND * (points - 0.5)) / self.lengths
        return pull

    def between(self, first: Points, second: Points) -> Points:
        """Covariances (N, M) of the function at points (N, F) and (M, F)."""
        scaled = _ROOT5 * _distances(first / self.lengths, second / self.lengths)
        covariance: Points = self.signal * (1 + scaled + scaled**2 / 3) * np.exp(-scaled)
        if self.trend:
            covariance += self.trend * (self.tendency(first) @ self.tendency(second).T)
        return covariance


def _distances(first: Points, second: Points) -> Points:
    squares: Points = (first**2).sum(1)[:, None] + (second**2).sum(1)[None]
    squares -= 2 * first @ second.T
    np.maximum(squares, 0.0, out=squares)
    return np.sqrt(squares, out=squares)


@dataclass(frozen=True)
class Prior:
    """What is thought of the hyperparameters before any look.

    Attributes:
        length: the middle of a length, times the root of the number of features.
        trend: whether there may be a broad tendency.
        noise: the middle of its variance; scores have variance 1.
    """

    length: float = 0.5
    trend: bool = True
    noise: float = 0.03


def fit_kernel(
    points: Points, scores: Points, extra: Points | None = None, prior: Prior | None = None
) -> Kernel:
    """Find the hyperparameters under which the scores are likeliest, a prior taken into account.

    The prior of a length grows with the root of the number of genes, since so do distances between points: without
    it, 20 genes and 50 trials would look like pure noise.
    Source: Hvarfner, Hellsten, Nardi 2024, "Vanilla Bayesian optimization performs great in high dimensions".

    Args:
        points: (N, F), N >= 1, in [0, 1].
        scores: (N,), about 0 with variance 1.
        extra: (N,) variance of each look beyond the common noise.
        prior: the default one where None.
    """
    prior = prior or Prior()
    features = points.shape[1]
    centre = np.full(features + 3, math.log(prior.length * math.sqrt(features)))
    spread = np.full(features + 3, _LENGTH_SPREAD)
    centre[-3:] = _TREND_MEAN if prior.trend else _NO_TREND, 0.0, math.log(prior.noise)
    spread[-3:] = _TREND_SPREAD if prior.trend else 0.01, _SIGNAL_SPREAD, _NOISE_SPREAD
    problem: Callable[..., Any] = _Likelihood(
        points, scores, np.zeros(len(scores)) if extra is None else extra, centre, spread
    )
    low, high = centre - 3.0 * spread, centre + 3.0 * spread
    high[-1] = 0.0  # a score that were all noise would teach nothing
    found = minimize(
        problem,
        centre,
        jac=True,
        method="L-BFGS-B",
        bounds=list(zip(low.tolist(), high.tolist(), strict=True)),
        options={"maxiter": _ITERATIONS},
    )
    trend, signal, noise = np.exp(np.asarray(found.x)[-3:]).tolist()
    return Kernel(np.exp(np.asarray(found.x)[:-3]), signal, noise, trend if prior.trend else 0.0)


@dataclass(frozen=True, eq=False)
class _Likelihood:
    """Negative log posterior of the logarithms of lengths, trend, signal and noise, with its gradient."""

    points: Points
    scores: Points
    extra: Points
    centre: Points
    spread: Points

    def __call__(self, theta: Points) -> tuple[float, Points]:
        # An ask's time is spent here: arrays of (N, N) are changed in their place, and LAPACK is called as it is.
        lengths = np.exp(theta[:-3])
        trend, signal, noise = np.exp(theta[-3:]).tolist()
        scaled = self.points / lengths
        a = _distances(scaled, scaled)
        a *= _ROOT5
        decay = np.exp(-a)
        decay *= signal
        near = 1 + a
        covariance = a
        covariance **= 2
        covariance /= 3
        covariance += near
        covariance *= decay  # (1 + a + a^2 / 3) signal e^-a
        middle = self.points - 0.5
        slopes, bends = middle / lengths, _BEND * (middle**2 - 1 / 12) / lengths
        total = slopes @ slopes.T
        total += bends @ bends.T
        total *= trend
        total += covariance
        total.flat[:: len(total) + 1] += noise + self.extra + _JITTER
        factor, fault = dpotrf(total, lower=1, clean=0)
        if fault:
            return 1e10, np.zeros_like(theta)
        weights, _ = dpotrs(factor, self.scores, lower=1)
        inverse, _ = dpotrs(factor, np.eye(len(total), order="F"), lower=1, overwrite_b=1)
        # Half the gradient's matrix: d/dK of the log likelihood.
        slope = np.outer(weights, weights)
        slope -= inverse
        slope *= 0.5
        shaped = slope * (5.0 / 3.0)
        shaped *= near
        shaped *= decay
        # Sum over pairs of shaped * (difference of one feature)^2, without an array of (N, N, F).
        pairs = 2 * (shaped.sum(1) @ scaled**2 - np.einsum("nf,nf->f", scaled, shaped @ scaled))
        by_trend = (slopes * (slope @ slopes) + bends * (slope @ bends)).sum(0)
        pairs = pairs - 2 * trend * by_trend
        gradient = np.concatenate(
            [pairs, [trend * by_trend.sum(), (slope * covariance).sum(), noise * np.trace(slope)]]
        )
        offset = (theta - self.centre) / self.spread
        likelihood = (
            -0.5 * float(self.scores @ weights)
            - float(np.log(np.diag(factor)).sum())
            - 0.5 * float(offset @ offset)
        )
        return -likelihood, -(gradient - offset / self.spread)


def left_out(kernel: Kernel, points: Points, scores: Points, extra: Points) -> Points:
    """Log density (N,), but for a constant, of each score foretold from all the others.

    Source: Rasmussen and Williams 2006, "Gaussian processes for machine learning", equations 5.10 to 5.12.

    Args:
        kernel: of the process.
        points: (N, F).
        scores: (N,).
        extra: as in `fit_kernel`.
    """
    total = kernel.between(points, points) + np.diag(kernel.noise + extra + _JITTER)
    inverse = cho_solve(cho_factor(total, lower=True), np.eye(len(points)))
    variance = 1.0 / np.diag(inverse)
    error = (inverse @ scores) * variance
    density: Points = -0.5 * (error**2 / variance + np.log(variance))
    return density


class Process:
    """A Gaussian process given its looks at a function."""

    def __init__(self, kernel: Kernel, points: Points, scores: Points, extra: Points | None = None) -> None:
        """Condition on (N, F) points and their (N,) scores; `extra` as in `fit_kernel`."""
        self.kernel = kernel
        self.points = points
        noise = kernel.noise + (np.zeros(len(points)) if extra is None else extra)
        total = kernel.between(points, points) + np.diag(noise + _JITTER)
        self._factor = np.linalg.cholesky(total)
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
        a = _ROOT5 * _distances(ahead, behind)
        decay = kernel.signal * np.exp(-a)
        cross = (1 + a + a**2 / 3) * decay
        cross += kernel.trend * (kernel.tendency(points) @ kernel.tendency(self.points).T)
        solved = cho_solve((self._factor, True), cross.T, check_finite=False).T
        variance = np.maximum(kernel.at(points) - (cross * solved).sum(1), 1e-12)
        deviation = np.sqrt(variance)
        # Of the covariance with each look: -5/3 (1 + a) e^-a (x - look) / length^2.
        pull = (-5.0 / 3.0) * (1 + a) * decay
        of_mean, of_variance = pull * self._weights, -2.0 * pull * solved
        to_mean = (of_mean.sum(1)[:, None] * ahead - of_mean @ behind) / kernel.lengths
        to_variance = (of_variance.sum(1)[:, None] * ahead - of_variance @ behind) / kernel.lengths
        to_mean += self._tendency_slope(points, np.broadcast_to(self._weights, solved.shape))
        to_variance += self._tendency_slope(points, -2.0 * solved) + kernel.tendency_pull(
            points, 2.0 * kernel.tendency(points)
        )
        return cross @ self._weights, deviation, to_mean, to_variance / (2.0 * deviation[:, None])

    def _tendency_slope(self, points: Points, weights: Points) -> Points:
        """Gradient (M, F) of the tendency's covariances with all looks, summed by weights (M, N)."""
        pulled = weights @ self.kernel.tendency(self.points)
        return self.kernel.tendency_pull(points, pulled)

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
        rest = self.kernel.between(points, points) + np.diag(
            np.full(len(points), self.kernel.noise + _JITTER)
        )
        below = np.linalg.cholesky(rest - corner.T @ corner)
        top = np.hstack([self._factor, np.zeros((len(self.points), len(points)))])
        grown._factor = np.vstack([top, np.hstack([corner.T, below])])
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


def log_improvement(mean: Points, deviation: Points, best: float) -> Points:
    """Logarithm (M,) of the expected improvement over `best`; finite where the improvement itself is too small.

    Source: Ament et al. 2023, "Unexpected improvements to expected improvement for Bayesian optimization".
    """
    gain: Points = _log_gain((mean - best) / deviation) + np.log(deviation)
    return gain


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
    """`log_improvement` of a process at points (M, F): values (M,) and gradients (M, F)."""
    mean, deviation, to_mean, to_deviation = process.slopes(points)
    z = (mean - best) / deviation
    gain = _log_gain(z)
    by_mean = np.exp(log_ndtr(z) - gain) / deviation
    by_deviation = np.exp(-0.5 * z**2 - 0.5 * math.log(2 * math.pi) - gain) / deviation
    return gain + np.log(deviation), by_mean[:, None] * to_mean + by_deviation[:, None] * to_deviation
