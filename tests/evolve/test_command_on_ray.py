"""Commands as trials of a real Ray: GPUs handed through, a worker that is killed, and no process left behind."""

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
import yaml

from evolve.journal import fold, read_journal

pytestmark = pytest.mark.ray

HERE = Path(__file__).parent
PATIENCE_S = 240


def commands(folder: Path) -> list[psutil.Process]:
    """Stand-ins that run for this folder."""
    found = []
    for process in psutil.process_iter(["cmdline", "status"]):
        words = process.info["cmdline"] or []
        if "train.py" in words and any(str(folder) in word for word in words):
            found.append(process)
    return [process for process in found if process.info["status"] != psutil.STATUS_ZOMBIE]


def wait_for(holds: Callable[[], bool], driver: "subprocess.Popen[str]") -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not holds():
        assert driver.poll() is None, driver.communicate()[0]
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "train.py").write_bytes((HERE / "programs/yolov5_train.py").read_bytes())
    return tmp_path


def start(folder: Path, trials: int, epochs: int, model: str) -> "subprocess.Popen[str]":
    words = [
        sys.executable,
        str(HERE / "command_driver_script.py"),
        str(folder),
        str(trials),
        str(epochs),
        model,
    ]
    return subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def run_of(folder: Path, trial: int) -> Path:
    return folder / f"trials/{trial:04d}/training/run"


def test_each_trial_has_its_own_gpu_and_a_killed_worker_s_command_dies_with_it_and_goes_on(
    folder: Path,
) -> None:
    with start(folder, 2, 8, "slow.pt") as driver:
        wait_for(
            lambda: all((run_of(folder, trial) / "weights/last.pt").is_file() for trial in (0, 1)), driver
        )
        gpus = {json.loads((run_of(folder, trial) / "seen.json").read_text())["gpus"] for trial in (0, 1)}
        assert gpus == {"0", "1"}
        first = json.loads((run_of(folder, 0) / "seen.json").read_text())["pid"]
        keeper = psutil.Process(first).parent()
        assert keeper is not None
        worker = keeper.parent()
        assert worker is not None
        worker.kill()
        wait_for(lambda: not psutil.pid_exists(first), driver)
        said, _ = driver.communicate(timeout=PATIENCE_S)
        assert driver.returncode == 0, said
    state = fold(read_journal(folder / "journal.jsonl"))
    assert [trial.status for trial in state.trials.values()] == ["finished", "finished"]
    assert len(state.trials[0].retries) == 1
    for trial in state.finished:
        assert sorted(trial.reports) == list(range(8))
        ran = [int(line) for line in (run_of(folder, trial.id) / "ran.txt").read_text().split()]
        assert ran.count(0) == 1
        assert len(ran) <= 8 + trial.attempt  # the epoch in flight at the kill
        assert yaml.safe_load((run_of(folder, trial.id) / "opt.yaml").read_text())["device"] == ""
    assert not commands(folder)


@pytest.mark.slow
def test_a_driver_that_is_interrupted_leaves_no_command_behind(folder: Path) -> None:
    with start(folder, 2, 100, "child.pt") as driver:
        wait_for((run_of(folder, 1) / "weights/last.pt").is_file, driver)
        driver.terminate()
        driver.communicate(timeout=PATIENCE_S)
    deadline = time.monotonic() + PATIENCE_S
    while commands(folder):
        assert time.monotonic() < deadline, "a command outlived its driver"
        time.sleep(0.1)
