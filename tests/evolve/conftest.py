"""Drivers as processes that a test may kill, what their runs say, and a Ray that several of them share."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from evolve.journal import RunState, fold, read_journal
from evolve.ledger import trial_folder

SCRIPT = Path(__file__).with_name("driver_script.py")
PATIENCE_S = 240


class Drivers:
    """Starts drivers and looks at their runs."""

    @staticmethod
    def start(
        folder: Path,
        trials: int = 6,
        epochs: int = 4,
        *,
        faults: dict[int, str] | None = None,
        **options: object,
    ) -> subprocess.Popen[str]:
        """A driver of the run in `folder`; `options` are the script's variables (EPOCH_S, GPUS, ADDRESS, ...)."""
        values = {name.upper(): str(value) for name, value in options.items()}
        return subprocess.Popen(
            [sys.executable, str(SCRIPT), str(folder), str(trials), str(epochs)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, **values, "FAULTS": json.dumps(faults or {})},
        )

    @staticmethod
    def state_of(folder: Path) -> RunState:
        return fold(read_journal(folder / "journal.jsonl"))

    @staticmethod
    def wait_until(
        folder: Path, holds: Callable[[RunState], bool], process: subprocess.Popen[str] | None = None
    ) -> RunState:
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline:
            if (folder / "journal.jsonl").exists() and (folder / "journal.jsonl").stat().st_size:
                state = Drivers.state_of(folder)
                if holds(state):
                    return state
            assert process is None or process.poll() is None, process.communicate()
            time.sleep(0.05)
        raise AssertionError("the run did not come so far in time")

    @staticmethod
    def finish(process: subprocess.Popen[str]) -> str:
        """What the driver said until its end, which must be a good one."""
        said, _ = process.communicate(timeout=PATIENCE_S)
        assert process.returncode == 0, said
        return said

    @staticmethod
    def epochs_run(folder: Path, trial: int) -> list[int]:
        path = trial_folder(folder, trial) / "ran.txt"
        return [int(line) for line in path.read_text().split()] if path.exists() else []

    @staticmethod
    def asks(folder: Path) -> list[int]:
        return [event["trial"] for event in read_journal(folder / "journal.jsonl") if event["event"] == "ask"]

    @staticmethod
    def tells(folder: Path) -> list[int]:
        return [
            event["trial"] for event in read_journal(folder / "journal.jsonl") if event["event"] == "tell"
        ]

    @staticmethod
    def configs(folder: Path) -> list[dict[str, float | int]]:
        return [trial.config for trial in Drivers.state_of(folder).trials.values()]


@pytest.fixture(scope="session")
def drivers() -> type[Drivers]:
    return Drivers


@pytest.fixture(scope="module")
def ray_address() -> Iterator[str]:
    """A Ray of two CPUs and one GPU that it only believes in, for drivers that join it."""
    from ray.cluster_utils import Cluster

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_AUTH_MODE", "disabled")
        node = {"num_cpus": 2, "num_gpus": 1, "include_dashboard": False, "object_store_memory": 100_000_000}
        cluster = Cluster(initialize_head=True, head_node_args=node)
        yield cluster.address
        cluster.shutdown()
