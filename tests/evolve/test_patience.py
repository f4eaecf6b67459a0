"""A search that ends when so many trials in a row gave nothing better: when, what is counted, and how it goes on."""

import json
from pathlib import Path
from typing import Any

import pytest

from evolve import Gene, Journal, Space, fold, read_journal
from evolve.confirm import Plan
from evolve.ledger import Ledger
from evolve.patience import enough_event, expected_epochs, fruitless
from evolve.report import build_page
from evolve.report_view import build_view
from evolve.run_state import RunState
from evolve.search_settings import SearchSettings
from evolve.trainable import Outcome
from evolve.wording import progress_words

pytestmark = pytest.mark.ray

SPACE = Space([Gene("x", 0, 1), Gene("y", 0, 1)])


def begin(folder: Path, trials: int, **more: Any) -> Journal:
    header = {
        "event": "run",
        "version": 1,
        "name": "run",
        "trials": trials,
        "seed": 0,
        "space": SPACE.to_dict(),
    }
    header |= {"search": SearchSettings(replicas=1).to_dict(), "settings": {"epochs": 2}}
    journal = Journal(folder / "journal.jsonl")
    journal.append({**header, **more})
    return journal


def play(ledger: Ledger, fitness: dict[int, float]) -> list[int]:
    """Run trials one after the other, each with its fitness or else 0.1, until none is handed out."""
    ran = []
    while (assignment := ledger.next_assignment()) is not None:
        ran.append(assignment.trial)
        end(ledger, assignment.trial, fitness.get(assignment.trial, 0.1))
    return ran


def end(ledger: Ledger, trial: int, fitness: float = 0.1) -> None:
    """A trial was trained for its two epochs."""
    row = {"fitness": fitness}
    ledger.ended(trial, Outcome(fitness, row, [row, row], seconds=1.0))


def run(*rows: dict[str, Any], **header: Any) -> RunState:
    """A run whose trials ended so: each row says fitness, and origin or result where they matter."""
    first = {"event": "run", "version": 1, "name": "run", "trials": 99, "space": SPACE.to_dict(), **header}
    events = [first]
    for number, row in enumerate(rows):
        origin = {"kind": "mutation", "parents": [], **row.get("origin", {})}
        events.append({"event": "ask", "trial": number, "config": SPACE.start, "origin": origin})
        if "fitness" in row:
            end = {"status": "failed" if row["fitness"] is None else "finished", **row}
            events.append({"event": "tell", "trial": number, **end})
    return fold(events)


def test_a_search_ends_when_its_patience_is_used_up_and_so_does_its_budget(tmp_path: Path) -> None:
    with begin(tmp_path, trials=50, patience=4) as journal:
        ledger = Ledger(tmp_path, journal)
        assert play(ledger, {2: 0.4, 5: 0.5}) == list(range(10))
        assert ledger.complete
        assert (ledger.state.budget, ledger.remaining) == (10, 0)
        assert ledger.state.enough == "the last 4 trials gave nothing better"
    assert read_journal(tmp_path / "journal.jsonl")[-1]["event"] == "enough"
    with Journal(tmp_path / "journal.jsonl") as journal:
        assert Ledger(tmp_path, journal).complete
    page = build_page(build_view(read_journal(tmp_path / "journal.jsonl")))
    assert "finished: the last 4 trials gave nothing better" in page


def test_a_resume_with_a_larger_budget_has_all_its_patience_again(tmp_path: Path) -> None:
    with begin(tmp_path, trials=50, patience=4) as journal:
        play(Ledger(tmp_path, journal), {})
        journal.append({"event": "resume", "trials": 5})  # what `beagle resume` without --trials writes
        ledger = Ledger(tmp_path, journal)
        assert (ledger.complete, ledger.state.enough is None) == (True, False)
        journal.append({"event": "resume", "trials": 50})
        ledger = Ledger(tmp_path, journal)
        assert ledger.state.enough is None
        assert play(ledger, {7: 0.3}) == list(range(5, 12))
        assert ledger.state.enough is not None


def test_a_driver_that_is_killed_before_it_wrote_the_end_finds_it_again(tmp_path: Path) -> None:
    with begin(tmp_path, trials=50, patience=3) as journal:
        play(Ledger(tmp_path, journal), {})
    path = tmp_path / "journal.jsonl"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-1]))
    with Journal(path) as journal:
        ledger = Ledger(tmp_path, journal)
        assert not ledger.complete
        assert ledger.next_assignment() is None
        assert ledger.complete


def test_what_is_open_when_the_search_ends_is_trained_to_its_end_and_may_lead(tmp_path: Path) -> None:
    with begin(tmp_path, trials=50, patience=2) as journal:
        ledger = Ledger(tmp_path, journal)
        for _ in range(4):
            assert ledger.next_assignment() is not None
        for number in range(3):
            ledger.ended(number, Outcome(0.2 if number == 0 else 0.1))
        assert ledger.next_assignment() is None
        assert not ledger.complete
        ledger.ended(3, Outcome(0.9))
        assert ledger.complete
        best = ledger.state.best()
        assert best is not None
        assert best.id == 3


def test_what_is_to_be_confirmed_is_confirmed_after_it(tmp_path: Path) -> None:
    plan = Plan(2, epochs=4, seeds=1)
    with begin(tmp_path, trials=50, patience=3, confirm=plan.to_dict()) as journal:
        ledger = Ledger(tmp_path, journal)
        assert play(ledger, {1: 0.5, 0: 0.2}) == list(range(5 + 2))
        assert [trial.confirms for trial in ledger.state.confirming] == [1, 0]
        assert ledger.complete


def test_repetitions_and_open_trials_are_no_tries_and_failures_are() -> None:
    again = {"origin": {"kind": "replicate", "replicates_of": 0, "run": 1}}
    assert fruitless(run()) == 0
    assert fruitless(run({"fitness": None}, {"fitness": None})) == 0
    assert fruitless(run({"fitness": 0.5}, {"fitness": 0.4, **again}, {"fitness": 0.1}, {})) == 1
    assert fruitless(run({"fitness": 0.5}, {"fitness": 0.1}, {"fitness": None}, {"fitness": 0.5})) == 3
    state = run({"fitness": 0.5}, {"fitness": 0.1})
    assert enough_event(state) is None
    state.apply({"event": "resume", "trials": 99, "patience": 2})
    assert enough_event(state) is None
    state.apply({"event": "resume", "trials": 99, "patience": 1})
    assert enough_event(state) is not None
    state.apply({"event": "resume", "trials": 99})  # keeps it
    assert enough_event(state) is not None
    state.apply({"event": "resume", "trials": 99, "patience": 0})
    assert enough_event(state) is None


def test_a_search_ends_when_its_trials_have_used_their_epochs_and_goes_on_with_more(tmp_path: Path) -> None:
    with begin(tmp_path, trials=50, epoch_budget=9) as journal:
        ledger = Ledger(tmp_path, journal)
        assert play(ledger, {}) == list(range(5))  # four have used 8
        assert ledger.complete
        assert ledger.state.enough == "the budget of 9 epochs is used up"
        assert progress_words(ledger.state).endswith("0 running, of 5; 10 of 9 epochs")
        journal.append({"event": "resume", "trials": 50})
        assert play(Ledger(tmp_path, journal), {}) == []
        journal.append({"event": "resume", "trials": 50, "epoch_budget": 16})
        assert play(Ledger(tmp_path, journal), {}) == [5, 6, 7]
        journal.append({"event": "resume", "trials": 10, "epoch_budget": 0})
        ledger = Ledger(tmp_path, journal)
        assert play(ledger, {}) == [8, 9]
        assert (ledger.state.enough, ledger.complete) == (None, True)


def test_trials_under_way_are_expected_to_use_as_many_epochs_as_others_did(tmp_path: Path) -> None:
    with begin(tmp_path, trials=50, epoch_budget=9) as journal:
        ledger = Ledger(tmp_path, journal)
        for _ in range(5):
            assert ledger.next_assignment() is not None
        assert expected_epochs(ledger.state) == 10  # none has ended: as many as a whole trial has
        assert ledger.next_assignment() is None
        assert not ledger.complete
        for number in range(5):
            end(ledger, number)
        assert ledger.complete


def test_what_is_confirmed_comes_on_top_of_the_epochs(tmp_path: Path) -> None:
    plan = Plan(1, epochs=2, seeds=2)
    with begin(tmp_path, trials=50, epoch_budget=6, confirm=plan.to_dict()) as journal:
        ledger = Ledger(tmp_path, journal)
        assert play(ledger, {1: 0.5}) == list(range(3 + 4))
        assert expected_epochs(ledger.state) == 6
        assert ledger.complete


def test_with_several_objectives_a_trial_that_joins_the_front_is_a_gain() -> None:
    rows = [
        {"fitness": f, "result": {"costs": {"latency": cost}}} for f, cost in ((0.5, 9), (0.3, 4), (0.2, 6))
    ]
    objectives = {"search": {"objectives": ["fitness", "latency"]}}
    assert fruitless(run(*rows, **objectives)) == 1
    assert fruitless(run(*rows)) == 2


def test_a_driver_ends_when_the_patience_is_used_up(tmp_path: Path, drivers: type, ray_address: str) -> None:
    folder = tmp_path / "run"
    confirm = json.dumps({"top": 1, "epochs": 2, "seeds": 1})
    options = {"epoch_s": 0.01, "patience": 3, "confirm": confirm, "address": ray_address}
    said = drivers.finish(drivers.start(folder, 200, 2, **options))
    state = drivers.state_of(folder)
    assert state.enough is not None
    assert 4 <= state.asked < 100
    assert state.confirming
    assert f"told {len(state.trials)} of {len(state.trials)}, stopped: None" in said
