import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from evolve import driver_signs, stored_run
from evolve.control import ask_to_stop, driver_of, forget_stop, requested_stop
from evolve.journal import Journal, fold, read_journal
from evolve.object_store import ObjectStore
from evolve.run_state import JournalError
from evolve.store_url import StoreError, StoreUrl
from evolve.stored_run import mirror_of, publish, run_label, spool_of

HEADER = {"event": "run", "version": 1, "name": "first", "trials": 9, "time": 0.0}


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("BEAGLE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(driver_signs, "BEAT_S", 0.05)
    monkeypatch.setattr(driver_signs, "WATCH_S", 1.0)


@pytest.fixture(params=["file", "s3"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> StoreUrl:
    if request.param == "s3":
        request.getfixturevalue("bucket")
        return StoreUrl("s3", "bucket/runs/first")
    return StoreUrl("file", f"{tmp_path}/store/first")


def open_journal(url: StoreUrl) -> Journal:
    return Journal(spool_of(url) / "journal.jsonl")


def sync_for(journal: Journal, seconds: float) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        journal.sync()
        time.sleep(0.02)


def stop_event(reason: str) -> dict[str, Any]:
    return {"event": "stop", "reason": reason, "time": 1.0}


def on_another_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """From here on nothing of this machine is left but the URL."""
    monkeypatch.setenv("BEAGLE_CACHE", str(tmp_path / "elsewhere"))
    monkeypatch.setattr(driver_signs, "_machine", lambda: ["another", "boot"])


def test_what_was_appended_is_in_the_store_when_the_call_returns(url: StoreUrl) -> None:
    with open_journal(url) as journal:
        journal.append(HEADER)
        assert read_journal(mirror_of(url) / "journal.jsonl") == [HEADER]
        journal.append(stop_event("a"), sync=False)
        assert len(read_journal(mirror_of(url) / "journal.jsonl")) == 1
        journal.sync()
        assert len(read_journal(mirror_of(url) / "journal.jsonl")) == 2
        assert read_journal(journal.path) == read_journal(mirror_of(url) / "journal.jsonl")


def test_what_was_not_synced_is_sent_at_the_close(url: StoreUrl) -> None:
    with open_journal(url) as journal:
        journal.append(HEADER)
        journal.append({"event": "report", "trial": 0})
    assert len(read_journal(mirror_of(url) / "journal.jsonl")) == 2


def test_another_machine_goes_on_with_nothing_but_the_url(
    url: StoreUrl, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with open_journal(url) as journal:
        journal.append(HEADER)
        journal.append(stop_event("a"))
    on_another_machine(monkeypatch, tmp_path)
    with open_journal(url) as journal:
        assert fold(read_journal(journal.path)).stopped == "a"
        journal.append({"event": "resume", "trials": 12})
    assert fold(read_journal(mirror_of(url) / "journal.jsonl")).budget == 12


def test_a_second_driver_is_refused_while_the_first_gives_signs_of_life(
    url: StoreUrl, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with open_journal(url) as journal:
        journal.append(HEADER)
        on_another_machine(monkeypatch, tmp_path)
        with pytest.raises(JournalError, match=rf"being written by process {os.getpid()} on "):
            open_journal(url)
        journal.append(stop_event("it still can"))
    open_journal(url).close()


def test_a_driver_that_is_silent_for_long_is_followed_and_finds_so_itself(
    url: StoreUrl, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    old = open_journal(url)
    old.append(HEADER)
    with monkeypatch.context() as patch:
        patch.setattr(driver_signs.Sign, "_beat", lambda self: None)  # its machine stands still
        patch.setattr(driver_signs, "_machine", lambda: ["another", "boot"])
        patch.setenv("BEAGLE_CACHE", str(tmp_path / "elsewhere"))
        new = open_journal(url)
    new.append(stop_event("the new one's"))
    with pytest.raises(JournalError, match="taken the run over"):
        old.append(stop_event("the old one's"))
    with pytest.raises(JournalError, match="taken the run over"):
        old.sync()
    old.close()
    new.append(stop_event("and goes on"))
    new.close()
    assert fold(read_journal(mirror_of(url) / "journal.jsonl")).stopped == "and goes on"
    assert len(read_journal(mirror_of(url) / "journal.jsonl")) == 3


def test_an_idle_driver_that_was_followed_finds_so_by_its_signs(
    url: StoreUrl, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    old = open_journal(url)
    old.append(HEADER)
    with monkeypatch.context() as patch:
        patch.setattr(stored_run, "wait_for_end", lambda store: None)
        patch.setenv("BEAGLE_CACHE", str(tmp_path / "elsewhere"))
        new = open_journal(url)
    with pytest.raises(JournalError, match="taken the run over"):
        sync_for(old, 20)  # there is nothing to send, but it is told all the same
    new.append(stop_event("unhurt"))
    old.close()
    new.close()


def test_a_killed_driver_is_followed_at_once_on_its_machine(url: StoreUrl, tmp_path: Path) -> None:
    code = (
        "import os, signal, sys\n"
        "from evolve.journal import Journal\n"
        "from evolve.object_store import StoreUrl\n"
        "from evolve.stored_run import spool_of\n"
        "journal = Journal(spool_of(StoreUrl.parse(sys.argv[1])) / 'journal.jsonl')\n"
        f"journal.append({HEADER!r})\n"
        "journal.append({'event': 'stop', 'reason': 'on this disk alone', 'time': 1.0}, sync=False)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    assert subprocess.run([sys.executable, "-c", code, str(url)], check=False).returncode == -9
    assert len(read_journal(mirror_of(url) / "journal.jsonl")) == 1
    begun = time.monotonic()
    with open_journal(url) as journal:
        assert time.monotonic() - begun < driver_signs.WATCH_S
        # What the dead one could not send any more is sent by its successor of the same machine.
        assert len(read_journal(journal.path)) == 2
    assert fold(read_journal(mirror_of(url) / "journal.jsonl")).stopped == "on this disk alone"


def test_lines_that_others_have_gone_on_without_are_dropped(
    url: StoreUrl, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with open_journal(url) as journal:
        journal.append(HEADER)
    with (spool_of(url) / "journal.jsonl").open("ab") as file:
        file.write(json.dumps(stop_event("never sent")).encode() + b"\n")
    with monkeypatch.context() as patch:
        on_another_machine(patch, tmp_path)
        with open_journal(url) as journal:
            journal.append(stop_event("elsewhere"))
    with open_journal(url) as journal:
        assert [event.get("reason") for event in read_journal(journal.path)] == [None, "elsewhere"]


def test_a_run_that_was_deleted_leaves_nothing_of_it_in_the_way(url: StoreUrl) -> None:
    with open_journal(url) as journal:
        journal.append(HEADER)
    (spool_of(url) / "trials" / "0000").mkdir(parents=True)
    store = ObjectStore(url)
    store.delete(store.names())
    with open_journal(url) as journal:
        assert read_journal(journal.path) == []
        assert not (spool_of(url) / "trials").exists()
    with pytest.raises(StoreError, match="is no run"):
        mirror_of(url)


def test_a_store_that_is_away_for_good_stops_the_driver_and_its_lines_are_sent_later(
    bucket: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("evolve.journal.PATIENCE_S", 1.0)
    url = StoreUrl("s3", "bucket/runs/first")
    journal = open_journal(url)
    journal.append(HEADER)
    bucket.fault = lambda method, path: "busy"
    with pytest.raises(JournalError, match=r"can't put journal/00000002.*what could not be sent is kept in"):
        journal.append(stop_event("late"))
    with pytest.raises(JournalError, match="can't put"):
        journal.sync()
    bucket.fault = lambda method, path: None
    journal.close()
    with open_journal(url) as journal:
        assert fold(read_journal(journal.path)).stopped == "late"
    assert fold(read_journal(mirror_of(url) / "journal.jsonl")).stopped == "late"


def test_many_segments_are_put_together_while_the_driver_goes_on(url: StoreUrl) -> None:
    with open_journal(url) as journal:
        journal.append(HEADER)
        end = time.monotonic() + 30
        written = 1
        while len([name for name in ObjectStore(url).names("journal") if "-" in name]) < 2:
            assert time.monotonic() < end
            for _ in range(20):
                journal.append(stop_event(str(written)))
                written += 1
    events = read_journal(mirror_of(url) / "journal.jsonl")
    assert [event.get("reason") for event in events[1:]] == [str(number) for number in range(1, written)]


def test_a_request_to_stop_reaches_the_driver_through_the_store(
    url: StoreUrl, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with open_journal(url) as journal:
        journal.append(HEADER)
        spool = journal.path.parent
        assert driver_of(spool) == f"{os.getpid()} on {os.uname().nodename}"
        with monkeypatch.context() as patch:
            patch.setenv("BEAGLE_CACHE", str(tmp_path / "elsewhere"))
            mirror = mirror_of(url)
            assert driver_of(mirror) == driver_of(spool)
            ask_to_stop(mirror, "now")
        end = time.monotonic() + 20
        while requested_stop(spool) is None:
            assert time.monotonic() < end
            time.sleep(0.02)
        assert requested_stop(spool) == "now"
    forget_stop(spool)
    assert requested_stop(spool) is None
    assert (driver_of(spool), ObjectStore(url).get("stop")) == (None, None)


def test_a_dead_driver_of_another_machine_drives_nothing(
    url: StoreUrl, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = open_journal(url)
    journal.append(HEADER)
    told = ObjectStore(url).get("driver.json") or b""
    journal.close()
    ObjectStore(url).put("driver.json", told)
    monkeypatch.setattr(driver_signs, "_machine", lambda: ["another", "boot"])
    time.sleep(0.2)
    assert driver_of(spool_of(url)) is None


def test_files_beside_the_journal_are_published_and_a_run_is_called_by_its_url(
    url: StoreUrl, tmp_path: Path
) -> None:
    spool = spool_of(url)
    (spool / "report.html").write_text("<p>")
    publish(spool, "report.html", "none.png")
    assert ObjectStore(url).names() == ["report.html"]
    assert run_label(spool) == str(url)
    publish(tmp_path, "none.png")
    assert run_label(tmp_path) == str(tmp_path)


def test_a_cache_that_cannot_be_written_is_said_with_its_variable(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("BEAGLE_CACHE", str(tmp_path / "file"))
    with pytest.raises(StoreError, match="set BEAGLE_CACHE to a folder with room"):
        spool_of(StoreUrl("file", str(tmp_path / "store")))
