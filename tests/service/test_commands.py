"""`beagle --server URL`: the sub-commands through the typed client, against a real service."""

import json
import re
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from beagle.cli import run
from cluster.client import ServiceClient, ServiceError
from evolve.journal import Journal

Serve = Callable[..., Any]
Record = Callable[..., Path]
TOKEN = "a-token-for-these-tests-alone"


def write_boxes(path: Path, boxes: int = 60) -> Path:
    rows = [f"{8 + 3 * number},{6 + 5 * (number % 13)}" for number in range(boxes)]
    path.write_text("\n".join(["w,h", *rows]))
    return path


def test_status_and_report_come_from_the_service(
    serve: Serve, record: Record, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record("night")
    live = serve()
    assert run(["--server", live.url, "status", "--json"]) == 0
    assert [each["id"] for each in json.loads(capsys.readouterr().out)["evolutions"]] == ["night"]
    assert run(["--server", live.url, "status"]) == 0
    assert "finished" in capsys.readouterr().out
    assert run(["--server", live.url, "status", "night"]) == 0
    assert "best: trial 4 with fitness 0.14" in capsys.readouterr().out
    page = tmp_path / "page.html"
    assert run(["--server", live.url, "report", "night", "--out", str(page)]) == 0
    assert "night" in page.read_text()


def test_an_export_is_unpacked_as_the_local_command_writes_it(
    serve: Serve, exported_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    live = serve(exported_run.parent)
    target = tmp_path / "production"
    words = ["--server", live.url, "export", exported_run.name, "--to", str(target)]
    assert run(words) == 0
    assert (target / "train.sh").stat().st_mode & 0o111
    assert run(["verify", str(target)]) == 0
    assert run(words) == 1
    assert "exists already" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_anchors_are_fitted_to_a_file_that_is_sent_and_to_a_path_there(
    serve: Serve, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "data").mkdir()
    boxes = write_boxes(tmp_path / "data" / "boxes.csv")
    live = serve(roots=(tmp_path / "data",))
    out = tmp_path / "fitted.yaml"
    common = ["--server", live.url, "anchors", "fit", str(boxes), "--image-size", "320", "--json"]
    assert run([*common, "--out", str(out)]) == 0
    sent = json.loads(capsys.readouterr().out)
    assert sent["boxes"] == 60
    assert sent["after"]["fitness"] >= sent["before"]["fitness"]
    assert out.is_file()
    assert run([*common, "--there"]) == 0
    there = json.loads(capsys.readouterr().out)
    assert there["anchors"] == sent["anchors"]
    assert run(["--server", live.url, "anchors", "fit", str(boxes)]) == 0
    assert "best possible recall" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["status", "none"], "there is no evolution 'none'"),
        (["stop", "night"], "nobody drives night"),
        (["train", "x"], "a service does not answer to `beagle train`"),
        (["evolve", "digits", "--name", "../up"], "--name: String should match"),
        (["evolve", "digits", "--trials", "0"], "--trials: Input should be greater"),
        (["evolve", "digits", "--epochs", "10,5"], "each larger than the one before"),
        (["evolve", "digits", "--patience", "0"], "--patience: Input should be greater"),
        (["evolve", "/etc", "--name", "new"], "must be absolute and under"),
        (["evolve", "digits", "--name", "night"], "there is an evolution 'night' already"),
        (["anchors", "fit", "missing.csv"], "missing.csv can't be read"),
        (["anchors", "fit", "http://169.254.169.254/", "--there"], "not an address"),
    ],
)
def test_what_the_service_refuses_is_one_line(
    serve: Serve, record: Record, capsys: pytest.CaptureFixture[str], words: list[str], why: str
) -> None:
    record("night")
    live = serve()
    assert run(["--server", live.url, *words]) == 1
    said = capsys.readouterr().err.strip()
    assert why in said
    assert "\n" not in said
    assert not (live.runs / "new").exists()


def test_a_token_is_needed_and_is_shown_nowhere(
    serve: Serve,
    record: Record,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    record("night")
    live = serve(token=TOKEN)
    assert run(["--server", live.url, "status"]) == 1
    assert "BEAGLE_TOKEN" in capsys.readouterr().err
    file = tmp_path / "token"
    file.write_text(TOKEN)
    assert run(["--server", live.url, "--token-file", str(file), "status"]) == 1
    assert f"chmod 600 {file}" in capsys.readouterr().err
    file.chmod(0o600)
    assert run(["--server", live.url, "--token-file", str(file), "status"]) == 0
    monkeypatch.setenv("BEAGLE_TOKEN", "the-wrong-token-of-someone")
    assert run(["--server", live.url, "status"]) == 1
    monkeypatch.setenv("BEAGLE_TOKEN", TOKEN)
    assert run(["-v", "--server", live.url, "stop", "night"]) == 1
    captured = capsys.readouterr()
    assert TOKEN not in captured.out + captured.err + live.audit()
    assert '"status":409' in live.audit()
    assert run(["--token-file", str(file), "status"]) == 1


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("ftp://there", "must be an http or https URL"),
        ("there:8400", "must be an http or https URL"),
        ("http://me:secret@there", "must hold no password"),
        ("http://127.0.0.1:9", "does not answer"),
    ],
)
def test_an_address_that_is_none_is_said(url: str, why: str) -> None:
    with pytest.raises(ServiceError, match=re.escape(why)), ServiceClient(url) as client:
        client.health()


def test_events_go_on_when_the_service_is_started_anew(
    serve: Serve, tmp_path: Path, header: Callable[..., None], trials: Callable[..., None], unused_port: int
) -> None:
    path = tmp_path / "runs" / "night" / "journal.jsonl"
    begun, told = threading.Event(), []
    with Journal(path) as journal:
        header(journal, "night", 4)
        trials(journal, 2)
        first = serve(port=unused_port)

        def watch() -> None:
            with ServiceClient(first.url) as client:
                for event in client.events("night", 0):
                    told.append(event)
                    begun.set()

        watcher = threading.Thread(target=watch)
        watcher.start()
        assert begun.wait(20)
        first.stop()
        trials(journal, 1, first=2)
        serve(port=unused_port)
        trials(journal, 1, first=3)
    watcher.join(40)
    assert not watcher.is_alive()
    epochs = [(each.data["trial"], each.data["epoch"]) for each in told if each.kind == "epoch"]
    assert epochs == [(trial, epoch) for trial in range(4) for epoch in range(3)]
    assert told[-1].kind == "end"


@pytest.mark.slow
def test_an_evolution_is_started_watched_and_stopped_from_afar(
    serve: Serve, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    live = serve()
    tiny = [
        "--model",
        "yolov5n",
        "--image-size",
        "64",
        "--batch-size",
        "64",
        "--concurrent",
        "1",
    ]
    there = ["--server", live.url]
    short = ["--name", "short", "--epochs", "1,2", "--trials", "4", "--patience", "2", "--epoch-budget", "99"]
    confirm = ["--confirm", "1", "--confirm-seeds", "1", "--confirm-epochs", "3"]
    assert run([*there, "evolve", "digits", *tiny, *short, *confirm, "--follow"]) == 0
    captured = capsys.readouterr()
    assert captured.out.strip() == "short"
    assert "short finished" in captured.err
    with ServiceClient(live.url) as client:
        short_run = client.evolution("short")
    header = json.loads((live.runs / "short" / "journal.jsonl").read_text().splitlines()[0])
    assert (header["ladder"]["rungs"], header["patience"], header["epoch_budget"]) == ([1, 2], 2, 99)
    assert short_run.winner is not None
    assert (short_run.winner.confirmed, short_run.winner.epochs, short_run.winner.runs) == (True, 3, 1)
    assert run([*there, "export", "short", "--to", str(tmp_path / "out")]) == 0
    assert run([*there, "evolve", "digits", *tiny, "--epochs", "1", "--name", "long", "--trials", "500"]) == 0
    with ServiceClient(live.url) as client:
        for _ in range(600):
            found = client.evolution("long")
            if found.finished:
                break
            time.sleep(0.2)
        assert found.state == "running"
        assert run([*there, "stop", "long"]) == 0
        kinds = [event.kind for event in client.events("long")]
        assert kinds[-1] == "end"
        assert client.evolution("long").state == "stopped"
    shutil.rmtree(live.runs / "long")
