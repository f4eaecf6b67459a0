"""Optuna's one door: its samplers behind the same ask and tell as our own search.

Optuna keeps no study of ours on a disk: the journal is the memory. For every ask a study is made of what was asked
and told, with a sampler seeded by the search's seed and the trial's number, so that a proposal follows from the
history alone. Only CMA-ES, which marks its trials with its distribution's state, keeps one study and is replayed.
"""

import importlib
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np

from evolve.gene import Gene, Value, unknown_name
from evolve.search_base import Config, Search, Trial
from evolve.search_settings import SearchError
from evolve.space import Space

SAMPLERS: dict[str, tuple[str, dict[str, Any]]] = {
    "tpe": ("TPESampler", {"multivariate": True, "constant_liar": True}),
    "cmaes": ("CmaEsSampler", {}),
    "gp": ("GPSampler", {}),
    "nsga2": ("NSGAIISampler", {}),
    "qmc": ("QMCSampler", {"scramble": True}),
    "random": ("RandomSampler", {}),
}
"""Name on the command line: Optuna's class and what it is built with."""


class SamplerSearch(Search):
    """A sampler of Optuna as a search.

    It works in the encoded space, so that log scales and integers are ours. Repeated configurations are possible:
    that is the sampler's own affair.
    """

    def __init__(self, space: Space, seed: int = 0, sampler: str = "tpe") -> None:
        """Begin a search, nothing asked.

        Args:
            space: the genes.
            seed: of all proposals.
            sampler: a name of `SAMPLERS`, or the name of a class of `optuna.samplers`.

        Raises:
            SearchError: there is no such sampler, or the seed is negative.
        """
        super().__init__(space, seed)
        self.sampler = sampler
        self._optuna = importlib.import_module(
            "optuna"
        )  # a second of imports, for those alone who ask for it
        self._optuna.logging.set_verbosity(self._optuna.logging.ERROR)
        self._class, self._options = self._find(sampler)
        self._distributions = {gene.name: self._distribution(gene) for gene in space.genes}

    @property
    def kind(self) -> str:  # type: ignore[override]  # one class stands for many samplers
        """The sampler's name."""
        return self.sampler

    def _find(self, name: str) -> tuple[Any, dict[str, Any]]:
        class_name, options = SAMPLERS.get(name, (name, {}))
        known = [each for each in self._optuna.samplers.__all__ if each.endswith("Sampler")]
        if class_name not in known:
            raise SearchError(unknown_name("sampler", name, [*SAMPLERS, *known]))
        return getattr(self._optuna.samplers, class_name), options

    def _sampler(self, number: int) -> Any:
        seed = int(np.random.SeedSequence([self.seed, number]).generate_state(1)[0])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Optuna calls half of its own options experimental
            try:
                return self._class(seed=seed, **self._options)
            except TypeError as error:
                raise SearchError(
                    f"sampler {self.sampler} cannot be built from a seed alone: {error}"
                ) from error

    def _distribution(self, gene: Gene) -> Any:
        distributions = self._optuna.distributions
        if gene.choices:
            return distributions.CategoricalDistribution(gene.choices)
        if gene.integer:
            return distributions.IntDistribution(int(gene.low), int(gene.high), log=gene.logarithmic)
        return distributions.FloatDistribution(0.0, 1.0)

    def ask(self) -> Trial:
        """Propose the next trial; the first is the start configuration."""
        number = len(self._trials)
        config, kind = (self._draw(number), self.sampler) if number else (self.space.start, "start")
        trial = Trial(number, config, {"kind": kind, "parents": []})
        self._take(trial)
        return trial

    def _take(self, trial: Trial) -> None:
        super().adopt(trial)

    def _draw(self, number: int) -> Config:
        """Ask a study of the whole history."""
        study = self._optuna.create_study(direction="maximize", sampler=self._sampler(number))
        states = self._optuna.trial.TrialState
        study.add_trials(
            self._optuna.trial.create_trial(
                params=self._params(trial.config),
                distributions=self._distributions,
                value=self._told.get(trial.id),
                state=(states.COMPLETE if self._told[trial.id] is not None else states.FAIL)
                if trial.id in self._told
                else states.RUNNING,
            )
            for trial in self._trials
            if not trial.confirms
        )
        return self._ask_study(study)

    def _ask_study(self, study: Any) -> Config:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            drawn = study.ask(self._distributions).params
        decoded = {
            gene.name: drawn[gene.name] if gene.choices or gene.integer else gene.decode(drawn[gene.name])
            for gene in self.space.genes
        }
        return self.space.decode(self.space.encode(decoded))  # resting genes go to their start

    def _params(self, config: Mapping[str, Value]) -> dict[str, Value]:
        return {
            gene.name: gene.check(config[gene.name])
            if gene.choices or gene.integer
            else gene.encode(config[gene.name])
            for gene in self.space.genes
        }

    def settings_dict(self) -> dict[str, Any]:
        """The sampler's name."""
        return {"sampler": self.sampler}

    @classmethod
    def build(cls, space: Space, seed: int, settings: Mapping[str, Any]) -> Self:
        """Build from a header's settings.

        Raises:
            SearchError: there is no such sampler.
        """
        sampler = str(settings["sampler"])
        return cls(space, seed=seed, sampler=sampler)


class ReplayedSearch(SamplerSearch):
    """CMA-ES: its distribution lives in marks that only an ask makes, so that a replay asks it again."""

    def __init__(self, space: Space, seed: int = 0, sampler: str = "cmaes") -> None:
        """Begin a search; see `SamplerSearch`."""
        super().__init__(space, seed, sampler)
        self._study = self._optuna.create_study(direction="maximize")

    def adopt(self, trial: Trial) -> None:
        """Take in a trial asked earlier: the sampler is asked again, and must say the same.

        Raises:
            SearchError: its id is not the next one, or the sampler proposes something else.
            SpaceError: its configuration is none of this space.
        """
        if trial.id == len(self._trials) and not trial.confirms:
            drawn = self._draw(trial.id) if trial.id else self.space.start
            if drawn != self.space.check(trial.config):
                raise SearchError(
                    f"trial {trial.id}: the sampler {self.sampler} proposes {drawn} instead of the journal's "
                    f"{trial.config}: it is of another version, so the run cannot go on"
                )
        self._take(trial)

    def _take(self, trial: Trial) -> None:
        if trial.id == 0 or trial.confirms:
            self._study.enqueue_trial(self._params(trial.config))
            self._draw(trial.id)
        super()._take(trial)

    def _draw(self, number: int) -> Config:
        self._study.sampler = self._sampler(number)
        return self._ask_study(self._study)

    def tell(
        self, trial: int, fitness: float | None, curve: Sequence[float] = (), *, stopped: bool = False
    ) -> None:
        """Tell what a trial was worth; of a stopped one its study keeps what was foretold when it was told.

        Raises:
            SearchError: as `Search.tell`.
        """
        super().tell(trial, fitness, curve, stopped=stopped)
        value = self._told[trial]
        state = self._optuna.trial.TrialState
        self._study.tell(trial, value, state=state.COMPLETE if value is not None else state.FAIL)


def build_sampler(space: Space, seed: int, sampler: str) -> SamplerSearch:
    """A sampler of Optuna by its name.

    Raises:
        SearchError: there is no such sampler, or the seed is negative.
    """
    kind = ReplayedSearch if sampler in ("cmaes", "CmaEsSampler") else SamplerSearch
    return kind(space, seed, sampler)
