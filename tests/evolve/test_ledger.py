"""The ledger's rules, without Ray: who runs when, and what a restart finds."""

import math
import resource
from pathlib import Path

import numpy as np
import pytest

from evolve import EvolveError, Gene, Journal, JournalError, Space, fold, read_journal
from evolve.ledger import HOPELESS_TRIALS, Ledger, trial_folder
from evolve.trainable import WORKER_DIED, Outcome


def open_run(folder: Path, trials: int = 4, space: Space | None = None) -> Journal:
    journal = Journal(folder / "journal.jsonl")
    if not read_journal(journal.path):
        journal.append(
            {
                "event": "run",
                "version": 1,
                "name": "run",
                "trials": trials,
                "seed": 0,
                "space": (space or Space([Gene("x", 0, 1)])).to_dict(),
                "search": {},
                "settings": {"epochs": 2},
                "resources": {"cpus": 2.0},
                "provenance": {},
            }
        )
    return journal


def test_a_space_that_is_used_up_ends_the_run_before_its_budget(tmp_path: Path) -> None:
    with open_run(tmp_path, trials=5, space=Space([Gene("n", 0, 1, integer=True)])) as journal:
        ledger = Ledger(tmp_path, journal)
        for number in range(2):
            assert ledger.next_assignment() is not None
            ledger.ended(number, success())
        assert ledger.next_assignment() is None
        assert ledger.complete
        assert ledger.fault is None


def success(fitness: float = 0.5) -> Outcome:
    rows = [{"fitness": fitness / 2}, {"fitness": fitness}]
    return Outcome(fitness, rows[-1], rows, seconds=1.0)


def test_a_trial_is_in_the_journal_before_it_is_handed_out(tmp_path: Path) -> None:
    with open_run(tmp_path) as journal:
        assignment = Ledger(tmp_path, journal).next_assignment()
        assert assignment is not None
        assert read_journal(journal.path)[-1]["event"] == "ask"
        assert assignment.trial == 0
        assert assignment.settings == {"epochs": 2}
        assert assignment.cpus == 2.0
        assert assignment.folder == str(trial_folder(tmp_path, 0))


def test_the_budget_ends_the_handing_out_but_not_before_every_trial_is_told_the_run(tmp_path: Path) -> None:
    with open_run(tmp_path, trials=2) as journal:
        ledger = Ledger(tmp_path, journal)
        assert ledger.next_assignment() is not None
        assert ledger.next_assignment() is not None
        assert ledger.next_assignment() is None
        assert not ledger.complete
        ledger.ended(1, success())
        ledger.ended(0, success())
        assert ledger.complete
        assert ledger.remaining == 0


def test_an_end_is_counted_once(tmp_path: Path) -> None:
    with open_run(tmp_path) as journal:
        ledger = Ledger(tmp_path, journal)
        ledger.next_assignment()
        ledger.ended(0, success(0.4))
        ledger.ended(0, success(0.9))
    events = read_journal(tmp_path / "journal.jsonl")
    assert [event["fitness"] for event in events if event["event"] == "tell"] == [0.4]


def test_epochs_that_a_dead_worker_could_not_report_are_filled_in_from_the_history(tmp_path: Path) -> None:
    with open_run(tmp_path) as journal:
        ledger = Ledger(tmp_path, journal)
        ledger.next_assignment()
        ledger.reported(0, 0, {"fitness": 0.25})
        ledger.reported(0, 0, {"fitness": 0.25})
        ledger.ended(0, success(0.5))
        assert {e: row["fitness"] for e, row in ledger.state.trials[0].reports.items()} == {0: 0.25, 1: 0.5}
    assert sum(event["event"] == "report" for event in read_journal(tmp_path / "journal.jsonl")) == 2


@pytest.mark.parametrize("fitness", [None, math.nan, math.inf])
def test_a_trial_without_a_finite_fitness_is_failed_with_a_reason(
    tmp_path: Path, fitness: float | None
) -> None:
    with open_run(tmp_path) as journal:
        ledger = Ledger(tmp_path, journal)
        ledger.next_assignment()
        ledger.ended(0, Outcome(fitness))
        trial = ledger.state.trials[0]
        assert trial.status == "failed"
        assert trial.reason == "the fitness is not a finite number"


def test_after_a_restart_open_trials_come_first_under_their_own_numbers(tmp_path: Path) -> None:
    with open_run(tmp_path) as journal:
        ledger = Ledger(tmp_path, journal)
        configs = [ledger.next_assignment().config for _ in range(3)]  # type: ignore[union-attr]
        ledger.ended(1, success())
    with open_run(tmp_path) as journal:
        ledger = Ledger(tmp_path, journal)
        again = [ledger.next_assignment() for _ in range(2)]
        assert [(a.trial, a.config) for a in again if a] == [(0, configs[0]), (2, configs[2])]
        assert ledger.state.trials[0].retries == ["the driver was restarted"]
        fresh = ledger.next_assignment()
        assert fresh is not None
        assert fresh.trial == 3


def test_a_run_broken_off_at_any_point_proposes_the_same_trials_as_an_unbroken_one(tmp_path: Path) -> None:
    def run(folder: Path, *, restart: bool) -> list[dict[str, float]]:
        journal = open_run(folder, trials=8)
        ledger = Ledger(folder, journal)
        for _ in range(8):
            if restart:
                journal.close()
                journal = open_run(folder)
                ledger = Ledger(folder, journal)
            assignment = ledger.next_assignment()
            assert assignment is not None
            ledger.ended(assignment.trial, success(-((assignment.config["x"] - 0.3) ** 2)))
        journal.close()
        return [trial.config for trial in fold(read_journal(folder / "journal.jsonl")).trials.values()]

    assert run(tmp_path / "whole", restart=False) == run(tmp_path / "broken", restart=True)


def test_a_run_whose_every_trial_fails_is_given_up_with_the_last_reason(tmp_path: Path) -> None:
    with open_run(tmp_path, trials=50) as journal:
        ledger = Ledger(tmp_path, journal)
        for number in range(HOPELESS_TRIALS):
            assert ledger.next_assignment() is not None
            ledger.ended(number, Outcome(None, reason="ValueError: no such image"))
        assert ledger.next_assignment() is None
        assert isinstance(ledger.fault, EvolveError)
        assert "all failed, the last because: ValueError: no such image" in str(ledger.fault)


def test_a_journal_that_can_not_be_written_stops_the_run_and_keeps_whole_lines(tmp_path: Path) -> None:
    with open_run(tmp_path) as journal:
        ledger = Ledger(tmp_path, journal)
        size = journal.path.stat().st_size
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size + 20, limits[1]))
        try:
            assert ledger.next_assignment() is None
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        assert isinstance(ledger.fault, JournalError)
        assert "journal.jsonl" in str(ledger.fault)
        assert ledger.next_assignment() is None
        assert journal.path.stat().st_size == size
        assert not ledger.state.trials


def test_an_attempt_that_failed_is_handed_out_again_before_anything_new(tmp_path: Path) -> None:
    with open_run(tmp_path) as journal:
        ledger = Ledger(tmp_path, journal)
        first, _ = ledger.next_assignment(), ledger.next_assignment()
        assert ledger.active == 2
        ledger.failed(0, "RuntimeError: lost")
        assert ledger.active == 1
        again = ledger.next_assignment()
        assert again is not None
        assert first is not None
        assert (again.trial, again.config, again.attempt) == (0, first.config, 1)
        assert ledger.state.trials[0].retries == ["RuntimeError: lost"]


def test_a_trial_that_used_up_its_attempts_has_failed_and_restarts_of_the_driver_do_not_count(
    tmp_path: Path,
) -> None:
    with open_run(tmp_path) as journal:
        ledger = Ledger(tmp_path, journal)
        ledger.next_assignment()
        ledger.failed(0, "RuntimeError: first")
    for _ in range(3):
        with open_run(tmp_path) as journal:
            again = Ledger(tmp_path, journal).next_assignment()
            assert again is not None
            assert again.trial == 0
    with open_run(tmp_path) as journal:
        ledger = Ledger(tmp_path, journal)
        for reason in ("second", "third"):
            assert ledger.state.trials[0].status == "running"
            ledger.next_assignment()
            ledger.failed(0, f"RuntimeError: {reason}")
        assert ledger.state.trials[0].reason == "RuntimeError: third"
        assert ledger.active == 0
        ledger.failed(0, "RuntimeError: too late")
    told = [event for event in read_journal(tmp_path / "journal.jsonl") if event["event"] == "tell"]
    assert [event["reason"] for event in told] == ["RuntimeError: third"]


def test_want_of_memory_halves_the_micro_batch_also_after_a_restart_and_says_so_at_the_end(
    tmp_path: Path,
) -> None:
    short = Outcome(None, reason="OutOfMemoryError: CUDA", out_of_memory=True)
    with open_run(tmp_path) as journal:
        ledger = Ledger(tmp_path, journal)
        ledger.next_assignment()
        ledger.ended(0, short)
    with open_run(tmp_path) as journal:
        ledger = Ledger(tmp_path, journal)
        again = ledger.next_assignment()
        assert again is not None
        assert again.micro_batch_halvings == 1
        ledger.ended(0, short)
        again = ledger.next_assignment()
        assert again is not None
        assert again.micro_batch_halvings == 2
        ledger.ended(0, short)
        assert ledger.state.trials[0].reason == "OutOfMemoryError: CUDA (with 1/4 of the micro-batch)"


def test_a_worker_that_dies_twice_without_a_word_gets_a_smaller_micro_batch(tmp_path: Path) -> None:
    with open_run(tmp_path) as journal:
        ledger = Ledger(tmp_path, journal)
        halvings = []
        for _ in range(3):
            assignment = ledger.next_assignment()
            assert assignment is not None
            halvings.append(assignment.micro_batch_halvings)
            ledger.failed(0, WORKER_DIED)
        assert halvings == [0, 0, 1]


def test_a_run_that_is_to_stop_hands_out_nothing_and_keeps_what_is_open(tmp_path: Path) -> None:
    with open_run(tmp_path) as journal:
        ledger = Ledger(tmp_path, journal)
        ledger.next_assignment()
        ledger.stopping = True
        assert ledger.over
        assert ledger.next_assignment() is None
        assert [trial.id for trial in ledger.state.running] == [0]
    with open_run(tmp_path) as journal:
        assert Ledger(tmp_path, journal).next_assignment() is not None


def test_a_leader_is_tried_again_under_another_seed_and_its_mean_counts(tmp_path: Path) -> None:
    """Fitnesses of pure noise: whoever leads was lucky, and racing must notice."""
    noise = np.random.default_rng(0).normal(0.5, 0.1, 60)
    with open_run(tmp_path, trials=60) as journal:
        ledger = Ledger(tmp_path, journal)
        seeds = {}
        for number in range(60):
            assignment = ledger.next_assignment()
            assert assignment is not None
            seeds[number] = assignment.settings.get("seed", 0)
            ledger.ended(number, success(float(noise[number])))
        state = ledger.state
        again = [trial for trial in state.trials.values() if trial.replicates_of is not None]
        assert again
        for trial in again:
            first = state.trials[trial.replicates_of or 0]
            assert trial.config == first.config
            assert seeds[trial.id] == trial.origin["run"] > seeds[first.id]
        best, leader = state.best(), state.standings()[0]
        assert best is not None
        assert best.id == leader.trial
        assert leader.margin is not None
        assert fold(read_journal(journal.path)).best() == best
        assert Ledger(tmp_path, journal).state.standings() == state.standings()
