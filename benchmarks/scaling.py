"""How an evolution scales with the number of workers, from 1 to 1,000, and what bends first.

`python -m benchmarks.scaling --real 1 2 4 8 16 32 64` runs so many workers of Ray, real processes whose trials sleep
(on CPUs that Ray only believes in), and measures what a trial costs the driver beside. `--thousand` is 1,000 trials
over 64 of them. `--simulate 64 128 256 512 1000` plays more workers as events on a clock of their own, with the
driver's costs as the real runs showed them (`--driver-ms`, `--report-ms`), for trials of several lengths; and with a
run in an object store, where a trial is handed out after a put (`--put-ms`).
"""

import argparse
import heapq
import itertools
import json
import os
import resource
import tempfile
import threading
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import psutil
import ray

from benchmarks import busy_workers
from evolve import RunState
from evolve.journal import Event
from evolve.ray_driver import run_evolution
from evolve.trainable import Assignment, Outcome, Report


@dataclass(frozen=True)
class Measured:
    """What a run of real workers showed.

    Attributes:
        workers: How many trials ran at once at most.
        seen: Processes that ran them; more where one was given up and another came.
        trials: How many ended.
        sleep_s: Of each trial.
        start_s: From the driver's begin until 95 % of the workers were at work at once.
        window_s: From then until the last trial was handed out, when there was work for all.
        share: Of the workers' time in the window that they spent in trials; 1 is ideal.
        gap_s: Between the end of a trial and its worker's next one: median and 99 %.
        driver_cpu_s: CPU time of the driver for each trial.
        memory_gb: The most that driver and workers held (proportional set size), sampled each five seconds.
    """

    workers: int
    seen: int
    trials: int
    sleep_s: float
    start_s: float
    window_s: float
    share: float
    gap_s: tuple[float, float]
    driver_cpu_s: float
    memory_gb: float

    def row(self) -> str:
        """As a line of the table."""
        return (
            f"{self.workers} | {self.seen} | {self.trials} x {self.sleep_s:g} s | {self.share:.2%} | "
            f"{self.gap_s[0]:.3f} s | {self.gap_s[1]:.3f} s | {1000 * self.driver_cpu_s:.1f} ms | "
            f"{self.start_s:.0f} s | {self.window_s:.0f} s | {self.memory_gb:.1f} GB"
        )


HEAD = (
    "workers | processes | trials | share of ideal | between trials, median | 99 % | driver's CPU a trial | "
    "until nearly all worked | measured for | memory"
)


def sleeper(assignment: Assignment, report: Report) -> Outcome:
    """A trial that takes exactly as long as it was told, with two reports."""
    begun = time.time()
    half = float(assignment.settings["sleep_s"]) / 2
    for epoch in range(2):
        time.sleep(half)
        fitness = -sum((float(value) - 0.3) ** 2 for value in assignment.config.values())
        report(epoch, {"fitness": fitness * (2 - epoch)})
    span = [begun, time.time()]
    return Outcome(fitness, {"fitness": fitness}, [], result={"span": span, "pid": os.getpid()})


class Memory:
    """The most memory that this process and its children held, each shared page counted once."""

    def __init__(self) -> None:
        self.most = 0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()

    def _look(self) -> None:
        while not self._over.wait(5):
            held = 0
            for process in (psutil.Process(), *psutil.Process().children(recursive=True)):
                try:
                    held += process.memory_full_info().pss
                except psutil.Error:
                    continue
            self.most = max(self.most, held)

    def close(self) -> float:
        """The most in GB."""
        self._over.set()
        self._thread.join()
        return self.most / 1e9


def begins(spans: list[list[tuple[float, float]]], count: float) -> float:
    """The first moment at which so many trials ran at once.

    Args:
        spans: Of each process, begin and end of its trials.
        count: Of trials.
    """
    moments = sorted(
        [(a, 1) for each in spans for a, _ in each] + [(b, -1) for each in spans for _, b in each]
    )
    running = 0
    for moment, change in moments:
        running += change
        if running >= count:
            return moment
    raise SystemExit(f"never {count:g} trials ran at once")


def real(workers: int, trials: int, sleep_s: float) -> Measured:
    """Run so many trials on so many real workers."""
    ray.init("local", num_cpus=workers, include_dashboard=False, log_to_driver=False)
    asked: list[float] = []

    def listen(event: Event, state: RunState) -> None:
        if event["event"] == "ask":
            asked.append(time.time())

    memory = Memory()
    begun, cpu = time.time(), resource.getrusage(resource.RUSAGE_SELF)
    try:
        with tempfile.TemporaryDirectory() as place:
            busy_workers.begin(Path(place), trials, {"sleep_s": sleep_s}, workers).close()
            state = run_evolution(Path(place), sleeper, listen)
    finally:
        ray.shutdown()
    after = resource.getrusage(resource.RUSAGE_SELF)
    used = after.ru_utime + after.ru_stime - cpu.ru_utime - cpu.ru_stime
    Path(tempfile.gettempdir(), f"scaling-{workers}.json").write_text(
        json.dumps({"asked": asked, "begun": begun, "results": [trial.result for trial in state.finished]})
    )
    spans: dict[int, list[tuple[float, float]]] = {}
    for trial in state.finished:
        first, last = trial.result["span"]
        spans.setdefault(trial.result["pid"], []).append((first, last))
    ordered = [sorted(each) for each in spans.values()]
    start = begins(ordered, 0.95 * workers)
    end = max(asked)
    inside = sum(max(min(b, end) - max(a, start), 0.0) for each in ordered for a, b in each)
    gaps = [b[0] - a[1] for each in ordered for a, b in itertools.pairwise(each) if a[1] >= start]
    return Measured(
        workers=workers,
        seen=len(ordered),
        trials=len(state.finished),
        sleep_s=sleep_s,
        start_s=start - begun,
        window_s=end - start,
        share=inside / ((end - start) * workers),
        gap_s=(float(np.median(gaps)), float(np.quantile(gaps, 0.99))),
        driver_cpu_s=used / trials,
        memory_gb=memory.close(),
    )


@dataclass(frozen=True)
class Costs:
    """What the one driver spends.

    Attributes:
        trial_s: On each trial, its ask and its end, Tune's share and the search's among them.
        report_s: On each epoch's report.
        put_s: For which it waits for a store before a trial is handed out; 0 for a folder.
    """

    trial_s: float
    report_s: float
    put_s: float = 0.0


def played(
    workers: int, shortest_s: float, costs: Costs, epochs: int = 10, rounds: int = 20
) -> tuple[float, float]:
    """Workers as events on a clock of their own, each waiting for the one driver, which attends to one at a time.

    Trials are log-uniform in length, the longest ten times the shortest.

    Returns:
        Share of time that workers work, while there is work for all; share of it that the driver does.
    """
    rng = np.random.default_rng(7)
    lengths = iter(shortest_s * busy_workers.TIMES ** rng.random(workers * (rounds + 1)))
    free_at = worked = 0.0  # the driver's
    spans: list[tuple[float, float]] = []
    queue: list[tuple[float, int, float]] = []  # (moment, epoch, length); the last epoch is the end

    def attend(moment: float, cost: float) -> float:
        nonlocal free_at, worked
        free_at = max(free_at, moment) + cost
        worked += cost
        return free_at

    def hand_out(since: float) -> None:
        begun = attend(since, costs.trial_s + costs.put_s)
        length = next(lengths)
        spans.append((begun, begun + length))
        heapq.heappush(queue, (begun + length / epochs, 1, length))

    for _ in range(workers):
        hand_out(0.0)
    start, before = free_at, worked
    while len(spans) < workers * rounds:
        moment, epoch, length = heapq.heappop(queue)
        if epoch == epochs:
            hand_out(moment)
        else:
            attend(moment, costs.report_s)  # its worker goes on meanwhile
            heapq.heappush(queue, (moment + length / epochs, epoch + 1, length))
    end = max(free_at, start + 1e-9)
    busy = sum(max(min(b, end) - max(a, start), 0.0) for a, b in spans)
    return busy / ((end - start) * workers), (worked - before) / (end - start)


def simulate(counts: list[int], costs: Costs) -> None:
    """Print the table of played evolutions, in a folder and in a store."""
    print(
        f"driver: {1000 * costs.trial_s:.0f} ms a trial, {1000 * costs.report_s:.1f} ms a report, "
        f"{1000 * costs.put_s:.0f} ms a put into a store"
    )
    print("workers | trials of | workers busy | driver busy | workers with a store | driver with a store")
    for shortest_s in (6.0, 60.0, 600.0):
        for workers in counts:
            plain = played(workers, shortest_s, replace(costs, put_s=0.0))
            stored = played(workers, shortest_s, costs)
            print(
                f"{workers} | {shortest_s:g} to {10 * shortest_s:g} s | {plain[0]:.2%} | {plain[1]:.1%} | "
                f"{stored[0]:.2%} | {stored[1]:.1%}",
                flush=True,
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--real", type=int, nargs="*", default=[], help="so many real workers, each in turn")
    parser.add_argument("--sleep", type=float, default=10.0, help="seconds of a trial of --real")
    parser.add_argument("--rounds", type=int, default=4, help="trials per worker of --real")
    parser.add_argument("--thousand", action="store_true", help="1,000 trials over 64 real workers")
    parser.add_argument("--simulate", type=int, nargs="*", default=[], help="so many workers, played")
    parser.add_argument("--driver-ms", type=float, default=60.0, help="of the driver for a trial: see --real")
    parser.add_argument("--report-ms", type=float, default=2.0, help="of the driver for an epoch's report")
    parser.add_argument(
        "--put-ms", type=float, default=50.0, help="of an object store, before a trial is handed out"
    )
    options = parser.parse_args()
    if options.real or options.thousand:
        print(HEAD, flush=True)
    for workers in options.real:
        print(real(workers, workers * options.rounds, options.sleep).row(), flush=True)
    if options.thousand:
        print(real(64, 1000, options.sleep).row(), flush=True)
    if options.simulate:
        costs = Costs(options.driver_ms / 1000, options.report_ms / 1000, options.put_ms / 1000)
        simulate(options.simulate, costs)


if __name__ == "__main__":
    main()
