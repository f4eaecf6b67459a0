"""A driver as a process of its own, which tests may kill: `python driver_script.py RUN_FOLDER TRIALS EPOCHS`.

Its objective needs no detector: it moves on by an epoch every few hundredths of a second, keeps its place in a
file as a checkpoint, and writes down every epoch that it ran, so that a test can count what ran twice.
"""

import json
import os
import sys
import time
from pathlib import Path

import ray

from evolve import Gene, SearchSettings, Space
from evolve.journal import Journal
from evolve.ray_driver import Resources, run_evolution
from evolve.trainable import Outcome


def objective(assignment, report):
    folder = Path(assignment.folder)
    (folder / "pid").write_text(str(os.getpid()))
    (folder / "gpus").write_text(os.environ.get("CUDA_VISIBLE_DEVICES", "none"))
    place = folder / "checkpoint.json"
    history = json.loads(place.read_text()) if place.exists() else []
    epochs = assignment.settings["epochs"]
    for epoch in range(len(history), epochs):
        time.sleep(assignment.settings["epoch_s"])
        x, y = assignment.config["x"], assignment.config["y"]
        history.append({"fitness": (1 - (x - 0.7) ** 2 - (y - 0.2) ** 2) * (epoch + 1) / epochs})
        aside = folder / "checkpoint.tmp"
        aside.write_text(json.dumps(history))
        aside.replace(place)
        with (folder / "ran.txt").open("a") as ran:
            ran.write(f"{epoch}\n")
        report(epoch, history[-1])
    return Outcome(history[-1]["fitness"], history[-1], history, seconds=0.1)


def main(folder: Path, trials: int, epochs: int) -> None:
    gpus = float(os.environ.get("GPUS", "0"))
    if not (folder / "journal.jsonl").exists():
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
                    "settings": {"epochs": epochs, "epoch_s": float(os.environ.get("EPOCH_S", "0.1"))},
                    "resources": Resources(gpus=gpus, concurrent=2, retries=2).to_dict(),
                    "provenance": {},
                }
            )
    if gpus:  # GPUs that Ray only believes in
        ray.init("local", num_cpus=2, num_gpus=1, include_dashboard=False, log_to_driver=False)
    run_evolution(folder, objective)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
