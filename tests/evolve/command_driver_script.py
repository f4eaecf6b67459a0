"""An evolution of a command as a process: `python command_driver_script.py RUN_FOLDER TRIALS EPOCHS MODEL`.

Ray believes in two GPUs, each trial has one, and the command is the stand-in for YOLOv5 in the folder of the run.
"""

import sys
from pathlib import Path

import ray

from evolve import SearchSettings, Space
from evolve.command_file import load_trainer
from evolve.command_trainable import run_command
from evolve.journal import Journal
from evolve.ray_driver import Resources, run_evolution


def main(folder: Path, trials: int, epochs: int, model: str) -> None:
    spec = load_trainer("yolov5")
    settings = {
        **{
            "trainer": spec.to_dict(),
            "data": "data.yaml",
            "model": model,
            "epochs": epochs,
            "batch_size": 16,
        },
        **{"image_size": 640, "seed": 0, "device": "auto", "cwd": str(folder)},
    }
    with Journal(folder / "journal.jsonl") as journal:
        journal.append(
            {
                "event": "run",
                "version": 1,
                "name": folder.name,
                "trials": trials,
                "seed": 3,
                "space": Space(spec.genes[:2]).to_dict(),
                "search": SearchSettings().to_dict(),
                "settings": settings,
                "resources": Resources(cpus=1.0, gpus=1.0).to_dict(),
                "provenance": {},
            }
        )
    ray.init("local", num_cpus=2, num_gpus=2, include_dashboard=False, log_to_driver=False)
    run_evolution(folder, run_command)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4])
