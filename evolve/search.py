"""The genetic search: ask for a trial, tell its fitness, in any order and with any number of trials open.

Steady state: each ask breeds one child from the fittest trials told so far, so no worker waits for a generation.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from evolve import operators
from evolve.operators import Points
from evolve.search_settings import SearchError, SearchSettings
from evolve.space import Space

__all__ = ["GeneticSearch", "SearchError", "SearchSettings", "Told", "Trial", "search_from_events"]

VERSION = 1
_TRIES = 32  # children bred until one is far enough from what failed and what is open
_BLIND_TRIES = 512  # uniform draws until one is new, when every child was a copy
_NEIGHBOURS = 5  # told trials that say whether a place fails

Config = dict[str, float | int]
Origin = dict[str, Any]


@dataclass(frozen=True)
class Trial:
    """One configuration to be evaluated.

    Attributes:
        id: number of the trial, from 0, in the order of the asks.
        config: decoded gene values, in the order of the genes.
        origin: {"kind": "start" | "random" | "mutation" | "crossover" | "recombination", "parents": [ids]}.
    """

    id: int
    config: dict[str, float | int]
    origin: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Told:
    """A trial and its fitness."""

    trial: Trial
    fitness: float


class GeneticSearch:
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
    """

    def __init__(self, space: Space, seed: int = 0, settings: SearchSettings | None = None) -> None:
        """Begin a search, nothing asked.

        Raises:
            SearchError: the seed is negative.
        """
        if seed < 0:
            raise SearchError(f"the seed must be >= 0, but got {seed}")
        self.space = space
        self.seed = seed
        self.settings = settings or SearchSettings()
        self._trials: list[Trial] = []
        self._points: list[Points] = []
        self._told: dict[int, float | None] = {}
        self._seen: set[tuple[float | int, ...]] = set()

    @property
    def trials(self) -> tuple[Trial, ...]:
        """All trials asked, in order."""
        return tuple(self._trials)

    @property
    def open(self) -> tuple[Trial, ...]:
        """Trials asked and not told, in order."""
        return tuple(trial for trial in self._trials if trial.id not in self._told)

    def ask(self) -> Trial:
        """Propose the next trial, of a configuration that was not proposed before.

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
        if trial.id != len(self._trials):
            raise SearchError(f"the next trial must have the id {len(self._trials)}, but got {trial.id}")
        point = self.space.encode(trial.config)
        self._trials.append(trial)
        self._points.append(point)
        self._seen.add(self._key(trial.config))

    def tell(self, trial: int, fitness: float | None) -> None:
        """Tell what a trial was worth.

        Args:
            trial: its id.
            fitness: more is better; None, NaN or infinite is a failed trial, which never breeds.

        Raises:
            SearchError: no such trial was asked, or it was told before.
        """
        if not 0 <= trial < len(self._trials):
            raise SearchError(f"a trial must be asked before it is told, but trial {trial} was not")
        if trial in self._told:
            raise SearchError(
                f"a trial must be told once, but trial {trial} was told {self._told[trial]} before"
            )
        self._told[trial] = None if fitness is None or not math.isfinite(fitness) else float(fitness)

    def best(self) -> Told | None:
        """The fittest trial told, the earlier one of equals; None before the first that did not fail."""
        ranked = self._ranked()
        if not ranked:
            return None
        fitness = self._told[ranked[0]]
        return None if fitness is None else Told(self._trials[ranked[0]], fitness)

    def state(self) -> dict[str, Any]:
        """Plain JSON data that `from_state` goes on from, exactly."""
        return {
            "version": VERSION,
            "seed": self.seed,
            "space": self.space.to_dict(),
            "settings": self.settings.to_dict(),
            "trials": [asdict(trial) for trial in self._trials],
            "told": [[trial, fitness] for trial, fitness in self._told.items()],
        }

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Self:
        """Restore a search.

        Raises:
            SearchError: the state is of another version.
            SpaceError: its space cannot be.
        """
        if state.get("version") != VERSION:
            raise SearchError(f"the state's version must be {VERSION}, but got {state.get('version')!r}")
        settings = SearchSettings.from_dict(state["settings"])
        search = cls(Space.from_dict(state["space"]), seed=state["seed"], settings=settings)
        for trial in state["trials"]:
            search.adopt(Trial(**trial))
        for number, fitness in state["told"]:
            search.tell(number, fitness)
        return search

    def _key(self, config: Mapping[str, float | int]) -> tuple[float | int, ...]:
        return tuple(config[name] for name in self.space.names)

    def _ranked(self) -> list[int]:
        """Ids of the trials with a fitness, the fittest first."""
        scores = [(-fitness, trial) for trial, fitness in self._told.items() if fitness is not None]
        return [trial for _, trial in sorted(scores)]

    def _propose(self, rng: np.random.Generator) -> tuple[Config, Origin]:
        """Breed until a child is new, and not where trials fail or are under way: softly, the best of some."""
        if len(self._trials) >= self.space.cells:
            raise SearchError(f"all {len(self._trials)} configurations of the space were tried")
        past = self._past()
        chosen, least = None, math.inf
        for _ in range(_TRIES):
            point, origin = self._breed(rng, past)
            config = self.space.decode(operators.reflect(point))
            if self._key(config) in self._seen:
                continue
            doubt = past.doubt(self.space.encode(config), self.settings.spacing)
            if doubt < least:
                chosen, least = (config, origin), doubt
            if rng.random() >= doubt:
                return config, origin
        return chosen or self._blind(rng)

    def _blind(self, rng: np.random.Generator) -> tuple[Config, Origin]:
        """Draw uniformly until the configuration is new: the way out of a small space."""
        for _ in range(_BLIND_TRIES):
            config = self.space.decode(rng.random(len(self.space)))
            if self._key(config) not in self._seen:
                return config, {"kind": "random", "parents": []}
        raise SearchError(f"no new configuration was found in {_BLIND_TRIES} draws: the space is used up")

    def _past(self) -> "_Past":
        told = sorted(self._told)  # by id, so that the order of the tells does not matter
        opened = [number for number in range(len(self._trials)) if number not in self._told]
        return _Past(
            ranked=tuple(self._ranked()),
            step=self._step(told),
            opened=self._stack(opened),
            told=self._stack(told),
            failed=np.array([self._told[number] is None for number in told], dtype=np.bool_),
        )

    def _stack(self, trials: list[int]) -> Points:
        """Points (N, D) of some trials, N = 0 included."""
        return np.array([self._points[trial] for trial in trials]).reshape(-1, len(self.space))

    def _breed(self, rng: np.random.Generator, past: "_Past") -> tuple[Points, Origin]:
        """Draw one child (D,), which may leave [0, 1], and its origin."""
        settings, number = self.settings, len(self._trials)
        if number < settings.initial or len(past.ranked) < 2:
            return self._begin(rng, number)
        elite = past.ranked[: settings.parents]
        mutates = settings.mutation + settings.crossover
        kind = rng.random()
        ranks = operators.select(rng, len(elite), 2, settings.pressure)
        first, second = elite[ranks[0]], elite[ranks[1]]
        if kind < settings.mutation:
            child = operators.mutate(rng, self._points[first], past.step, settings.rate)
            return child, {"kind": "mutation", "parents": [first]}
        if kind < mutates or len(elite) < 3:
            child = operators.cross(rng, self._points[first], self._points[second], settings.extension)
            child = operators.mutate(rng, child, past.step / 2, 1 / len(self.space))
            return child, {"kind": "crossover", "parents": [first, second]}
        child = operators.recombine(rng, self._points[first], self._stack(list(elite)), settings.expansion)
        others = [trial for trial in elite if trial != first]
        return child, {"kind": "recombination", "parents": [first, *others]}

    def _begin(self, rng: np.random.Generator, number: int) -> tuple[Points, Origin]:
        """Draw an initial trial: mutants of the start and a design over the whole space take turns.

        Past the initial trials, with nothing to breed from, the design is used up and draws are uniform.
        """
        settings, genes = self.settings, len(self.space)
        near = [
            math.floor((i + 1) * settings.around) > math.floor(i * settings.around) for i in range(number)
        ]
        start_failed = self._told.get(0, math.inf) is None
        if near[-1] and not start_failed:
            child = operators.mutate(rng, self._points[0], settings.step, settings.rate)
            return child, {"kind": "mutation", "parents": [0]}
        if start_failed or number >= settings.initial:
            return rng.random(genes), {"kind": "random", "parents": []}
        # Stratified: slot k of the design takes the k-th slice of every gene's own shuffle, the same at each ask.
        slices = operators.latin(np.random.default_rng([self.seed, 0]), settings.initial - 1, genes)[
            number - 1
        ]
        shift = rng.uniform(-0.5, 0.5, genes) / (settings.initial - 1)
        return slices + shift, {"kind": "random", "parents": []}

    def _step(self, told: list[int]) -> float:
        """Follow success: the standard deviation of a mutation, from what was told of children, in their order.

        Source: Rechenberg's rule (a fifth of the children should beat their parent), as Kern et al. 2004 put it.
        """
        settings, scale = self.settings, 0.0
        least = math.log(settings.least_step / settings.step)
        for trial in told:
            parents = self._trials[trial].origin.get("parents")
            before = self._told.get(parents[0]) if parents and trial >= settings.initial else None
            fitness = self._told[trial]
            if fitness is None or before is None:
                continue
            scale += settings.learning if fitness > before else -settings.learning / 4
            scale = min(max(scale, least), math.log(2))
        return settings.step * math.exp(scale)


@dataclass(frozen=True, eq=False)
class _Past:
    """What breeding looks back on.

    Attributes:
        ranked: ids of the trials with a fitness, the fittest first.
        step: standard deviation of a mutation.
        opened: points (N, D) of the open trials.
        told: points (M, D) of those told.
        failed: (M,) which of them failed.
    """

    ranked: tuple[int, ...]
    step: float
    opened: Points
    told: Points
    failed: NDArray[np.bool_]

    def doubt(self, point: Points, spacing: float) -> float:
        """Probability of breeding again: the share of failures among neighbours; 1 and more beside an open trial."""
        gap = operators.nearest(point, self.opened)
        if gap < spacing:
            return 2.0 - gap / spacing  # all are bred again, and the one farthest off is the last resort
        if not self.failed.any():
            return 0.0
        weights = 1 / (np.mean((self.told - point) ** 2, axis=1) + 1e-9)
        near = np.argsort(-weights, kind="stable")[:_NEIGHBOURS]
        return float(weights[near][self.failed[near]].sum() / weights[near].sum())


def search_from_events(events: Iterable[Mapping[str, Any]]) -> GeneticSearch:
    """Rebuild the search of a run from its journal: asks and tells in the journal's order, whatever lies between.

    Raises:
        SearchError: the first event is no run, or the asks and tells do not follow.
        SpaceError: the space or a configuration cannot be.
    """
    search: GeneticSearch | None = None
    for event in events:
        kind = event["event"]
        if search is None:
            if kind != "run":
                raise SearchError(f"a journal must begin with a run event, but got {kind!r}")
            settings = SearchSettings.from_dict(event.get("search") or {})
            search = GeneticSearch(Space.from_dict(event["space"]), seed=event["seed"], settings=settings)
        elif kind == "ask":
            search.adopt(Trial(event["trial"], event["config"], event["origin"]))
        elif kind == "tell":
            search.tell(event["trial"], event["fitness"] if event["status"] == "finished" else None)
    if search is None:
        raise SearchError("a journal must begin with a run event, but it is empty")
    return search
