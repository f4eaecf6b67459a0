"""The commands on a run that is kept in an object store, as a user types them; its journal is written here."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import typer

from beagle import export_command, report_command, status_command, stop_command
from beagle.evolve_command import evolve
from beagle.folders import CommandError, check_new_folder, find_run, has_run, run_folder, tracking_folder
from beagle.resume_command import resume
from evolve import Gene, SearchSettings, Space
from evolve.journal import Journal, fold, read_journal
from evolve.object_store import ObjectStore
from evolve.resources import Resources
from evolve.store_url import StoreError, StoreUrl
from evolve.stored_run import mirror_of, spool_of

Run = Callable[..., str]


@pytest.fixture(params=["file", "s3"])
def url(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StoreUrl:
    """A run of two trials, one of which has ended; nobody drives it."""
    monkeypatch.setenv("BEAGLE_CACHE", str(tmp_path / "cache"))
    if request.param == "s3":
        request.getfixturevalue("bucket")
        place = StoreUrl("s3", "bucket/runs/first")
    else:
        place = StoreUrl("file", f"{tmp_path}/store/first")
    space = Space([Gene("x", 0, 1, start=0.1)])
    header = {"event": "run", "version": 1, "name": "first", "trials": 2, "seed": 0, "space": space.to_dict()}
    header |= {"search": SearchSettings().to_dict(), "settings": {}, "resources": Resources().to_dict()}
    ask = {"event": "ask", "config": {"x": 0.1}, "origin": {"kind": "start"}}
    tell = {"event": "tell", "trial": 0, "status": "finished", "fitness": 0.5, "metrics": {"fitness": 0.5}}
    with Journal(spool_of(place) / "journal.jsonl") as journal:
        for event in ({**header, "provenance": {}}, {**ask, "trial": 0}, tell, {**ask, "trial": 1}):
            journal.append(event)
    return place


@pytest.fixture
def beagle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs a command on another machine: a folder and a cache of its own."""
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    app = typer.Typer()
    for command in (status_command.status, report_command.report, export_command.export, stop_command.stop):
        app.command()(command)
    app.command()(evolve)
    app.command()(resume)

    def run(*words: str) -> str:
        monkeypatch.setenv("BEAGLE_CACHE", str(tmp_path / "elsewhere" / "cache"))
        app(list(words), standalone_mode=False)
        return capsys.readouterr().out

    return run


def test_the_status_of_a_stored_run_is_shown_on_any_machine(url: StoreUrl, beagle: Run) -> None:
    told = json.loads(beagle("status", str(url), "--json"))
    assert (told["folder"], told["finished"], told["running"], told["driver"]) == (str(url), 1, 1, None)
    with Journal(spool_of(url) / "journal.jsonl") as journal:
        journal.append({"event": "stop", "reason": "for the night"})
    assert json.loads(beagle("status", str(url), "--json"))["stopped"] == "for the night"


def test_its_report_is_written_here(url: StoreUrl, beagle: Run, tmp_path: Path) -> None:
    assert beagle("report", str(url), "--out", "page.html").strip().endswith("page.html")
    assert "<html" in (tmp_path / "elsewhere" / "page.html").read_text()


def test_a_run_that_nobody_drives_has_nothing_to_stop(url: StoreUrl, beagle: Run) -> None:
    with pytest.raises(CommandError, match=rf"nobody drives this run.*beagle resume {url}"):
        beagle("stop", str(url).replace("://", ":/"))


def test_a_second_run_at_the_same_url_is_refused_before_anything_is_read(url: StoreUrl, beagle: Run) -> None:
    with pytest.raises(
        CommandError, match="exists already: choose another place, or go on with it by --resume"
    ):
        beagle("evolve", "digits", "--out", str(url))
    with pytest.raises(CommandError, match="trials >= 2 must hold, since so many were asked, but got 1"):
        beagle("resume", str(url), "--trials", "1")
    assert len(read_journal(mirror_of(url) / "journal.jsonl")) == 4


def test_folders_of_a_stored_run(url: StoreUrl, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spool = run_folder(Path(str(url)))
    assert (spool.name, has_run(spool), tracking_folder(spool)) == ("first", True, Path("runs"))
    assert find_run(Path(str(url)), to_drive=True) == spool
    assert find_run(Path(str(url))) != spool
    assert fold(read_journal(find_run(Path(str(url))) / "journal.jsonl")).name == "first"
    fresh = run_folder(Path(str(url)[: -len("first")] + "second"))
    assert not has_run(fresh)
    check_new_folder(fresh)
    assert (run_folder(tmp_path / "plain"), tracking_folder(tmp_path / "plain")) == (
        tmp_path / "plain",
        tmp_path,
    )
    monkeypatch.setenv("BEAGLE_CACHE", str(tmp_path / "elsewhere"))
    with pytest.raises(StoreError, match="second is no run: there is no journal"):
        find_run(Path(str(url)[: -len("first")] + "second"))
    assert not (tmp_path / "elsewhere" / "mirrors").exists()


def test_a_run_of_one_processes_memory_is_refused() -> None:
    with pytest.raises(StoreError, match="is seen by one process alone"):
        run_folder(Path("memory://first"))


def test_a_store_is_tried_before_a_run_is_begun_there(bucket: "object", tmp_path: Path) -> None:
    bucket.fault = lambda method, path: "deaf"  # type: ignore[attr-defined]
    with pytest.raises(StoreError, match="could not be kept apart"):
        check_new_folder(run_folder(Path("s3://bucket/runs/second")))
    assert ObjectStore(StoreUrl("s3", "bucket/runs/second")).names() == []
