"""The genetic search with several objectives: parents by NSGA-II, children screened as ever.

Each ask turns the objectives into one score per trial, and the search goes by it. On every other ask that is the
trial's rank by non-dominated sorting and crowding (NSGA-II); on the others it is the distance from the best in a
random direction, so that the surrogate is drawn to each part of the front in turn.
Source: Deb et al. 2002 (NSGA-II); Knowles 2006 (ParEGO).
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from evolve.costs import check_objectives, gains
from evolve.pareto import one_score
from evolve.plain_breeding import History
from evolve.search import GeneticSearch
from evolve.search_settings import SearchError, SearchSettings
from evolve.space import EvolveError, Space
from evolve.warm_start import Earlier

_DIRECTION = 1  # of the random draws: its own, so that breeding's are as they were
_SUM = 0.05  # weight of the sum beside the largest distance, so that ties are broken


class ParetoSearch(GeneticSearch):
    """Genetic search for the trials that none beats in all objectives.

    Attributes:
        objectives: their names, fitness first.
    """

    kind: ClassVar[str] = "pareto"

    def __init__(
        self,
        space: Space,
        seed: int = 0,
        settings: SearchSettings | None = None,
        earlier: Earlier | None = None,
        objectives: tuple[str, ...] = (),
    ) -> None:
        """Begin a search, nothing asked.

        Raises:
            SearchError: the seed is negative, or the objectives can't be.
        """
        # One score of several objectives is no fitness to be proven by repeating it.
        super().__init__(space, seed, replace(settings or SearchSettings(), replicas=1), earlier)
        try:
            self.objectives = check_objectives(objectives)
        except EvolveError as error:
            raise SearchError(str(error)) from error

    def _history(self) -> History:
        return replace(super()._history(), told=self._scores())

    def _scores(self) -> dict[int, float | None]:
        """One score for each told trial; None for one that failed or lacks an objective."""
        rows = {
            trial: gains(fitness, self._costs.get(trial, {}), self.objectives)
            for trial, fitness in sorted(self._told.items())
        }
        known = {trial: row for trial, row in rows.items() if row is not None}
        if not known:
            return dict.fromkeys(rows)
        table = np.array(list(known.values()), dtype=np.float64)
        number = len(self._trials)
        if number % 2:
            rng = np.random.default_rng([self.seed, number, _DIRECTION])
            scores = _along(table, rng.dirichlet(np.ones(table.shape[1])))
        else:
            scores = one_score(table)
        return dict.fromkeys(rows) | dict(zip(known, map(float, scores), strict=True))

    def settings_dict(self) -> dict[str, Any]:
        """The settings, and the objectives."""
        return {**super().settings_dict(), "objectives": list(self.objectives)}

    @classmethod
    def build(cls, space: Space, seed: int, settings: Mapping[str, Any]) -> Self:
        """Build from a header's settings.

        Raises:
            SearchError: a setting cannot be.
        """
        own = {key: value for key, value in settings.items() if key != "objectives"}
        return cls(space, seed, *cls._settled(own), tuple(settings["objectives"]))


def _along(table: NDArray[np.float64], weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """Scores (N,) of rows (N, K), 0 the best: how near they come to the best of all, looked at in one direction."""
    spread = table.max(axis=0) - table.min(axis=0)
    missed = (table.max(axis=0) - table) / np.where(spread > 0, spread, 1.0)
    weighted = missed * weights
    scores: NDArray[np.float64] = -(weighted.max(axis=1) + _SUM * weighted.sum(axis=1))
    return scores
