"""Trials that are a real process: what it writes, how it ends, and what a retry does."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from evolve.command_file import load_trainer
from evolve.command_results import ResultsError
from evolve.command_trainable import CommandTrialError, run_command
from evolve.trainable import Assignment, Outcome, TrialError

PROGRAMS = Path(__file__).with_name("programs")
PATIENCE_S = 30


def assignment(
    folder: Path, trainer: str, *, config: dict[str, float] | None = None, **settings: Any
) -> Assignment:
    trial = folder / "trials" / "0003"
    trial.mkdir(parents=True, exist_ok=True)
    spec = load_trainer(trainer).to_dict()
    spec["limits"] |= settings.pop("limits", {})
    given = {key: settings.pop(key) for key in ("gpus", "micro_batch_halvings") if key in settings}
    usual = {
        "data": "/data/my data.yaml",
        "model": "yolov5s.pt",
        "epochs": 4,
        "batch_size": 16,
        "image_size": 640,
    }
    return Assignment(
        trial=3,
        config=config or {"lr0": 0.02},
        settings={**usual, "seed": 7, "cwd": str(folder), "trainer": spec, **settings},
        folder=str(trial),
        cpus=2.0,
        **given,
    )


@pytest.fixture
def yolov5(tmp_path: Path) -> Path:
    """A folder where `python train.py` is the stand-in for YOLOv5."""
    (tmp_path / "train.py").write_text((PROGRAMS / "yolov5_train.py").read_text())
    return tmp_path


class Seen(dict[int, dict[str, float]]):
    """A report that keeps what it is told, and may raise."""

    def __init__(self, stop_at: int | None = None) -> None:
        super().__init__()
        self.stop_at = stop_at

    def __call__(self, epoch: int, metrics: dict[str, float]) -> None:
        self[epoch] = metrics
        if epoch == self.stop_at:
            raise SystemExit


def epochs_run(folder: Path) -> list[int]:
    return [int(line) for line in (folder / "trials/0003/training/run/ran.txt").read_text().split()]


def test_a_command_s_epochs_weights_and_files_come_back(yolov5: Path) -> None:
    seen = Seen()
    outcome = run_command(assignment(yolov5, "yolov5", config={"lr0": 0.02, "box": 0.07}), seen)
    fitness = 0.1 * 0.9 + 0.9 * 0.45
    assert outcome.fitness == pytest.approx(fitness, abs=1e-4)
    assert [row["map50"] for row in outcome.history] == pytest.approx([0.225, 0.45, 0.675, 0.9], abs=1e-4)
    assert dict(enumerate(outcome.history)) == seen
    assert outcome.metrics == seen[3]
    assert outcome.result["best"] == "trials/0003/training/run/weights/best.pt"
    assert (yolov5 / outcome.result["best"]).is_file()
    assert {Path(name).name for name in outcome.result["artifacts"]} == {
        *("hyp.yaml", "output.txt", "results.csv", "opt.yaml"),
    }
    hyp = yaml.safe_load((yolov5 / "trials/0003/training/run/hyp.yaml").read_text())
    assert (hyp["lr0"], hyp["box"], hyp["cls"], len(hyp)) == (0.02, 0.07, 0.5, 28)
    opt = yaml.safe_load((yolov5 / "trials/0003/training/run/opt.yaml").read_text())
    assert (opt["data"], opt["weights"], opt["batch_size"], opt["seed"]) == (
        "/data/my data.yaml",
        "yolov5s.pt",
        16,
        7,
    )
    assert (opt["device"], opt["workers"]) == ("cpu", 2)
    assert json.loads(json.dumps(outcome.to_dict())) == outcome.to_dict()


def test_a_finished_trial_is_not_run_again(yolov5: Path) -> None:
    first = run_command(assignment(yolov5, "yolov5"), Seen())
    seen = Seen()
    assert run_command(assignment(yolov5, "yolov5"), seen) == first
    # ... nor where its worker died between its last epoch and its end.
    (yolov5 / "trials/0003/command.json").unlink()
    again = run_command(assignment(yolov5, "yolov5"), seen)
    assert (again.fitness, again.history) == (first.fitness, first.history)
    assert epochs_run(yolov5) == [0, 1, 2, 3]


def test_a_crash_is_retried_from_the_last_checkpoint(yolov5: Path) -> None:
    given = assignment(yolov5, "yolov5", model="crash.pt")
    first, second = Seen(), Seen()
    with pytest.raises(
        TrialError, match=r"exit code 1: .*RuntimeError: CUDA error: an illegal memory access"
    ):
        run_command(given, first)
    outcome = run_command(given, second)
    assert (list(first), list(second)) == ([0, 1], [1, 2, 3])  # the last one once more
    assert len(outcome.history) == 4
    assert epochs_run(yolov5) == [0, 1, 2, 2, 3]


def test_a_command_that_ends_twice_at_the_same_place_has_failed(yolov5: Path) -> None:
    given = assignment(yolov5, "yolov5", model="broken.pt")
    with pytest.raises(TrialError):
        run_command(given, Seen())
    outcome = run_command(given, Seen())
    assert outcome.fitness is None
    assert outcome.reason is not None
    assert "illegal memory access" in outcome.reason
    assert len(list((yolov5 / "trials/0003").glob("output*.txt"))) == 2


def test_a_checkpoint_that_can_not_be_gone_on_from_is_given_up(yolov5: Path) -> None:
    given = assignment(yolov5, "yolov5", model="slow.pt")
    with pytest.raises(SystemExit):
        run_command(given, Seen(stop_at=1))
    last = yolov5 / "trials/0003/training/run/weights/last.pt"
    last.write_text("half a check")
    with pytest.raises(TrialError, match="JSONDecodeError"):
        run_command(given, Seen())
    seen = Seen()
    outcome = run_command(given, seen)
    assert list(seen) == [0, 1, 2, 3]
    assert outcome.result["notes"] == ["the last checkpoint could not be gone on from: begun anew"]


def test_an_out_of_memory_is_answered_with_a_smaller_batch_then_with_failure(yolov5: Path) -> None:
    outcome = run_command(assignment(yolov5, "yolov5", model="oom.pt"), Seen())
    assert outcome.fitness is not None
    assert outcome.result["batch"] == 4
    assert outcome.result["notes"][-1] == "out of memory: begun anew with a batch of 4"
    other = yolov5 / "other"
    other.mkdir()
    (other / "train.py").write_bytes((yolov5 / "train.py").read_bytes())
    outcome = run_command(assignment(other, "yolov5", model="oom.pt", batch_size=64), Seen())
    assert outcome.fitness is None
    assert outcome.reason is not None
    assert outcome.reason.startswith("out of memory with a batch of 16: the command ended with exit code 1: ")


def test_a_driver_that_saw_workers_die_of_memory_is_obeyed(yolov5: Path) -> None:
    with pytest.raises(SystemExit):
        run_command(assignment(yolov5, "yolov5", model="slow.pt"), Seen(stop_at=0))
    outcome = run_command(assignment(yolov5, "yolov5", model="slow.pt", micro_batch_halvings=1), Seen())
    assert outcome.result["batch"] == 8
    assert yaml.safe_load((yolov5 / "trials/0003/training/run/opt.yaml").read_text())["batch_size"] == 8
    again = run_command(assignment(yolov5, "yolov5", model="slow.pt", micro_batch_halvings=1), Seen())
    assert again.result["batch"] == 8


def test_a_fitness_that_is_no_number_is_a_failure_with_its_history(yolov5: Path) -> None:
    outcome = run_command(assignment(yolov5, "yolov5", model="nan.pt"), Seen())
    assert (outcome.fitness, outcome.reason) == (None, "the fitness was nan in epoch 3")
    assert len(outcome.history) == 4


def living(word: str) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter(["cmdline", "status"]):
        words = process.info["cmdline"] or []
        if any(word in each for each in words) and process.info["status"] != psutil.STATUS_ZOMBIE:
            found.append(process)
    return found


def wait_for(holds: Any) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)


@pytest.mark.parametrize("model", ["child.pt", "stubborn.pt"])
def test_a_trial_that_is_stopped_leaves_no_process(yolov5: Path, model: str) -> None:
    seen = Seen(stop_at=0)
    with pytest.raises(SystemExit):
        run_command(assignment(yolov5, "yolov5", model=model, epochs=100, limits={"stop_s": 0.5}), seen)
    wait_for(lambda: not living(str(yolov5)))


WORKER = """
import sys
from evolve.command_trainable import run_command
from evolve.trainable import Assignment
import json
run_command(Assignment(**json.loads(sys.argv[1])), lambda epoch, row: None)
"""


def test_a_worker_that_is_killed_takes_its_command_along_and_a_retry_goes_on(yolov5: Path) -> None:
    given = assignment(yolov5, "yolov5", model="slow.pt", epochs=8, limits={"stop_s": 0.5})
    words = [sys.executable, "-c", WORKER, json.dumps(given.to_dict())]
    with subprocess.Popen(words) as worker:
        checkpoint = yolov5 / "trials/0003/training/run/weights/last.pt"
        wait_for(checkpoint.is_file)
        worker.send_signal(signal.SIGKILL)
    seen = Seen(stop_at=3)
    with pytest.raises(SystemExit):
        run_command(given, seen)  # the keeper's lock makes it wait for the orphan's end
    ran = epochs_run(yolov5)
    assert ran.count(0) == 1
    assert len(ran) <= len(set(ran)) + 1  # the epoch in flight at the kill
    wait_for(lambda: not living(str(yolov5)))


def other(folder: Path, way: str, results: dict[str, Any], **more: Any) -> str:
    path = folder / "command.yaml"
    target = str(results.get("file", "{out}/none"))
    content = {
        "command": ["{python}", str(PROGRAMS / "any_train.py"), way, target, "{epochs}", "{gene:lr0}"],
        "genes": {"lr0": [0.0, 1.0]},
        "results": results,
        **more,
    }
    path.write_text(yaml.safe_dump(content))
    return str(path)


WAYS: dict[str, dict[str, Any]] = {
    "jsonl": {
        "format": "jsonl",
        "file": "{out}/log.jsonl",
        "fitness": "val.score",
        "metrics": {"loss": "val.loss"},
    },
    "json": {"format": "json", "file": "{out}/r.json", "rows": "history", "fitness": {"val.loss": -1}},
    "log": {
        "format": "regex",
        "pattern": r"Epoch (?P<epoch>\d+)/\d+ score=(?P<score>\S+)",
        "epoch": {"column": "epoch", "first": 1},
        "fitness": "score",
    },
}


@pytest.mark.parametrize("way", WAYS)
def test_results_of_every_format_are_followed(way: str, tmp_path: Path) -> None:
    seen = Seen()
    outcome = run_command(assignment(tmp_path, other(tmp_path, way, WAYS[way]), config={"lr0": 0.5}), seen)
    expected = 1 - (0.5 - 0.7) ** 2
    assert outcome.fitness == pytest.approx(expected - (1 if way == "json" else 0), abs=1e-6)
    assert list(seen) == [0, 1, 2, 3]


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # MLflow's own deprecations are not ours
def test_the_run_that_a_command_logs_to_mlflow_is_found(tmp_path: Path) -> None:
    results = {"format": "mlflow", "fitness": "score", "epoch": "step"}
    seen = Seen()
    outcome = run_command(assignment(tmp_path, other(tmp_path, "mlflow", results), config={"lr0": 0.5}), seen)
    assert outcome.fitness == pytest.approx(0.96)
    assert list(seen) == [0, 1, 2, 3]


def test_a_silent_command_is_ended_and_retried(tmp_path: Path) -> None:
    given = assignment(
        tmp_path, other(tmp_path, "silent", WAYS["log"]), limits={"silent_s": 0.6, "stop_s": 1}
    )
    with pytest.raises(TrialError, match=r"said nothing for 0\.6 s and was ended"):
        run_command(given, Seen())
    assert not living(str(tmp_path))


def test_a_command_that_takes_too_long_is_ended(tmp_path: Path) -> None:
    given = assignment(tmp_path, other(tmp_path, "silent", WAYS["log"]), limits={"total_s": 0.6, "stop_s": 1})
    with pytest.raises(TrialError, match=r"took more than 0\.6 s and was ended"):
        run_command(given, Seen())


def test_a_full_disk_halts_the_run(tmp_path: Path) -> None:
    outcome = run_command(assignment(tmp_path, other(tmp_path, "full", WAYS["log"])), Seen())
    assert outcome.halt
    assert "No space left on device" in str(outcome.reason)


def test_what_no_retry_would_mend_is_said_at_once(tmp_path: Path) -> None:
    gone = other(tmp_path, "log", WAYS["log"], command=["no-such-program", "{gene:lr0}"])
    outcome: Outcome = run_command(assignment(tmp_path, gone), Seen())
    assert "no-such-program: the command can't be started" in str(outcome.reason)
    with pytest.raises(CommandTrialError, match=r"working directory .* is not there"):
        run_command(
            assignment(tmp_path, other(tmp_path, "log", WAYS["log"]), cwd=str(tmp_path / "x")), Seen()
        )
    with pytest.raises(ResultsError, match="wrote no results there"):
        run_command(assignment(tmp_path, other(tmp_path, "none", WAYS["jsonl"])), Seen())


def test_best_weights_outside_the_run_are_copied_into_it(tmp_path: Path) -> None:
    (tmp_path / "elsewhere-3.pt").write_text("weights")
    run = tmp_path / "run"
    run.mkdir()
    trainer = other(
        tmp_path, "jsonl", WAYS["jsonl"], checkpoint={"best": str(tmp_path / "elsewhere-{trial}.pt")}
    )
    outcome = run_command(assignment(run, trainer), Seen())
    assert outcome.result["best"] == "trials/0003/elsewhere-3.pt"
    assert (run / "trials/0003/elsewhere-3.pt").read_text() == "weights"


def test_gpus_of_the_worker_reach_the_command(yolov5: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5")
    run_command(assignment(yolov5, "yolov5", gpus=1.0, epochs=1), Seen())
    run = yolov5 / "trials/0003/training/run"
    assert json.loads((run / "seen.json").read_text())["gpus"] == "5"
    assert (
        yaml.safe_load((run / "opt.yaml").read_text())["device"] == ""
    )  # else it would overwrite the variable


def test_ultralytics_is_handed_arguments_and_resumed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", f"{PROGRAMS}{os.pathsep}{os.environ['PATH']}")
    given = assignment(tmp_path, "ultralytics", model="crash.pt", config={"lr0": 0.02, "close_mosaic": 2})
    first, second = Seen(), Seen()
    with pytest.raises(TrialError, match="exit code 1: Killed"):
        run_command(given, first)
    outcome = run_command(given, second)
    assert (list(first), list(second)) == ([0, 1], [1, 2, 3])  # the last one once more
    assert outcome.fitness == pytest.approx(0.1 * 0.9 + 0.9 * 0.45)
    arguments = (tmp_path / "trials/0003/training/run/args.yaml").read_text().splitlines()
    assert {
        "lr0: 0.02",
        "close_mosaic: 2",
        "device: cpu",
        "optimizer: SGD",
        "data: /data/my data.yaml",
    } <= set(arguments)


def test_epochs_are_reported_while_the_command_runs(yolov5: Path) -> None:
    seen = Seen()
    given = assignment(yolov5, "yolov5", model="slow.pt", epochs=3)
    thread = threading.Thread(target=run_command, args=(given, seen))
    thread.start()
    wait_for(lambda: 0 in seen)
    assert thread.is_alive()
    assert 2 not in seen
    thread.join()
    assert list(seen) == [0, 1, 2]
