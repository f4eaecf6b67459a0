"""A driver as a process of its own, which tests may kill: `python driver_script.py RUN_FOLDER TRIALS EPOCHS`.

Its objective needs no detector: it moves on by an epoch every few hundredths of a second, keeps its place in a
file as a checkpoint, and writes down every epoch that it ran, so that a test can count what ran twice. Faults happen
where `FAULTS` (JSON: trial to fault) says so.
"""

import json
import math
import os
import random
import signal
import sys
import threading
import time
from pathlib import Path

from ray.air.execution._internal import RayActorManager

from evolve import EvolveError, Gene, SearchSettings, Space
from evolve.journal import Journal
from evolve.ray_driver import run_evolution
from evolve.resources import Resources
from evolve.store_url import StoreUrl
from evolve.stored_run import holds_run, spool_of, store_of
from evolve.trainable import Outcome


def objective(assignment, report):
    folder = Path(assignment.folder)
    (folder / "pid").write_text(str(os.getpid()))
    (folder / "gpus").write_text(os.environ.get("CUDA_VISIBLE_DEVICES", "none"))
    place = folder / "checkpoint.json"
    history = json.loads(place.read_text()) if place.exists() else []
    epochs = assignment.settings["epochs"]
    fault = assignment.settings["faults"].get(str(assignment.trial))
    found = {"pid": os.getpid(), "marker": os.environ.get("MARKER"), "drawn": random.random()}
    found |= {"seed": assignment.settings.get("seed"), "epochs": epochs}
    if history:
        # The process may have died between its checkpoint and what follows it.
        if ran_of(folder)[-1:] != [len(history) - 1]:
            mark_ran(folder, len(history) - 1)
        report(len(history) - 1, history[-1])
    for epoch in range(len(history), epochs):
        time.sleep(assignment.settings["epoch_s"])
        if fault and epoch == 1:
            happen(fault, assignment)
        x, y = assignment.config["x"], assignment.config["y"]
        history.append(
            {"fitness": (1 - (x - 0.7) ** 2 - (y - 0.2) ** 2) * (epoch + 1) / epochs, "seconds": 0.1}
        )
        aside = folder / "checkpoint.tmp"
        aside.write_text(json.dumps(history))
        aside.replace(place)
        mark_ran(folder, epoch)
        report(epoch, history[-1])
    fitness = {"nan": math.nan, "infinite": math.inf}.get(fault, history[-1]["fitness"])
    return Outcome(fitness, history[-1], history, seconds=0.1, result=found)


def ran_of(folder):
    place = folder / "ran.txt"
    return [int(line) for line in place.read_text().split()] if place.exists() else []


def mark_ran(folder, epoch):
    with (folder / "ran.txt").open("a") as ran:
        ran.write(f"{epoch}\n")


class OutOfMemoryError(RuntimeError):
    """As torch's own is called."""


def happen(fault, assignment):
    """What goes wrong at the second epoch; most of it only at the first attempt."""
    first = assignment.attempt == 0
    if fault == "raise":
        raise RuntimeError("the device was lost")
    if fault == "refuse":
        raise ValueError("such a configuration can't work")
    if fault == "device memory":
        raise OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")
    if fault == "host memory" and assignment.micro_batch_halvings == 0:
        raise MemoryError
    if fault == "hang" and first:
        time.sleep(3600)
    if fault in ("freeze", "die") and first:
        os.kill(os.getpid(), signal.SIGSTOP if fault == "freeze" else signal.SIGKILL)
        time.sleep(3600)  # a process of several threads may run on for a moment
    if fault == "litter":
        os.environ["MARKER"] = "left by the trial before"
        random.seed(0)
        os.chdir("/")
    if fault == "thread":
        threading.Thread(target=time.sleep, args=(3600,), daemon=True).start()


def shake_clock(offsets):
    """From now on this process' wall clock jumps twice a second, from one offset in seconds to the next."""
    true_time = time.time
    time.time = lambda: true_time() + offsets[int(time.monotonic() * 2) % len(offsets)]


def count_workers():
    """A list that grows by one for each worker that Tune asks for."""
    asked, ask = [], RayActorManager.add_actor

    def counted(manager, *args, **more):
        asked.append(1)
        return ask(manager, *args, **more)

    RayActorManager.add_actor = counted
    return asked


def has_run(folder):
    store = store_of(folder)
    return (folder / "journal.jsonl").exists() if store is None else holds_run(store.url)


def main(folder: Path, trials: int, epochs: int) -> None:
    given = os.environ.get
    if given("CLOCK"):
        shake_clock(json.loads(given("CLOCK")))
    if not has_run(folder):
        resources = Resources(
            cpus=float(given("CPUS", "1")),
            gpus=float(given("GPUS", "0")),
            concurrent=int(given("CONCURRENT", "2")),
            retries=int(given("RETRIES", "2")),
            address=given("ADDRESS") or None,
            silence_s=float(given("SILENCE_S", "0")) or None,
        )
        settings = {"epochs": epochs, "epoch_s": float(given("EPOCH_S", "0.1"))}
        with Journal(folder / "journal.jsonl") as journal:
            journal.append(
                {
                    "event": "run",
                    "version": 1,
                    "name": folder.name,
                    "trials": trials,
                    "seed": 3,
                    "space": Space([Gene("x", 0, 1, start=0.1), Gene("y", 0, 1)]).to_dict(),
                    "search": SearchSettings().to_dict(),
                    "settings": {**settings, "faults": json.loads(given("FAULTS", "{}"))},
                    "resources": resources.to_dict(),
                    "provenance": {},
                    **({"ladder": json.loads(given("LADDER"))} if given("LADDER") else {}),
                    **({"patience": int(given("PATIENCE"))} if given("PATIENCE") else {}),
                    **({"confirm": json.loads(given("CONFIRM"))} if given("CONFIRM") else {}),
                }
            )
    workers = count_workers()
    try:
        state = run_evolution(folder, objective)
    except EvolveError as error:
        sys.exit(f"error: {error}")
    print(f"told {state.told} of {state.budget}, stopped: {state.stopped}, workers asked for: {len(workers)}")


if __name__ == "__main__":
    url = StoreUrl.parse(sys.argv[1])
    main(Path(sys.argv[1]) if url is None else spool_of(url), int(sys.argv[2]), int(sys.argv[3]))
