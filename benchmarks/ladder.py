"""What a ladder of epochs saves: evolutions with one and without, and the true worth of what each would export.

    python -m benchmarks.ladder run [--seeds 20] [--trials 60] [--problems digits,steady,...] [--rungs 8,20,40]
        [--at-once 8] [--results FILE]
    python -m benchmarks.ladder table [--results FILE]

Trainings (`benchmarks.ladder_problems`) are played on a clock of their own, so many at once and an epoch after the
other; the real ledger, journal and search decide. Four evolutions are compared:

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
from collections.abc import Iterator
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import wilcoxon

from benchmarks.ladder_problems import Curve, Problem, build_problem, usual_rungs
from evolve import Journal, RunState, SearchSettings, Space
from evolve.ladder import Ladder
from evolve.ledger import Ledger
from evolve.trainable import Assignment, Outcome

RESULTS = Path(__file__).parent / "data" / "ladder_results.jsonl"
AT_ONCE = 8
FIRST_SEED = 100
SHARE = 1 / 3
RULES = ("full", "ladder", "budget", "fewer")
CLIMBING = ("ladder", "budget")
"""Of them, those with a ladder."""


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
