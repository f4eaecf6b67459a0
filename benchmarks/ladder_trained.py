"""A ladder of epochs on real trainings: what each winner is worth when it is trained in full, several times.

    python -m benchmarks.ladder_trained run [--seeds 3] [--first-seed 0] [--trials 24] [--rungs 2,6,24]
        [--data digits --image-size 64] [--ema-share 0.08] [--rules full,ladder,fewer,confirmed,short,start]
        [--results FILE] [--journals FOLDER]
    python -m benchmarks.ladder_trained table [--results FILE]

The trainings are those of `benchmarks.record_digits` (12 genes, a small detector) on `digits` or on a data set of
your own, as long as the last rung; the real ledger, journal and search decide, one trial after the other. `full`,
`ladder`, `budget` and `fewer` are as in `benchmarks.ladder`: all but the first have a third of its epochs. So has
`short`: trainings as long as the last rung but one, each with a schedule of its own to its end, and in what is left
the best three and the start in full (`--confirm 3 --confirm-seeds 1`); `confirmed` is the ladder with the same at its
end, within its third. The configuration that each would export is then trained in full under five seeds that no trial
had, and so is the start. `agreement` is the rank agreement of each rung with the end, over the trials of `full`.

With `--journals` the evolutions are kept there, and one with more `--trials` goes on from where one with fewer ended:
the search does not know how many are to come.
"""

import argparse
import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.ladder import CLIMBING, RULES, SHARE, header, read, spent
from benchmarks.record_digits import IMAGE_SIZE, SPACE, training
from evolve import Journal, fold, read_journal
from evolve.confirm import Plan, confirm_event
from evolve.fidelity import rank_agreement
from evolve.ladder import Ladder
from evolve.ledger import Ledger
from evolve.trainable import Assignment, Outcome

if TYPE_CHECKING:
    from trainer import TrainConfig

RESULTS = Path(__file__).parent / "data" / "ladder_trained.jsonl"
RUNGS = (2, 6, 24)
"""Of the ladder unless others are given; the last is the length of a training."""
AGAIN = range(1000, 1005)
AGAIN_CONFIRMED = range(1100, 1105)
"""Instead, where one of those may have confirmed."""
OWN_RULES = (*RULES, "confirmed", "short", "start")
CONFIRMED = 3
"""Configurations that `confirmed` and `short` train in full at their end, once each, and the start beside them."""


@dataclass(frozen=True)
class Task:
    """What is trained, and how long.

    Attributes:
        data: "digits", or what `dataset.load` reads.
        image_size: px.
        rungs: of the ladder; the last is the length of a training.
        trials: of `full`.
        ema_share: that the averaged weights span at least (`trainer.ema`); rows that do not say it had 0.
    """

    data: str
    image_size: int
    rungs: tuple[int, ...]
    trials: int
    ema_share: float

    @property
    def columns(self) -> dict[str, Any]:
        """What tells its rows apart from those of other tasks."""
        return {
            "data": Path(self.data).name,
            "image_size": self.image_size,
            "asked": self.trials,
            "rungs": self.rungs,
            "ema_share": self.ema_share,
        }

    def training(
        self, config: dict[str, Any], seed: int, out: Path, epochs: int | None = None
    ) -> "TrainConfig":
        """One training, in full unless epochs are given."""
        own = training(config, seed, out, epochs or self.rungs[-1], self.data, self.image_size)
        return replace(own, ema_share=self.ema_share)


class _StoppedError(Exception):
    """The ledger stopped the trial."""


def train_trial(ledger: Ledger, assignment: Assignment, task: Task) -> None:
    """One trial, until it ends or is stopped."""

    def report(epoch: int, row: dict[str, float]) -> None:
        if not ledger.reported(assignment.trial, epoch, row):
            raise _StoppedError

    from trainer import train

    with tempfile.TemporaryDirectory() as place:
        settings, out = assignment.settings, Path(place) / "out"
        config = task.training(assignment.config, settings.get("seed", 0), out, settings["epochs"])
        try:
            result = train(config, report=report)
        except _StoppedError:
            return
    ledger.ended(assignment.trial, Outcome(result.fitness, result.metrics, result.history, result.reason))


def confirm(ledger: Ledger, journal: Journal, plan: Plan, task: Task) -> None:
    """End the search and train its best again in full, and the start."""
    if not ledger.state.planned:
        journal.append({"event": "enough", "reason": "its share of the epochs is used up"})
        journal.append(confirm_event(ledger.state, plan))
    ledger = Ledger(journal.path.parent, journal)
    while assignment := ledger.next_assignment():
        train_trial(ledger, assignment, task)


def in_full(config: dict[str, Any], task: Task, seeds: range = AGAIN) -> list[float]:
    """Fitness of a configuration under each of the seeds."""
    from trainer import train

    found = []
    for seed in seeds:
        with tempfile.TemporaryDirectory() as place:
            result = train(task.training(config, seed, Path(place) / "out"))
        found.append(round(result.fitness or 0.0, 5))
    return found


@contextmanager
def kept_journal(name: str, header: dict[str, Any], journals: Path | None) -> Iterator[Journal]:
    """A journal that begins with a header: a new one, or one that is kept and goes on, with the header's limits.

    Args:
        name: of the evolution, apart from others with the same header but for the number of trials and of epochs.
        header: first event.
        journals: folder in which it is kept, in a folder of its name; None keeps nothing.

    Raises:
        ValueError: what is kept is another evolution.
    """
    with tempfile.TemporaryDirectory() as spare:
        path = (journals or Path(spare)) / name / "journal.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        events = read_journal(path) if path.exists() else []
        if events:
            first = {**header, "time": events[0]["time"]}
            confirms = any(event["event"] == "confirm" for event in events)
            own = {} if confirms else {"trials": 0, "epoch_budget": 0}
            if {**events[0], **own} != {**first, **own}:
                raise ValueError(f"{path} is the journal of another evolution: choose another --journals")
            path.write_text("".join(json.dumps(event) + "\n" for event in (first, *events[1:])), "utf-8")
        with Journal(path) as journal:
            if not events:
                journal.append(header)
            yield journal


def evolve(rule: str, seed: int, task: Task, journals: Path | None = None) -> dict[str, Any]:
    """One evolution."""
    trials, rungs = task.trials, task.rungs
    climbs = rule in (*CLIMBING, "confirmed")
    most = SHARE * trials * rungs[-1]
    event = header("ladder" if rule == "confirmed" else rule, trials, seed, SPACE, rungs)
    plan = Plan(CONFIRMED, epochs=rungs[-1], seeds=1)
    if rule in ("confirmed", "short"):
        most -= (CONFIRMED + 1) * rungs[-1]
    if rule == "short":
        event |= {"trials": int(most / rungs[-2]), "confirm": plan.to_dict()}
        # From its seed follow those of the trainings that confirm; they must be none of `AGAIN`.
        event["settings"] = {"epochs": rungs[-2], "seed": len(AGAIN)}
    with kept_journal(f"{rule}-{seed}", event, journals) as journal:
        ledger = Ledger(journal.path.parent, journal)
        while not (climbs and spent(ledger.state)["epochs"] >= most):
            assignment = ledger.next_assignment()
            if assignment is None:
                break
            train_trial(ledger, assignment, task)
        if rule == "confirmed":
            confirm(ledger, journal, plan, task)
        state = fold(read_journal(journal.path))
    best = state.best() or state.trials[0]
    agreed = []
    if rule == "full":
        curves = [
            [row["fitness"] for _, row in sorted(each.reports.items())] for each in state.trials.values()
        ]
        agreed = [rank_agreement(curves, rung) for rung in rungs[:-1]]
    measured = state.measured()
    promised = measured.standing.mean if measured else None
    again = in_full(best.config, task, AGAIN_CONFIRMED if rule == "confirmed" else AGAIN)
    found = {**spent(state), "promised": promised, "again": again}
    return found | {"agreement": [round(each.rho, 3) for each in agreed if each]}


def run(seeds: range, rules: list[str], task: Task, results: Path, journals: Path | None = None) -> None:
    """Make what the file does not hold, and append it."""
    done = {(row["rule"], row["seed"]) for row in read(results) if _key(row) == _key(task.columns)}
    for seed in seeds:
        for rule in rules:
            if (rule, seed) in done or (rule == "start" and seed):
                continue
            if rule == "start":
                made: dict[str, Any] = {"again": in_full(SPACE.start, task)}
            else:
                made = evolve(rule, seed, task, journals)
            row = {"rule": rule, "seed": seed, **task.columns, **made}
            with results.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
            print(row, flush=True)


def _key(row: dict[str, Any]) -> tuple[str, int, tuple[int, ...], int, float]:
    return row["data"], row["image_size"], tuple(row["rungs"]), row["asked"], row.get("ema_share", 0.0)


def _mean(rows: list[dict[str, Any]], name: str, digits: int) -> str:
    """Of a column, in words; empty where a row, the start's, has none."""
    found = [row[name] for row in rows if row.get(name) is not None]
    return f"{np.mean(found):.{digits}f}" if found else ""


def table(results: Path) -> Iterator[str]:
    """Markdown, line by line."""
    rows = read(results)
    columns = ("data, rungs", "of", "EMA share", "rule", "seeds", "trials", "whole", "epochs")
    columns += ("promised", "trained again: mean", "by seed", "agreement")
    yield f"| {' | '.join(columns)} |"
    yield f"|{'---|' * len(columns)}"
    for key, rule in product(dict.fromkeys(map(_key, rows)), OWN_RULES):
        own = [row for row in rows if (row["rule"], _key(row)) == (rule, key)]
        if not own:
            continue
        means = [float(np.mean(row["again"])) for row in own]
        told = " | ".join(_mean(own, name, 0) for name in ("trials", "whole", "epochs"))
        by_seed = ", ".join(f"{mean:.3f}" for mean in means)
        agreed = "; ".join(", ".join(map(str, row["agreement"])) for row in own if row.get("agreement"))
        data, image_size, rungs, asked, ema_share = key
        yield (
            f"| {data} {image_size} px, {', '.join(map(str, rungs))} | {asked} | {ema_share} | {rule} | {len(own)} | "
            f"{told} | {_mean(own, 'promised', 3)} | {np.mean(means):.3f} | {by_seed} | {agreed} |"
        )


def add_task_options(parser: argparse.ArgumentParser) -> None:
    """What is trained, and how long: read back by `task_of`."""
    parser.add_argument("--trials", type=int, default=24)
    parser.add_argument("--rungs", default=",".join(map(str, RUNGS)))
    parser.add_argument("--data", default="digits")
    parser.add_argument("--image-size", type=int, default=IMAGE_SIZE)
    parser.add_argument("--ema-share", type=float, default=0.08)


def task_of(options: argparse.Namespace) -> Task:
    """The task of a command line."""
    rungs = Ladder.parse(options.rungs).rungs
    return Task(options.data, options.image_size, rungs, options.trials, options.ema_share)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("what", choices=("run", "table"))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--rules", default=",".join(OWN_RULES))
    add_task_options(parser)
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--journals", type=Path)
    options = parser.parse_args()
    if options.what == "run":
        task = task_of(options)
        seeds = range(options.first_seed, options.first_seed + options.seeds)
        run(seeds, options.rules.split(","), task, options.results, options.journals)
    for line in table(options.results):
        print(line)


if __name__ == "__main__":
    main()
