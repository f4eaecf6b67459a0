"""Regret of the genetic search on synthetic landscapes, beside the rules it is meant to replace.

    python benchmarks/search_synthetic.py [--trials 100] [--seeds 5]

Every landscape has one optimum of value 1 in the encoded space [0, 1]^D and the value 0.5 at the median of random
points; a trial sees its value with normal noise of 0.01. After the trials, a search exports the configuration that
looked best, and is charged for its true value: regret = (1 - value) / 0.5, so 0 is the optimum and 1 the median
random point. All searches see the same landscapes from the same start, of which a quarter of the genes is 0.

Rivals, from their published description (no code of theirs is used): `v7.0` is YOLOv5's mutation, multiplicative
in natural units; `ultralytics` is the mutation and elite sampling of Ultralytics 8.4, given our encoded space. For
both a failed trial is a fitness of 0.
"""

import argparse
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from evolve import Gene, GeneticSearch, Space

Points = NDArray[np.float64]
Config = dict[str, float | int]
NOISE = 0.01


@dataclass(frozen=True)
class Landscape:
    """A problem: its space, and the true value of an encoded point (None where the trial fails)."""

    space: Space
    value: Callable[[Points], float | None]


def build_space(genes: int, rng: np.random.Generator) -> Space:
    """Genes of four kinds, as a detector has: log rates, fractions, gains, fractions from 0."""
    rows = []
    for i in range(genes):
        low, high, log = ((1e-5, 1e-1, True), (0.0, 1.0, False), (0.2, 4.0, False), (0.0, 0.9, False))[i % 4]
        gene = Gene(f"g{i}", low, high, log=log)
        rows.append(
            Gene(f"g{i}", low, high, start=gene.decode(rng.uniform(0.2, 0.8)) if i % 4 < 3 else 0.0, log=log)
        )
    return Space(rows)


def rotation(genes: int, rng: np.random.Generator) -> Points:
    """A random orthogonal matrix (D, D)."""
    matrix, triangle = np.linalg.qr(rng.normal(size=(genes, genes)))
    turned: Points = matrix * np.sign(np.diag(triangle))
    return turned


def quadratic(
    genes: int, rng: np.random.Generator, condition: float, *, rotated: bool
) -> Callable[[Points], float]:
    """A bowl whose axes' curvatures spread over `condition`, along the genes or turned against them."""
    scales = rng.permutation(condition ** np.linspace(0, 1, genes))
    turn = rotation(genes, rng) if rotated else np.eye(genes)
    return lambda offset: float(np.sum(scales * (turn @ offset) ** 2))


def rosenbrock(offset: Points) -> float:
    """A bent valley; the optimum at offset 0."""
    z = 2.0 * offset + 1.0
    return float(np.sum(100 * (z[1:] - z[:-1] ** 2) ** 2 + (1 - z[:-1]) ** 2))


def rastrigin(offset: Points) -> float:
    """A bowl with waves: some three dips across each gene."""
    return float(np.sum(offset**2 + 0.02 * (1 - np.cos(6 * np.pi * offset))))


def ackley(offset: Points) -> float:
    """Almost flat far out, steep and waved near the optimum."""
    z = 3.0 * offset
    bowl, waves = np.sqrt(np.mean(z**2)), np.mean(np.cos(2 * np.pi * z))
    return float(20 * (1 - np.exp(-0.2 * bowl)) + math.e - np.exp(waves))


def build_landscape(name: str, seed: int) -> Landscape:
    """Make the landscape `name` of LANDSCAPES; the seed moves start, optimum and rotation."""
    shape, genes, near = LANDSCAPES[name]
    rng = np.random.default_rng([seed, genes, len(name)])
    space = build_space(genes, rng)
    start = space.encode(space.start)
    if near:
        optimum = np.clip(np.abs(start + rng.normal(0, 0.15, genes)), 0.02, 0.98)
    else:
        optimum = rng.uniform(0.1, 0.9, genes)
    costs: dict[str, Callable[[Points], float]] = {
        "bowl": quadratic(genes, rng, 10, rotated=False),
        "rotated": quadratic(genes, rng, 100, rotated=True),
        "few": quadratic(genes, rng, 1e4, rotated=False),
        "rosenbrock": rosenbrock,
        "rastrigin": rastrigin,
        "ackley": ackley,
        "cliff": quadratic(genes, rng, 10, rotated=False),
    }
    cost = costs[shape]
    scale = math.log(2) / float(np.median([cost(u - optimum) for u in rng.random((2000, genes))]))
    wall = np.abs(rng.normal(size=genes))
    edge = max(float(wall @ optimum) + 0.03 * float(wall.sum()), float(wall @ start) + 1e-9)

    def value(unit: Points) -> float | None:
        if shape == "cliff" and float(wall @ unit) > edge:
            return None
        return math.exp(-scale * cost(unit - optimum))

    return Landscape(space, value)


# name: shape, genes, whether the optimum is near the start
LANDSCAPES: dict[str, tuple[str, int, bool]] = {
    "bowl-7-far": ("bowl", 7, False),
    "bowl-12-near": ("bowl", 12, True),
    "bowl-20-far": ("bowl", 20, False),
    "few-20-far": ("few", 20, False),
    "rotated-7-far": ("rotated", 7, False),
    "rotated-12-near": ("rotated", 12, True),
    "rosenbrock-8-far": ("rosenbrock", 8, False),
    "rastrigin-7-far": ("rastrigin", 7, False),
    "rastrigin-12-near": ("rastrigin", 12, True),
    "ackley-10-far": ("ackley", 10, False),
    "cliff-20-near": ("cliff", 20, True),
    "cliff-8-far": ("cliff", 8, False),
}


class Rule(Protocol):
    """A search: told what each proposal was worth, one after the other."""

    def propose(self) -> Points:
        """Give the next point, encoded."""

    def tell(self, fitness: float | None) -> None:
        """Take the fitness of that point; None is a failure."""


class Ours:
    """Beagle's own search."""

    def __init__(self, space: Space, seed: int) -> None:
        self.search = GeneticSearch(space, seed=seed)

    def propose(self) -> Points:
        """Ask for one trial."""
        self.trial = self.search.ask()
        return self.search.space.encode(self.trial.config)

    def tell(self, fitness: float | None) -> None:
        """Tell the trial asked last."""
        self.search.tell(self.trial.id, fitness)


class Memory:
    """What the rivals share: all points and fitnesses so far, a failure as 0."""

    def __init__(self, space: Space, seed: int) -> None:
        self.space, self.rng = space, np.random.default_rng(seed)
        self.points: list[Points] = []
        self.fitness: list[float] = []

    def propose(self) -> Points:
        """Draw a point, the first time the start, as a configuration rounds it."""
        point = self.draw() if self.points else self.space.encode(self.space.start)
        point = self.space.encode(self.space.decode(point))
        self.points.append(point)
        return point

    def tell(self, fitness: float | None) -> None:
        """Remember the fitness of the newest point."""
        self.fitness.append(0.0 if fitness is None else fitness)

    def draw(self) -> Points:
        """Draw the next point from what is remembered: the rule."""
        raise NotImplementedError

    def best(self, count: int) -> tuple[Points, Points]:
        """The `count` fittest points (count, D) and their weights, fitness above the least of them."""
        order = np.argsort(self.fitness, kind="stable")[::-1][:count]
        fitness = np.array(self.fitness)[order]
        weights = fitness - fitness.min() + 1e-6
        return np.array(self.points)[order], weights / weights.sum()


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
            gene.name: min(max(round(config[gene.name] * factor, 5), gene.low), gene.high)
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
        stall = told - 1 - int(np.argmax(self.fitness))
        step = 0.2 * (0.8 if stall >= 25 else 1.0)
        mask = self.rng.random(genes) < 0.5
        mask[self.rng.integers(genes)] |= not mask.any()
        moved: Points = point + mask * self.rng.normal(0, step, genes)
        return np.clip(moved, 0, 1)


RULES: dict[str, Callable[[Space, int], Rule]] = {
    "random": Random,
    "v7.0": PublishedV7,
    "ultralytics": Ultralytics,
    "beagle": Ours,
}


def regret(rule: Rule, landscape: Landscape, trials: int, seed: int) -> float:
    """Run one search to its end, and charge it for the true value of what it exports."""
    noise = np.random.default_rng([seed, 99]).normal(0, NOISE, trials)
    seen_best, true_best = -math.inf, 0.0
    for error in noise:
        value = landscape.value(rule.propose())
        rule.tell(None if value is None else value + float(error))
        if value is not None and value + error > seen_best:
            seen_best, true_best = value + float(error), value
    return (1 - true_best) / 0.5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--trials", type=int, default=100)
    parser.add_argument("--seeds", type=int, default=5)
    options = parser.parse_args()
    print(
        f"mean regret after {options.trials} trials, {options.seeds} seeds (0 optimum, 1 median random point)\n"
    )
    print("| landscape | " + " | ".join(RULES) + " |\n|---|" + "---|" * len(RULES))
    rows = []
    for name in LANDSCAPES:
        seeds = range(options.seeds)
        landscapes = [build_landscape(name, seed) for seed in seeds]
        row = [
            float(
                np.mean(
                    [regret(build(landscapes[s].space, s), landscapes[s], options.trials, s) for s in seeds]
                )
            )
            for build in RULES.values()
        ]
        rows.append(row)
        print(f"| {name} | " + " | ".join(f"{cell:.3f}" for cell in row) + " |", flush=True)
    print("| **mean** | " + " | ".join(f"**{cell:.3f}**" for cell in np.mean(rows, axis=0)) + " |")


if __name__ == "__main__":
    main()
