"""`beagle stop`, `beagle status` and `beagle resume` on a run folder, without a training."""

import json
import multiprocessing
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from beagle.folders import CommandError
from beagle.reopening import reopen_run
from beagle.wiring import EvolveOptions, start_run
from evolve.control import driver_of, forget_stop, requested_stop
from evolve.journal import Journal, fold, read_journal
from evolve.ledger import Ledger
from evolve.resources import Resources
from evolve.space import EvolveError

pytestmark = pytest.mark.ray

LIGHT = ("--model", "yolov5n", "--image-size", "64", "--epochs", "1", "--device", "cpu")


@pytest.fixture
def run_folder(options: EvolveOptions, tmp_path: Path) -> Path:
    start_run(tmp_path / "run", options, Resources(), lambda _line: None)
    return tmp_path / "run"


def drive(folder: Path) -> None:
    """As a driver does that is asked to stop."""
    with Journal(folder / "journal.jsonl") as journal:
        ledger = Ledger(folder, journal)
        ledger.next_assignment()
        while requested_stop(folder) is None:
            time.sleep(0.05)
        ledger.stop("asked to stop")


@pytest.fixture
def driven(run_folder: Path):
    process = multiprocessing.get_context("spawn").Process(target=drive, args=(run_folder,))
    process.start()
    deadline = time.monotonic() + 60
    while driver_of(run_folder) is None and time.monotonic() < deadline:
        time.sleep(0.05)
    yield run_folder
    process.kill()
    process.join()
    process.close()


def test_a_run_that_somebody_drives_is_stopped_and_what_is_left_is_said(
    driven: Path, beagle: Callable
) -> None:
    said = beagle("status", driven, "--json")
    assert json.loads(said.out)["driver"].split(" on ")[0].isdigit()
    said = beagle("stop", driven)
    assert said.code == 0, said
    assert "run stopped: 0 of 2 trials are done, 1 to go on with (`beagle resume" in " ".join(
        said.err.split()
    )
    assert requested_stop(driven) is None
    assert fold(read_journal(driven / "journal.jsonl")).stopped == "asked to stop"
    assert json.loads(beagle("status", driven, "--json").out)["driver"] is None


def test_a_request_that_nobody_waits_for_is_left_for_the_driver(driven: Path, beagle: Callable) -> None:
    said = beagle("stop", driven, "--no-wait", "--now", "--json")
    assert said.code == 0, said
    assert json.loads(said.out)["budget"] == 2


def test_a_run_that_nobody_drives_is_not_stopped_and_no_request_is_left(
    run_folder: Path, refused: Callable[..., str]
) -> None:
    assert "nobody drives this run" in refused("stop", run_folder)
    assert requested_stop(run_folder) is None
    forget_stop(run_folder)


def test_a_resume_may_change_the_patience_but_not_where_the_search_has_ended(run_folder: Path) -> None:
    assert reopen_run(run_folder, None).patience is None
    assert reopen_run(run_folder, None, patience=7).patience == 7
    assert reopen_run(run_folder, 5).patience == 7
    assert reopen_run(run_folder, None, patience=0).patience is None
    with pytest.raises(CommandError, match=r"patience >= 0 must hold \(0 for none\), but got -1"):
        reopen_run(run_folder, None, patience=-1)
    with Journal(run_folder / "journal.jsonl") as journal:
        journal.append({"event": "enough", "reason": "the last 7 trials gave nothing better"})
    with pytest.raises(
        CommandError, match="the search ended after 0 trials: another --patience needs a larger"
    ):
        reopen_run(run_folder, None, patience=9)
    with pytest.raises(CommandError, match="after 0 trials: another --epoch-budget needs a larger --trials"):
        reopen_run(run_folder, None, epoch_budget=90)
    with pytest.raises(CommandError, match=r"epoch_budget >= 0 must hold \(0 for none\), but got -2"):
        reopen_run(run_folder, 4, epoch_budget=-2)
    state = reopen_run(run_folder, 4, patience=9, epoch_budget=90)
    assert (state.budget, state.patience, state.epoch_budget, state.enough) == (4, 9, 90, None)


def test_a_resume_may_change_what_each_trial_gets(run_folder: Path) -> None:
    state = reopen_run(run_folder, 5, {"gpus": 0.5, "concurrent": 3})
    assert Resources.of(state) == Resources(gpus=0.5, concurrent=3)
    assert state.budget == 5
    state = reopen_run(run_folder, None, {"cpus": 2.0})
    assert Resources.of(state) == Resources(cpus=2.0, gpus=0.5, concurrent=3)
    with Journal(run_folder / "journal.jsonl") as journal:
        assignment = Ledger(run_folder, journal).next_assignment()
    assert assignment is not None
    assert (assignment.cpus, assignment.gpus) == (2.0, 0.5)


def test_resources_that_make_no_sense_leave_the_journal_as_it_was(run_folder: Path) -> None:
    before = (run_folder / "journal.jsonl").read_bytes()
    with pytest.raises(EvolveError, match="a fraction of one or a whole number"):
        reopen_run(run_folder, None, {"gpus": 1.5})
    assert (run_folder / "journal.jsonl").read_bytes() == before


def test_a_trial_that_fits_nowhere_is_refused_before_anything_is_written(
    untouched: Callable[..., str], tiny: Path
) -> None:
    line = untouched("evolve", tiny, *LIGHT, "--trials", "1", "--cpus", "1000")
    assert "a trial asks for 1000 CPUs and 0 GPUs on one node, but the cluster has at most" in line
