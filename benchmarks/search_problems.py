"""The problems of the search benchmark: what is searched, what it is truly worth, and how noisy a look at it is.

Every problem is made from a seed that moves its optimum, its rotation and its start. Its value is 1 at the optimum
and 0.5 at the median of random points: `exp(-scale * cost)`. Settings of the search were chosen on the set `develop`;
`report` was run when they stood, and shares no instance with it.
"""

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from beagle.genes import build_space
from evolve import Gene, Space
from trainer.config import Hyperparameters

Points = NDArray[np.float64]
Value = Callable[[Points], float | None]
Cost = Callable[[Points], float]
TABLE = Path(__file__).parent / "data" / "digits.jsonl"


@dataclass(frozen=True)
class Problem:
    """One instance.

    Attributes:
        space: The genes.
        value: True value of an encoded point (D,); None where the trial fails.
        noise: Standard deviation of what a trial sees.
        best: True value of the optimum.
        median: True value of the median random point.
    """

    space: Space
    value: Value
    noise: float
    best: float = 1.0
    median: float = 0.5

    def regret(self, value: float | None) -> float:
        """0 at the optimum, 1 at the median random point; 1 as well for a failure or nothing."""
        return 1.0 if value is None else (self.best - value) / (self.best - self.median)


# --- costs: 0 at offset 0, offsets in [-1, 1] -----------------------------------------------------------------------


def turn(genes: int, rng: np.random.Generator) -> Points:
    """A random orthogonal matrix (D, D)."""
    matrix, triangle = np.linalg.qr(rng.normal(size=(genes, genes)))
    turned: Points = matrix * np.sign(np.diag(triangle))
    return turned


def bowl(genes: int, rng: np.random.Generator, condition: float, *, rotated: bool = False) -> Cost:
    """A quadratic whose curvatures spread over `condition`."""
    scales = rng.permutation(condition ** np.linspace(0, 1, genes))
    axes = turn(genes, rng) if rotated else np.eye(genes)
    return lambda z: float(np.sum(scales * (axes @ z) ** 2))


def _rosenbrock(z: Points) -> float:
    x = 2.0 * z + 1.0
    return float(np.sum(100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2))


def _rastrigin(z: Points) -> float:
    return float(np.sum(z**2 + 0.02 * (1 - np.cos(6 * np.pi * z))))


def _ackley(z: Points) -> float:
    x = 3.0 * z
    far, waves = np.sqrt(np.mean(x**2)), np.mean(np.cos(2 * np.pi * x))
    return float(20 * (1 - np.exp(-0.2 * far)) + math.e - np.exp(waves))


def _griewank(z: Points) -> float:
    x = 10.0 * z
    return float(np.sum(x**2) / 400 - np.prod(np.cos(x / np.sqrt(np.arange(1, len(z) + 1)))) + 1)


def _levy(z: Points) -> float:
    w = 1 + 5.0 * z / 4
    middle = np.sum((w[:-1] - 1) ** 2 * (1 + 10 * np.sin(np.pi * w[:-1] + 1) ** 2))
    return float(np.sin(np.pi * w[0]) ** 2 + middle + (w[-1] - 1) ** 2 * (1 + np.sin(2 * np.pi * w[-1]) ** 2))


def _zakharov(z: Points) -> float:
    tilt = np.sum(0.5 * np.arange(1, len(z) + 1) * z)
    return float(np.sum(z**2) + 0.05 * tilt**2 + 0.001 * tilt**4)


def _schwefel(z: Points) -> float:
    return float(np.sum(np.abs(z)) + np.max(np.abs(z)) * len(z))


def _powers(z: Points) -> float:
    return float(np.sum(np.abs(z) ** (2 + 4 * np.linspace(0, 1, len(z)))))


def _styblinski(z: Points) -> float:
    x = 4.0 * z - 2.903534
    return float(np.sum(x**4 - 16 * x**2 + 5 * x) / 2 + 39.16616570377142 * len(z))


def _salomon(z: Points) -> float:
    r = np.sqrt(np.sum(z**2))
    return float(1 - np.cos(4 * np.pi * r) + 2 * r)


def _dixon(z: Points) -> float:
    x = 2 * z + 2.0 ** (-(1 - 0.5 ** np.arange(len(z))))
    return float((x[0] - 1) ** 2 + np.sum(np.arange(2, len(z) + 1) * (2 * x[1:] ** 2 - x[:-1]) ** 2))


def _plain(cost: Cost) -> Callable[[int, np.random.Generator], Cost]:
    return lambda genes, rng: cost


SHAPES: dict[str, Callable[[int, np.random.Generator], Cost]] = {
    "sphere": lambda d, rng: bowl(d, rng, 1),
    "ellipsoid": lambda d, rng: bowl(d, rng, 1000),
    "turned": lambda d, rng: bowl(d, rng, 100, rotated=True),
    "rosenbrock": _plain(_rosenbrock),
    "rastrigin": _plain(_rastrigin),
    "ackley": _plain(_ackley),
    "griewank": _plain(_griewank),
    "levy": _plain(_levy),
    "zakharov": _plain(_zakharov),
    "schwefel": _plain(_schwefel),
    "powers": _plain(_powers),
    "styblinski": _plain(_styblinski),
    "few": lambda d, rng: bowl(d, rng, 1e4),
    "slant": lambda d, rng: bowl(d, rng, 10, rotated=True),
    "salomon": _plain(_salomon),
    "dixon": _plain(_dixon),
}

# name: shape, genes, where the optimum is, noise
FUNCTIONS: dict[str, tuple[str, int, str, float]] = {
    "sphere-10-start": ("sphere", 10, "start", 0.02),
    "ellipsoid-15-far": ("ellipsoid", 15, "far", 0.01),
    "turned-10-near": ("turned", 10, "near", 0.02),
    "rosenbrock-12-near": ("rosenbrock", 12, "near", 0.02),
    "rastrigin-10-near": ("rastrigin", 10, "near", 0.01),
    "ackley-20-far": ("ackley", 20, "far", 0.02),
    "griewank-12-far": ("griewank", 12, "far", 0.05),
    "levy-18-near": ("levy", 18, "near", 0.05),
    "zakharov-10-far": ("zakharov", 10, "far", 0.01),
    "schwefel-29-near": ("schwefel", 29, "near", 0.02),
    "powers-24-near": ("powers", 24, "near", 0.02),
    "styblinski-14-far": ("styblinski", 14, "far", 0.05),
}
DEVELOP_FUNCTIONS: dict[str, tuple[str, int, str, float]] = {
    "few-20-far": ("few", 20, "far", 0.02),
    "slant-12-near": ("slant", 12, "near", 0.02),
    "slant-20-far": ("slant", 20, "far", 0.05),
    "salomon-10-near": ("salomon", 10, "near", 0.02),
    "dixon-12-far": ("dixon", 12, "far", 0.02),
}
LANDSCAPES = ("table-smooth", "table-correlated", "table-dead", "table-cliff")
REPORT = (*FUNCTIONS, *LANDSCAPES, "digits")
DEVELOP = (*DEVELOP_FUNCTIONS, "table-develop", "table-develop-cliff")


@cache
def build_problem(name: str, seed: int) -> Problem:
    """Make an instance of a problem of `REPORT` or `DEVELOP`."""
    rng = np.random.default_rng([seed, sum(name.encode())])
    if name == "digits":
        return digits()
    if name == "drawn":
        from benchmarks.search_drawn import drawn_problem

        return drawn_problem(seed)
    if name.startswith("table"):
        return landscape(name, rng)
    shape, genes, where, noise = (FUNCTIONS | DEVELOP_FUNCTIONS)[name]
    space = unit_space(genes, rng)
    start = space.encode(space.start)
    if where == "start":
        optimum = start
    elif where == "near":
        optimum = np.clip(np.abs(start + rng.normal(0, 0.15, genes)), 0.02, 0.98)
    else:
        optimum = rng.uniform(0.1, 0.9, genes)
    cost = SHAPES[shape](genes, rng)
    return Problem(space, scaled(lambda unit: cost(unit - optimum), genes, rng), noise)


def scaled(cost: Cost, genes: int, rng: np.random.Generator) -> Value:
    """`exp(-scale * cost)`, 0.5 at the median of random points."""
    scale = math.log(2) / float(np.median([cost(u) for u in rng.random((1000, genes))]))
    return lambda unit: math.exp(-scale * cost(unit))


def unit_space(genes: int, rng: np.random.Generator) -> Space:
    """Genes of four kinds, as a detector has: log rates, fractions, gains, fractions from 0."""
    rows = []
    for i in range(genes):
        low, high, log = ((1e-5, 1e-1, True), (0.0, 1.0, False), (0.2, 4.0, False), (0.0, 0.9, False))[i % 4]
        start = Gene(f"g{i}", low, high, log=log).decode(rng.uniform(0.2, 0.8)) if i % 4 < 3 else 0.0
        rows.append(Gene(f"g{i}", low, high, start=start, log=log))
    return Space(rows)


def landscape(name: str, rng: np.random.Generator) -> Problem:
    """The detector's own genes: a smooth hill with each of the table's troubles.

    Weights of the genes are exponential, so few matter much. Genes that start at 0 have their optimum between 0.05
    and 0.5 of their range, half of them at 0; the others near their start.

    - smooth: no more than that;
    - correlated: a third of the genes pull on each other in pairs, so that only their balance matters;
    - dead: two thirds of the genes do nothing;
    - cliff: trials fail beyond a plane that passes close by the optimum, and every gene matters in pairs.
    """
    space = build_space((), None, Hyperparameters())
    genes = len(space)
    start = space.encode(space.start)
    zero = np.array([gene.start == 0 for gene in space.genes])
    optimum = np.clip(np.abs(start + rng.normal(0, 0.2, genes)), 0.0, 1.0)
    optimum = np.where(zero, rng.uniform(0.05, 0.5, genes) * (rng.random(genes) < 0.5), optimum)
    weights = rng.exponential(1.0, genes)
    if name == "table-dead":
        weights[rng.permutation(genes)[: 2 * genes // 3]] = 0.0
    curve = np.diag(weights)
    if name in ("table-correlated", "table-cliff", "table-develop-cliff"):
        pairs = rng.permutation(genes)[: 2 * (genes // 3)].reshape(-1, 2)
        for i, j in pairs:
            curve[i, j] = curve[j, i] = -0.9 * math.sqrt(weights[i] * weights[j]) * rng.choice([-1, 1])
    value = scaled(lambda unit: float((unit - optimum) @ curve @ (unit - optimum)), genes, rng)
    if not name.endswith("cliff"):
        return Problem(space, value, 0.02)
    wall = rng.exponential(1.0, genes) * (rng.random(genes) < 0.3) + 1e-3
    edge = max(float(wall @ optimum), float(wall @ start)) + 0.02 * float(wall.sum())
    return Problem(space, lambda unit: None if float(wall @ unit) > edge else value(unit), 0.02)


@cache
def digits() -> Problem:
    """Real short trainings on `digits`, between the recorded ones by regression.

    The regression is 200 extremely randomised trees over the genes, encoded (`record_digits` says what was recorded):
    trees assume no smoothness that a Gaussian process would profit from. A landscape of trees has plateaus and small
    steps, as a table of 300 has to have in 12 dimensions. The noise is that of the repeated trainings; the optimum is
    the best that 20,000 draws and hill climbing on the trees found.
    """
    from sklearn.ensemble import ExtraTreesRegressor

    from benchmarks.record_digits import SPACE

    records = [json.loads(line) for line in TABLE.read_text(encoding="utf-8").splitlines()]
    points = np.array([SPACE.encode(record["config"]) for record in records])
    fitness = np.array([record["fitness"] or 0.0 for record in records])
    trees = ExtraTreesRegressor(200, min_samples_leaf=2, random_state=0).fit(points, fitness)
    rng = np.random.default_rng(0)
    drawn = trees.predict(rng.random((20000, len(SPACE))))
    top = points[np.argsort(-fitness)[:50]]
    best, kept = float(trees.predict(top).max()), top
    for step in np.geomspace(0.2, 0.01, 40):
        tried = np.clip(
            kept[rng.integers(len(kept), size=2000)] + rng.normal(0, step, (2000, len(SPACE))), 0, 1
        )
        values = trees.predict(tried)
        kept, best = tried[np.argsort(-values)[:50]], max(best, float(values.max()))
    repeated: dict[str, list[float]] = {}
    for record in records:
        repeated.setdefault(json.dumps(record["config"]), []).append(record["fitness"] or 0.0)
    groups = [np.array(group) for group in repeated.values() if len(group) > 1]
    noise = math.sqrt(np.mean([group.var(ddof=1) for group in groups] or [0.0]))
    table = _Table(trees.estimators_)
    return Problem(SPACE, table.value, noise, best, float(np.median(drawn)))


class _Table:
    """The mean of regression trees at one point, without what a call of a forest costs."""

    def __init__(self, trees: list[object]) -> None:
        self._trees = [tree.tree_ for tree in trees]  # type: ignore[attr-defined]

    def value(self, unit: Points) -> float:
        """Regression at one point (D,)."""
        row = np.asarray(unit, dtype=np.float32)[None]
        return float(np.mean([tree.predict(row)[0, 0] for tree in self._trees]))
