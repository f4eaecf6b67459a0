"""One attempt of a trial in this process: outcomes, failures and the claim on its folder."""

import logging
import multiprocessing
import os
import signal
import time
from pathlib import Path

import pytest

from evolve.trainable import (
    LOG_NAME,
    Assignment,
    Outcome,
    Report,
    TrialError,
    claim_folder,
    failure_reason,
    one_line,
    run_trial,
)


def assignment(folder: Path) -> Assignment:
    return Assignment(trial=0, config={"x": 0.5}, settings={}, folder=str(folder / "0000"))


def silent(epoch: int, metrics: dict[str, float]) -> None:
    """A report that nobody reads."""


def test_an_outcome_is_handed_through_and_what_the_objective_logs_is_kept(tmp_path: Path) -> None:
    def objective(given: Assignment, report: Report) -> Outcome:
        logging.getLogger("somewhere").info("learning at %g", given.config["x"])
        report(0, {"fitness": 0.1})
        return Outcome(0.1)

    seen: list[int] = []
    outcome = run_trial(assignment(tmp_path), objective, lambda epoch, _: seen.append(epoch))
    assert outcome == Outcome(0.1)
    assert seen == [0]
    assert "learning at 0.5" in (tmp_path / "0000" / LOG_NAME).read_text()


def test_a_configuration_that_can_not_work_is_an_outcome_and_not_a_crash(tmp_path: Path) -> None:
    def objective(given: Assignment, report: Report) -> Outcome:
        raise ValueError("lr0 must be positive")

    outcome = run_trial(assignment(tmp_path), objective, silent)
    assert outcome.fitness is None
    assert outcome.reason == "ValueError: lr0 must be positive"


def test_any_other_exception_is_raised_for_a_retry_and_leaves_its_reason_on_one_line(tmp_path: Path) -> None:
    def objective(given: Assignment, report: Report) -> Outcome:
        raise RuntimeError("device lost\nsecond line")

    with pytest.raises(RuntimeError, match="device lost"):
        run_trial(assignment(tmp_path), objective, silent)
    assert failure_reason(tmp_path / "0000") == "RuntimeError: device lost second line"


def test_the_reason_of_an_older_attempt_is_not_taken_for_that_of_a_killed_one(tmp_path: Path) -> None:
    def crash(given: Assignment, report: Report) -> Outcome:
        raise RuntimeError("old")

    with pytest.raises(RuntimeError, match="old"):
        run_trial(assignment(tmp_path), crash, silent)
    run_trial(assignment(tmp_path), lambda *_: Outcome(0.0), silent)
    assert "worker process died" in failure_reason(tmp_path / "0000")


def hold(folder: Path) -> None:
    with claim_folder(folder):
        (folder / "held").touch()
        time.sleep(60)


def test_a_folder_is_claimed_by_one_process_and_freed_by_its_death(tmp_path: Path) -> None:
    holder = multiprocessing.get_context("spawn").Process(target=hold, args=(tmp_path,))
    holder.start()
    deadline = time.monotonic() + 60
    while not (tmp_path / "held").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    with pytest.raises(TrialError, match="still in use"), claim_folder(tmp_path, patience_s=0.3):
        pass
    assert holder.pid is not None
    os.kill(holder.pid, signal.SIGKILL)
    holder.join()
    holder.close()
    with claim_folder(tmp_path, patience_s=5):
        pass


def test_an_error_is_one_line_of_bounded_length() -> None:
    assert one_line(RuntimeError("a\n b\tc")) == "RuntimeError: a b c"
    assert one_line(MemoryError()) == "MemoryError"
    assert len(one_line(RuntimeError("x" * 10_000))) == 300
