"""`kill -9` of the driver in the middle of an evolution, then `beagle resume`: nothing is done twice."""

import csv
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from evolve.journal import RunState, fold, read_journal

pytestmark = pytest.mark.ray

PATIENCE_S = 240
EPOCHS = 12


def state_of(run: Path) -> RunState | None:
    path = run / "journal.jsonl"
    return fold(read_journal(path)) if path.exists() and path.stat().st_size else None


def wait_until(run: Path, process: subprocess.Popen[str], holds: Callable[[RunState], bool]) -> RunState:
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        assert process.poll() is None, process.communicate()
        state = state_of(run)
        if state is not None and holds(state):
            return state
        time.sleep(0.05)
    raise AssertionError("the run did not come so far in time")


@pytest.mark.slow
def test_a_killed_evolution_of_detectors_goes_on_where_it_was(
    place: Path,
    start: Callable[..., subprocess.Popen[str]],
    beagle: Callable[..., subprocess.CompletedProcess[str]],
) -> None:
    run = place / "runs/killed"
    driver = start(
        *("evolve", "data/data.yaml", "--model", "yolov5n", "--image-size", "64", "--batch-size", "4"),
        *("--trials", "4", "--epochs", str(EPOCHS), "--concurrent", "2", "--cpus", "0.5"),
        *("--device", "cpu", "--genes", "lr0,mosaic", "--out", "runs/killed"),
    )
    wait_until(
        run, driver, lambda s: bool(s.finished) and any(2 <= len(t.reports) < EPOCHS - 2 for t in s.running)
    )
    driver.send_signal(signal.SIGKILL)
    driver.communicate(timeout=PATIENCE_S)
    before = state_of(run)
    assert before is not None
    assert before.running

    beagle("resume", "killed")

    events = read_journal(run / "journal.jsonl")
    assert sorted(event["trial"] for event in events if event["event"] == "tell") == [0, 1, 2, 3]
    after = fold(events)
    assert len(after.finished) == 4
    for trial in before.finished:
        assert after.trials[trial.id] == trial
    for trial in before.running:
        resumed = after.trials[trial.id]
        assert resumed.attempt >= 1
        assert resumed.config == trial.config
        # Epochs that were reported before the kill were kept, not trained again.
        assert {epoch: resumed.reports[epoch] for epoch in trial.reports} == trial.reports
        with (run / f"trials/{trial.id:04d}/training/results.csv").open() as table:
            assert [int(row["epoch"]) for row in csv.DictReader(table)] == list(range(EPOCHS))


@pytest.mark.slow
def test_an_evolution_of_detectors_that_is_asked_to_stop_ends_its_epochs_and_goes_on_with_more_trials(
    place: Path,
    start: Callable[..., subprocess.Popen[str]],
    beagle: Callable[..., subprocess.CompletedProcess[str]],
) -> None:
    run = place / "runs/stopped"
    driver = start(
        *("evolve", "data/data.yaml", "--model", "yolov5n", "--image-size", "64", "--batch-size", "4"),
        *("--trials", "2", "--epochs", str(EPOCHS), "--concurrent", "1", "--cpus", "0.5"),
        *("--device", "cpu", "--genes", "lr0,mosaic", "--out", "runs/stopped"),
    )
    wait_until(run, driver, lambda s: any(2 <= len(t.reports) < EPOCHS - 2 for t in s.running))

    said = beagle("stop", "stopped").stderr

    assert "0 of 2 trials are done, 1 to go on with" in " ".join(said.split())
    out, err = driver.communicate(timeout=PATIENCE_S)
    assert driver.returncode == 0, err
    assert "stopped: 0 of 2 trials are done" in " ".join(err.split())
    assert "report" in out
    before = state_of(run)
    assert before is not None
    (left,) = before.running

    beagle("resume", "stopped", "--trials", "3", "--concurrent", "2")

    after = state_of(run)
    assert after is not None
    assert len(after.finished) == 3
    assert after.resources["concurrent"] == 2
    first = after.trials[left.id]
    assert {epoch: first.reports[epoch] for epoch in left.reports} == left.reports
    with (run / f"trials/{left.id:04d}/training/results.csv").open() as table:
        assert [int(row["epoch"]) for row in csv.DictReader(table)] == list(range(EPOCHS))
