"""Several objectives: the volume that each search's front dominates, after equal numbers of noisy trials.

    python -m benchmarks.objectives [--trials 100] [--seeds 10] [--problems zdt1 ...]

The noise is normal, 2 % of each objective's range; what is judged is the noise-free value of the trials on the
front that the noisy values show, as a share of the best volume that any search reached on the problem. Problems: ZDT1
to 3 (Zitzler, Deb, Thiele 2000) and DTLZ2 with three objectives (Deb et al. 2002) in 10 genes. Rivals: Optuna's
NSGAIISampler with populations of 50 (its default) and 20, its TPESampler, and random points.
"""

import argparse
import math
from collections.abc import Callable

import numpy as np
import optuna
from numpy.typing import NDArray
from scipy.stats import wilcoxon

from evolve import Gene, Space
from evolve.objectives import hypervolume
from evolve.pareto import dominated
from evolve.pareto_search import ParetoSearch

GENES = 10
NOISE = 0.02
Values = NDArray[np.float64]
Problem = Callable[[Values], Values]


def zdt(kind: int) -> Problem:
    """ZDT1, 2 or 3: two objectives to be small."""

    def problem(x: Values) -> Values:
        g = 1 + 9 * float(x[1:].mean())
        f = float(x[0])
        shape = {1: 1 - math.sqrt(f / g), 2: 1 - (f / g) ** 2}.get(
            kind, 1 - math.sqrt(f / g) - f / g * math.sin(10 * math.pi * f)
        )
        return np.array([f, g * shape])

    return problem


def dtlz2(x: Values) -> Values:
    """Three objectives to be small: the front is an eighth of a sphere."""
    g = float(((x[2:] - 0.5) ** 2).sum())
    a, b = x[0] * math.pi / 2, x[1] * math.pi / 2
    return (1 + g) * np.array([math.cos(a) * math.cos(b), math.cos(a) * math.sin(b), math.sin(a)])


PROBLEMS: dict[str, tuple[Problem, Values]] = {
    "zdt1": (zdt(1), np.array([1.1, 6.0])),
    "zdt2": (zdt(2), np.array([1.1, 6.0])),
    "zdt3": (zdt(3), np.array([1.1, 6.0])),
    "dtlz2": (dtlz2, np.array([2.5, 2.5, 2.5])),
}
NAMES = ("fitness", "latency", "parameters")


def noisy(problem: str, x: Values, rng: np.random.Generator) -> Values:
    function, reference = PROBLEMS[problem]
    return function(x) + NOISE * reference * rng.standard_normal(len(reference))


def ours(problem: str, trials: int, seed: int) -> tuple[Values, Values]:
    """Points (N, D) and what was seen of them (N, K)."""
    rng = np.random.default_rng([seed, 99])
    count = len(PROBLEMS[problem][1])
    names = [f"x{number}" for number in range(GENES)]
    search = ParetoSearch(Space([Gene(name) for name in names]), seed=seed, objectives=NAMES[:count])
    points, seen = [], []
    for _ in range(trials):
        trial = search.ask()
        x = np.array([float(trial.config[name]) for name in names])
        values = noisy(problem, x, rng)
        search.measured(trial.id, dict(zip(NAMES[1:count], values[1:].tolist(), strict=True)))
        search.tell(trial.id, -float(values[0]))
        points.append(x)
        seen.append(values)
    return np.array(points), np.array(seen)


def sampler(
    make: Callable[[int], optuna.samplers.BaseSampler],
) -> Callable[[str, int, int], tuple[Values, Values]]:
    """A rival of Optuna's."""

    def run(problem: str, trials: int, seed: int) -> tuple[Values, Values]:
        rng = np.random.default_rng([seed, 99])
        count = len(PROBLEMS[problem][1])
        study = optuna.create_study(directions=["minimize"] * count, sampler=make(seed))
        points, seen = [], []
        for number in range(trials):
            if number == 0:  # as ours, each begins with the middle of the space
                study.enqueue_trial({f"x{each}": 0.5 for each in range(GENES)})
            trial = study.ask()
            x = np.array([trial.suggest_float(f"x{each}", 0.0, 1.0) for each in range(GENES)])
            values = noisy(problem, x, rng)
            study.tell(trial, values.tolist())
            points.append(x)
            seen.append(values)
        return np.array(points), np.array(seen)

    return run


SEARCHES: dict[str, Callable[[str, int, int], tuple[Values, Values]]] = {
    "ours": ours,
    "NSGA-II 20": sampler(lambda seed: optuna.samplers.NSGAIISampler(population_size=20, seed=seed)),
    "NSGA-II 50": sampler(lambda seed: optuna.samplers.NSGAIISampler(seed=seed)),
    "TPE": sampler(lambda seed: optuna.samplers.TPESampler(multivariate=True, seed=seed)),
    "random": sampler(lambda seed: optuna.samplers.RandomSampler(seed=seed)),
}


def volume(problem: str, points: Values, seen: Values) -> float:
    """What the trials that look best really dominate."""
    function, reference = PROBLEMS[problem]
    shown = points[~dominated(-seen)]
    return hypervolume(-np.array([function(x) for x in shown]), -reference)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=100)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--problems", nargs="*", default=list(PROBLEMS))
    options = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    print(f"{options.trials} trials, {options.seeds} seeds: mean share of the best volume reached")
    shares: dict[str, list[float]] = {name: [] for name in SEARCHES}
    for problem in options.problems:
        found = {
            name: [volume(problem, *run(problem, options.trials, seed)) for seed in range(options.seeds)]
            for name, run in SEARCHES.items()
        }
        most = max(max(each) for each in found.values())
        for name, each in found.items():
            shares[name] += [value / most for value in each]
        row = "  ".join(f"{name} {np.mean(each) / most:.3f}" for name, each in found.items())
        print(f"{problem:6}  {row}", flush=True)
    for name, each in shares.items():
        p = "" if name == "ours" else f", Wilcoxon p {wilcoxon(shares['ours'], each).pvalue:.2g}"
        print(f"{name}: {np.mean(each):.3f}{p}")


if __name__ == "__main__":
    main()
