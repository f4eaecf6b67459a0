"""The ladder of epochs: which rungs, who goes on, and that a restart judges as the unbroken run would have."""

import math
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evolve import EvolveError, Gene, Journal, Space, read_journal, search_from_events
from evolve.journal import RunState, fold
from evolve.judging import judge
from evolve.ladder import Ladder, Rung, best_fitness
from evolve.ledger import Ledger
from evolve.trainable import Assignment, Outcome

RUNGS = (2, 4, 8)


def open_run(folder: Path, trials: int = 40, **header: object) -> Journal:
    journal = Journal(folder / "journal.jsonl")
    if not read_journal(journal.path):
        journal.append(
            {
                "event": "run",
                "version": 1,
                "name": "run",
                "trials": trials,
                "seed": 0,
                "space": Space([Gene("x", 0, 1, start=0.1), Gene("y", 0, 1)]).to_dict(),
                "search": {"initial": 4, "children": 20, "replicas": 1},
                "settings": {"epochs": RUNGS[-1], "seed": 7},
                "resources": {},
                "provenance": {},
                "ladder": Ladder(RUNGS, 2.0).to_dict(),
                **header,
            }
        )
    return journal


def fitness_at(config: dict[str, float], epoch: int, epochs: int = RUNGS[-1]) -> float:
    """A curve that rises to its own height."""
    height = 1 - (config["x"] - 0.7) ** 2 - (config["y"] - 0.2) ** 2
    return height * (epoch + 1) / epochs


def play(ledger: Ledger, assignment: Assignment, until: int | None = None) -> bool:
    """Train one trial as a worker would; whether it came to its end or to `until` epochs."""
    epochs = assignment.settings["epochs"]
    rows = []
    for epoch in range(epochs):
        if epoch == until:
            return False
        rows.append({"fitness": fitness_at(assignment.config, epoch, epochs), "seconds": 1.0})
        if not ledger.reported(assignment.trial, epoch, rows[-1]):
            return False
    ledger.ended(assignment.trial, Outcome(rows[-1]["fitness"], rows[-1], rows, seconds=float(epochs)))
    return True


def run_all(ledger: Ledger) -> RunState:
    while (assignment := ledger.next_assignment()) is not None:
        play(ledger, assignment)
    return ledger.state


@pytest.mark.parametrize(
    ("words", "grace", "reduction", "rungs"),
    [
        ("100", None, 3, (100,)),
        ("10,30,100", None, 3, (10, 30, 100)),
        ("100", 10, 3, (10, 30, 100)),
        ("90", 10, 3, (10, 30, 90)),
        ("300", 10, 3, (10, 30, 90, 300)),
        ("12", 10, 3, (10, 12)),
        ("8", 1, 2, (1, 2, 4, 8)),
        ("5", 1, 1.1, (1, 2, 3, 4, 5)),
    ],
)
def test_rungs_are_named_or_follow_from_grace_and_reduction(
    words: str, grace: int | None, reduction: float, rungs: tuple[int, ...]
) -> None:
    ladder = Ladder.parse(words, grace, reduction)
    assert ladder.rungs == rungs
    assert ladder.full == rungs[-1]
    header = {"ladder": ladder.to_dict()}
    assert Ladder.from_header(header) == (ladder if len(rungs) > 1 else None)


@pytest.mark.parametrize(
    ("words", "grace", "reduction", "message"),
    [
        ("ten", None, 3, "a number or a ladder such as 10,30,100"),
        ("10,10", None, 3, "each larger than the one before, but got '10,10'"),
        ("0", None, 3, "whole number of at least 1"),
        ("100", 100, 3, "1 <= grace < 100"),
        ("100", 0, 3, "1 <= grace < 100"),
        ("10,100", 5, 3, "a ladder names its first rung itself"),
        ("10,100", None, 1, "reduction > 1 must hold"),
        ("100", 10, math.nan, "reduction > 1 must hold"),
    ],
)
def test_what_is_no_ladder_is_refused(words: str, grace: int | None, reduction: float, message: str) -> None:
    with pytest.raises(EvolveError, match=message):
        Ladder.parse(words, grace, reduction)


def climb(ladder: Ladder, fitnesses: list[float]) -> list[Rung]:
    """Trials that come to the first rung one after the other."""
    found: list[Rung] = []
    for fitness in fitnesses:
        bar = ladder.bar([each.fitness for each in found], [each.goes_on for each in found], fitness)
        found.append(Rung(ladder.rungs[0], fitness, bar, bar is None or fitness >= bar))
    return found


def test_the_first_goes_on_and_later_ones_where_they_are_of_the_best_third() -> None:
    rng = np.random.default_rng(0)
    fitnesses = rng.random(300).tolist()
    found = climb(Ladder((1, 9), 3.0), fitnesses)
    assert found[0].bar is None  # nothing to compare with yet
    assert 0.25 < np.mean([rung.goes_on for rung in found]) < 0.36
    assert min(rung.fitness for rung in found[20:] if rung.goes_on) > 0.6
    assert max(rung.fitness for rung in found[20:] if not rung.goes_on) < 0.95


def test_a_search_that_gets_better_does_not_send_all_its_trials_on() -> None:
    rng = np.random.default_rng(0)
    rising = np.linspace(0.2, 0.8, 200) + rng.normal(0, 0.1, 200)
    found = climb(Ladder((1, 9), 3.0), rising.tolist())
    assert sum(rung.goes_on for rung in found) < 90
    worse = climb(Ladder((1, 9), 3.0), [*rising, *([0.1] * 30)])
    assert not any(rung.goes_on for rung in worse[200:])


@given(st.lists(st.floats(0, 1), min_size=1, max_size=80), st.sampled_from([1.5, 2.0, 3.0, 4.0]))
def test_the_best_yet_always_goes_on_and_of_the_others_no_more_than_the_share(
    fitnesses: list[float], reduction: float
) -> None:
    best, turns = -1.0, round(3 * reduction)
    found = climb(Ladder((1, 2), reduction), fitnesses)
    for place, rung in enumerate(found):
        assert rung.goes_on or rung.fitness < best
        if rung.goes_on and rung.fitness < best:
            flags = [each.goes_on for each in found[: place + 1]]
            share = [sum(some) <= len(some) / reduction + 1 + 1e-9 for some in (flags, flags[-turns - 1 :])]
            assert any(share)
        best = max(best, rung.fitness)


def test_after_many_that_went_on_others_go_on_again_before_long() -> None:
    rising = [0.1 * (place + 1) for place in range(8)]  # each the best yet
    found = climb(Ladder((1, 9), 3.0), [*rising, *[0.7] * 12])
    assert all(rung.goes_on for rung in found[:8])
    assert not any(rung.goes_on for rung in found[8:13])
    assert sum(rung.goes_on for rung in found[13:]) >= 2


def test_what_is_not_finite_or_not_measured_is_not_the_best() -> None:
    rows = {epoch: {"fitness": value} for epoch, value in enumerate([0.1, 0.3, 0.2, math.nan, 0.5])}
    assert [best_fitness(rows, epochs) for epochs in (0, 1, 4, 5)] == [None, 0.1, 0.3, 0.5]
    assert best_fitness({0: {"fitness": None}, 1: {"loss": 1.0}}, 5) is None


def test_hopeless_trials_end_and_the_best_is_one_that_was_trained_in_full(tmp_path: Path) -> None:
    with open_run(tmp_path) as journal:
        state = run_all(Ledger(tmp_path, journal))
    assert state.told == 40
    assert len(state.cut) > 12
    assert len(state.finished) + len(state.cut) == 40
    assert not state.failed
    assert state.trials[0].status == "finished"  # the start is always trained in full
    best = state.best()
    assert best is not None
    assert best.epochs == RUNGS[-1]
    spent = sum(trial.epochs for trial in state.trials.values())
    assert spent < 0.8 * 40 * RUNGS[-1]
    for trial in state.cut:
        last = trial.rungs[max(trial.rungs)]
        assert last.bar is not None
        assert last.foretold is not None
        assert last.foretold + last.doubt < last.bar
        assert trial.fitness is None
        assert trial.seconds == trial.epochs == last.epochs
        assert f"at epoch {last.epochs}," in str(trial.reason)
        assert trial.curve == [rung.fitness for rung in trial.rungs.values()]


@pytest.mark.parametrize("when", [1, 2, 9, 10, 11, 30, 47, 55, 70, 83, 96, 110, 123, 150])
def test_a_driver_killed_after_any_event_is_followed_by_one_that_decides_the_same(
    tmp_path: Path, when: int
) -> None:
    """The journal is cut after an event, in the middle of whatever the ledger was at, and the run is gone on with."""
    with open_run(tmp_path / "whole", trials=24) as journal:
        whole = run_all(Ledger(tmp_path / "whole", journal))
    lines = (tmp_path / "whole" / "journal.jsonl").read_bytes().splitlines(keepends=True)
    cut = tmp_path / "cut" / "journal.jsonl"
    cut.parent.mkdir()
    cut.write_bytes(b"".join(lines[: 1 + when % (len(lines) - 1)]))
    with Journal(cut) as journal:
        state = run_all(Ledger(cut.parent, journal))
    assert {n: (t.config, t.status, t.fitness, t.rungs, t.curve) for n, t in state.trials.items()} == {
        n: (t.config, t.status, t.fitness, t.rungs, t.curve) for n, t in whole.trials.items()
    }
    tells = [event["trial"] for event in read_journal(cut) if event["event"] == "tell"]
    assert sorted(tells) == list(range(24))
    best = search_from_events(read_journal(cut)).best()
    assert best is not None
    assert best.trial.id == state.best().id  # type: ignore[union-attr]


def test_a_trial_whose_outcome_is_there_is_not_judged_any_more(tmp_path: Path) -> None:
    with open_run(tmp_path) as journal:
        ledger = Ledger(tmp_path, journal)
        for _ in range(6):
            assignment = ledger.next_assignment()
            assert assignment is not None
            play(ledger, assignment)
        assignment = ledger.next_assignment()
        assert assignment is not None
        rows = [{"fitness": 0.0}] * RUNGS[-1]  # a worker that died before it could report, and was done
        ledger.ended(assignment.trial, Outcome(0.0, rows[-1], rows))
        assert ledger.state.trials[assignment.trial].status == "finished"
        assert ledger.state.trials[assignment.trial].rungs == {}


class Judged:
    """Trials of one gene, judged once, at epoch 1 of 2."""

    def __init__(self, **limits: int) -> None:
        self.ladder, self.space = Ladder((1, 2), 3.0), Space([Gene("x", 0, 1)])
        header = {"version": 1, "name": "r", "trials": 99, "space": self.space.to_dict(), **limits}
        self.state = fold([{"event": "run", **header}])

    def ask(self, number: int, x: float, early: float) -> Rung:
        """How a new trial stands that has come to the rung."""
        self.state.apply({"event": "ask", "trial": number, "config": {"x": x}, "origin": {"kind": "random"}})
        return judge(self.state, self.space, self.ladder, self.state.trials[number], early, 1)

    def write(self, number: int, found: Rung, end: float) -> None:
        """Whether it went on, and where it did, its end."""
        self.state.apply({"event": "rung", "trial": number, **asdict(found)})
        told = {"status": "finished", "fitness": end} if found.goes_on else {"status": "stopped"}
        curve = [found.fitness, end] if found.goes_on else [found.fitness]
        self.state.apply({"event": "tell", "trial": number, "fitness": None, **told, "curve": curve})


def test_slow_trials_that_are_better_go_on_where_fast_ones_have_filled_the_rung() -> None:
    """By what they have at the rung they would all be stopped, and nothing would ever be known of their end."""

    def curve(x: float) -> list[float]:
        fast = x < 0.5
        return [0.3, 0.5] if fast else [0.1 + 0.1 * x, 0.6 + 0.2 * x]

    trials, rng = Judged(), np.random.default_rng(0)
    went_on: dict[bool, list[bool]] = {True: [], False: []}
    for number in range(70):
        # Twelve of each kind first, then thirty fast ones, then slow ones alone.
        slow = number % 2 == 1 if number < 24 else number >= 54
        x = float(rng.uniform(0.5, 1) if slow else rng.uniform(0, 0.5))
        early, end = (value + 0.005 * float(rng.normal()) for value in curve(x))
        found = trials.ask(number, x, early)
        trials.write(number, replace(found, goes_on=found.goes_on or number < 24), end)
        if number >= 24:
            went_on[slow].append(found.goes_on)
    assert sum(went_on[True]) >= 4
    assert sum(went_on[False]) <= 3
    early = {number: trial.rungs[1].fitness for number, trial in trials.state.trials.items()}
    bar = trials.ladder.bar([early[number] for number in range(54)], [False] * 54, max(early.values()))
    assert bar is not None
    assert all(early[number] < bar for number in range(54, 70))  # by what they had there none would go on


def test_a_trial_whose_end_nobody_can_tell_has_the_benefit_of_the_doubt() -> None:
    """Below the bar all alike: those goes on of whose genes none was seen later, until one was."""
    trials, rng = Judged(), np.random.default_rng(0)
    for number in range(48):
        x = float(rng.uniform(0, 0.5))
        early = 0.3 + 0.01 * float(rng.random())
        found = replace(trials.ask(number, x, early), goes_on=number % 3 == 0)
        trials.write(number, found, early + 0.2 + 0.06 * math.sin(20 * x))
    known = trials.ask(48, 0.24, 0.3)  # where it is lowest
    trials.write(48, known, math.nan)
    unknown = trials.ask(49, 1.0, 0.3)
    assert known.doubt < unknown.doubt
    assert (known.goes_on, unknown.goes_on) == (False, True)
    assert unknown.foretold is not None
    assert unknown.bar is not None
    assert unknown.foretold < unknown.bar
    trials.write(49, unknown, 0.31)  # poor: its like are known now
    assert not trials.ask(50, 0.99, 0.3).goes_on


def test_where_epochs_are_limited_the_doubt_counts_the_more_the_more_trials_are_whole() -> None:
    found = {}
    for budget in (0, 500):
        trials, rng = Judged(epoch_budget=budget), np.random.default_rng(0)
        for number in range(36):
            early = 0.3 + 0.01 * float(rng.random())
            judged = trials.ask(number, float(rng.random()), early)
            assert judged.times == (max(1.0, (number + 1) // 2 / 3) if budget else 1.0)
            trials.write(
                number, replace(judged, goes_on=number % 2 == 0), early + 0.2 + 0.01 * float(rng.normal())
            )
        found[budget] = trials.ask(36, 0.5, 0.28)
    plain, grown = found[0], found[500]
    assert (plain.foretold, plain.doubt, plain.bar) == (grown.foretold, grown.doubt, grown.bar)
    assert (plain.goes_on, grown.goes_on) == (False, True)
    assert grown.times == 6
    assert " ± 6.0 x 0.0" in grown.words
    trials.write(36, grown, 0.5)
    assert trials.state.trials[36].rungs[1] == grown


def test_a_rung_that_was_missed_does_not_shift_the_others(tmp_path: Path) -> None:
    """Nothing finite was measured until the first one."""
    with open_run(tmp_path) as journal:
        ledger = Ledger(tmp_path, journal)
        for number in range(3):
            assignment = ledger.next_assignment()
            assert assignment is not None
            for epoch in range(RUNGS[1]):
                value = math.nan if number == 1 and epoch < RUNGS[0] else 0.2 * (epoch + 1)
                ledger.reported(number, epoch, {"fitness": value})
        rungs = [trial.rungs for trial in ledger.state.trials.values()]
        assert [sorted(each) for each in rungs] == [[2, 4], [4], [2, 4]]
        assert rungs[1][4].foretold == pytest.approx(rungs[2][4].foretold)


def test_equal_fitnesses_all_go_on(tmp_path: Path) -> None:
    """Where nothing is learnt by the first rung there is nothing to choose by."""
    with open_run(tmp_path, trials=8) as journal:
        ledger = Ledger(tmp_path, journal)
        while (assignment := ledger.next_assignment()) is not None:
            assert all(ledger.reported(assignment.trial, epoch, {"fitness": 0.0}) for epoch in range(8))
            ledger.ended(assignment.trial, Outcome(0.0, {"fitness": 0.0}))
        assert not ledger.state.cut


def test_a_trial_that_never_began_waits_again_and_nothing_is_held_against_it(tmp_path: Path) -> None:
    with open_run(tmp_path) as journal:
        ledger = Ledger(tmp_path, journal)
        first = ledger.next_assignment()
        assert first is not None
        ledger.put_back(first.trial)
        again = ledger.next_assignment()
        assert again == first
        assert ledger.state.trials[0].failures == 0
