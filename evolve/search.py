"""The genetic search: ask for a trial, tell its fitness, in any order and with any number of trials open.

Steady state: each ask breeds children from the fittest trials told so far, so no worker waits for a generation. The
children are screened by a Gaussian process (`evolve.screening`), and one of them is tried.
"""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np

from evolve import plain_breeding
from evolve.costs import costs_of
from evolve.operators import Points
from evolve.plain_breeding import History
from evolve.search_base import Config, Origin, Search, Told, Trial
from evolve.search_settings import SearchError, SearchSettings
from evolve.space import Space, Value
from evolve.warm_start import Earlier

if TYPE_CHECKING:
    from evolve.screening import Screener

__all__ = ["GeneticSearch", "Search", "SearchError", "SearchSettings", "Told", "Trial", "search_from_events"]

_EARLIER_TRIED = 3  # of earlier results, right after the start


class GeneticSearch(Search):
    """Genetic search by ask and tell.

    The first trial is the start configuration. What trial n proposes depends on the seed, on n, and on what was
    asked and told before, and on nothing else: a search restored from its state, or replayed from its journal, goes
    on as the unbroken one would have.

    >>> from evolve.space import Gene
    >>> search = GeneticSearch(Space([Gene("lr0", 1e-5, 1e-1, start=0.01, log=True)]), seed=0)
    >>> trial = search.ask()
    >>> trial.config
    {'lr0': 0.01}
    >>> search.tell(trial.id, 0.3)
    >>> search.best().fitness
    0.3

    Attributes:
        space: the genes.
        seed: of all proposals.
        settings: what steers the search.
        earlier: results of other searches that it begins with; None without any.
    """

    kind: ClassVar[str] = "genetic"

    def __init__(
        self,
        space: Space,
        seed: int = 0,
        settings: SearchSettings | None = None,
        earlier: Earlier | None = None,
    ) -> None:
        """Begin a search, nothing asked.

        Raises:
            SearchError: the seed is negative.
        """
        super().__init__(space, seed)
        self.settings = settings or SearchSettings()
        self.earlier = earlier
        self._points: list[Points] = []
        self._seen: set[tuple[Value, ...]] = set()
        self._screener: Screener | None = None

    def ask(self) -> Trial:
        """Propose the next trial: a configuration that was not proposed before, or a leading one once more.

        Raises:
            SearchError: a space of whole numbers has no configuration left.
        """
        number = len(self._trials)
        if number == 0:
            trial = Trial(0, self.space.start, {"kind": "start", "parents": []})
        else:
            trial = Trial(number, *self._propose(np.random.default_rng([self.seed, number])))
        self.adopt(trial)
        return trial

    def adopt(self, trial: Trial) -> None:
        """Take in a trial asked elsewhere or earlier, as a replay does.

        Raises:
            SearchError: its id is not the next one.
            SpaceError: its configuration is none of this space.
        """
        super().adopt(trial)
        self._points.append(self.space.encode(trial.config))
        self._seen.add(tuple(trial.config[name] for name in self.space.names))

    def _history(self) -> History:
        """All that proposals go by."""
        return History(
            space=self.space,
            seed=self.seed,
            settings=self.settings,
            trials=self._trials,
            points=self._points,
            told=self._told,
            seen=self._seen,
            earlier=self.earlier,
            doubts=self._doubts,
            curves=self._curves,
        )

    def _propose(self, rng: np.random.Generator) -> tuple[Config, Origin]:
        history = self._history()
        known = self._earlier_best(history)
        if known is not None:
            return known, {"kind": "earlier", "parents": []}
        finished = sum(fitness is not None for fitness in history.told.values())
        ready = len(self._trials) >= self.settings.initial and finished >= 2
        if not (self.settings.children and ready):
            return plain_breeding.propose(rng, history)
        if self._screener is None:
            # scipy is only loaded by a search that has something to model.
            from evolve.screening import Screener

            self._screener = Screener()
        return self._screener.propose(rng, history)

    def _earlier_best(self, history: History) -> Config | None:
        """The best of the earlier results that was not tried yet, right after the start; None past the first few."""
        if self.earlier is None or len(self._trials) > _EARLIER_TRIED:
            return None
        for config, _ in self.earlier.results:
            if history.key(config) not in self._seen:
                return dict(config)
        return None

    def settings_dict(self) -> dict[str, Any]:
        """The settings, and earlier results where there are any."""
        settings = self.settings.to_dict()
        return settings if self.earlier is None else settings | {"earlier": self.earlier.to_dict()}

    @classmethod
    def build(cls, space: Space, seed: int, settings: Mapping[str, Any]) -> Self:
        """Build from a header's settings.

        Raises:
            SearchError: a setting cannot be.
        """
        return cls(space, seed, *cls._settled(settings))

    @staticmethod
    def _settled(settings: Mapping[str, Any]) -> tuple[SearchSettings, Earlier | None]:
        own = {key: value for key, value in settings.items() if key != "earlier"}
        earlier = Earlier.from_dict(settings["earlier"]) if settings.get("earlier") else None
        return SearchSettings.from_dict(own), earlier


def build_search(space: Space, seed: int, settings: Mapping[str, Any]) -> Search:
    """The search that a journal's header speaks of: a sampler of Optuna where `sampler` is named, else ours.

    Raises:
        SearchError: a setting cannot be.
    """
    if "objectives" in settings:
        from evolve.pareto_search import ParetoSearch

        return ParetoSearch.build(space, seed, settings)
    if "sampler" not in settings:
        return GeneticSearch.build(space, seed, settings)
    from evolve.samplers import build_sampler

    return build_sampler(space, seed, str(settings["sampler"]))


def told_of(event: Mapping[str, Any]) -> tuple[float | None, list[float]]:
    """What a journal's tell says to a search: (fitness, curve); of a stopped trial the fitness that it reached."""
    curve = event.get("curve") or []
    if event["status"] == "stopped":
        return curve[-1], curve
    return (event["fitness"] if event["status"] == "finished" else None), curve


def search_from_events(events: Iterable[Mapping[str, Any]]) -> Search:
    """Rebuild the search of a run from its journal: asks, rungs and tells, in its order, whatever lies between.

    Trials that only confirm are known by their numbers, and teach nothing.

    Raises:
        SearchError: the first event is no run, or the asks and tells do not follow.
        SpaceError: the space or a configuration cannot be.
    """
    search: Search | None = None
    for event in events:
        kind = event["event"]
        if search is None:
            if kind != "run":
                raise SearchError(f"a journal must begin with a run event, but got {kind!r}")
            search = build_search(Space.from_dict(event["space"]), event["seed"], event.get("search") or {})
        elif kind == "ask":
            search.adopt(Trial(event["trial"], event["config"], event["origin"]))
        elif kind == "rung" and event["goes_on"]:
            search.climb(event["trial"], event["fitness"])
        elif kind == "tell" and not search.trials[event["trial"]].confirms:
            search.measured(event["trial"], costs_of(event.get("result") or {}))
            search.tell(event["trial"], *told_of(event), stopped=event["status"] == "stopped")
    if search is None:
        raise SearchError("a journal must begin with a run event, but it is empty")
    return search
