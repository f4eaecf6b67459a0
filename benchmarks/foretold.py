"""What stopped trials would have been worth: some are trained on to their end, and held against what was foretold.

    python -m benchmarks.foretold --journals FOLDER [--count 6] [--rungs 2,6,24]
        [--data digits --image-size 64] [--ema-share 0.08]

FOLDER holds evolutions that `python -m benchmarks.ladder_trained run --rules ladder --journals FOLDER` has kept, with
the same options; of each, `--count` stopped trials are drawn among those after the twentieth, of the last rungs and
the first alike. A trial is trained under the seed that it had, so it has the fitness at its rungs that it had there.
"""

import argparse
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from benchmarks.ladder_trained import Task, add_task_options, task_of
from evolve import fold, read_journal
from evolve.foretell import foretell
from evolve.space import Space

FIRST = 20
"""Trials before it were stopped while little was known."""


def rows(journal: Path, task: Task, count: int) -> Iterator[tuple[int, list[float], float, float, float]]:
    """Of stopped trials of one evolution: number, fitness at its rungs, what is foretold, deviation, true fitness."""
    from trainer import train

    state = fold(read_journal(journal))
    space = Space.from_dict(state.header["space"])
    known = {each.id: each for each in state.trials.values() if each.curve}
    genes = {number: space.features(space.encode(each.config)[None])[0] for number, each in known.items()}
    stopped = [number for number, each in known.items() if each.status == "stopped"]
    found = foretell({number: each.curve for number, each in known.items()}, stopped, genes)
    late = [number for number in stopped if number >= FIRST]
    for number in sorted(
        np.random.default_rng(0).choice(late, min(count, len(late)), replace=False).tolist()
    ):
        with tempfile.TemporaryDirectory() as place:
            seed = state.header.get("settings", {}).get("seed", 0)
            result = train(task.training(known[number].config, seed, Path(place) / "out"))
        yield number, known[number].curve, found[number].mean, found[number].deviation, result.fitness or 0.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--journals", type=Path, required=True)
    parser.add_argument("--count", type=int, default=6)
    add_task_options(parser)
    options = parser.parse_args()
    task = task_of(options)
    print("| evolution | trial | at its rungs | foretold | in full |\n|---|---|---|---|---|")
    off, deviations = [], []
    for journal in sorted(options.journals.glob("ladder-*/journal.jsonl")):
        for number, curve, mean, deviation, true in rows(journal, task, options.count):
            at = ", ".join(f"{value:.3f}" for value in curve)
            print(
                f"| {journal.parent.name} | {number} | {at} | {mean:.3f} ± {deviation:.3f} | {true:.3f} |",
                flush=True,
            )
            off.append(mean - true)
            deviations.append(deviation)
    errors = np.array(off)
    within = np.mean(np.abs(errors) < 2 * np.array(deviations))
    print(
        f"\n{len(errors)} trials: off by {errors.mean():+.4f} on average, root mean square "
        f"{np.sqrt((errors**2).mean()):.4f}; {within:.0%} within two deviations"
    )


if __name__ == "__main__":
    main()
