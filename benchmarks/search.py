"""The genetic search beside its rivals: equal budgets, and the true value of what each would export.

    python -m benchmarks.search run --seeds 20 [--rules beagle,tpe] [--problems develop|report|NAME,...]
        [--at-once 1,16] [--budget 300] [--results FILE]
    python -m benchmarks.search table [--results FILE]

`run` appends one line of JSON per cell (problem, rule, trials at once, seed) and leaves out cells that stand there
already, so it can be stopped and goes on. `table` prints what the file holds: mean rank (over the cells that all
rules of the row have), mean regret (0 the optimum, 1 the median random point), and for every rule a Wilcoxon
signed-rank test of its regret against ours, paired by problem and seed, with a one-sided p of ours being lower.

With 16 at once trials take random times (log-normal, sigma 0.4), so they end out of order, and 16 are always open.
"""

import argparse
import heapq
import json
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import rankdata, wilcoxon

from benchmarks.search_problems import DEVELOP, REPORT, Problem, build_problem
from benchmarks.search_rivals import RULES, Rule

BUDGETS = (50, 100, 300)
RESULTS = Path(__file__).parent / "data" / "search_results.jsonl"
Cell = tuple[str, str, int, int]


def play(
    rule: Rule, problem: Problem, budget: int, at_once: int, seed: int
) -> tuple[dict[str, float], float]:
    """Run one search.

    Returns:
        (regret of what it would export after each budget, the longest ask in seconds)
    """
    rng = np.random.default_rng([seed, 99])
    noise, times = rng.normal(0, problem.noise, budget), rng.lognormal(0, 0.4, budget)
    truth: list[float | None] = []
    waiting: list[tuple[float, int]] = []  # (when it ends, trial)
    now, slowest, regret = 0.0, 0.0, {}
    for told in range(1, budget + 1):
        while len(waiting) < at_once and len(truth) < budget:
            begin = time.perf_counter()
            trial, point = rule.ask()
            slowest = max(slowest, time.perf_counter() - begin)
            truth.append(problem.value(point))
            heapq.heappush(waiting, (now + float(times[trial]), trial))
        now, trial = heapq.heappop(waiting)
        value = truth[trial]
        rule.tell(trial, None if value is None else value + float(noise[trial]))
        if told in BUDGETS:
            exported = rule.export()
            regret[str(told)] = round(problem.regret(truth[exported] if exported >= 0 else None), 5)
    return regret, slowest


def run(cells: Iterable[Cell], budget: int, results: Path) -> None:
    """Play the cells that the file does not hold, and append them."""
    last = str(max(each for each in BUDGETS if each <= budget))
    done = {
        (row["problem"], row["rule"], row["at_once"], row["seed"])
        for row in read(results)
        if last in row["regret"]
    }
    for name, rule_name, at_once, seed in cells:
        if (name, rule_name, at_once, seed) in done:
            continue
        begin = time.process_time()
        problem = build_problem(name, seed)
        regret, slowest = play(RULES[rule_name](problem.space, seed), problem, budget, at_once, seed)
        row = {"problem": name, "rule": rule_name, "at_once": at_once, "seed": seed, "regret": regret}
        row |= {"slowest_ask": round(slowest, 3), "cpu": round(time.process_time() - begin, 2)}
        with results.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")


def read(results: Path) -> list[dict[str, Any]]:
    """The rows of a file, none where there is no file."""
    if not results.is_file():
        return []
    return [json.loads(line) for line in results.read_text(encoding="utf-8").splitlines()]


def tables(rows: list[dict[str, Any]]) -> Iterator[str]:
    """Markdown, line by line."""
    for at_once in sorted({row["at_once"] for row in rows}):
        for budget in BUDGETS:
            chosen = {
                (row["rule"], row["problem"], row["seed"]): row["regret"][str(budget)]
                for row in rows
                if row["at_once"] == at_once and str(budget) in row["regret"]
            }
            rules = [rule for rule in RULES if any(key[0] == rule for key in chosen)]
            places = {key[1:] for key in chosen}
            common = sorted(place for place in places if all((rule, *place) in chosen for rule in rules))
            if len(rules) > 1 and common:
                yield f"\n### {budget} trials, {at_once} at once: {len(common)} cells of all rules\n"
                yield from _overall(chosen, rules, common)
                yield from _per_problem(chosen, rules, common)


def _overall(
    chosen: dict[tuple[str, str, int], float], rules: list[str], common: list[tuple[str, int]]
) -> Iterator[str]:
    regret = np.array([[chosen[rule, *place] for rule in rules] for place in common])
    ranks = rankdata(np.round(regret, 4), axis=1)
    yield "| rule | mean rank | mean regret | median regret | Wilcoxon p (ours lower) | cells won, lost |"
    yield "|---|---|---|---|---|---|"
    ours = rules.index("beagle") if "beagle" in rules else None
    for index in np.argsort(ranks.mean(axis=0)):
        test, score = "", ""
        if ours is not None and index != ours:
            gap = regret[:, ours] - regret[:, index]
            test = f"{wilcoxon(gap, alternative='less').pvalue:.1e}" if np.any(gap) else "1"
            score = f"{int(np.sum(gap < 0))}, {int(np.sum(gap > 0))}"
        column = regret[:, index]
        yield (
            f"| {rules[index]} | {ranks[:, index].mean():.2f} | {column.mean():.3f} | {np.median(column):.3f} "
            f"| {test} | {score} |"
        )


def _per_problem(
    chosen: dict[tuple[str, str, int], float], rules: list[str], common: list[tuple[str, int]]
) -> Iterator[str]:
    yield "\n| problem (mean regret) | seeds | " + " | ".join(rules) + " |\n|---|---|" + "---|" * len(rules)
    for problem in dict.fromkeys(place[0] for place in common):
        seeds = [seed for name, seed in common if name == problem]
        means = [float(np.mean([chosen[rule, problem, seed] for seed in seeds])) for rule in rules]
        words = [f"**{mean:.3f}**" if mean == min(means) else f"{mean:.3f}" for mean in means]
        yield f"| {problem} | {len(seeds)} | " + " | ".join(words) + " |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("what", choices=("run", "table"))
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--rules", default=",".join(RULES))
    parser.add_argument("--problems", default="report")
    parser.add_argument("--at-once", default="1,16")
    parser.add_argument("--budget", type=int, default=300)
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args()
    if options.what == "table":
        print("\n".join(tables(read(options.results))))
        return
    sets = {"report": REPORT, "develop": DEVELOP}
    problems = sets.get(options.problems) or tuple(options.problems.split(","))
    # Seeds outermost: whenever it is stopped, every problem and rule has been seen about equally often.
    cells = [
        (problem, rule, at_once, seed)
        for seed in range(options.first_seed, options.first_seed + options.seeds)
        for at_once in map(int, options.at_once.split(","))
        for problem in problems
        for rule in options.rules.split(",")
    ]
    run(cells, options.budget, options.results)


if __name__ == "__main__":
    main()
