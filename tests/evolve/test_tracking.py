"""The MLflow mirror against MLflow itself: a SQLite store, a real server, and no server at all."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from evolve import Gene, Journal, Space, fold, read_journal
from evolve.ledger import trial_folder
from evolve.live_tracking import LiveMirror
from evolve.mlflow_store import Store, TrackingError, default_store
from evolve.tracking import Mirror, sync

pytestmark = pytest.mark.filterwarnings("default")  # MLflow's own deprecations are not ours


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = tmp_path / "runs" / "first"
    with Journal(folder / "journal.jsonl") as journal:
        journal.append(
            {
                "event": "run",
                "version": 1,
                "name": "first",
                "trials": 3,
                "seed": 0,
                "space": Space([Gene("x", 0, 1)]).to_dict(),
                "search": {},
                "settings": {"data": "digits", "hyp": {"lr0": 0.01}},
                "resources": {},
                "provenance": {"versions": {"python": "3.11"}},
                "shapes": {"wh": [], "before": {"bpr": 0.9}, "after": {"bpr": 0.99, "fitness": 0.7}},
            }
        )
        for trial, fitness in enumerate((0.2, None, 0.6)):
            config = {"x": 0.1 * trial}
            journal.append({"event": "ask", "trial": trial, "config": config, "origin": {"kind": "start"}})
            for epoch in range(3):
                metrics = {"fitness": 0.1 * epoch, "map50": 0.2 * epoch}
                journal.append(
                    {"event": "report", "trial": trial, "attempt": 0, "epoch": epoch, "metrics": metrics}
                )
            trial_folder(folder, trial).mkdir(parents=True)
            (trial_folder(folder, trial) / "hyp.yaml").write_text("lr0: 0.1\n")
            journal.append(
                {
                    "event": "tell",
                    "trial": trial,
                    "status": "finished" if fitness else "failed",
                    "fitness": fitness,
                    "reason": None if fitness else "RuntimeError: boom",
                    "metrics": {"fitness": fitness} if fitness else {},
                    "epochs": 3,
                    "seconds": 1.0,
                    "result": {"artifacts": [f"trials/{trial:04d}/hyp.yaml"]},
                }
            )
    (folder / "report.html").write_text("<p>report</p>")
    (folder / "anchors.png").write_bytes(b"\x89PNG")
    return folder


def client_of(store: Store) -> Any:
    from mlflow import MlflowClient

    return MlflowClient(store.uri)


def all_runs(store: Store) -> list[Any]:
    client = client_of(store)
    experiment = client.get_experiment_by_name(store.experiment)
    return list(client.search_runs([experiment.experiment_id]))


def check_complete(store: Store) -> None:
    client = client_of(store)
    runs = all_runs(store)
    children = {run.data.tags["beagle.trial"]: run for run in runs if "beagle.trial" in run.data.tags}
    (parent,) = [run for run in runs if "beagle.trial" not in run.data.tags]
    assert sorted(children) == ["0", "1", "2"]
    assert {run.data.tags["mlflow.parentRunId"] for run in children.values()} == {parent.info.run_id}
    ends = {key: run.info.status for key, run in children.items()}
    assert ends == {"0": "FINISHED", "1": "FAILED", "2": "FINISHED"}
    assert children["1"].data.tags["beagle.reason"] == "RuntimeError: boom"
    assert children["2"].data.params == {"x": "0.2"}
    history = client.get_metric_history(children["2"].info.run_id, "map50")
    assert [(point.step, point.value) for point in history] == [(0, 0.0), (1, 0.2), (2, 0.4)]
    assert parent.info.status == "FINISHED"
    assert parent.data.params["hyp.lr0"] == "0.01"
    best = client.get_metric_history(parent.info.run_id, "best_fitness")
    assert [point.value for point in best] == [0.2, 0.2, 0.6]
    assert {"report.html", "anchors.png"} <= {item.path for item in client.list_artifacts(parent.info.run_id)}
    figures = {name: value for name, value in parent.data.metrics.items() if name.startswith("anchors.")}
    assert figures == {"anchors.before.bpr": 0.9, "anchors.after.bpr": 0.99, "anchors.after.fitness": 0.7}
    assert len(client.get_metric_history(parent.info.run_id, "anchors.after.fitness")) == 1
    assert "hyp.yaml" in {item.path for item in client.list_artifacts(children["0"].info.run_id)}


def test_a_run_becomes_a_parent_and_a_child_per_trial_and_doing_it_twice_doubles_nothing(run: Path) -> None:
    store = default_store(run.parent, {})
    assert sync(run, store) > 0
    check_complete(store)
    assert sync(run, store) == 0
    check_complete(store)


def test_a_run_that_is_pushed_piece_by_piece_by_drivers_that_die_ends_up_the_same(run: Path) -> None:
    store = default_store(run.parent, {})
    events = read_journal(run / "journal.jsonl")
    for count in (1, 3, 6, 9):
        Mirror(run, store).push(
            fold(events[:count])
        )  # each mirror is a new driver, which must find its runs again
    assert sync(run, store) > 0
    check_complete(store)


def test_without_a_server_the_live_mirror_says_so_and_sync_fills_it_in_later(
    run: Path, tmp_path: Path
) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        nowhere = Store(f"http://127.0.0.1:{free.getsockname()[1]}")
    mirror = LiveMirror(run, nowhere, period_s=0.1)
    mirror.start()
    problem = mirror.close(patience_s=60)
    assert isinstance(problem, TrackingError)
    assert "did not take it" in str(problem)
    store = default_store(run.parent, {})
    sync(run, store)
    check_complete(store)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Store]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [
        sys.executable,
        "-m",
        "mlflow",
        "server",
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
        "--workers",
        "1",
    ]
    command += ["--backend-store-uri", f"sqlite:///{tmp_path}/server.db"]
    command += ["--artifacts-destination", str(tmp_path / "artifacts")]
    environment = {**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true"}
    with (tmp_path / "server.log").open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env=environment)
        try:
            deadline = time.monotonic() + 90
            while time.monotonic() < deadline:
                with socket.socket() as probe:
                    if probe.connect_ex(("127.0.0.1", port)) == 0:
                        break
                time.sleep(0.2)
            yield Store(f"http://127.0.0.1:{port}")
        finally:
            process.terminate()
            process.wait(30)


@pytest.mark.slow
def test_a_real_server_gets_the_same_as_the_store_without_a_word_on_stdout(
    run: Path, server: Store, capfd: pytest.CaptureFixture[str]
) -> None:
    capfd.readouterr()
    sync(run, server)
    assert capfd.readouterr().out == ""
    check_complete(server)
    assert sync(run, server) == 0


def test_the_store_is_the_environment_s_or_a_database_beside_the_runs(tmp_path: Path) -> None:
    store = default_store(tmp_path, {})
    assert store.uri == f"sqlite:///{tmp_path.resolve()}/mlflow.db"
    assert store.artifacts == tmp_path.resolve() / "mlartifacts"
    given = default_store(
        tmp_path, {"MLFLOW_TRACKING_URI": "http://host:5000", "MLFLOW_EXPERIMENT_NAME": "mine"}
    )
    assert given == Store("http://host:5000", experiment="mine")
