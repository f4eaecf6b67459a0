"""A stranger's own train.py evolved, killed, resumed, reported and exported: every step a process of its own."""

import json
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from evolve.journal import RunState, fold, read_journal

pytestmark = pytest.mark.ray

PROGRAM = Path(__file__).parents[1] / "evolve/programs/yolov5_train.py"
PATIENCE_S = 240


@pytest.fixture(scope="module")
def checkout(place: Path) -> Path:
    """What stands in for a checkout of YOLOv5: its train.py, and a model and a trainer that are no rooms of ours."""
    (place / "train.py").write_bytes(PROGRAM.read_bytes())
    return place


def state_of(run: Path) -> RunState:
    return fold(read_journal(run / "journal.jsonl"))


def has_begun(run: Path) -> bool:
    """Whether some epoch stands in the journal."""
    path = run / "journal.jsonl"
    return path.exists() and path.stat().st_size > 0 and any(t.reports for t in state_of(run).trials.values())


@pytest.fixture(scope="module")
def run(
    checkout: Path,
    start: Callable[..., subprocess.Popen[str]],
    beagle: Callable[..., subprocess.CompletedProcess[str]],
) -> Path:
    """A run of four trials, each of which crashes once, whose driver was killed and which was resumed to its end."""
    run = checkout / "runs/own"
    driver = start(
        *("evolve", "data/data.yaml", "--trainer", "yolov5", "--model", "crash.pt", "--trials", "4"),
        *("--epochs", "4", "--genes", "lr0,box", "--cpus", "0.5", "--concurrent", "2", "--out", "runs/own"),
    )
    deadline = time.monotonic() + PATIENCE_S
    try:
        while not has_begun(run):
            assert driver.poll() is None, driver.communicate()
            assert time.monotonic() < deadline, "no trial began in time"
            time.sleep(0.05)
    finally:
        driver.send_signal(signal.SIGKILL)
        driver.communicate()
    beagle("resume", "own")
    return run


def test_every_trial_of_a_command_ends_once_whatever_crashed_or_was_killed(run: Path) -> None:
    state = state_of(run)
    assert len(state.finished) == 4
    told = [event["trial"] for event in read_journal(run / "journal.jsonl") if event["event"] == "tell"]
    assert sorted(told) == [0, 1, 2, 3]
    for trial in state.finished:
        assert sorted(trial.reports) == [0, 1, 2, 3]
        assert any("illegal memory access" in reason or "restarted" in reason for reason in trial.retries)
        ran = (run / f"trials/{trial.id:04d}/training/run/ran.txt").read_text().split()
        assert sorted(set(ran)) == ["0", "1", "2", "3"]
        expected = max(0.0, 1 - abs(trial.config["lr0"] - 0.03) * 10)
        assert trial.reports[3]["map50"] == pytest.approx(expected, abs=1e-4)
    assert (run / "report.html").stat().st_size > 10_000


def test_its_export_is_the_user_s_own_command_and_can_be_verified(
    run: Path,
    checkout: Path,
    start: Callable[..., subprocess.Popen[str]],
    beagle: Callable[..., subprocess.CompletedProcess[str]],
) -> None:
    beagle("export", "own", "--to", "production")
    moved, best = (checkout / "production").rename(checkout / "moved folder"), state_of(run).best()
    assert best is not None
    hyp = yaml.safe_load((moved / "hyp.yaml").read_text())
    assert (hyp["lr0"], hyp["box"], hyp["cls"], len(hyp)) == (best.config["lr0"], best.config["box"], 0.5, 28)
    assert (moved / "best.pt").is_file()
    assert json.loads((moved / "provenance.json").read_text())["trial"] == best.id
    answer = subprocess.run(
        [moved / "train.sh", "--epochs", "5", "--weights", "yolov5s.pt"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert answer.returncode == 0, answer.stderr
    trained = yaml.safe_load((moved / "training/run/opt.yaml").read_text())
    assert (trained["epochs"], trained["hyp"], trained["device"]) == (5, str(moved / "hyp.yaml"), "")

    assert json.loads(beagle("verify", str(moved), "--json").stdout)["holds"]
    (moved / "hyp.yaml").write_text(yaml.safe_dump({**hyp, "lr0": hyp["lr0"] * 1.5}))
    with start("verify", str(moved)) as process:
        _, err = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 1
    assert "hyp.yaml: the file was changed since the export" in err
