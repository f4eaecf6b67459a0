"""`beagle submit` and `beagle jobs`, as a user types them."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer

from beagle import jobs_command, submit_command
from cluster.local import LocalSubmitter
from cluster.spec import ClusterError, JobInfo

Run = Callable[..., str]


@pytest.fixture
def beagle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs a command in an empty folder and gives its stdout."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")  # no cell is broken into lines
    app = typer.Typer()
    app.command("submit", context_settings=submit_command.CONTEXT)(submit_command.submit)
    app.add_typer(jobs_command.app, name="jobs")

    def run(*words: str) -> str:
        app(list(words), standalone_mode=False)
        return capsys.readouterr().out

    return run


def test_submit_prints_the_id_alone_and_the_job_can_be_followed(beagle: Run, place: LocalSubmitter) -> None:
    assert beagle("submit", "--name", "ours", "--", "--version") == "ours\n"
    assert beagle("jobs", "logs", "ours", "--follow").startswith("beagle ")
    assert place.status("ours").status == "done"


def test_options_behind_the_first_word_belong_to_the_submitted_command(
    beagle: Run, until_ended: Callable[[str], JobInfo]
) -> None:
    for words in (("--name", "ours", "model"), ("--name", "ours", "--", "model")):
        job = json.loads(beagle("submit", "--json", *words, "--name", "theirs", "--", "x"))
        assert job["words"] == ["model", "--name", "theirs", "--", "x"]
        assert job["id"].startswith("ours")
        until_ended(job["id"])


def test_jobs_are_listed_and_shown_for_people_and_machines(
    beagle: Run, until_ended: Callable[[str], JobInfo], tmp_path: Path
) -> None:
    assert json.loads(beagle("jobs", "list", "--json")) == []
    beagle("submit", "--", "data", "check", "no where")
    until_ended("data")
    (listed,) = json.loads(beagle("jobs", "list", "--json"))
    assert listed == json.loads(beagle("jobs", "show", "data", "--json"))
    assert (listed["status"], listed["exit_code"], listed["folder"]) == ("failed", 1, str(tmp_path))
    for words in (("jobs", "list"), ("jobs", "show", "data")):
        text = beagle(*words)
        assert "failed" in text
        assert "beagle data check 'no where'" in text


def test_stop_ends_a_running_job_and_tells_when_it_had_ended(
    beagle: Run, hold: Callable[..., Any], capsys: pytest.CaptureFixture[str]
) -> None:
    job_id = hold().id
    assert json.loads(beagle("jobs", "show", job_id, "--json"))["status"] == "running"
    assert json.loads(beagle("jobs", "stop", job_id, "--patience", "20", "--json"))["status"] == "stopped"
    jobs_command.stop_job(job_id, as_json=True)
    printed = capsys.readouterr()
    assert json.loads(printed.out)["exit_code"] == 130
    assert "held has ended already" in printed.err


def test_what_the_user_can_mend_is_raised_as_the_rooms_error(beagle: Run) -> None:
    with pytest.raises(
        ClusterError, match="the place must be one of local, slurm, ray, kubernetes, but got 'moon'"
    ):
        beagle("submit", "--to", "moon", "--", "--version")
    with pytest.raises(ClusterError, match=r"there is no job 'x' in .* \(there are no jobs here yet\)"):
        beagle("jobs", "show", "x")
