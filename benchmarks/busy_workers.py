"""How much of their time workers work, with trials of very different lengths.

`python -m benchmarks.busy_workers` plays evolutions of 64 and of 1,000 workers as events on a clock of their own: the
real ledger, journal and search decide and write, and only trainings are left out. What the driver takes for an event
is measured as it runs and put on that clock, where one event waits for another as in the one real driver; what Tune
takes besides is added as a constant (`--tune-ms`, as `benchmarks.driver_overhead` finds it). A rule with generations,
which waits for a generation's last trial, is played beside it.

`--real N` runs N workers of Ray that sleep, on CPUs that Ray only believes in.
"""

import argparse
import heapq
import os
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import ray

from evolve import Gene, Journal, RunState, SearchSettings, Space
from evolve.journal import Event
from evolve.ledger import Ledger
from evolve.ray_driver import run_evolution
from evolve.resources import Resources
from evolve.trainable import Assignment, Outcome, Report

GENES, SHORTEST_S, TIMES = 20, 60.0, 10.0
TRIALS_PER_WORKER = 6


def begin(folder: Path, trials: int, settings: dict[str, float], concurrent: int) -> Journal:
    genes = [Gene(f"g{number}", 0, 1, start=0.5) for number in range(GENES)]
    journal = Journal(folder / "journal.jsonl")
    journal.append(
        {
            "event": "run",
            "version": 1,
            "name": "busy",
            "trials": trials,
            "seed": 0,
            "space": Space(genes).to_dict(),
            "search": SearchSettings().to_dict(),
            "settings": settings,
            "resources": Resources(concurrent=concurrent).to_dict(),
            "provenance": {},
        }
    )
    return journal


def seconds_of(number: int, shortest: float) -> float:
    """How long a trial takes: log-uniform, the longest ten times the shortest."""
    return shortest * TIMES ** float(np.random.default_rng([7, number]).random())


@dataclass
class Play:
    """An evolution on a clock of its own.

    Attributes:
        busy_s: Seconds of work of all workers, while there was work for all.
        driver_s: Seconds that the driver took, Tune's share among them.
        asks_s: Seconds of each ask, in order.
        waits_s: Seconds that a worker waited for its next trial, each time.
    """

    busy_s: float = 0.0
    driver_s: float = 0.0
    end_s: float = 0.0
    asks_s: list[float] = field(default_factory=list)
    waits_s: list[float] = field(default_factory=list)


class Simulation:
    """Workers finish, report and get their next trial from one driver, one event after the other."""

    def __init__(self, ledger: Ledger, workers: int, tune_s: float, epochs: int) -> None:
        self.ledger, self.workers, self.tune_s, self.epochs = ledger, workers, tune_s, epochs
        self.found = Play()
        self.free_at = 0.0  # when the driver has done what it was told so far
        self.queue: list[tuple[float, int, int]] = []  # (moment, trial, epoch); the last epoch is the end
        self.begun: dict[int, float] = {}

    def run(self) -> Play:
        """Play until there is no longer work for all."""
        for _ in range(self.workers):
            self.hand_out(0.0)
        while self.ledger.remaining >= self.workers:
            moment, number, epoch = heapq.heappop(self.queue)
            if epoch < self.epochs:
                self.report(moment, number, epoch)
            else:
                self.end(moment, number)
                self.hand_out(moment)
        self.found.end_s = self.free_at
        for trial in self.ledger.state.running:
            self.found.busy_s += min(self.free_at - self.begun[trial.id], seconds_of(trial.id, SHORTEST_S))
        return self.found

    def attend(self, moment: float, work_s: float) -> float:
        """The driver works on an event of that moment; when it has done so."""
        self.free_at = max(self.free_at, moment) + work_s
        self.found.driver_s += work_s
        return self.free_at

    def hand_out(self, since: float) -> None:
        """A worker that is idle since then gets a trial, if there is one."""
        start = time.perf_counter()
        assignment = self.ledger.next_assignment()
        took = time.perf_counter() - start
        if assignment is None:
            return
        self.found.asks_s.append(took)
        moment = self.attend(since, took + self.tune_s)
        self.found.waits_s.append(moment - since)
        self.begun[assignment.trial] = moment
        self.next_epoch(moment, assignment.trial, 1)

    def next_epoch(self, moment: float, number: int, epoch: int) -> None:
        """A trial begins with an epoch."""
        heapq.heappush(self.queue, (moment + seconds_of(number, SHORTEST_S) / self.epochs, number, epoch))

    def report(self, moment: float, number: int, epoch: int) -> None:
        """A trial reports an epoch."""
        start = time.perf_counter()
        self.ledger.reported(number, epoch - 1, {"fitness": 0.0})
        self.next_epoch(self.attend(moment, time.perf_counter() - start), number, epoch + 1)

    def end(self, moment: float, number: int) -> None:
        """A trial ends."""
        start = time.perf_counter()
        config = self.ledger.state.trials[number].config
        fitness = 1 - sum((value - 0.3) ** 2 for value in config.values()) / GENES
        self.ledger.ended(number, Outcome(fitness, {"fitness": fitness}))
        self.attend(moment, time.perf_counter() - start)
        self.found.busy_s += seconds_of(number, SHORTEST_S)


def play(workers: int, tune_s: float, epochs: int) -> Play:
    """One evolution of so many workers."""
    with (
        tempfile.TemporaryDirectory() as place,
        begin(Path(place), workers * TRIALS_PER_WORKER, {}, workers) as journal,
    ):
        return Simulation(Ledger(Path(place), journal), workers, tune_s, epochs).run()


def generations(workers: int) -> float:
    """Share of time that workers work where each generation waits for its last trial."""
    times = np.array([seconds_of(number, SHORTEST_S) for number in range(workers * TRIALS_PER_WORKER)])
    rounds = times.reshape(TRIALS_PER_WORKER, workers)
    return float(rounds.sum() / (rounds.max(axis=1).sum() * workers))


def sleeper(assignment: Assignment, report: Report) -> Outcome:
    """A trial that only takes its time."""
    begun = time.time()
    time.sleep(seconds_of(assignment.trial, float(assignment.settings["shortest_s"])))
    fitness = -sum((float(value) - 0.3) ** 2 for value in assignment.config.values())
    return Outcome(
        fitness,
        {"fitness": fitness},
        [{"fitness": fitness}],
        result={"span": [begun, time.time()], "pid": os.getpid()},
    )


def real(workers: int, shortest_s: float, rounds: int) -> float:
    """Share of time that real workers sleep in trials, from all being at it to the last trial handed out."""
    ray.init("local", num_cpus=workers, include_dashboard=False, log_to_driver=False)
    asked: list[float] = []

    def listen(event: Event, state: RunState) -> None:
        if event["event"] == "ask":
            asked.append(time.time())

    try:
        with tempfile.TemporaryDirectory() as place:
            begin(Path(place), workers * rounds, {"shortest_s": shortest_s}, workers).close()
            state = run_evolution(Path(place), sleeper, listen)
    finally:
        ray.shutdown()
    spans = np.array([trial.result["span"] for trial in state.finished])
    begins: dict[int, float] = {}
    for trial in state.finished:
        pid, begun = trial.result["pid"], trial.result["span"][0]
        begins[pid] = min(begun, begins.get(pid, begun))
    first = sorted(begins.values())[workers - 1]  # all workers are up
    last = max(asked)
    inside = np.clip(spans[:, 1], first, last) - np.clip(spans[:, 0], first, last)
    return float(inside.sum() / ((last - first) * workers))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workers", type=int, nargs="+", default=[64, 1000])
    parser.add_argument("--tune-ms", type=float, default=25.0, help="of the driver, for each trial, for Tune")
    parser.add_argument("--epochs", type=int, default=10, help="reports of each trial")
    parser.add_argument("--real", type=int, default=0, help="run so many workers of Ray that sleep")
    parser.add_argument("--shortest", type=float, default=4.0, help="seconds of the shortest trial of --real")
    parser.add_argument("--rounds", type=int, default=5, help="trials per worker of --real")
    options = parser.parse_args()
    if options.real:
        share = real(options.real, options.shortest, options.rounds)
        print(
            f"{options.real} real workers, trials of {options.shortest:g} s and up to ten times that: ",
            end="",
        )
        print(f"{share:.2%} busy")
        return
    print(f"trials of {SHORTEST_S:g} to {SHORTEST_S * TIMES:g} s, {options.epochs} epochs, {GENES} genes")
    print(
        "workers | trials | busy | generations | driver at work | waits, median | 99 % | ask ms first, last"
    )
    for workers in options.workers:
        found = play(workers, options.tune_ms / 1000, options.epochs)
        tenth = max(len(found.asks_s) // 10, 1)
        print(
            f"{workers} | {len(found.asks_s)} | {found.busy_s / (found.end_s * workers):.2%} | "
            f"{generations(workers):.2%} | {found.driver_s / found.end_s:.2%} | "
            f"{np.median(found.waits_s[workers:]):.3f} s | {np.quantile(found.waits_s[workers:], 0.99):.3f} s | "
            f"{1000 * np.mean(found.asks_s[1 : tenth + 1]):.1f}, {1000 * np.mean(found.asks_s[-tenth:]):.1f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
