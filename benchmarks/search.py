"""The genetic search beside its rivals: equal budgets, and the true value of what each would export.

    python -m benchmarks.search run --seeds 20 [--rules beagle,tpe] [--problems develop|report|NAME,...]
        [--at-once 1,16] [--budget 300] [--results FILE]
    python -m benchmarks.search table [--results FILE]

`run` appends one line of JSON per cell (problem, rule, trials at once, seed) and leaves out cells that stand there
already, so it can be stopped and goes on. Rows of ours carry a digest of the search's sources: those of other
sources are dropped and played again, the rivals' stay. `table` prints what the file holds: mean rank (over the
cells that all rules of the row have), mean regret (0 the optimum, 1 the median random point), and for every rule a
two-sided Wilcoxon signed-rank test of its regret against ours, paired by problem and seed, p by Holm's correction
over the rules. Beside it stands every rule over all the cells that it shares with ours, and where ours is worse than
the v7.0 rule.

With 16 at once trials take random times (log-normal, sigma 0.4), so they end out of order, and 16 are always open.
"""

import argparse
import hashlib
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
OURS, PUBLISHED = "beagle", "v7.0"
SOURCES = (
    *("brood", "failures", "gene", "growing", "kernel", "operators", "plain_breeding", "racing", "screening"),
    *("search", "search_base", "search_settings", "space", "surrogate", "trust"),
)
Cell = tuple[str, str, int, int]
Chosen = dict[tuple[str, str, int], float]
Places = list[tuple[str, int]]


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


def version() -> str:
    """A digest of the sources of our search."""
    folder = Path(__file__).parents[1] / "evolve"
    code = b"".join((folder / f"{name}.py").read_bytes() for name in SOURCES)
    return hashlib.sha256(code).hexdigest()[:12]


def drop_older(results: Path) -> None:
    """Take out of the file rows of ours that other sources made, and of each cell all but the last: the longest."""
    rows = read(results)
    current = [row for row in rows if row["rule"] != OURS or row.get("version") == version()]
    kept = list({_cell(row): row for row in current}.values())
    if len(kept) < len(rows):
        aside = results.with_suffix(".new")
        aside.write_text("".join(json.dumps(row) + "\n" for row in kept), encoding="utf-8")
        aside.replace(results)


def run(cells: Iterable[Cell], budget: int, results: Path) -> None:
    """Play the cells that the file does not hold, and append them."""
    drop_older(results)
    last = str(max(each for each in BUDGETS if each <= budget))
    done = {_cell(row) for row in read(results) if last in row["regret"]}
    for name, rule_name, at_once, seed in cells:
        if (name, rule_name, at_once, seed) in done:
            continue
        begin = time.process_time()
        problem = build_problem(name, seed)
        regret, slowest = play(RULES[rule_name](problem.space, seed), problem, budget, at_once, seed)
        row = {"problem": name, "rule": rule_name, "at_once": at_once, "seed": seed, "regret": regret}
        row |= {"slowest_ask": round(slowest, 3), "cpu": round(time.process_time() - begin, 2)}
        row |= {"version": version()} if rule_name == OURS else {}
        with results.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")


def _cell(row: dict[str, Any]) -> Cell:
    return row["problem"], row["rule"], row["at_once"], row["seed"]


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
            common = shared(chosen, rules)
            if len(rules) > 1 and common:
                yield f"\n### {budget} trials, {at_once} at once: {_cells(common)} of all rules\n"
                yield from _overall(chosen, rules, common)
                yield from _per_problem(chosen, rules, common)
                yield from _pairs(chosen, rules)


def shared(chosen: Chosen, rules: list[str]) -> Places:
    """Problems and seeds that all of some rules have."""
    return sorted(
        place for place in {key[1:] for key in chosen} if all((rule, *place) in chosen for rule in rules)
    )


def _cells(places: Places) -> str:
    return f"{len(places)} cells ({len({seed for _, seed in places})} seeds)"


def holm(p_values: list[float]) -> list[float]:
    """Correct p-values for their number, in their order. Source: Holm 1979.

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    corrected, highest = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[index]))
        corrected[index] = highest
    return corrected


def _compared(chosen: Chosen, rule: str, places: Places) -> tuple[float, int, int]:
    """Ours against a rule: (two-sided p of the signed-rank test, cells won, cells lost)."""
    gap = np.array([chosen[OURS, *place] - chosen[rule, *place] for place in places])
    p = float(wilcoxon(gap).pvalue) if np.any(gap) else 1.0
    return p, int(np.sum(gap < 0)), int(np.sum(gap > 0))


def _overall(chosen: Chosen, rules: list[str], common: Places) -> Iterator[str]:
    regret = np.array([[chosen[rule, *place] for rule in rules] for place in common])
    ranks = rankdata(np.round(regret, 4), axis=1)
    yield "| rule | mean rank | mean regret | median regret | p against ours (Holm) | ours won, lost |"
    yield "|---|---|---|---|---|---|"
    others = [rule for rule in rules if rule != OURS and OURS in rules]
    compared = {rule: _compared(chosen, rule, common) for rule in others}
    corrected = dict(zip(others, holm([compared[rule][0] for rule in others]), strict=True))
    for index in np.argsort(ranks.mean(axis=0)):
        rule, column = rules[index], regret[:, index]
        words = (
            f"{corrected[rule]:.1e} | {compared[rule][1]}, {compared[rule][2]}" if rule in compared else " | "
        )
        yield f"| {rule} | {ranks[:, index].mean():.2f} | {column.mean():.3f} | {np.median(column):.3f} | {words} |"


def _pairs(chosen: Chosen, rules: list[str]) -> Iterator[str]:
    """Each rule over all the cells that it shares with ours, and the problems where ours is worse than v7.0."""
    if OURS not in rules:
        return
    yield "\n| against | cells | its mean regret | ours | p (Holm) | won, lost |\n|---|---|---|---|---|---|"
    others = [rule for rule in rules if rule != OURS and shared(chosen, [rule, OURS])]
    places = {rule: shared(chosen, [rule, OURS]) for rule in others}
    compared = {rule: _compared(chosen, rule, places[rule]) for rule in others}
    corrected = dict(zip(others, holm([compared[rule][0] for rule in others]), strict=True))
    for rule in others:
        its, own = (np.mean([chosen[each, *place] for place in places[rule]]) for each in (rule, OURS))
        _, won, lost = compared[rule]
        yield f"| {rule} | {_cells(places[rule])} | {its:.3f} | {own:.3f} | {corrected[rule]:.1e} | {won}, {lost} |"
    if PUBLISHED in others:
        worse = []
        for problem in dict.fromkeys(name for name, _ in places[PUBLISHED]):
            own_places = [place for place in places[PUBLISHED] if place[0] == problem]
            own, its = (np.mean([chosen[r, *place] for place in own_places]) for r in (OURS, PUBLISHED))
            p, won, lost = _compared(chosen, PUBLISHED, own_places)
            said = f"{len(own_places)} seeds, won {won}, lost {lost}, p {p:.2f} uncorrected"
            worse += [f"{problem} ({own:.3f} against {its:.3f}; {said})"] if own > its else []
        yield f"\nWorse than {PUBLISHED} in the mean: {', '.join(worse) or 'on no problem'}."


def _per_problem(chosen: Chosen, rules: list[str], common: Places) -> Iterator[str]:
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
