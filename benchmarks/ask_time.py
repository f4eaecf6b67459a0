"""How long an ask takes after many trials, on the detector's own 23 genes.

    python -m benchmarks.ask_time [--trials 300,1000] [--ladder | --objectives]

CPU seconds of one core, of ten asks: the slowest and the median. The first two fit the surrogate, one in each of its
two ways to see the space, and few of the others do. The import of scipy, a third of a second once a run, is left
out. With `--ladder` two thirds of the trials were stopped at each of two rungs, and what each would have been worth
is foretold. With `--objectives` each ask weighs fitness against latency in another way than the one before, and so
fits the surrogate anew. As in the driver (`evolve.ledger`), BLAS has one thread: with two on two
cores, ten asks after 1,000 trials and all around them took 11.0 s on the clock instead of 1.8.
"""

import argparse
import time

import numpy as np
from threadpoolctl import threadpool_limits

from beagle.genes import build_space
from evolve import GeneticSearch, Trial
from evolve.pareto_search import ParetoSearch
from evolve.screening import Screener
from trainer.config import Hyperparameters


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--trials", default="300,1000")
    kinds = parser.add_mutually_exclusive_group()
    kinds.add_argument("--ladder", action="store_true")
    kinds.add_argument("--objectives", action="store_true")
    options = parser.parse_args()
    Screener()
    space = build_space((), None, Hyperparameters())
    print("| trials told | slowest of ten asks, s | median, s |\n|---|---|---|")
    for count in map(int, options.trials.split(",")):
        rng = np.random.default_rng(0)
        names = ("fitness", "latency")
        search = ParetoSearch(space, objectives=names) if options.objectives else GeneticSearch(space)
        for number in range(count):
            unit = rng.random(len(space))
            search.adopt(Trial(number, space.decode(unit) if number else space.start))
            fitness = float(np.exp(-np.sum((unit - 0.4) ** 2)) + 0.02 * rng.normal())
            if options.ladder:
                reached = 1 + (number % 3 == 0) + (number % 9 == 0)
                curve = [fitness * (0.4 + 0.1 * unit[0]), fitness * 0.7, fitness][:reached]
                search.tell(number, curve[-1], curve, stopped=reached < 3)
            else:
                search.measured(number, {"latency": float(unit[0] + unit[1])})
                search.tell(number, fitness)
        seconds = []
        for _ in range(10):
            begin = time.process_time()
            trial = search.ask()
            seconds.append(time.process_time() - begin)
            search.measured(trial.id, {"latency": float(rng.random())})
            search.tell(trial.id, float(rng.random()))
        print(f"| {count} | {max(seconds):.2f} | {np.median(seconds):.3f} |", flush=True)


if __name__ == "__main__":
    with threadpool_limits(1):
        main()
