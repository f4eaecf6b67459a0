"""All at once: an evolution as a job of a Ray cluster of several machines, kept in an object store.

One machine is lost and another joins, the driver is killed, and nobody may see the store's secret.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import requests

from evolve.journal import RunState, fold, read_journal
from evolve.object_store import ObjectStore
from evolve.segments import SegmentLog
from evolve.store_url import StoreError, StoreUrl
from evolve.stored_run import mirror_of
from evolve.stored_trial import bring, last_save

pytestmark = pytest.mark.ray

URL = StoreUrl("s3", "bucket/runs/wide")
PATIENCE_S = 150
TRIALS, EPOCHS = 12, 6
PROGRAM = """\
import json, os, pathlib, sys, time
out, x, epochs = pathlib.Path(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3])
out.mkdir(parents=True, exist_ok=True)
place = out / "last.json"
done = json.loads(place.read_text()) if place.exists() else []
for epoch in range(len(done), epochs):
    time.sleep(1.0)
    done.append({"map": (1 - (x - 0.7) ** 2) * (epoch + 1) / epochs, "node": os.environ["BEAGLE_TEST_NODE"]})
    (out / "aside").write_text(json.dumps(done))
    (out / "aside").replace(place)
    with (out / "metrics.jsonl").open("a") as file:
        file.write(json.dumps({"epoch": epoch, "map": done[-1]["map"]}) + "\\n")
"""
TRAINER = """\
command: ["{python}", program.py, "{out}", "{gene:x}", "{epochs}"]
genes:
  x: {low: 0.0, high: 1.0, start: 0.1}
results: {format: jsonl, file: "{out}/metrics.jsonl", fitness: map, epoch: {column: epoch, first: 0}}
checkpoint:
  last: "{out}/last.json"
  resume: ["{python}", program.py, "{out}", "{gene:x}", "{epochs}"]
"""


def beagle(*words: str, folder: Path) -> str:
    code = "import sys; from beagle.cli import main; sys.argv[0] = 'beagle'; main()"
    done = subprocess.run(
        [sys.executable, "-c", code, *words],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=200,
    )
    assert done.returncode == 0, (words, done.stdout, done.stderr)
    return done.stdout + done.stderr


def state_once(holds: Callable[[RunState], bool], job: Callable[[], str]) -> RunState:
    end = time.monotonic() + PATIENCE_S
    while time.monotonic() < end:
        try:
            state = fold(read_journal(mirror_of(URL) / "journal.jsonl"))
        except StoreError:
            state = None
        if state is not None and holds(state):
            return state
        time.sleep(0.3)
    raise AssertionError(job())


def nodes_of(trial: int) -> list[str]:
    """The machine of each epoch that the trial's saved checkpoint holds."""
    _, save = last_save(SegmentLog(ObjectStore(URL), f"trials/{trial:04d}/saves", ".json"), ObjectStore(URL))
    names = [name for name in (save or {"files": {}})["files"] if name.endswith("last.json")]
    if not names:
        return []
    path = bring(mirror_of(URL), f"trials/{trial:04d}/{names[0]}")
    return [row["node"] for row in json.loads(path.read_text())]


def command_lines() -> Iterator[str]:
    for process in psutil.process_iter():
        try:
            yield " ".join(process.cmdline())
        except psutil.Error:
            continue


@pytest.mark.slow
def test_an_evolution_outlives_a_lost_machine_and_its_driver_uses_a_new_one_and_keeps_its_secret(
    ray_machines: Any, bucket: Any, tmp_path: Path
) -> None:
    ray_machines.start("head", cpus=1)  # runs the driver's job; trials need a GPU
    for name in ("one", "two"):
        ray_machines.start(name, cpus=2, gpus=2)
    (tmp_path / "program.py").write_text(PROGRAM)
    (tmp_path / "command.yaml").write_text(TRAINER)
    names = (*sorted(bucket.environment()), "BEAGLE_CACHE")
    variables = [word for name in names for word in ("--env", name)]
    place = ("--to", "ray", "--set", f"address={ray_machines.dashboard}", "--name", "wide", *variables)
    evolve = ("evolve", "--trainer", "command.yaml", "--trials", str(TRIALS), "--epochs", str(EPOCHS))
    seen = [beagle("submit", *place, "--", *evolve, "--gpus", "1", "--out", str(URL), folder=tmp_path)]

    def log() -> str:
        return beagle("jobs", "logs", "wide", folder=tmp_path)

    state_once(lambda state: sum(bool(trial.reports) for trial in state.running) >= 3, log)
    seen.extend(command_lines())
    ray_machines.start("three", cpus=2, gpus=2)
    ray_machines.lose("two")
    state_once(lambda state: state.told >= 6, log)
    driver = json.loads(ObjectStore(URL).get("driver.json") or b"{}")["process"]["pid"]
    os.kill(driver, signal.SIGKILL)
    state_once(lambda state: state.told == TRIALS, log)
    wait_for_job(tmp_path, log)

    nothing_is_lost(log())
    shown = requests.get(
        f"{ray_machines.dashboard}/api/jobs/",
        headers={"Authorization": f"Bearer {os.environ['RAY_AUTH_TOKEN']}"},
        timeout=30,
    ).text
    assert "BEAGLE_RAY_ADDRESS" in shown
    seen += [shown, log(), beagle("jobs", "show", "wide", "--json", folder=tmp_path), *command_lines()]
    seen += [beagle("status", str(URL), folder=tmp_path)]
    nobody_saw_the_secret(seen, (tmp_path, ray_machines.temporary, ray_machines.folder))


def wait_for_job(folder: Path, log: Callable[[], str]) -> None:
    end = time.monotonic() + 60
    while (
        status := json.loads(beagle("jobs", "show", "wide", "--json", folder=folder))["status"]
    ) == "running":
        assert time.monotonic() < end, log()
        time.sleep(1)
    assert status == "done", log()


def nothing_is_lost(log: str) -> None:
    """Every trial was told once, with each epoch; trials of the lost machine went on elsewhere."""
    events = read_journal(mirror_of(URL) / "journal.jsonl")
    state = fold(events)
    assert Counter(event["trial"] for event in events if event["event"] == "tell") == Counter(range(TRIALS))
    assert len(state.finished) == TRIALS, [trial.reason for trial in state.failed]
    assert all(set(trial.reports) == set(range(EPOCHS)) for trial in state.finished)
    nodes = {trial.id: nodes_of(trial.id) for trial in state.finished}
    assert all(len(each) == EPOCHS for each in nodes.values()), nodes
    assert {node for each in nodes.values() for node in each} == {"one", "two", "three"}
    assert [each for each in nodes.values() if "two" in each and each[-1] != "two"], nodes
    assert "attempt 2 of 3" in log


def nobody_saw_the_secret(seen: list[str], folders: tuple[Path, ...]) -> None:
    """It is in no output, process, file, database or object."""
    secret = os.environ["AWS_SECRET_ACCESS_KEY"]
    assert not any(secret in text for text in seen)
    files = [
        path for folder in folders for path in folder.rglob("*") if path.is_file() and not path.is_symlink()
    ]
    assert any(path.name == "mlflow.db" for path in files)
    assert [str(path) for path in files if secret.encode() in path.read_bytes()] == []
    contents = ObjectStore(URL).get_all(ObjectStore(URL).names())
    assert not any(secret.encode() in content for content in contents if content)
