"""Breeding without a surrogate: one child at a time from the fittest told so far.

So a search begins, before there is anything to model; and so every trial of a run was bred whose journal was begun
before there was a surrogate.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from evolve import operators
from evolve.foretell import foretell
from evolve.operators import Points
from evolve.search_base import Config, Origin, Trial
from evolve.search_settings import SearchError, SearchSettings
from evolve.space import Space, Value
from evolve.warm_start import Earlier

_TRIES = 32  # children bred until one is far enough from what failed and what is open
_BLIND_TRIES = 512  # uniform draws until one is new, when every child was a copy
_NEIGHBOURS = 5  # told trials that say whether a place fails


@dataclass(frozen=True, eq=False)
class History:
    """All that was asked and told.

    Attributes:
        space: the genes.
        seed: of the search.
        settings: what steers it.
        trials: asked, in order.
        points: (N, D) their points.
        told: id to fitness, None for a failure; of a trial that is not whole what is foretold of its end.
        seen: keys of all configurations asked.
        earlier: results of other searches; None without any.
        doubts: of each trial that is not whole, stopped or open: standard deviation of the fitness foretold.
        curves: fitness at each rung of a ladder, of the trials told with it.
    """

    space: Space
    seed: int
    settings: SearchSettings
    trials: list[Trial]
    points: list[Points]
    told: dict[int, float | None]
    seen: set[tuple[Value, ...]]
    earlier: Earlier | None = None
    doubts: Mapping[int, float] = field(default_factory=dict)
    curves: Mapping[int, tuple[float, ...]] = field(default_factory=dict)

    def key(self, config: Config) -> tuple[Value, ...]:
        """What tells configurations apart."""
        return tuple(config[name] for name in self.space.names)

    def ranked(self) -> list[int]:
        """Ids of the trials with a fitness, the fittest first."""
        scores = [(-fitness, trial) for trial, fitness in self.told.items() if fitness is not None]
        return [trial for _, trial in sorted(scores)]

    def stack(self, trials: list[int]) -> Points:
        """Points (N, D) of some trials, N = 0 included."""
        return np.array([self.points[trial] for trial in trials]).reshape(-1, len(self.space))

    def believed(self, trials: list[int]) -> tuple[Points, Points]:
        """What is believed of trials with a fitness, told from these alone, whatever else is known by now.

        Returns:
            Fitnesses (N,), and of each (N,) by how much what was foretold may be off; 0 where it was measured.
        """
        stopped = [trial for trial in trials if trial in self.doubts]
        climbed = [trial for trial in trials if trial in self.curves] if stopped else []
        genes = dict(zip(climbed, self.space.features(self.stack(climbed)), strict=True))
        found = foretell({trial: self.curves[trial] for trial in climbed}, stopped, genes)
        fitness = [found[trial].mean if trial in found else self.told[trial] for trial in trials]
        doubts = [found[trial].scatter if trial in found else 0.0 for trial in trials]
        return np.array(fitness, dtype=np.float64), np.array(doubts, dtype=np.float64)

    def first(self, trial: int) -> int:
        """The first trial of the same configuration."""
        first = self.trials[trial].replicates_of
        return trial if first is None else first

    def runs(self, first: int) -> list[int]:
        """Ids of all trials of the configuration that was first tried as `first`, open ones included."""
        return [trial.id for trial in self.trials if self.first(trial.id) == first]

    def opened(self) -> list[int]:
        """Ids of the trials asked and not told."""
        return [t.id for t in self.trials if t.id not in self.told and not t.confirms]


def propose(rng: np.random.Generator, history: History) -> tuple[Config, Origin]:
    """Breed until a child is new, and not where trials fail or are under way: softly, the best of some.

    Raises:
        SearchError: every configuration of the space was tried.
    """
    space = history.space
    if len(history.seen) >= space.cells:
        raise SearchError(f"all {len(history.seen)} configurations of the space were tried")
    past = _past(history)
    chosen, least = None, math.inf
    for _ in range(_TRIES):
        point, origin = _breed(rng, history, past)
        config = space.decode(operators.reflect(point))
        if history.key(config) in history.seen:
            continue
        doubt = past.doubt(space.encode(config), history.settings.spacing)
        if doubt < least:
            chosen, least = (config, origin), doubt
        if rng.random() >= doubt:
            return config, origin
    return chosen or draw_blind(rng, history)


def draw_blind(rng: np.random.Generator, history: History) -> tuple[Config, Origin]:
    """Draw uniformly until the configuration is new: the way out of a small space.

    Raises:
        SearchError: none was found.
    """
    for _ in range(_BLIND_TRIES):
        config = history.space.decode(rng.random(len(history.space)))
        if history.key(config) not in history.seen:
            return config, {"kind": "random", "parents": []}
    raise SearchError(f"no new configuration was found in {_BLIND_TRIES} draws: the space is used up")


def _past(history: History) -> "_Past":
    told = sorted(history.told)  # by id, so that the order of the tells does not matter
    return _Past(
        ranked=tuple(history.ranked()),
        step=step_length(history),
        opened=history.stack(history.opened()),
        told=history.stack(told),
        failed=np.array([history.told[number] is None for number in told], dtype=np.bool_),
    )


def _breed(rng: np.random.Generator, history: History, past: "_Past") -> tuple[Points, Origin]:
    """Draw one child (D,), which may leave [0, 1], and its origin."""
    settings, number, points = history.settings, len(history.trials), history.points
    if number < settings.initial or len(past.ranked) < 2:
        return begin(rng, history)
    elite = past.ranked[: settings.parents]
    mutates = settings.mutation + settings.crossover
    kind = rng.random()
    ranks = operators.select(rng, len(elite), 2, settings.pressure)
    first, second = elite[ranks[0]], elite[ranks[1]]
    if kind < settings.mutation:
        child = operators.mutate(rng, points[first], past.step, settings.rate)
        return child, {"kind": "mutation", "parents": [first]}
    if kind < mutates or len(elite) < 3:
        child = operators.cross(rng, points[first], points[second], settings.extension)
        child = operators.mutate(rng, child, past.step / 2, 1 / len(history.space))
        return child, {"kind": "crossover", "parents": [first, second]}
    child = operators.recombine(rng, points[first], history.stack(list(elite)), settings.expansion)
    others = [trial for trial in elite if trial != first]
    return child, {"kind": "recombination", "parents": [first, *others]}


def begin(rng: np.random.Generator, history: History) -> tuple[Points, Origin]:
    """Draw an initial trial: mutants of the start and a design over the whole space take turns.

    Past the initial trials, with nothing to breed from, the design is used up and draws are uniform.
    """
    settings, genes, number = history.settings, len(history.space), len(history.trials)
    near = [math.floor((i + 1) * settings.around) > math.floor(i * settings.around) for i in range(number)]
    start_failed = history.told.get(0, math.inf) is None
    if near[-1] and not start_failed:
        child = operators.mutate(rng, history.points[0], settings.step, settings.rate)
        return child, {"kind": "mutation", "parents": [0]}
    if start_failed or number >= settings.initial:
        return rng.random(genes), {"kind": "random", "parents": []}
    # Stratified: slot k of the design takes the k-th slice of every gene's own shuffle, the same at each ask.
    design = operators.latin(np.random.default_rng([history.seed, 0]), settings.initial - 1, genes)
    shift = rng.uniform(-0.5, 0.5, genes) / (settings.initial - 1)
    return design[number - 1] + shift, {"kind": "random", "parents": []}


def step_length(history: History) -> float:
    """Follow success: the standard deviation of a mutation, from what was told of children, in their order.

    Source: Rechenberg's rule (a fifth of the children should beat their parent), as Kern et al. 2004 put it.
    """
    settings, scale = history.settings, 0.0
    least = math.log(settings.least_step / settings.step)
    for trial in sorted(history.told):
        parents = history.trials[trial].origin.get("parents")
        before = history.told.get(parents[0]) if parents and trial >= settings.initial else None
        fitness = history.told[trial]
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
