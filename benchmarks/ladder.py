"""What a ladder of epochs saves: evolutions with one and without, and the true worth of what each would export.

    python -m benchmarks.ladder run [--seeds 20] [--trials 60] [--problems digits,steady,...] [--rungs 8,20,40]
        [--at-once 8] [--results FILE]
    python -m benchmarks.ladder table [--results FILE]

Trainings are played on a clock of their own, so many at once and an epoch after the other; the real ledger, journal
and search decide. `digits` are recorded trainings (`benchmarks.record_digits`), between them regression trees over
all eight epochs at once, with the recorded noise, and rungs at epochs 1 and 3; `digits-3` are the same with one rung,
at epoch 3, where trials can be told apart. The others are made up: in `steady` all trials climb alike, in `crossing`
the genes that make a trial fast at first are not those that make it good, in `late` a third of the genes shows in the
last third of the epochs only, and in `ceiling` two thirds say how fast a trial comes near to a height that the others
set, so that what sets poor trials far apart early hardly matters among good ones. `plateau` is made to go as
trainings on BCCD do (ADR 15), one at a time: few genes matter, fifty whole trials find nearly all, and a ladder with
rungs 4 and 12 of 40 is stuck a little below them, since part of what genes do early is to climb fast. Four
evolutions are compared:

- `full`: so many trials, each trained to its end;
- `ladder`: hopeless trials are stopped, and new ones begun until a third of `full`'s epochs is used up;
- `budget`: the same by `--epoch-budget`, so that the ledger knows what limits the run, and lets more and more go on;
- `fewer`: the same third of the epochs, spent on whole trials.

Seeds begin at 100: rules were chosen while looking at lower ones. `regret` is 0 for the optimum and 1 for the
median random configuration, or the start of `plateau`, of the true fitness after all epochs.
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
RUNGS = {"digits": (1, 3, 8), "digits-3": (3, 8), "plateau": (4, 12, 40)}
MADE_UP = (5, 15, 45)
AT_ONCE = 8
FIRST_SEED = 100
SHARE = 1 / 3
RULES = ("full", "ladder", "budget", "fewer")
CLIMBING = ("ladder", "budget")
"""Of them, those with a ladder."""
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


class Simulation:
    """Trials that train at once, each an epoch after the other; every trial's epochs take their own time."""

    def __init__(
        self,
        ledger: Ledger,
        problem: Problem,
        seed: int,
        most_epochs: float = math.inf,
        at_once: int = AT_ONCE,
    ) -> None:
        self.ledger, self.problem, self.seed, self.most_epochs = ledger, problem, seed, most_epochs
        self.at_once = at_once
        self.epochs = 0
        self.queue: list[tuple[float, int]] = []
        self.curves: dict[int, Curve] = {}
        self.done: dict[int, int] = {}
        self.pace: dict[int, float] = {}

    def run(self) -> None:
        """To the end of the evolution."""
        for _ in range(self.at_once):
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
        "trials": 10 * trials if rule in CLIMBING else trials if rule == "full" else round(SHARE * trials),
        "seed": seed,
        "space": space.to_dict(),
        "search": SearchSettings(replicas=1 if rule in CLIMBING else 3).to_dict(),
        "settings": {"epochs": rungs[-1]},
        "resources": {},
        "provenance": {},
        **({"ladder": Ladder(rungs).to_dict()} if rule in CLIMBING else {}),
        **({"epoch_budget": round(SHARE * trials * rungs[-1])} if rule == "budget" else {}),
    }


def spent(state: RunState) -> dict[str, Any]:
    """Epochs and trials of an evolution, and how many were trained to their end."""
    return {
        "epochs": sum(trial.epochs for trial in state.trials.values()),
        "trials": len(state.trials),
        "whole": len(state.finished),
    }


def play(problem: Problem, rule: str, trials: int, seed: int, at_once: int = AT_ONCE) -> dict[str, Any]:
    """One evolution: its epochs, and the regret of what it would export."""
    most = SHARE * trials * problem.rungs[-1] if rule == "ladder" else math.inf
    with tempfile.TemporaryDirectory() as place, Journal(Path(place) / "journal.jsonl") as journal:
        journal.append(header(rule, trials, seed, problem.space, problem.rungs))
        ledger = Ledger(Path(place), journal)
        Simulation(ledger, problem, seed, most, at_once).run()
        state = ledger.state
    best = state.best() or state.trials[0]
    return {**spent(state), "regret": round(problem.regret(best.config), 5)}


def run(
    problems: list[str],
    seeds: int,
    trials: int,
    results: Path,
    at_once: int = AT_ONCE,
    rungs: tuple[int, ...] | None = None,
) -> None:
    """Play what the file does not hold, and append it; other rungs are the ladder's alone."""
    done = {(*key_of(row), row["seed"], row["rule"]) for row in read(results)}
    for seed, name, rule in product(range(FIRST_SEED, FIRST_SEED + seeds), problems, RULES):
        own = rungs if rungs and rule in CLIMBING else usual_rungs(name)
        row = {"problem": name, "seed": seed, "rule": rule, "asked": trials, "rungs": own, "at_once": at_once}
        if (*key_of(row), seed, rule) not in done:
            row |= play(replace(build_problem(name, seed), rungs=own), rule, trials, seed, at_once)
            with results.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
            print(row, flush=True)


def usual_rungs(name: str) -> tuple[int, ...]:
    """Of a problem's ladder, unless others are asked for."""
    return RUNGS.get(name, MADE_UP)


def key_of(row: dict[str, Any]) -> tuple[str, int, int, tuple[int, ...]]:
    """What was played: (problem, whole trials, how many at once, rungs); the usual last two where a row says none."""
    rungs = row.get("rungs") or usual_rungs(row["problem"])
    return row["problem"], row["asked"], row.get("at_once", AT_ONCE), tuple(rungs)


def read(results: Path) -> list[dict[str, Any]]:
    """The rows of a file, none where there is no file."""
    return [json.loads(line) for line in results.read_text().splitlines()] if results.is_file() else []


def table(results: Path) -> Iterator[str]:
    """Per problem, rule and rungs: epochs against `full`, regret, and how surely it differs from `full`'s."""
    rows = read(results)
    yield (
        "problem | whole trials | at once | rule, rungs | seeds | trials | whole | epochs of full's | mean regret | "
        "Wilcoxon p against full"
    )
    for task in dict.fromkeys(key_of(row)[:3] for row in rows):
        by_rule: dict[tuple[str, tuple[int, ...]], dict[int, dict[str, Any]]] = {}
        for row in (each for each in rows if key_of(each)[:3] == task):
            by_rule.setdefault((row["rule"], key_of(row)[3]), {})[row["seed"]] = row
        common = sorted(set.intersection(*(set(each) for each in by_rule.values())))
        full = by_rule.get(("full", usual_rungs(task[0])))  # not played of all
        for (rule, rungs), found in by_rule.items():
            mine = [found[seed] for seed in common]
            share = p = "–"
            if full is not None:
                share = f"{np.sum([row['epochs'] for row in mine]) / np.sum([full[s]['epochs'] for s in common]):.2f}"
                gaps = [found[seed]["regret"] - full[seed]["regret"] for seed in common]
                p = f"{wilcoxon(gaps).pvalue:.3f}" if any(gaps) else p
            yield (
                f"{' | '.join(map(str, task))} | {rule}{f' {rungs}' if rule in CLIMBING else ''} | {len(common)} | "
                f"{np.mean([row['trials'] for row in mine]):.0f} | "
                f"{np.mean([row['whole'] for row in mine]):.1f} | {share} | "
                f"{np.mean([row['regret'] for row in mine]):.3f} | {p}"
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("what", choices=("run", "table"))
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--trials", type=int, default=60)
    parser.add_argument("--problems", default="digits,digits-3,steady,crossing,late,ceiling")
    parser.add_argument("--at-once", type=int, default=AT_ONCE)
    parser.add_argument("--rungs", help="of the ladder, instead of the problem's: 8,20,40")
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args()
    if options.what == "run":
        problems = options.problems.split(",")
        rungs = Ladder.parse(options.rungs).rungs if options.rungs else None
        run(problems, options.seeds, options.trials, options.results, options.at_once, rungs)
    for line in table(options.results):
        print(line)


if __name__ == "__main__":
    main()
