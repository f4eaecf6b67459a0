"""A trial that asks for two GPUs is trained by two processes that share each batch: on real Ray, with GPUs that Ray
believes in and gloo on the CPU.
"""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from beagle.wiring import EvolveOptions, start_run
from evolve.journal import fold, read_journal
from evolve.ladder import Ladder
from evolve.resources import Resources
from trainer.checkpoint import load as load_checkpoint

DRIVE = """
import sys
from pathlib import Path

import ray

from beagle.wiring import drive

if __name__ == "__main__":
    ray.init("local", num_cpus=2, num_gpus=2, include_dashboard=False, log_to_driver=False)
    drive(Path(sys.argv[1]))
"""
PATIENCE_S = 240
EPOCHS = 5

pytestmark = [pytest.mark.slow, pytest.mark.ray]


@pytest.fixture
def run(tmp_path: Path, tiny: Path) -> Path:
    """Two trials of two GPUs each, one after the other."""
    options = EvolveOptions(
        data=str(tiny),
        model="yolov5n",
        trials=2,
        ladder=Ladder((EPOCHS,)),
        batch_size=4,
        image_size=64,
        genes=("lr0", "mosaic"),
        training={"device": "cpu"},
    )
    start_run(tmp_path / "run", options, Resources(cpus=1, gpus=2), lambda _line: None)
    return tmp_path / "run"


def start(run: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", DRIVE, str(run)],
        env={**os.environ, "BEAGLE_CRASHES": str(run)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def finish(process: subprocess.Popen[str]) -> None:
    said, _ = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0, said


def partners(process: subprocess.Popen[str]) -> list[psutil.Process]:
    """Processes that a trial has started to share its batches."""
    found = []
    for child in psutil.Process(process.pid).children(recursive=True):
        try:
            if any("spawn_main" in word for word in child.cmdline()):
                found.append(child)
        except psutil.Error:
            continue
    return found


def test_each_trial_is_trained_by_two_processes(run: Path) -> None:
    process = start(run)
    most, end = 0, time.monotonic() + PATIENCE_S
    while process.poll() is None and time.monotonic() < end:
        most = max(most, len(partners(process)))
        time.sleep(0.2)
    finish(process)
    assert most == 2
    trials = fold(read_journal(run / "journal.jsonl")).trials
    assert [trial.fitness is not None for trial in trials.values()] == [True, True], trials
    for trial in trials:
        state = load_checkpoint(run / f"trials/{trial:04d}/training/weights/last.pt")
        assert state["config"]["devices"] == 2
        assert len(state["history"]) == EPOCHS


def test_a_partner_that_dies_ends_the_attempt_and_the_trial_goes_on_in_another(run: Path) -> None:
    process = start(run)
    end = time.monotonic() + PATIENCE_S
    while not (run / "trials/0000/training/weights/last.pt").is_file():
        assert process.poll() is None
        assert time.monotonic() < end
        time.sleep(0.05)
    for partner in partners(process)[-1:]:
        partner.send_signal(signal.SIGKILL)
    finish(process)
    trials = fold(read_journal(run / "journal.jsonl")).trials
    assert all(trial.fitness is not None for trial in trials.values()), trials
    assert (trials[0].failures, trials[0].epochs) == (1, EPOCHS), trials[0]
