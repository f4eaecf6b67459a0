"""The journal: what is written is there, one writer at a time, and the state is a fold."""

import json
import logging
import math
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evolve import Journal, JournalError, fold, read_journal
from evolve.journal import JournalReader

REPOSITORY = Path(__file__).resolve().parents[2]
RUN: dict[str, Any] = {
    "event": "run",
    "version": 1,
    "name": "a",
    "trials": 4,
    "seed": 0,
    "space": {},
    "time": 1.0,
}


def ask(trial: int, at: float = 2.0) -> dict[str, Any]:
    return {"event": "ask", "trial": trial, "config": {"lr0": 0.01}, "origin": {"kind": "start"}, "time": at}


def report(trial: int, epoch: int, attempt: int = 0, **metrics: float | None) -> dict[str, Any]:
    event = {"event": "report", "trial": trial, "attempt": attempt, "epoch": epoch, "time": 3.0 + epoch}
    return {**event, "metrics": metrics}


def tell(trial: int, fitness: float | None, status: str = "finished") -> dict[str, Any]:
    event = {
        "event": "tell",
        "trial": trial,
        "status": status,
        "fitness": fitness,
        "reason": None,
        "time": 9.0,
    }
    return {
        **event,
        "metrics": {"map50": 0.5},
        "epochs": 3,
        "seconds": 1.5,
        "result": {"best": "trials/best.pt"},
    }


def python(code: str, *arguments: object, **options: Any) -> subprocess.Popen[str]:
    """Start a real process that runs `code` in this checkout."""
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True, **options)


# --- writing and reading -------------------------------------------------------------------------------------------

plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(st.lists(st.dictionaries(st.text(), plain, max_size=4), max_size=5))
@settings(max_examples=40, deadline=None)
def test_what_is_appended_is_read_back(
    tmp_path_factory: pytest.TempPathFactory, rows: list[dict[str, Any]]
) -> None:
    path = tmp_path_factory.mktemp("run") / "journal.jsonl"
    events = [{**row, "event": "note", "time": 1.0} for row in rows]
    with Journal(path) as journal:
        written = [journal.append(event) for event in events]
    assert read_journal(path) == written == events


def test_an_event_is_on_the_disk_before_append_returns(tmp_path: Path) -> None:
    with Journal(tmp_path / "runs" / "a" / "journal.jsonl") as journal:
        for number, event in enumerate([RUN, ask(0), report(0, 0, map50=0.1)], start=1):
            journal.append(event)
            assert len(read_journal(journal.path)) == number


def test_an_event_without_a_time_is_stamped(tmp_path: Path) -> None:
    with Journal(tmp_path / "journal.jsonl") as journal:
        before = time.time()
        written = journal.append({"event": "stop", "reason": "asked"})
    assert before <= written["time"] <= time.time()


def test_numbers_of_numpy_are_written_as_plain_ones_and_the_caller_keeps_his(tmp_path: Path) -> None:
    event = {**ask(0), "config": {"lr0": np.float32(0.5), "anchors": np.int64(3)}, "seen": np.arange(3)}
    with Journal(tmp_path / "journal.jsonl") as journal:
        journal.append(event)
    (read,) = read_journal(tmp_path / "journal.jsonl")
    assert read["config"] == {"lr0": 0.5, "anchors": 3}
    assert read["seen"] == [0, 1, 2]
    assert isinstance(event["config"]["anchors"], np.int64)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, np.float32("nan")])
def test_a_metric_that_is_not_finite_is_written_as_null(tmp_path: Path, bad: float) -> None:
    with Journal(tmp_path / "journal.jsonl") as journal:
        journal.append(report(0, 0, map50=bad, box_loss=0.5))
        journal.append({**tell(0, bad, "failed"), "result": {"anchors": [[bad, 1.0]]}})
    first, second = read_journal(tmp_path / "journal.jsonl")
    assert first["metrics"] == {"map50": None, "box_loss": 0.5}
    assert second["fitness"] is None
    assert second["result"] == {"anchors": [[None, 1.0]]}


@pytest.mark.parametrize("config", [{"lr0": math.nan}, {"lr0": {1, 2}}, {"lr0": Path("a")}])
def test_an_event_that_is_no_plain_data_is_refused_and_leaves_no_trace(
    tmp_path: Path, config: object
) -> None:
    with Journal(tmp_path / "journal.jsonl") as journal:
        with pytest.raises(JournalError, match="an event must be plain finite data"):
            journal.append({**ask(0), "config": config})
        journal.append(ask(0))
        assert len(read_journal(journal.path)) == 1


def test_a_closed_journal_refuses_events_and_closes_twice(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.jsonl")
    journal.close()
    journal.close()
    with pytest.raises(JournalError, match="the journal is closed"):
        journal.append(RUN)


def test_threads_of_one_writer_do_not_mix_their_lines(tmp_path: Path) -> None:
    with Journal(tmp_path / "journal.jsonl") as journal:

        def write(thread: int) -> None:
            for epoch in range(50):
                journal.append(report(thread, epoch, map50=0.5))

        threads = [threading.Thread(target=write, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    events = read_journal(tmp_path / "journal.jsonl")
    assert sorted((e["trial"], e["epoch"]) for e in events) == [(t, e) for t in range(4) for e in range(50)]


# --- damage --------------------------------------------------------------------------------------------------------


def test_a_last_line_cut_anywhere_is_left_out_by_a_reader_and_cut_off_by_a_writer(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "journal.jsonl"
    with Journal(path) as journal:
        journal.append(RUN)
        whole = path.read_bytes()
        journal.append(ask(0))
    content = path.read_bytes()
    for cut in range(len(whole) + 1, len(content)):
        path.write_bytes(content[:cut])
        caplog.clear()
        assert [event["event"] for event in read_journal(path)] == ["run"]
        assert "line 2 is cut short and left out" in caplog.text
        with Journal(path) as journal:
            assert path.read_bytes() == whole
            journal.append(ask(0))
        assert "unfinished last line" in caplog.text
        assert path.read_bytes() == content


def test_a_whole_journal_is_read_and_opened_without_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        with Journal(tmp_path / "journal.jsonl") as journal:
            journal.append(RUN)
        with Journal(tmp_path / "journal.jsonl"):
            assert len(read_journal(tmp_path / "journal.jsonl")) == 1
    assert not caplog.records


@pytest.mark.parametrize(
    "damage", [b'{"event": "as', b"", b"[1]", b'{"trial": 0}', b"\x00\x00\x00", b"\xff\xfe", b'{"event": 3}']
)
def test_a_damaged_line_inside_is_an_error_with_its_number(tmp_path: Path, damage: bytes) -> None:
    path = tmp_path / "journal.jsonl"
    lines = [json.dumps(RUN).encode(), damage, json.dumps(ask(0)).encode(), b""]
    path.write_bytes(b"\n".join(lines))
    with pytest.raises(JournalError, match=r"journal\.jsonl:2: ") as caught:
        read_journal(path)
    assert "\n" not in str(caught.value)


def test_a_missing_journal_is_an_error_that_names_the_path(tmp_path: Path) -> None:
    with pytest.raises(
        JournalError, match=r"nowhere/journal\.jsonl: the journal cannot be read \(No such file"
    ):
        read_journal(tmp_path / "nowhere" / "journal.jsonl")


def test_a_journal_that_cannot_be_opened_is_an_error_that_gives_the_lock_back(tmp_path: Path) -> None:
    (tmp_path / "journal.jsonl").mkdir()
    with pytest.raises(JournalError, match=r"journal\.jsonl: the journal cannot be opened"):
        Journal(tmp_path / "journal.jsonl")
    (tmp_path / "journal.jsonl").rmdir()
    Journal(tmp_path / "journal.jsonl").close()


FULL_DISK = """
import resource, sys
from evolve import Journal, JournalError
with Journal(sys.argv[1]) as journal:
    journal.append({"event": "run", "time": 1.0})
    size = journal.path.stat().st_size
    resource.setrlimit(resource.RLIMIT_FSIZE, (size + 20, resource.RLIM_INFINITY))
    try:
        journal.append({"event": "ask", "time": 2.0, "config": "x" * 100})
    except JournalError as error:
        print(error)
    assert journal.path.stat().st_size == size, "a partial line is left"
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    journal.append({"event": "stop", "time": 3.0})
"""


def test_a_full_disk_is_one_line_of_error_and_leaves_whole_lines(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    process = python(FULL_DISK, path)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    assert out == f"{path}: an event could not be written (File too large)\n"
    assert [event["event"] for event in read_journal(path)] == ["run", "stop"]


# --- the lock ------------------------------------------------------------------------------------------------------

HOLD = """
import sys, time
from evolve import Journal
journal = Journal(sys.argv[1])
print("held", flush=True)
while True:
    journal.append({"event": "report", "trial": 0, "attempt": 0, "epoch": 0, "metrics": {"map50": 0.5}})
"""


def test_a_second_process_is_refused_with_the_holders_pid_until_the_holder_is_killed(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    holder = python(HOLD, path)
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(JournalError, match=rf"is being written by process {holder.pid} on "):
            Journal(path)
        time.sleep(0.1)
        read_journal(path)  # a reader needs no lock
        os.kill(holder.pid, signal.SIGKILL)
    finally:
        holder.kill()
        holder.communicate(timeout=60)
    with Journal(path) as journal:
        journal.append({"event": "stop", "reason": "taken over"})
    assert read_journal(path)[-1]["reason"] == "taken over"


def test_the_same_process_is_refused_too_and_the_name_of_the_new_holder_is_written(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    (tmp_path / "lock").write_text("99999999999 on a host of a long name that is gone\n")
    with Journal(path), pytest.raises(JournalError, match=rf"by process {os.getpid()} on \S+; stop it"):
        Journal(path)
    Journal(path).close()


def test_of_many_processes_at_once_exactly_one_gets_the_journal(tmp_path: Path) -> None:
    code = """
import sys
from evolve import Journal, JournalError
try:
    journal = Journal(sys.argv[1])
    print("got it", flush=True)
except JournalError:
    print("refused", flush=True)
sys.stdin.read()
"""
    processes = [python(code, tmp_path / "journal.jsonl", stdin=subprocess.PIPE) for _ in range(4)]
    answers = [process.stdout.readline().strip() for process in processes if process.stdout is not None]
    for process in processes:
        process.communicate(timeout=60)
    assert sorted(answers) == ["got it", "refused", "refused", "refused"]


# --- the fold ------------------------------------------------------------------------------------------------------


def test_a_trial_goes_from_running_to_finished() -> None:
    state = fold([RUN, ask(0), report(0, 0, map50=0.1), report(0, 1, map50=0.3)])
    trial = state.trials[0]
    assert (state.name, state.budget, state.best()) == ("a", 4, None)
    assert (trial.status, trial.epochs, trial.asked_at, trial.reported_at) == ("running", 2, 2.0, 4.0)
    assert trial.reports == {0: {"map50": 0.1}, 1: {"map50": 0.3}}
    assert state.running == [trial]
    state.apply(tell(0, 0.4))
    assert (trial.status, trial.fitness, trial.epochs, trial.seconds, trial.told_at) == (
        "finished",
        0.4,
        3,
        1.5,
        9.0,
    )
    assert trial.result == {"best": "trials/best.pt"}
    assert (state.running, state.finished, state.failed) == ([], [trial], [])
    assert state.updated_at == 9.0


def test_the_best_is_the_fittest_that_finished_and_the_earlier_of_equals() -> None:
    events = [
        RUN,
        *map(ask, range(5)),
        tell(4, 0.5),
        tell(1, 0.5),
        tell(0, 0.2),
        tell(2, None),
        tell(3, 0.9, "failed"),
    ]
    state = fold(events)
    best = state.best()
    assert best is not None
    assert best.id == 1
    assert [trial.id for trial in state.finished] == [0, 1, 4]
    assert [trial.id for trial in state.failed] == [2, 3]


def test_a_new_attempt_replaces_the_epochs_it_goes_through_again() -> None:
    retry = {"event": "retry", "trial": 0, "attempt": 1, "reason": "node lost", "time": 5.0}
    old = [report(0, epoch, map50=0.1 * epoch) for epoch in range(4)]
    late = report(0, 9, map50=0.99)
    state = fold([RUN, ask(0), *old, retry, late, report(0, 2, 1, map50=0.7), late])
    trial = state.trials[0]
    assert (trial.attempt, trial.retries, trial.epochs) == (1, ["node lost"], 3)
    assert trial.reports == {0: {"map50": 0.0}, 1: {"map50": 0.1}, 2: {"map50": 0.7}}


def test_a_report_after_the_tell_changes_nothing() -> None:
    state = fold([RUN, ask(0), report(0, 0, map50=0.1), tell(0, 0.1)])
    state.apply(report(0, 1, map50=0.9))
    assert state.trials[0].reports == {0: {"map50": 0.1}}


def test_a_resume_sets_the_budget_and_takes_back_the_stop() -> None:
    stop = {"event": "stop", "reason": "interrupted", "time": 5.0}
    resume = {"event": "resume", "trials": 9, "time": 6.0}
    assert fold([RUN, stop]).stopped == "interrupted"
    state = fold([RUN, stop, resume])
    assert (state.budget, state.resumes, state.stopped) == (9, 1, None)


def test_an_unknown_event_is_left_out_with_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    assert fold([RUN, {"event": "weather", "time": 7.0}]).updated_at == 7.0
    assert "event 'weather' of the journal is unknown" in caplog.text


@pytest.mark.parametrize(
    ("events", "message"),
    [
        ([], "must begin with a run event, but it is empty"),
        ([ask(0)], "line 1: a journal must begin with a run event, but got 'ask'"),
        ([{**RUN, "version": 2}], "line 1: the journal's version must be 1, but got 2"),
        ([RUN, RUN], "line 2: a journal must hold one run"),
        ([RUN, tell(3, 0.1)], "line 2: a tell must follow an ask, but trial 3 was never asked"),
        ([RUN, report(3, 0)], "line 2: a report must follow an ask"),
        ([RUN, ask(0), ask(0)], "line 3: a trial must be asked once, but trial 0 is asked again"),
        (
            [RUN, ask(0), tell(0, 0.1), tell(0, 0.2)],
            "line 4: trial 0 must be told once, but it was told finished",
        ),
        (
            [RUN, ask(0), tell(0, 0.1, "lost")],
            "line 3: trial 0: status must be finished, failed or stopped, but got 'lost'",
        ),
        (
            [RUN, ask(0), tell(0, 0.1), {"event": "retry", "trial": 0, "attempt": 1}],
            "line 4: trial 0 must be running to be retried, but it is finished",
        ),
        ([RUN, {"event": "ask", "trial": 0}], r"line 2: ask event is damaged \(KeyError\('config'\)\)"),
        ([RUN, {"event": "resume", "trials": None}], "line 2: resume event is damaged"),
    ],
)
def test_events_that_do_not_follow_are_refused_with_their_line(
    events: list[dict[str, Any]], message: str
) -> None:
    with pytest.raises(JournalError, match=message):
        fold(events)


def test_three_thousand_trials_of_ten_epochs_are_read_and_folded_within_a_second(tmp_path: Path) -> None:
    names = (
        "fitness",
        "map50",
        "map50_95",
        "precision",
        "recall",
        "box_loss",
        "obj_loss",
        "cls_loss",
        "lr",
        "seconds",
    )
    metrics = {name: 0.123456789 for name in names}
    path = tmp_path / "journal.jsonl"
    with path.open("w") as file:
        for event in [RUN, *map(ask, range(3000))]:
            file.write(json.dumps(event) + "\n")
        for trial in range(3000):
            for epoch in range(10):
                file.write(json.dumps(report(trial, epoch, **metrics)) + "\n")
            file.write(json.dumps(tell(trial, 0.1)) + "\n")
    seconds = []
    for _ in range(3):  # the fastest of three: the machine may be busy
        begin = time.process_time()
        state = fold(read_journal(path))
        seconds.append(time.process_time() - begin)
    assert len(state.trials) == 3000
    assert min(seconds) < 1.0


def test_a_reader_that_follows_a_journal_knows_what_one_that_reads_it_whole_does(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    events = [
        {
            "event": "run",
            "version": 1,
            "name": "a",
            "trials": 2,
            "seed": 0,
            "space": {},
            "resources": {"cpus": 2},
        },
        {"event": "ask", "trial": 0, "config": {"x": 0.5}, "origin": {}},
        {"event": "report", "trial": 0, "attempt": 0, "epoch": 0, "metrics": {"fitness": 0.1}},
        {"event": "retry", "trial": 0, "attempt": 1, "reason": "died", "failures": 1, "halvings": 1},
        {"event": "tell", "trial": 0, "status": "finished", "fitness": 0.2, "metrics": {}, "epochs": 1},
        {"event": "resume", "trials": 3, "resources": {"cpus": 1, "gpus": 0.5}},
    ]
    reader = JournalReader(path)
    with pytest.raises(JournalError, match="cannot be read"):
        reader.state()
    with Journal(path) as journal:
        for event in events:
            journal.append(event)
            assert reader.state() == fold(read_journal(path))
        with path.open("ab") as file:  # a line that another process is still at
            file.write(b'{"event": "stop", "rea')
        assert reader.state().stopped is None
        with path.open("ab") as file:
            file.write(b'son": "asked"}\n')
        assert reader.state().stopped == "asked"
        with path.open("ab") as file:
            file.write(b"{}\n")
        with pytest.raises(JournalError, match=r"journal.jsonl:8: a line must hold one event"):
            reader.state()
    assert reader._state is not None
    assert reader._state.resources == {"cpus": 1, "gpus": 0.5}
    assert reader._state.trials[0].halvings == 1


def test_a_journal_of_before_counts_failures_by_their_reasons(tmp_path: Path) -> None:
    events = [
        {"event": "run", "version": 1, "name": "a", "trials": 2},
        {"event": "ask", "trial": 0, "config": {}, "origin": {}},
        {"event": "retry", "trial": 0, "attempt": 1, "reason": "the driver was restarted"},
        {"event": "retry", "trial": 0, "attempt": 2, "reason": "the worker process died"},
    ]
    trial = fold(events).trials[0]
    assert (trial.failures, trial.halvings) == (1, 0)


def test_what_was_appended_without_a_sync_is_there_for_other_readers_at_once(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    with Journal(path) as journal:
        journal.append({"event": "stop", "reason": "a"}, sync=False)
        assert len(read_journal(path)) == 1
        journal.sync()
        journal.sync()
