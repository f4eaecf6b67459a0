"""What every search has: trials asked and told, and the promise that it can be taken up again exactly."""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar, Self

from evolve.foretell import foretell
from evolve.racing import Standing, standings
from evolve.search_settings import SearchError
from evolve.space import Space, Value

VERSION = 1
CONFIRM = "confirm"
"""Kind of a trial that only measures once more what the search found: the search learns nothing of it."""

Config = dict[str, Value]
Origin = dict[str, Any]


@dataclass(frozen=True)
class Trial:
    """One configuration to be evaluated.

    Attributes:
        id: number of the trial, from 0, in the order of the asks.
        config: decoded gene values, in the order of the genes.
        origin: {"kind": how it was made, "parents": [ids]}; with "grown" where a child was led uphill from where it
            was bred; for a configuration that is tried once more under another seed also "replicates_of", the id of
            its first trial, and "run", its number among them, from 1.
    """

    id: int
    config: Config
    origin: Origin = field(default_factory=dict)

    @property
    def replicates_of(self) -> int | None:
        """The first trial of the same configuration, None for the first itself."""
        first = self.origin.get("replicates_of")
        return None if first is None else int(first)

    @property
    def confirms(self) -> bool:
        """Whether it measures what was found, rather than being part of the search."""
        return self.origin.get("kind") == CONFIRM


@dataclass(frozen=True)
class Told:
    """A trial and its fitness."""

    trial: Trial
    fitness: float


class Search(ABC):
    """Search by ask and tell, in any order and with any number of trials open.

    Attributes:
        space: the genes.
        seed: of all proposals.
        kind: what it is called on the command line and in a journal.
    """

    kind: ClassVar[str]

    def __init__(self, space: Space, seed: int = 0) -> None:
        """Begin a search, nothing asked.

        Raises:
            SearchError: the seed is negative.
        """
        if seed < 0:
            raise SearchError(f"the seed must be >= 0, but got {seed}")
        self.space = space
        self.seed = seed
        self._trials: list[Trial] = []
        self._told: dict[int, float | None] = {}
        self._costs: dict[int, dict[str, float]] = {}
        self._asked_before: dict[int, int] = {}  # trials asked when each was told
        self._curves: dict[
            int, tuple[float, ...]
        ] = {}  # fitness at each rung, of trials that climbed a ladder
        self._doubts: dict[
            int, float
        ] = {}  # of each that is not whole: deviation of the fitness foretold for it
        self._climbing: set[int] = set()  # open trials that have passed a rung

    @property
    def trials(self) -> tuple[Trial, ...]:
        """All trials asked, in order."""
        return tuple(self._trials)

    @property
    def open(self) -> tuple[Trial, ...]:
        """Trials asked and not told, in order."""
        told = self._told.keys() - self._climbing
        return tuple(trial for trial in self._trials if trial.id not in told and not trial.confirms)

    @abstractmethod
    def ask(self) -> Trial:
        """Propose the next trial; the first is the start configuration.

        Raises:
            SearchError: a space of whole numbers has no configuration left.
        """

    def adopt(self, trial: Trial) -> None:
        """Take in a trial asked elsewhere or earlier, as a replay does.

        Raises:
            SearchError: its id is not the next one.
            SpaceError: its configuration is none of this space.
        """
        if trial.id != len(self._trials):
            raise SearchError(f"the next trial must have the id {len(self._trials)}, but got {trial.id}")
        self.space.check(trial.config)
        self._trials.append(trial)

    def climb(self, trial: int, fitness: float) -> None:
        """Tell how an open trial stands at the next rung of its ladder; it goes on, and is to be told at its end.

        The good ones are the longest under way: a search that waited for their ends would for long know of the poor
        ones alone.

        Args:
            trial: its id.
            fitness: its best up to this rung.

        Raises:
            SearchError: no such trial was asked, or it was told before.
        """
        self._check_open(trial)
        self._curves[trial] = (*self._curves.get(trial, ()), float(fitness))
        self._climbing.add(trial)
        self._doubts.setdefault(trial, 0.0)
        self._foretell()

    def tell(
        self, trial: int, fitness: float | None, curve: Sequence[float] = (), *, stopped: bool = False
    ) -> None:
        """Tell what a trial was worth.

        The fitness of a stopped trial is that of a short training. The search goes by what is foretold of its end
        instead, from all curves told so far, and by how unsure that is; no stopped trial is ever the best.

        Args:
            trial: its id.
            fitness: more is better; None, NaN or infinite is a failed trial, which never breeds.
            curve: the best fitness up to each rung of a ladder that it reached, the full length among them.
            stopped: whether it ended at the last of these rungs and not by itself; `fitness` is that rung's then.

        Raises:
            SearchError: no such trial was asked, it was told before, or it was stopped without a curve.
        """
        if stopped and not curve:
            raise SearchError(f"a stopped trial must be told with its curve, but trial {trial} was not")
        self._check_open(trial)
        for known in (self._told, self._doubts):  # what was foretold while it climbed
            known.pop(trial, None)
        self._climbing.discard(trial)
        self._told[trial] = None if fitness is None or not math.isfinite(fitness) else float(fitness)
        self._asked_before[trial] = len(self._trials)
        if curve:
            self._curves[trial] = tuple(float(value) for value in curve)
        if stopped:
            self._doubts[trial] = 0.0
        if curve and self._doubts:
            self._foretell()

    def measured(self, trial: int, costs: Mapping[str, float]) -> None:
        """Say what else was measured of a trial, before it is told; a search of one objective does not ask for it.

        Args:
            trial: its id.
            costs: names of `evolve.costs.COSTS` to values, less is better.
        """
        if costs:
            self._costs[trial] = dict(costs)

    def _check_open(self, trial: int) -> None:
        if not 0 <= trial < len(self._trials):
            raise SearchError(f"a trial must be asked before it is told, but trial {trial} was not")
        if trial in self._told and trial not in self._climbing:
            raise SearchError(
                f"a trial must be told once, but trial {trial} was told {self._told[trial]} before"
            )

    def _foretell(self) -> None:
        """Believe of each trial that is not whole what the curves of all say of its end."""
        for trial, each in foretell(self._curves, self._doubts).items():
            self._told[trial], self._doubts[trial] = each.mean, each.deviation

    def standings(self) -> list[Standing]:
        """Configurations with a whole trial, the one to be exported first; see `evolve.racing`."""
        runs = [
            (self._first(trial), fitness)
            for trial, fitness in sorted(self._told.items())
            if trial not in self._doubts
        ]
        return standings(runs)

    def best(self) -> Told | None:
        """The configuration that leads the standings, and its mean fitness; None before the first that did not fail.

        Without repeated trials that is the fittest, the earlier one of equals.
        """
        ranked = self.standings()
        return Told(self._trials[ranked[0].trial], ranked[0].mean) if ranked else None

    def state(self) -> dict[str, Any]:
        """Plain JSON data that `from_state` goes on from, exactly."""
        return {
            "version": VERSION,
            "seed": self.seed,
            "space": self.space.to_dict(),
            "settings": self.settings_dict(),
            "trials": [asdict(trial) for trial in self._trials],
            "told": [
                self._row(trial, fitness)
                for trial, fitness in self._told.items()
                if trial not in self._climbing
            ],
            "climbing": [[trial, list(self._curves[trial])] for trial in sorted(self._climbing)],
            **({"costs": {str(trial): costs for trial, costs in self._costs.items()}} if self._costs else {}),
        }

    def _row(self, trial: int, fitness: float | None) -> list[Any]:
        row = [trial, fitness, self._asked_before[trial]]
        if trial not in self._curves:
            return row
        return [*row, list(self._curves[trial]), trial in self._doubts]

    @abstractmethod
    def settings_dict(self) -> dict[str, Any]:
        """What a journal's header must hold so that the search can be built again."""

    @classmethod
    @abstractmethod
    def build(cls, space: Space, seed: int, settings: Mapping[str, Any]) -> Self:
        """Build from a header's settings."""

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Self:
        """Restore a search.

        Raises:
            SearchError: the state is of another version.
            SpaceError: its space cannot be.
        """
        if state.get("version") != VERSION:
            raise SearchError(f"the state's version must be {VERSION}, but got {state.get('version')!r}")
        search = cls.build(Space.from_dict(state["space"]), state["seed"], state["settings"])
        trials = [Trial(**trial) for trial in state["trials"]]
        for trial, costs in (state.get("costs") or {}).items():
            search.measured(int(trial), costs)
        for row in state["told"]:
            # In the order they came: some samplers remember what was told at each ask.
            for trial in trials[len(search._trials) : row[2] if len(row) > 2 else len(trials)]:
                search.adopt(trial)
            curve, stopped = row[3:5] if len(row) > 3 else ([], False)
            search.tell(row[0], curve[-1] if stopped else row[1], curve, stopped=stopped)
        for trial in trials[len(search._trials) :]:
            search.adopt(trial)
        for number, curve in state.get("climbing", ()):
            for fitness in curve:
                search.climb(number, fitness)
        return search

    def _first(self, trial: int) -> int:
        """The first trial of the same configuration."""
        first = self._trials[trial].replicates_of
        return trial if first is None else first
