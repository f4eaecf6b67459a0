"""Where trials fail, learnt from those that did."""

import math
from dataclasses import dataclass

import numpy as np

from evolve.kernel import Kernel
from evolve.operators import Points
from evolve.surrogate import Process

_REACH = 0.3  # length of the kernel, times the root of the number of genes
_NEIGHBOURS = 5  # told trials that say whether a place fails
_LEAST_CHANCE = 0.02


@dataclass(frozen=True, eq=False)
class Failures:
    """Where trials fail: far off by a smooth process, close by from the nearest trials, since cliffs are sharp.

    Attributes:
        process: over what finished (1) and what failed (0), about the share that finished.
        share: that share.
        points: (N, F) told trials.
        finished: (N,) 1.0 where they finished.
    """

    process: Process
    share: float
    points: Points
    finished: Points

    @classmethod
    def learn(cls, finished: Points, failed: Points) -> "Failures":
        """From trials that finished (N, F) and trials that failed (M, F)."""
        points = np.vstack([finished, failed])
        outcome = np.concatenate([np.ones(len(finished)), np.zeros(len(failed))])
        share = float(outcome.mean())
        lengths = np.full(points.shape[1], _REACH * math.sqrt(points.shape[1]))
        return cls(Process(Kernel(lengths, 0.25, 0.02), points, outcome - share), share, points, outcome)

    def log_chance(self, features: Points) -> Points:
        """Logarithm of the chance (M,) that a trial at (M, F) does not fail."""
        smooth = np.clip(self.process.mean(features) + self.share, _LEAST_CHANCE, 1.0)
        squares = ((features[:, None] - self.points[None]) ** 2).mean(axis=2) + 1e-9
        near = np.argsort(squares, axis=1, kind="stable")[:, :_NEIGHBOURS]
        weights = 1.0 / np.take_along_axis(squares, near, axis=1)
        close = (weights * self.finished[near]).sum(axis=1) / weights.sum(axis=1)
        chance: Points = np.log(smooth) + np.log(np.clip(close, _LEAST_CHANCE, 1.0))
        return chance
