"""What patience saves and what it costs: where evolutions would have ended, and the worth of what led there.

    python -m benchmarks.patience [--seeds 8] [--trials 150] [--problems steady,late,crossing]
    python -m benchmarks.patience --journals FOLDER/full-0/journal.jsonl ...

The first plays evolutions of whole trainings, made up as in `benchmarks.ladder`, eight at once, to their last trial,
and looks back at when each patience would have ended them: mean trials told, and mean regret (0 the optimum, 1 the
median random configuration) of what led then. The second looks back at evolutions that were kept, by
`benchmarks.ladder_trained --journals` say: trials told and the leader's fitness as the search knew it.
"""

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from benchmarks.ladder import FIRST_SEED, Simulation, header
from benchmarks.ladder_problems import build_problem
from evolve import Journal, RunState, fold, read_journal
from evolve.ledger import Ledger
from evolve.patience import fruitless

PATIENCE = (10, 15, 20, 30, 40)
Worth = Callable[[RunState], float]


def look_back(path: Path, worth: Worth) -> dict[int | None, tuple[int, float]]:
    """Trials told and the leader's worth when each patience was used up; under None those at the end."""
    found: dict[int | None, tuple[int, float]] = {}
    events = read_journal(path)
    state = fold(events[:1])
    for event in events[1:]:
        state.apply(event)
        if event["event"] == "tell":
            tried = fruitless(state)
            used_up = [each for each in PATIENCE if each not in found and tried >= each]
            found |= {each: (state.told, worth(state)) for each in used_up}
    end = (state.told, worth(state))
    return {None: end, **{each: found.get(each, end) for each in PATIENCE}}


def play(name: str, seed: int, trials: int) -> dict[int | None, tuple[int, float]]:
    """One made-up evolution."""
    problem = build_problem(name, seed)
    with tempfile.TemporaryDirectory() as place, Journal(Path(place) / "journal.jsonl") as journal:
        journal.append(header("full", trials, seed, problem.space, problem.rungs))
        Simulation(Ledger(Path(place), journal), problem, seed).run()
        return look_back(journal.path, lambda state: problem.regret((state.best() or state.trials[0]).config))


def known(state: RunState) -> float:
    """The leader's fitness, as the search knows it."""
    measured = state.measured()
    return measured.standing.mean if measured else 0.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--trials", type=int, default=150)
    parser.add_argument("--problems", default="steady,late,crossing")
    parser.add_argument("--journals", type=Path, nargs="+")
    options = parser.parse_args()
    print("| evolutions | to the end | " + " | ".join(f"patience {each}" for each in PATIENCE) + " |")
    print(f"|{'---|' * (len(PATIENCE) + 2)}", flush=True)
    if options.journals:
        rows = {str(path): [look_back(path, known)] for path in options.journals}
    else:
        seeds = range(FIRST_SEED, FIRST_SEED + options.seeds)
        rows = {
            name: [play(name, seed, options.trials) for seed in seeds] for name in options.problems.split(",")
        }
    for name, found in rows.items():
        cells = [np.mean([each[patience] for each in found], axis=0) for patience in (None, *PATIENCE)]
        print(f"| {name} | " + " | ".join(f"{told:.0f}: {worth:.3f}" for told, worth in cells) + " |")


if __name__ == "__main__":
    main()
