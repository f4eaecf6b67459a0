"""The rivals of the search benchmark, from their published descriptions; no code of theirs but Optuna's own is used.

All see the same encoded genes and begin with the same start configuration. A failed trial is a fitness of 0 to those
that know no failures; Optuna is told of the failure.
"""

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np

from benchmarks.search_problems import Points
from evolve import GeneticSearch, Space
from evolve.samplers import ReplayedSearch, SamplerSearch
from evolve.search_base import Search


class Rule(Protocol):
    """A search."""

    def ask(self) -> tuple[int, Points]:
        """The next trial's number, and its point (D,), encoded."""

    def tell(self, trial: int, fitness: float | None) -> None:
        """What a trial was worth; None is a failure."""

    def export(self) -> int:
        """The trial whose configuration it would hand on now; -1 while all failed."""


class Memory:
    """What the rivals share: points asked, and fitnesses told, a failure as 0; the best seen is exported."""

    def __init__(self, space: Space, seed: int) -> None:
        self.space, self.rng = space, np.random.default_rng(seed)
        self.asked: list[Points] = []
        self.fitness: dict[int, float] = {}

    def ask(self) -> tuple[int, Points]:
        """Draw a point, the first time the start, as a configuration rounds it."""
        point = self.draw() if self.asked else self.space.encode(self.space.start)
        self.asked.append(self.space.encode(self.space.decode(point)))
        return len(self.asked) - 1, self.asked[-1]

    def tell(self, trial: int, fitness: float | None) -> None:
        """Remember."""
        self.fitness[trial] = 0.0 if fitness is None else fitness

    def export(self) -> int:
        """The trial that looked best."""
        return max(self.fitness, key=lambda trial: self.fitness[trial], default=-1)

    def draw(self) -> Points:
        """Draw the next point from what was told: the rule."""
        raise NotImplementedError

    def best(self, count: int, among: Sequence[int] | None = None) -> tuple[Points, Points]:
        """The `count` fittest points (count, D) and their weights, fitness above the least of them."""
        known = sorted(self.fitness if among is None else among, key=lambda trial: -self.fitness[trial])
        chosen = known[:count] or [0]
        fitness = np.array([self.fitness.get(trial, 0.0) for trial in chosen])
        weights = fitness - fitness.min() + 1e-6
        return np.array([self.asked[trial] for trial in chosen]), weights / weights.sum()


class Random(Memory):
    """Uniform in the encoded space, after the start."""

    def draw(self) -> Points:
        """Draw uniformly."""
        return self.rng.random(len(self.space))


class PublishedV7(Memory):
    """YOLOv5 v7.0: one of the five best, its values multiplied by factors about 1."""

    def draw(self) -> Points:
        """Mutate one of the five best in natural units."""
        elite, weights = self.best(5)
        config = self.space.decode(elite[self.rng.choice(len(elite), p=weights)])
        factors = np.ones(len(self.space))
        while np.all(factors == 1):
            chosen = self.rng.random(len(self.space)) < 0.8
            steps = chosen * self.rng.normal(size=len(self.space)) * self.rng.random() * 0.2
            factors = np.clip(1 + steps, 0.3, 3.0)
        mutant = {
            gene.name: min(max(round(float(config[gene.name]) * factor, 5), gene.low), gene.high)
            for gene, factor in zip(self.space.genes, factors.tolist(), strict=True)
        }
        return self.space.encode(mutant)


class Ultralytics(Memory):
    """Ultralytics 8.4: one of the nine best, half its genes moved by 0.2; later draws from the elite's normal."""

    def draw(self) -> Points:
        """Mutate one of the nine best in the encoded space, or sample the elite."""
        genes, told = len(self.space), len(self.fitness)
        if told >= 30 and self.rng.random() < min(0.4, 0.4 * (told - 29) / 30):
            elite, _ = self.best(min(30, max(3, told // 5)))
            covariance = np.cov(elite, rowvar=False) + 1e-6 * np.eye(genes)
            sample: Points = self.rng.multivariate_normal(elite.mean(axis=0), covariance)
            return np.clip(sample, 0, 1)
        elite, weights = self.best(9)
        point = elite[self.rng.choice(len(elite), p=weights)]
        stall = told - 1 - self.export() if told else 0
        step = 0.2 * (0.8 if stall >= 25 else 1.0)
        mask = self.rng.random(genes) < 0.5
        mask[self.rng.integers(genes)] |= not mask.any()
        moved: Points = point + mask * self.rng.normal(0, step, genes)
        return np.clip(moved, 0, 1)


class Generational(Memory):
    """50 a generation: tournaments of three, uniform crossover, steps of up to 0.1 in the genes' own units.

    The first generation is the start and 49 uniform draws. A generation is bred from the one before it, as far as it
    was told.
    """

    size = 50

    def draw(self) -> Points:
        """Breed one of the next generation."""
        generation = len(self.asked) // self.size
        if generation == 0:
            return self.rng.random(len(self.space))
        known = [t for t in range((generation - 1) * self.size, generation * self.size) if t in self.fitness]
        mother, father = self._parent(known), self._parent(known)
        child = np.where(self.rng.random(len(self.space)) < 0.5, mother, father)
        config = self.space.decode(child)
        mask = self.rng.random(len(self.space)) < 0.5
        steps = (mask * self.rng.uniform(-0.1, 0.1, len(self.space))).tolist()
        return self.space.encode(
            {
                gene.name: min(max(float(config[gene.name]) + step, gene.low), gene.high)
                for gene, step in zip(self.space.genes, steps, strict=True)
            }
        )

    def _parent(self, known: list[int]) -> Points:
        tournament = self.rng.choice(known, size=3)
        return self.asked[max(tournament.tolist(), key=lambda trial: self.fitness[trial])]


class Asked:
    """A search of this program, ours or a sampler of Optuna."""

    def __init__(self, search: Search) -> None:
        self.search = search

    def ask(self) -> tuple[int, Points]:
        """Ask for one trial."""
        trial = self.search.ask()
        return trial.id, self.search.space.encode(trial.config)

    def tell(self, trial: int, fitness: float | None) -> None:
        """Tell it."""
        self.search.tell(trial, fitness)

    def export(self) -> int:
        """What `best` says: ours by the lower bound, a sampler of Optuna by the best seen."""
        best = self.search.best()
        return -1 if best is None else best.trial.id


RULES: dict[str, Callable[[Space, int], Rule]] = {
    "random": Random,
    "v7.0": PublishedV7,
    "ga-50": Generational,
    "ultralytics": Ultralytics,
    "tpe": lambda space, seed: Asked(SamplerSearch(space, seed, "tpe")),
    "cmaes": lambda space, seed: Asked(ReplayedSearch(space, seed)),
    "gp": lambda space, seed: Asked(SamplerSearch(space, seed, "gp")),
    "beagle": lambda space, seed: Asked(GeneticSearch(space, seed=seed)),
}
