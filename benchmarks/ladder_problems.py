"""Trainings that `benchmarks.ladder` plays: fitness after each epoch, of a point of the genes.

`digits` are recorded trainings (`benchmarks.record_digits`), between them regression trees over all eight epochs at
once, with the recorded noise, and rungs at epochs 1 and 3; `digits-3` are the same with one rung, at epoch 3, where
trials can be told apart. The others are made up: in `steady` all trials climb alike, in `crossing` the genes that
make a trial fast at first are not those that make it good, in `late` a third of the genes shows in the last third of
the epochs only, and in `ceiling` two thirds say how fast a trial comes near to a height that the others set, so that
what sets poor trials far apart early hardly matters among good ones. `plateau` is made to go as trainings on BCCD do
(ADR 15), one at a time: few genes matter, fifty whole trials find nearly all, and a ladder with rungs 4 and 12 of 40
is stuck a little below them, since part of what genes do early is to climb fast.
"""

import json
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evolve import Gene, Space

RUNGS = {"digits": (1, 3, 8), "digits-3": (3, 8), "plateau": (4, 12, 40)}
MADE_UP = (5, 15, 45)
Curve = NDArray[np.float64]


@dataclass(frozen=True)
class Problem:
    """Trainings to be played.

    Attributes:
        space: the genes.
        curve: true fitness after each epoch, of a point (D,).
        noise: of one training, per epoch; drawn from a generator.
        best: the highest true fitness.
        usual: the median of random points.
        rungs: of the ladder.
    """

    space: Space
    curve: Callable[[NDArray[np.float64]], Curve]
    noise: Callable[[np.random.Generator], Curve]
    best: float
    usual: float
    rungs: tuple[int, ...]

    def regret(self, config: dict[str, Any]) -> float:
        """Of a configuration's true fitness."""
        value = float(self.curve(self.space.encode(config)).max())
        return (self.best - value) / (self.best - self.usual)


def usual_rungs(name: str) -> tuple[int, ...]:
    """Of a problem's ladder, unless others are asked for."""
    return RUNGS.get(name, MADE_UP)


def build_problem(name: str, seed: int) -> Problem:
    """A problem by its name; the made-up ones are another at each seed."""
    if name == "plateau":
        return plateau(seed)
    return replace(digits(), rungs=RUNGS[name]) if name in RUNGS else made_up(name, seed)


@cache
def digits() -> Problem:
    """Recorded trainings and what lies between them."""
    from sklearn.ensemble import ExtraTreesRegressor

    from benchmarks.record_digits import SPACE, read

    records = read(Path(__file__).parent / "data" / "digits.jsonl")
    records = [each for each in records if each["fitness"] is not None and len(each["history"]) == 8]
    points = np.array([SPACE.encode(each["config"]) for each in records])
    histories = np.array([each["history"] for each in records])
    trees = ExtraTreesRegressor(100, min_samples_leaf=2, random_state=0).fit(points, histories)
    forest = [tree.tree_ for tree in trees.estimators_]
    groups: dict[str, list[Curve]] = {}
    for record, history in zip(records, histories, strict=True):
        groups.setdefault(json.dumps(record["config"]), []).append(history)
    left = np.vstack([np.array(g) - np.mean(g, 0) for g in groups.values() if len(g) > 2])

    def curve(unit: NDArray[np.float64]) -> Curve:
        row = np.asarray(unit, dtype=np.float32)[None]
        return np.mean([tree.predict(row)[0, :, 0] for tree in forest], axis=0)

    rng = np.random.default_rng(0)
    drawn = trees.predict(rng.random((5000, len(SPACE)))).max(axis=1)
    kept = points[np.argsort(-histories.max(axis=1))[:50]]
    best = trees.predict(kept).max(axis=1)
    for step in np.geomspace(0.2, 0.01, 40):
        tried = np.clip(
            kept[rng.integers(len(kept), size=2000)] + rng.normal(0, step, (2000, len(SPACE))), 0, 1
        )
        values = trees.predict(tried).max(axis=1)
        kept, best = tried[np.argsort(-values)[:50]], np.append(best, values.max())
    return Problem(
        SPACE,
        curve,
        lambda rng: left[rng.integers(len(left))],
        float(best.max()),
        float(np.median(drawn)),
        RUNGS["digits"],
    )


def made_up(name: str, seed: int) -> Problem:
    """Twelve genes: a hill for the height, and a rate of climbing from what the name says."""
    rng = np.random.default_rng([seed, sum(name.encode())])
    genes, epochs = 12, MADE_UP[-1]
    space = Space([Gene(f"g{number}", 0, 1, start=float(rng.uniform(0.2, 0.8))) for number in range(genes)])
    optimum, weights = rng.uniform(0.1, 0.9, genes), rng.exponential(1.0, genes)
    fast = rng.normal(0, 1, genes) * (rng.random(genes) < 0.4)
    late = np.arange(genes) < genes // 3
    time = np.arange(1, epochs + 1) / epochs

    def hill(unit: NDArray[np.float64], which: NDArray[np.bool_]) -> float:
        return math.exp(-1.5 * float((weights * (unit - optimum) ** 2)[which].sum()))

    def curve(unit: NDArray[np.float64]) -> Curve:
        if name == "late":
            early, whole = hill(unit, ~late), hill(unit, late)
            return early * (1 - np.exp(-4 * time)) * (1 - (1 - whole) * np.clip(3 * time - 2, 0, 1))
        if name == "ceiling":
            climbs, height = hill(unit, ~late), hill(unit, late)
            return (0.7 + 0.3 * height) * (1 - np.exp(-(1 + 23 * climbs) * time))
        rate = 4.0 * math.exp(1.2 * float(fast @ (unit - optimum))) if name == "crossing" else 4.0
        return hill(unit, late | ~late) * (1 - np.exp(-min(max(rate, 1.0), 16.0) * time))

    drawn = [float(curve(unit).max()) for unit in rng.random((1000, genes))]
    around = np.clip(optimum + rng.normal(0, 0.1, (4000, genes)), 0, 1)
    best = max(float(curve(unit).max()) for unit in [optimum, *around])

    def noise(generator: np.random.Generator) -> Curve:
        # A training's own luck, and the flicker of its evaluations.
        return 0.015 * generator.normal() + 0.008 * generator.normal(size=epochs)

    return Problem(space, curve, noise, best, float(np.median(drawn)), MADE_UP)


def plateau(seed: int) -> Problem:
    """Twelve genes, few of which matter much: a hill for the height, and beside its top another one for the speed.

    Heights, noise and how many whole trials find how much are those of `benchmarks.ladder_trained` on BCCD.
    """
    rng = np.random.default_rng([seed, sum(b"plateau")])
    genes, rungs, best, first = 12, RUNGS["plateau"], 0.49, 0.302
    start, optimum = rng.uniform(0.2, 0.8, genes), rng.uniform(0.15, 0.85, genes)
    space = Space([Gene(f"g{number}", 0, 1, start=float(each)) for number, each in enumerate(start)])
    weights = rng.exponential(1.0, genes) ** 2
    weights *= -math.log(first / best) / float(weights @ (start - optimum) ** 2)
    fastest = np.clip(optimum + rng.normal(0, 0.35, genes), 0, 1)
    haste = weights * rng.exponential(1.0, genes)
    time = np.arange(1, rungs[-1] + 1) / rungs[-1]

    def curve(unit: NDArray[np.float64]) -> Curve:
        height = best * math.exp(-float(weights @ (unit - optimum) ** 2))
        rate = 2.0 + 6.0 * math.exp(-float(haste @ (unit - fastest) ** 2))
        return height * (1 - np.exp(-rate * time)) / (1 - math.exp(-rate))

    def noise(generator: np.random.Generator) -> Curve:
        luck, early, late = generator.normal(), *generator.normal(size=(2, len(time)))
        return 0.008 * luck * time + 0.006 * early * (1 - time) + 0.003 * late

    return Problem(space, curve, noise, best, first, rungs)
