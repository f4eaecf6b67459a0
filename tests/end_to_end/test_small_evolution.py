"""The whole way as a user goes it: every step a process of its own, in a folder with treacherous packages."""

import csv
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from evolve.journal import RunState, fold, read_journal

pytestmark = pytest.mark.ray

Beagle = Callable[..., subprocess.CompletedProcess[str]]

READ_STORE = """
import json, sys
from mlflow import MlflowClient
client = MlflowClient(sys.argv[1])
(experiment,) = [e for e in client.search_experiments() if e.name == "beagle"]
rows = []
for run in client.search_runs([experiment.experiment_id]):
    epochs = client.get_metric_history(run.info.run_id, "fitness") if "fitness" in run.data.metrics else []
    rows.append({
        "id": run.info.run_id,
        "name": run.info.run_name,
        "status": run.info.status,
        "tags": run.data.tags,
        "params": run.data.params,
        "metrics": run.data.metrics,
        "epochs": [point.step for point in epochs],
        "best_curve": len(client.get_metric_history(run.info.run_id, "best_fitness")),
        "artifacts": sorted(file.path for file in client.list_artifacts(run.info.run_id)),
    })
print(json.dumps(rows))
"""


def state_of(run: Path) -> RunState:
    return fold(read_journal(run / "journal.jsonl"))


def read_store(place: Path, environment: dict[str, str]) -> list[dict[str, Any]]:
    """All runs of the MLflow store, by a client of its own."""
    answer = subprocess.run(
        [sys.executable, "-P", "-W", "ignore", "-c", READ_STORE, f"sqlite:///{place / 'runs/mlflow.db'}"],
        cwd=place,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert answer.returncode == 0, answer.stderr
    rows: list[dict[str, Any]] = json.loads(answer.stdout.splitlines()[-1])
    return rows


@pytest.fixture(scope="module")
def run(place: Path, beagle: Beagle) -> Path:
    """A run of three trials, two at once; the tests below go on with it in their order."""
    said = beagle(
        *("evolve", "data/data.yaml", "--model", "yolov5n", "--image-size", "64", "--batch-size", "4"),
        *("--trials", "3", "--epochs", "1", "--concurrent", "2", "--cpus", "0.5", "--device", "cpu"),
        *("--genes", "lr0,mosaic,hsv_h", "--out", "runs/small"),
    )
    assert "best: trial" in said.stderr
    assert "runs/small/report.html" in said.stdout
    return place / "runs/small"


def test_every_trial_is_trained_once_and_two_at_a_time(run: Path) -> None:
    state = state_of(run)
    assert [trial.status for trial in state.trials.values()] == ["finished"] * 3
    assert state.trials[0].origin["kind"] == "start"
    assert state.trials[0].config == {"lr0": 0.01, "mosaic": 1.0, "hsv_h": 0.015}
    assert len({json.dumps(trial.config) for trial in state.trials.values()}) == 3
    ends = [trial.told_at for trial in state.trials.values() if trial.told_at]
    assert state.trials[1].asked_at < min(ends)
    for trial in state.trials.values():
        assert (run / trial.result["best"]).is_file()
        assert set(trial.reports) == {0}
        hyp = yaml.safe_load((run / f"trials/{trial.id:04d}/training/hyp.yaml").read_text())
        assert hyp | trial.config == hyp


def test_status_tells_the_same(run: Path, beagle: Beagle) -> None:
    found = json.loads(beagle("status", "small", "--json").stdout)
    state = state_of(run)
    best = state.best()
    assert best is not None
    assert (found["finished"], found["failed"], found["running"], found["budget"]) == (3, 0, 0, 3)
    assert (found["best"]["trial"], found["best"]["fitness"]) == (best.id, best.fitness)
    assert found["stopped"] is None


def test_the_report_is_made_again(run: Path, beagle: Beagle) -> None:
    (run / "report.html").unlink()
    said = beagle("report", "small")
    assert Path(said.stdout.strip()) == run / "report.html"
    assert "small" in (run / "report.html").read_text()


def test_mlflow_has_the_run_with_a_child_for_each_trial_and_sync_doubles_nothing(
    run: Path, beagle: Beagle, place: Path, environment: dict[str, str]
) -> None:
    rows = read_store(place, environment)
    (parent,) = [row for row in rows if "beagle.trial" not in row["tags"]]
    children = {int(row["tags"]["beagle.trial"]): row for row in rows if "beagle.trial" in row["tags"]}
    state = state_of(run)
    assert parent["name"] == "small"
    assert parent["status"] == "FINISHED"
    measured = state.measured()
    assert measured is not None
    assert parent["tags"]["beagle.best_trial"] == str(measured.standing.trial)
    assert parent["tags"]["beagle.fitness"] == str(measured.standing.mean)
    assert parent["tags"]["beagle.measured"].startswith("Not confirmed: ")
    assert {"journal.jsonl", "report.html"} <= set(parent["artifacts"])
    assert sorted(children) == [0, 1, 2]
    for number, child in children.items():
        trial = state.trials[number]
        assert child["tags"]["mlflow.parentRunId"] == parent["id"]
        assert child["tags"]["beagle.run_id"] == parent["tags"]["beagle.run_id"]
        assert child["tags"]["beagle.origin"] == trial.origin["kind"]
        assert child["status"] == "FINISHED"
        assert {name: float(child["params"][name]) for name in trial.config} == trial.config
        assert child["epochs"] == [0]
        assert child["metrics"]["fitness"] == pytest.approx(trial.fitness)
        assert {"hyp.yaml", "results.csv"} <= set(child["artifacts"])

    assert json.loads(beagle("sync", "small", "--json").stdout)["values_sent"] == 0
    assert read_store(place, environment) == rows


def test_the_export_is_a_training_that_runs(
    run: Path, beagle: Beagle, place: Path, environment: dict[str, str]
) -> None:
    beagle("export", "small", "--to", "production")
    production = place / "production"
    best = state_of(run).best()
    assert best is not None
    assert json.loads((production / "provenance.json").read_text())["trial"] == best.id
    hyp = yaml.safe_load((production / "hyp.yaml").read_text())
    assert hyp | best.config == hyp
    if shutil.which("beagle", path=environment["PATH"]) is None:
        pytest.skip("the script beagle is not installed beside this Python")
    answer = subprocess.run(
        [production / "train.sh", "--epochs", "1", "--device", "cpu"],
        cwd=place,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert answer.returncode == 0, answer.stderr
    trained = production / "runs/train"
    assert (trained / "weights/best.pt").is_file()
    assert yaml.safe_load((trained / "hyp.yaml").read_text()) == hyp
    with (trained / "results.csv").open() as table:
        assert [row["epoch"] for row in csv.DictReader(table)] == ["0"]


def test_a_larger_budget_runs_what_is_new_alone(
    run: Path, beagle: Beagle, place: Path, environment: dict[str, str]
) -> None:
    before = state_of(run)
    kept = {path: path.stat().st_mtime_ns for path in run.glob("trials/*/training/**/*") if path.is_file()}
    said = beagle("resume", "small", "--trials", "4", "--json")
    after = state_of(run)
    assert json.loads(said.stdout)["finished"] == 4
    assert [trial.status for trial in after.trials.values()] == ["finished"] * 4
    for number, trial in before.trials.items():
        assert after.trials[number] == trial
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    rows = read_store(place, environment)
    assert len(rows) == 5
    assert sorted(int(row["tags"].get("beagle.trial", -1)) for row in rows) == [-1, 0, 1, 2, 3]
    (parent,) = [row for row in rows if "beagle.trial" not in row["tags"]]
    assert (parent["status"], parent["best_curve"]) == ("FINISHED", 4)


def test_a_run_that_is_complete_is_resumed_without_a_trial(run: Path, beagle: Beagle) -> None:
    before = state_of(run)
    beagle("resume", "small")
    after = state_of(run)
    assert after.trials == before.trials
    assert after.budget == 4
