"""What a ladder of epochs saves: evolutions with one and without, and the true worth of what each would export.

    python -m benchmarks.ladder run [--seeds 20] [--trials 60] [--problems digits,steady,...] [--results FILE]
    python -m benchmarks.ladder table [--results FILE]

Trainings are played on a clock of their own, eight at once and an epoch after the other; the real ledger, journal and
search decide. `digits` are recorded trainings (`benchmarks.record_digits`), between them regression trees over all
eight epochs at once, with the recorded noise, and rungs at epochs 1 and 3; `digits-3` are the same with one rung, at
epoch 3, where trials can be told apart. The others are made up: in `steady` all trials climb alike, in
`crossing` the genes that make a trial fast at first are not those that make it good, in `late` a third of the genes
shows in the last third of the epochs only, and in `ceiling` two thirds say how fast a trial comes near to a height
that the others set, so that what sets poor trials far apart early hardly matters among good ones. Three evolutions
are compared:

- `full`: so many trials, each trained to its end;
- `ladder`: hopeless trials are stopped, and new ones begun until a third of `full`'s epochs is used up;
- `fewer`: the same third of the epochs, spent on whole trials.

Seeds begin at 100: rules were chosen while looking at seeds 0 to 5. `regret` is 0 for the optimum and 1 for the
median random configuration, of the true fitness after all epochs.
"""

import argparse
import heapq
import json
import math
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import wilcoxon

from evolve import Gene, Journal, RunState, SearchSettings, Space
from evolve.ladder import Ladder
from evolve.ledger import Ledger
from evolve.trainable import Assignment, Outcome

RESULTS = Path(__file__).parent / "data" / "ladder_results.jsonl"
RUNGS = {"digits": (1, 3, 8), "digits-3": (3, 8)}
MADE_UP = (5, 15, 45)
AT_ONCE = 8
FIRST_SEED = 100
SHARE = 1 / 3
RULES = ("full", "ladder", "fewer")
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


def build_problem(name: str, seed: int) -> Problem:
    """A problem by its name; the made-up ones are another at each seed."""
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


class Simulation:
    """Trials that train at once, each an epoch after the other; every trial's epochs take their own time."""

    def __init__(self, ledger: Ledger, problem: Problem, seed: int, most_epochs: float = math.inf) -> None:
        self.ledger, self.problem, self.seed, self.most_epochs = ledger, problem, seed, most_epochs
        self.epochs = 0
        self.queue: list[tuple[float, int]] = []
        self.curves: dict[int, Curve] = {}
        self.done: dict[int, int] = {}
        self.pace: dict[int, float] = {}

    def run(self) -> None:
        """To the end of the evolution."""
        for _ in range(AT_ONCE):
            self.hand_out(0.0)
        while self.queue:
            now, number = heapq.heappop(self.queue)
            epoch, curve = self.done[number], self.curves[number]
            goes_on = self.ledger.reported(number, epoch, {"fitness": float(curve[epoch])})
            self.done[number] += 1
            self.epochs += 1
            if goes_on and epoch + 1 < len(curve):
                heapq.heappush(self.queue, (now + self.pace[number], number))
                continue
            if goes_on:
                self.ledger.ended(number, Outcome(float(curve.max()), {"fitness": float(curve.max())}))
            self.hand_out(now)

    def hand_out(self, now: float) -> None:
        """An idle worker gets a trial, if there is one."""
        # Those under way will use some more: as many each as a trial has used so far.
        each = self.epochs / max(self.ledger.state.told, 1)
        if self.epochs + len(self.queue) * each >= self.most_epochs:
            return
        assignment: Assignment | None = self.ledger.next_assignment()
        if assignment is None:
            return
        number = assignment.trial
        rng = np.random.default_rng([self.seed, number])
        truth = self.problem.curve(self.problem.space.encode(assignment.config))
        self.curves[number] = np.maximum(truth + self.problem.noise(rng), 0.0)
        self.done[number], self.pace[number] = 0, float(rng.lognormal(0, 0.3))
        heapq.heappush(self.queue, (now + self.pace[number], number))


def header(rule: str, trials: int, seed: int, space: Space, rungs: tuple[int, ...]) -> dict[str, Any]:
    """The first event of an evolution's journal."""
    return {
        "event": "run",
        "version": 1,
        "name": "ladder",
        "trials": 10 * trials if rule == "ladder" else trials if rule == "full" else round(SHARE * trials),
        "seed": seed,
        "space": space.to_dict(),
        "search": SearchSettings(replicas=1 if rule == "ladder" else 3).to_dict(),
        "settings": {"epochs": rungs[-1]},
        "resources": {},
        "provenance": {},
        **({"ladder": Ladder(rungs).to_dict()} if rule == "ladder" else {}),
    }


def spent(state: RunState) -> dict[str, Any]:
    """Epochs and trials of an evolution, and how many were trained to their end."""
    return {
        "epochs": sum(trial.epochs for trial in state.trials.values()),
        "trials": len(state.trials),
        "whole": len(state.finished),
    }


def play(problem: Problem, rule: str, trials: int, seed: int) -> dict[str, Any]:
    """One evolution: its epochs, and the regret of what it would export."""
    most = math.inf if rule == "full" else SHARE * trials * problem.rungs[-1]
    with tempfile.TemporaryDirectory() as place, Journal(Path(place) / "journal.jsonl") as journal:
        journal.append(header(rule, trials, seed, problem.space, problem.rungs))
        ledger = Ledger(Path(place), journal)
        Simulation(ledger, problem, seed, most).run()
        state = ledger.state
    best = state.best() or state.trials[0]
    return {**spent(state), "regret": round(problem.regret(best.config), 5)}


def run(problems: list[str], seeds: int, trials: int, results: Path) -> None:
    """Play what the file does not hold, and append it."""
    done = {(row["problem"], row["seed"], row["rule"]) for row in read(results) if row["asked"] == trials}
    for seed, name, rule in product(range(FIRST_SEED, FIRST_SEED + seeds), problems, RULES):
        if (name, seed, rule) not in done:
            found = play(build_problem(name, seed), rule, trials, seed)
            row = {"problem": name, "seed": seed, "rule": rule, "asked": trials, **found}
            with results.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
            print(row, flush=True)


def read(results: Path) -> list[dict[str, Any]]:
    """The rows of a file, none where there is no file."""
    return [json.loads(line) for line in results.read_text().splitlines()] if results.is_file() else []


def table(results: Path) -> Iterator[str]:
    """Per problem and rule: epochs against `full`, regret, and how surely it differs from `full`'s."""
    rows = read(results)
    yield "problem | rule | seeds | trials | whole | epochs of full's | mean regret | Wilcoxon p against full"
    for name in dict.fromkeys(row["problem"] for row in rows):
        by_rule = {
            rule: {row["seed"]: row for row in rows if (row["problem"], row["rule"]) == (name, rule)}
            for rule in RULES
        }
        common = sorted(set.intersection(*(set(each) for each in by_rule.values())))
        full = [by_rule["full"][seed] for seed in common]
        for rule, found in by_rule.items():
            mine = [found[seed] for seed in common]
            share = np.sum([row["epochs"] for row in mine]) / np.sum([row["epochs"] for row in full])
            gaps = [a["regret"] - b["regret"] for a, b in zip(mine, full, strict=True)]
            p = f"{wilcoxon(gaps).pvalue:.3f}" if any(gaps) else "–"
            yield (
                f"{name} | {rule} | {len(common)} | {np.mean([row['trials'] for row in mine]):.0f} | "
                f"{np.mean([row['whole'] for row in mine]):.1f} | {share:.2f} | "
                f"{np.mean([row['regret'] for row in mine]):.3f} | {p}"
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("what", choices=("run", "table"))
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--trials", type=int, default=60)
    parser.add_argument("--problems", default="digits,digits-3,steady,crossing,late,ceiling")
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args()
    if options.what == "run":
        run(options.problems.split(","), options.seeds, options.trials, options.results)
    for line in table(options.results):
        print(line)


if __name__ == "__main__":
    main()
