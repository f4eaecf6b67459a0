"""How literally a process takes the looks that were foretold: as noisy as they say, or some times noisier.

What is foretold of stopped trials errs alike where their genes are alike, which noise of each its own cannot say. A
process that takes it too literally bends to it, and foretells measured looks worse than the others do; so the noise
is multiplied by what foretells these best, each from all the rest.
"""

from evolve.kernel import Kernel, Points, Prior, fit_kernel, left_out

_TIMES = (1.0, 2.0, 4.0, 8.0)  # of the deviation of a foretold look
_MEASURED = 6  # looks at least, before they choose
_CHOOSING = 120  # looks that choose; more would cost their cube for each factor that is tried


def fit_trusting(points: Points, scores: Points, extra: Points, prior: Prior) -> tuple[Kernel, float]:
    """Fit a kernel, and choose by how much noisier than they say the foretold looks are taken.

    Where nothing was foretold, or too few looks were measured to tell, it is `fit_kernel` and 1.

    Args:
        points: (N, F), N >= 1, in [0, 1]; the first 120 choose.
        scores: (N,), about 0 with variance 1.
        extra: (N,) variance of each look beyond the common noise; 0 of those that were measured.
        prior: of the kernel's hyperparameters.

    Returns:
        (the kernel, the factor of the variances in `extra` that it was fitted with, 1 or more)
    """
    few = slice(_CHOOSING)
    measured = extra[few] == 0
    if measured.all() or measured.sum() < _MEASURED:
        return fit_kernel(points, scores, extra, prior), 1.0
    tried = {times**2: _tried(points[few], scores[few], extra[few] * times**2, prior) for times in _TIMES}
    factor = max(tried, key=lambda each: tried[each][1])
    if len(points) <= _CHOOSING:
        return tried[factor][0], factor
    return fit_kernel(points, scores, extra * factor, prior), factor


def _tried(points: Points, scores: Points, noise: Points, prior: Prior) -> tuple[Kernel, float]:
    """A kernel, and the logarithm of the density that it gives the measured looks, each foretold from all others."""
    kernel = fit_kernel(points, scores, noise, prior)
    return kernel, float(left_out(kernel, points, scores, noise)[noise == 0].sum())
