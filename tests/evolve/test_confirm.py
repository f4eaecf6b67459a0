"""Confirming: the best trained again under new seeds, written down, resumed, and what may be promised then."""

import json
from pathlib import Path

import pytest

from evolve import EvolveError, Gene, Journal, Space, fold, read_journal, search_from_events
from evolve.confirm import FIRST_SEED, Plan, confirm_event
from evolve.export import NOTES, PROVENANCE, export_run
from evolve.ledger import Ledger
from evolve.trainable import Assignment, Outcome
from evolve.wording import belief_words

TRIALS = 6


def open_run(folder: Path, sampler: str = "", **header: object) -> Journal:
    journal = Journal(folder / "journal.jsonl")
    if not read_journal(journal.path):
        search = {"sampler": sampler} if sampler else {"initial": 4, "children": 20, "replicas": 1}
        journal.append(
            {
                "event": "run",
                "version": 1,
                "name": "run",
                "trials": TRIALS,
                "seed": 5,
                "space": Space([Gene("x", 0, 1, start=0.1)]).to_dict(),
                "search": search,
                "settings": {"epochs": 10, "seed": 5},
                "resources": {},
                "provenance": {},
                **header,
            }
        )
    return journal


def fitness_of(assignment: Assignment) -> float:
    """Luck decides within the search: what was lucky there is less under other seeds."""
    if assignment.settings["seed"] >= FIRST_SEED:
        return 0.5 + 0.1 * assignment.config["x"] + 0.001 * (assignment.settings["seed"] % 3)
    return 0.5 + 0.1 * assignment.config["x"] + (0.3 if assignment.trial == 2 else 0.0)


def run_all(ledger: Ledger, most: int = 1000) -> list[Assignment]:
    handed: list[Assignment] = []
    while len(handed) < most and (assignment := ledger.next_assignment()) is not None:
        handed.append(assignment)
        fitness = fitness_of(assignment)
        rows = [{"fitness": fitness}] * int(assignment.settings["epochs"])
        ledger.ended(assignment.trial, Outcome(fitness, rows[-1], rows, seconds=1.0))
    return handed


def test_the_best_and_the_start_are_trained_again_under_seeds_that_no_trial_had(tmp_path: Path) -> None:
    plan = Plan(2, epochs=30, seeds=3)
    with open_run(tmp_path, confirm=plan.to_dict()) as journal:
        ledger = Ledger(tmp_path, journal)
        handed = run_all(ledger)
        state = ledger.state
    assert ledger.complete
    assert ledger.remaining == 0
    again = handed[TRIALS:]
    assert len(again) == state.planned == 9
    assert state.budget == len(state.trials) == state.told == TRIALS + 9
    assert {a.settings["epochs"] for a in again} == {30}
    assert {a.settings["trial_epochs"] for a in again} == {10}
    assert [a.settings["seed"] for a in again] == [1005] * 3 + [1006] * 3 + [1007] * 3  # all compared early
    confirmed = state.confirmations[0].of
    assert confirmed[0] == 2  # the luckiest
    assert confirmed[-1] == 0  # the start
    assert [a.config for a in again[:3]] == [state.trials[first].config for first in confirmed]
    assert len(state.finished) == len(state.searched) == TRIALS


def test_the_winner_is_the_best_of_those_confirmed_and_its_luck_does_not_count(tmp_path: Path) -> None:
    with open_run(tmp_path, confirm=Plan(3, seeds=2).to_dict()) as journal:
        ledger = Ledger(tmp_path, journal)
        run_all(ledger, TRIALS)
        before = ledger.state.best()
        assert before is not None
        assert before.id == 2
        assert ledger.state.measured().confirmed is False  # type: ignore[union-attr]
        run_all(ledger)
        state = ledger.state
    best, measured = state.best(), state.measured()
    assert best is not None
    assert measured is not None
    assert best.config["x"] == max(state.trials[first].config["x"] for first in state.confirmations[0].of)
    assert measured.seeds == (1005, 1006)
    assert measured.standing.runs == 2
    assert measured.standing.mean == pytest.approx(0.5 + 0.1 * best.config["x"], abs=0.003)
    assert measured.start is not None
    assert state.finished[0].fitness == pytest.approx(0.51)
    words = belief_words(measured)
    assert words.startswith("Confirmed: fitness 0.")
    assert "2 trainings of 10 epochs under new seeds (1005, 1006)" in words
    assert "The start, trained alike: 0.51" in words


@pytest.mark.parametrize("when", range(1, 80, 5))
def test_a_confirmation_that_is_cut_anywhere_goes_on_and_nothing_is_trained_twice(
    tmp_path: Path, when: int
) -> None:
    header = {"confirm": Plan(2, epochs=4, seeds=2).to_dict(), "settings": {"epochs": 2, "seed": 5}}
    with open_run(tmp_path / "whole", **header) as journal:
        ledger = Ledger(tmp_path / "whole", journal)
        run_all(ledger)
        whole = ledger.state
    lines = (tmp_path / "whole" / "journal.jsonl").read_bytes().splitlines(keepends=True)
    cut = tmp_path / "cut" / "journal.jsonl"
    cut.parent.mkdir()
    cut.write_bytes(b"".join(lines[: 1 + when % len(lines)]))
    with Journal(cut) as journal:
        ledger = Ledger(cut.parent, journal)
        run_all(ledger)
        state = ledger.state
    assert {n: (t.config, t.origin, t.fitness) for n, t in state.trials.items()} == {
        n: (t.config, t.origin, t.fitness) for n, t in whole.trials.items()
    }
    assert state.confirmations == whole.confirmations


@pytest.mark.parametrize("sampler", ["", "tpe", "cmaes"])
def test_a_run_that_was_confirmed_takes_more_trials_and_confirms_anew(tmp_path: Path, sampler: str) -> None:
    with open_run(tmp_path, sampler, confirm=Plan(1, seeds=2).to_dict()) as journal:
        run_all(Ledger(tmp_path, journal))
        state = fold(read_journal(journal.path))
        journal.append({"event": "resume", "trials": TRIALS + 3 + state.planned})
        ledger = Ledger(tmp_path, journal)
        handed = run_all(ledger)
        state = ledger.state
    assert [a.trial for a in handed[:3]] == [10, 11, 12]
    assert len(state.searched) == TRIALS + 3
    assert len(state.confirmations) == 2
    # What was confirmed before at the same length is not trained again.
    assert state.confirmations[1].trainings <= 2
    search = search_from_events(read_journal(tmp_path / "journal.jsonl"))
    assert not search.open
    assert search.best() is not None


def test_a_training_that_fails_counts_as_done_and_its_configuration_comes_last(tmp_path: Path) -> None:
    with open_run(tmp_path, confirm=Plan(2, seeds=2).to_dict()) as journal:
        ledger = Ledger(tmp_path, journal)
        run_all(ledger, TRIALS)
        assignment = ledger.next_assignment()
        assert assignment is not None
        ledger.ended(assignment.trial, Outcome(None, reason="it diverged"))
        run_all(ledger)
        state = ledger.state
    assert ledger.complete
    assert [trial.confirms for trial in state.failed] == [state.confirmations[0].of[0]]
    best = state.best()
    assert best is not None
    assert best.id != state.confirmations[0].of[0]
    assert state.confirmed()[-1].failures == 1


def test_the_export_says_what_was_measured_and_warns_where_nothing_was_confirmed(tmp_path: Path) -> None:
    for name, header in (("plain", {}), ("confirmed", {"confirm": Plan(1, epochs=30, seeds=3).to_dict()})):
        with open_run(tmp_path / name, **header) as journal:
            run_all(Ledger(tmp_path / name, journal))
        target = export_run(tmp_path / name, tmp_path / f"{name}-out")
        facts = json.loads((target / PROVENANCE).read_text())
        notes, hyp = (target / NOTES).read_text(), (target / "hyp.yaml").read_text()
        measured = facts["measured"]
        if name == "plain":
            assert measured["confirmed"] is False
            assert measured["seeds"] is None
            assert "Not confirmed: fitness 0.8" in notes
            assert "Not confirmed" in hyp
        else:
            assert (measured["confirmed"], measured["epochs"], measured["runs"]) == (True, 30, 3)
            assert measured["seeds"] == [1005, 1006, 1007]
            assert measured["search"]["epochs"] == 10
            assert measured["mean"] < 0.7  # and not the 0.8 of the luckiest
            assert "Confirmed: fitness 0." in notes


def test_what_confirms_nothing_is_refused(tmp_path: Path) -> None:
    for values in ({"top": 0}, {"top": 1, "epochs": 0}, {"top": 1, "seeds": 0}):
        with pytest.raises(EvolveError, match=">= 1 must hold for a confirmation"):
            Plan(**values)
    with open_run(tmp_path) as journal:
        ledger = Ledger(tmp_path, journal)
        ledger.next_assignment()
        with pytest.raises(EvolveError, match="must have finished to be confirmed"):
            confirm_event(ledger.state, Plan(1))
