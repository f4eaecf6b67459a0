"""What a trial costs beside its training: no-op trials through Ray Tune, the journal and the mirror.

`python -m benchmarks.driver_overhead [--trials 100 1000 3000] [--mirror] [--plain]` prints, for each number of
trials, seconds per trial on the wall, the driver's own CPU seconds per trial, its memory and what a worker holds.
Trials do nothing, so all that is seen is overhead. `--plain` runs Tune alone, its defaults and reused actors, as the
baseline.
"""

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil
from ray import tune

from evolve import Gene, Journal, SearchSettings, Space
from evolve.journal import Event, RunState
from evolve.live_tracking import LiveMirror
from evolve.mlflow_store import default_store
from evolve.ray_driver import run_evolution
from evolve.ray_session import connected
from evolve.resources import Resources
from evolve.trainable import Assignment, Outcome, Report

GENES = 20
CONCURRENT = 2
EVERY = 250  # trials between two words on how it goes


def no_op(assignment: Assignment, report: Report) -> Outcome:
    """A trial that is over at once, with one epoch."""
    fitness = 1.0 - sum((float(value) - 0.3) ** 2 for value in assignment.config.values()) / GENES
    report(0, {"fitness": fitness})
    process = psutil.Process()
    held = {"pid": os.getpid(), "memory": process.memory_info().rss, "threads": process.num_threads()}
    return Outcome(fitness, {"fitness": fitness}, [{"fitness": fitness}], result=held)


def begin(folder: Path, trials: int) -> None:
    genes = [Gene(f"g{number}", 0, 1, start=0.5) for number in range(GENES)]
    with Journal(folder / "journal.jsonl") as journal:
        journal.append(
            {
                "event": "run",
                "version": 1,
                "name": f"overhead-{trials}",
                "trials": trials,
                "seed": 0,
                "space": Space(genes).to_dict(),
                "search": SearchSettings(
                    children=0, replicas=1
                ).to_dict(),  # the surrogate is no part of what is measured
                "settings": {"hyp": {f"h{number}": number / 7 for number in range(40)}},
                "resources": Resources(concurrent=CONCURRENT).to_dict(),
                "provenance": {},
            }
        )


def ours(trials: int, mirrored: bool) -> list[str]:
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "run"
        begin(folder, trials)
        mirror = None
        if mirrored:
            mirror = LiveMirror(folder, default_store(Path(place), {}))
            mirror.start()
        moments: list[float] = []
        spent: list[float] = []
        memory: list[int] = []
        driver = psutil.Process()

        def listen(event: Event, state: RunState) -> None:
            if event["event"] == "tell":
                moments.append(time.monotonic())
                spent.append(sum(driver.cpu_times()[:2]))
                memory.append(driver.memory_info().rss)
                if len(spent) % EVERY == 0:
                    each = (spent[-1] - spent[-EVERY]) / (EVERY - 1)
                    said = f"{len(spent)} trials: {each:.4f} CPU s each of late, {memory[-1] >> 20} MiB"
                    print(said, file=sys.stderr, flush=True)

        cpu = sum(driver.cpu_times()[:2])
        state = run_evolution(folder, no_op, listen)
        cpu = sum(driver.cpu_times()[:2]) - cpu
        problem = mirror.close(600) if mirror else None
        if problem is not None:
            raise problem
        held = [trial.result for trial in state.finished]
        worker = [row["memory"] >> 20 for row in held if row["pid"] == held[-1]["pid"]]
        tenth = max(trials // 10, 2)
        return [
            "ours, mirrored" if mirrored else "ours",
            str(trials),
            f"{(moments[-1] - moments[0]) / (trials - 1):.4f}",
            f"{cpu / trials:.4f}",
            f"{(spent[tenth] - spent[0]) / tenth:.4f}",
            f"{(spent[-1] - spent[-tenth]) / (tenth - 1):.4f}",
            f"{memory[tenth] >> 20} -> {memory[-1] >> 20}",
            f"{worker[min(10, len(worker) - 1)]} -> {worker[-1]}",
            str(len({row["pid"] for row in held})),
        ]


def plain(trials: int) -> list[str]:
    def nothing(config: dict[str, Any]) -> None:
        tune.report({"score": config["x"]})

    with tempfile.TemporaryDirectory() as place:
        driver = psutil.Process()
        cpu, start, before = sum(driver.cpu_times()[:2]), time.monotonic(), driver.memory_info().rss
        tune.Tuner(
            nothing,
            param_space={"x": tune.uniform(0, 1)},
            tune_config=tune.TuneConfig(
                num_samples=trials, max_concurrent_trials=CONCURRENT, reuse_actors=True
            ),
            run_config=tune.RunConfig(storage_path=place, verbose=0),
        ).fit()
        cpu, seconds = sum(driver.cpu_times()[:2]) - cpu, time.monotonic() - start
        memory = f"{before >> 20} -> {driver.memory_info().rss >> 20}"
        return [
            "Tune, its defaults",
            str(trials),
            f"{seconds / trials:.4f}",
            f"{cpu / trials:.4f}",
            "",
            "",
            memory,
            "",
            "",
        ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, nargs="+", default=[100, 1000, 3000])
    parser.add_argument(
        "--mirror", action="store_true", help="with MLflow's copy, in SQLite, as `beagle` has it"
    )
    parser.add_argument("--plain", action="store_true", help="run Tune alone too")
    options = parser.parse_args()
    columns = [
        "",
        "trials",
        "s a trial",
        "driver's CPU s",
        "first tenth",
        "last tenth",
        "driver MiB",
        "worker MiB",
    ]
    print(" | ".join([*columns, "workers"]), flush=True)
    with connected():
        for trials in options.trials:
            if options.plain:
                print(" | ".join(plain(trials)), flush=True)
            print(" | ".join(ours(trials, options.mirror)), flush=True)


if __name__ == "__main__":
    main()
