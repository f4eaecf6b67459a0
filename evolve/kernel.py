"""The kernel of a Gaussian process over encoded genes, and how it is fitted to what was seen.

Matérn-5/2 with a length per gene, a broad tendency, and noise; the hyperparameters at the maximum of their posterior.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve
from scipy.linalg.lapack import dpotrf, dpotrs
from scipy.optimize import minimize

Points = NDArray[np.float64]

_ROOT5 = math.sqrt(5.0)
JITTER = 1e-8  # of a diagonal, so that looks at one place can be told apart
_LENGTH_SPREAD = 1.0  # of the prior of a log length
_SIGNAL_SPREAD = 1.0
_NOISE_SPREAD = 1.5
_ITERATIONS = 60
_BEND = 3.0  # of a tendency, against its slope: a valley inside the space bends more than it slopes
_TREND_MEAN = math.log(0.5)
_TREND_SPREAD = 1.5


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
        variance = np.full(len(points), self.signal)
        if self.trend:
            variance += self.trend * (self.tendency(points) ** 2).sum(1)
        return variance

    def tendency(self, points: Points) -> Points:
        """A slope and a bend for each feature (N, 2F), both the less the longer its length."""
        return _tendency(points, self.lengths)

    def tendency_pull(self, points: Points, pulled: Points) -> Points:
        """Gradient (M, F) at points (M, F) of the tendency's covariance with others, `pulled` (M, 2F) their sum."""
        slopes, bends = np.split(pulled, 2, axis=1)
        pull: Points = self.trend * (slopes + bends * 2 * _BEND * (points - 0.5)) / self.lengths
        return pull

    def between(self, first: Points, second: Points) -> Points:
        """Covariances (N, M) of the function at points (N, F) and (M, F)."""
        covariance: Points = hills(first / self.lengths, second / self.lengths, self.signal)[-1]
        if self.trend:
            covariance += self.trend * (self.tendency(first) @ self.tendency(second).T)
        return covariance


def _tendency(points: Points, lengths: Points) -> Points:
    middle = points - 0.5
    return np.hstack([middle / lengths, _BEND * (middle**2 - 1 / 12) / lengths])


def _distances(first: Points, second: Points, out: Points) -> Points:
    """Euclidean distances (N, M) between points (N, F) and (M, F), written to `out`."""
    squares: Points = np.matmul(first, second.T, out=out)
    squares *= -2
    squares += (first**2).sum(1)[:, None]
    squares += (second**2).sum(1)
    np.maximum(squares, 0.0, out=squares)
    return np.sqrt(squares, out=squares)


def hills(first: Points, second: Points, signal: float, room: Points | None = None) -> Points:
    """Matérn-5/2 between points (N, F) and (M, F), each over its lengths; a is the distance times the root of 5.

    Returns:
        (3, N, M): 1 + a, signal e^-a, and their covariance (1 + a + a^2 / 3) signal e^-a, in `room` if there is one.
    """
    near, decay, covariance = found = np.empty((3, len(first), len(second))) if room is None else room
    a = _distances(first, second, out=near)
    a *= _ROOT5
    np.exp(np.negative(a, out=decay), out=decay)
    decay *= signal
    np.multiply(a, a, out=covariance)
    covariance /= 3
    near += 1
    covariance += near
    covariance *= decay
    return found


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
    features, trends = points.shape[1], int(prior.trend)
    length = math.log(prior.length * math.sqrt(features))
    centre = np.array([*[length] * features, *[_TREND_MEAN] * trends, 0.0, math.log(prior.noise)])
    spread = np.array(
        [*[_LENGTH_SPREAD] * features, *[_TREND_SPREAD] * trends, _SIGNAL_SPREAD, _NOISE_SPREAD]
    )
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
    lengths, others = np.split(np.exp(np.asarray(found.x)), [features])
    *trend, signal, noise = others.tolist()
    return Kernel(lengths, signal, noise, *trend)


class _Likelihood:
    """Negative log posterior of the logarithms of lengths, trend, signal and noise, with its gradient.

    Without a trend they are one less: one that a narrow prior holds fast instead makes a descent take three times its
    steps.
    """

    def __init__(self, points: Points, scores: Points, extra: Points, centre: Points, spread: Points) -> None:
        self.points, self.scores, self.extra = points, scores, extra
        self.centre, self.spread = centre, spread
        # An ask's time is spent here, and much of it would go into fresh memory.
        self.room = np.empty((6, len(points), len(points)))

    def __call__(self, theta: Points) -> tuple[float, Points]:
        lengths, others = np.split(np.exp(theta), [self.points.shape[1]])
        *trend, signal, noise = others.tolist()
        scaled = self.points / lengths
        near, decay, covariance = hills(scaled, scaled, signal, self.room[:3])
        total, identity, slope = self.room[3:]
        total[:] = covariance
        tendency = _tendency(self.points, lengths) if trend else None
        if tendency is not None:
            np.matmul(trend[0] * tendency, tendency.T, out=total)
            total += covariance
        total.flat[:: len(total) + 1] += noise + self.extra + JITTER
        # LAPACK is called as it is, on what is the same matrix in its order of columns.
        factor, fault = dpotrf(total.T, lower=1, clean=0, overwrite_a=1)
        if fault:
            return 1e10, np.zeros_like(theta)
        weights, _ = dpotrs(factor, self.scores, lower=1)
        identity[:] = 0.0
        identity.flat[:: len(total) + 1] = 1.0
        inverse, _ = dpotrs(factor, identity.T, lower=1, overwrite_b=1)
        # Half the gradient's matrix: d/dK of the log likelihood.
        np.outer(weights, weights, out=slope)
        slope -= inverse.T
        slope *= 0.5
        shaped = decay
        shaped *= near
        shaped *= slope
        shaped *= 5.0 / 3.0
        # Sum over pairs of shaped * (difference of one feature)^2, without an array of (N, N, F).
        pairs = 2 * (shaped.sum(1) @ scaled**2 - np.einsum("nf,nf->f", scaled, shaped @ scaled))
        rest = [np.vdot(slope, covariance), noise * np.trace(slope)]
        if tendency is not None:
            by_trend = trend[0] * (tendency * (slope @ tendency)).sum(0).reshape(2, -1).sum(0)
            pairs -= 2 * by_trend
            rest = [by_trend.sum(), *rest]
        gradient = np.concatenate([pairs, rest])
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
    total = kernel.between(points, points) + np.diag(kernel.noise + extra + JITTER)
    inverse = cho_solve(cho_factor(total, lower=True), np.eye(len(points)))
    variance = 1.0 / np.diag(inverse)
    error = (inverse @ scores) * variance
    density: Points = -0.5 * (error**2 / variance + np.log(variance))
    return density
