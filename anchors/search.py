"""The search of one fit, on bins: for fitness alone first, and under the recall target where that binds."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from anchors.bins import Bins, Floats, compress
from anchors.constrained import climb
from anchors.cover import cover
from anchors.genetic import GeneticSettings, niches, refine
from anchors.local import polish
from anchors.objective import Objective, distances

Progress = Callable[[float], None]

_FINE = 8000  # bins on which the finalists of a search are polished
_FINALISTS = 3
_PENALTY = 20.0  # fitness for recall: up to six were seen to be the price of a share of recall
_COVER = 1000.0  # recall before all else
_STARTS = 12  # sets of high recall that a search under a target starts from
_MARGIN = 1e-3  # of recall: what a search on bins believes is a little more than what the boxes say
_ROUNDS = 3  # climbs of the best set, each with the margin that the last one showed to be needed
SLACK = 1e-9  # of recall: a sum of weights is not exact
_BREEDING = GeneticSettings(seedings=4, fine=2000)


@dataclass(frozen=True, eq=False)
class Scored:
    """Anchors (k, 2), logarithms, with their fitness and recall on all bins."""

    logs: Floats
    fitness: float
    recall: float

    def rank(self, goal: float) -> tuple[bool, float, float]:
        """What decides between two sets: the goal reached or not, then the fitness, then the recall."""
        return self.recall >= goal - SLACK, self.fitness, self.recall


@dataclass(frozen=True, eq=False)
class Search:
    """The shapes of one fit at two resolutions.

    Attributes:
        bins: All that is known of the shapes.
        fine: The same in at most 8,000 bins.
        k: Anchors in a set.
        reach: Logarithm of the threshold.
        rng: Draws everything that is drawn.
    """

    bins: Bins
    fine: Bins
    k: int
    reach: float
    rng: np.random.Generator

    @classmethod
    def over(cls, bins: Bins, k: int, threshold: float, rng: np.random.Generator) -> "Search":
        """A search over bins."""
        return cls(bins, compress(bins, max(_FINE, 4 * k)), k, float(np.log(threshold)), rng)

    def score(self, logs: Floats) -> Scored:
        """Figures of one set (k, 2)."""
        return _score(logs, self.bins, self.reach)

    def free(self, seeds: Sequence[Floats], tell: Progress) -> Scored:
        """The highest fitness, whatever its recall."""
        objective = Objective(self.reach)
        found = refine(self.fine, self.k, objective, self.rng, seeds=seeds, progress=tell)
        return self.score(self._finish(found[:_FINALISTS], objective))

    def widest(self) -> list[Scored]:
        """Sets of high recall that differ, the highest first."""
        objective = Objective(self.reach, _COVER)
        found = np.stack(cover(self.fine, self.k, self.reach, self.rng))
        starts = niches(found, self.fine, objective, _STARTS)
        polished = [
            polish(one, self.fine, objective, self.rng, radius=0.05, sweeps=40)[0] for one in starts[:4]
        ]
        exact = [polish(one, self.bins, objective, self.rng, radius=0.01, sweeps=3)[0] for one in polished]
        return sorted(map(self.score, [*starts, *polished, *exact]), key=lambda one: -one.recall)[:_STARTS]

    def bound(self, goal: float, starts: Sequence[Scored], tell: Progress) -> list[Scored]:
        """Sets of high fitness that reach the goal, or nearly.

        Args:
            goal: Recall, 0..1, that one of the starts reaches.
            starts: Sets to begin with.
            tell: Told the share done.
        """
        objective = Objective(self.reach, _PENALTY, min(goal + _MARGIN, 1.0))
        seeds = [one.logs for one in starts]
        breeding = refine(
            self.fine,
            self.k,
            objective,
            self.rng,
            seeds=seeds,
            settings=_BREEDING,
            progress=lambda share: tell(share / 2),
        )
        found = list(starts)
        for anchors in breeding[:_FINALISTS]:
            found += self._climb(anchors, goal, _MARGIN)
        tell(0.75)
        for step in range(_ROUNDS):
            best = max(found, key=lambda one: one.rank(goal))
            believed = _score(best.logs, self.fine, self.reach).recall
            found += self._climb(best.logs, goal, believed - best.recall + _MARGIN / 10)
            tell(0.75 + 0.25 * (step + 1) / _ROUNDS)
        return found

    def _climb(self, anchors: Floats, goal: float, margin: float) -> list[Scored]:
        """A climb on fine bins, and what comes of it when it is polished on all of them."""
        believed = min(max(goal + margin, 0.0), 1.0)
        climbed = climb(anchors, self.fine, self.reach, believed, self.rng)
        objective = Objective(self.reach, _PENALTY, min(goal + SLACK, 1.0))
        polished, _ = polish(climbed, self.bins, objective, self.rng, radius=0.01, sweeps=4)
        return [self.score(climbed), self.score(polished)]

    def _finish(self, finalists: Sequence[Floats], objective: Objective) -> Floats:
        """Polish the finalists on fine bins and the winner on all of them."""
        polished = [
            polish(anchors, self.fine, objective, self.rng, radius=0.02, sweeps=60) for anchors in finalists
        ]
        winner, _ = max(polished, key=lambda item: item[1])
        return polish(winner, self.bins, objective, self.rng, radius=0.01, sweeps=4)[0]


def _score(logs: Floats, bins: Bins, reach: float) -> Scored:
    nearest = np.full(len(bins), np.inf)
    for anchor in logs:
        np.minimum(nearest, distances(anchor[None], bins.logs)[0], out=nearest)
    fitness, recall = Objective(reach, 1.0).sums(nearest, bins.weights)
    return Scored(logs, float(fitness), float(recall))
