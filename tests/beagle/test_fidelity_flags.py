"""Ladders and confirmations on the command line: what the journal's header says, and what is refused in one line."""

from dataclasses import replace
from pathlib import Path

import pytest

from beagle import reopening, wiring
from beagle.cli import run
from beagle.fidelity_flags import chosen_ladder, chosen_plan
from beagle.wiring import EvolveOptions
from dataset import load
from evolve import EvolveError, Journal, fold, read_journal
from evolve.confirm import Plan
from evolve.ladder import Ladder
from evolve.ledger import Ledger
from evolve.resources import Resources
from evolve.trainable import Outcome

RESOURCES = Resources()


def silent(text: str) -> None:
    """A listener that does not care."""


def test_the_header_of_a_run_holds_its_ladder_and_what_is_to_be_confirmed(
    tmp_path: Path, options: EvolveOptions
) -> None:
    wanted = replace(options, ladder=chosen_ladder("1,3,9", None, 3.0), confirm=chosen_plan(2, 12, 4))
    wiring.start_run(tmp_path / "run", wanted, RESOURCES, silent)
    state = fold(read_journal(tmp_path / "run" / "journal.jsonl"))
    assert state.ladder == Ladder((1, 3, 9))
    assert state.header["settings"]["epochs"] == 9
    assert Plan.from_header(state.header) == Plan(2, 12, 4)
    assert state.header["search"]["replicas"] == 1  # the best are confirmed instead
    wiring.start_run(tmp_path / "plain", options, RESOURCES, silent)
    plain = fold(read_journal(tmp_path / "plain" / "journal.jsonl"))
    assert plain.ladder is None
    assert not {"ladder", "confirm"} & plain.header.keys()
    assert plain.header["search"]["replicas"] > 1
    assert chosen_plan(0, None, 3) is None


def test_a_run_is_confirmed_afterwards_and_its_search_asks_nothing_more(
    tmp_path: Path, options: EvolveOptions
) -> None:
    folder, said = tmp_path / "run", []
    wiring.start_run(folder, replace(options, trials=5), RESOURCES, silent)
    with pytest.raises(EvolveError, match="must have finished to be confirmed"):
        reopening.begin_confirmation(folder, Plan(1), {}, said.append)
    before = (folder / "journal.jsonl").read_bytes()
    with Journal(folder / "journal.jsonl") as journal:
        ledger = Ledger(folder, journal)
        for fitness in (0.2, 0.4):
            assignment = ledger.next_assignment()
            assert assignment is not None
            ledger.ended(assignment.trial, Outcome(fitness, {"fitness": fitness}))
    assert (folder / "journal.jsonl").read_bytes().startswith(before)
    state = reopening.begin_confirmation(folder, Plan(1, seeds=2), {"concurrent": 3}, said.append)
    assert "3 trials of the search were not asked yet" in said[0]
    assert state.resources["concurrent"] == 3
    assert state.confirmations[0].of == (1, 0)
    with Journal(folder / "journal.jsonl") as journal:
        ledger = Ledger(folder, journal)
        seeds = []
        while (assignment := ledger.next_assignment()) is not None:
            seeds.append(assignment.settings["seed"])
            ledger.ended(assignment.trial, Outcome(0.3, {"fitness": 0.3}))
        assert ledger.complete
    assert seeds == [1000, 1000, 1001, 1001]
    assert reopening.reopen_run(folder, 5).budget == 5 + 4


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--epochs", "10,5"], "each larger than the one before"),
        (["--epochs", "many"], "a ladder such as 10,30,100"),
        (["--epochs", "10", "--grace", "10"], "1 <= grace < 10"),
        (["--epochs", "5,10", "--reduction", "1"], "reduction > 1 must hold"),
        (["--confirm", "-1"], "top >= 1 must hold"),
        (["--confirm", "1", "--confirm-seeds", "0"], "seeds >= 1 must hold"),
        (["--trainer", "yolov5", "--grace", "3"], "--epochs must be given where --grace"),
    ],
)
def test_what_makes_no_ladder_and_no_confirmation_is_refused_in_one_line(
    words: list[str], message: str, tmp_path: Path, tiny: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["evolve", str(tiny), "--out", str(tmp_path / "run"), *words]) == 1
    said = " ".join(capsys.readouterr().err.split())
    assert message in said
    assert not (tmp_path / "run").exists()


def test_a_longer_training_that_confirms_has_the_step_and_the_warm_up_of_the_trials(
    tmp_path: Path, options: EvolveOptions
) -> None:
    from beagle.production import at_another_length

    wiring.start_run(tmp_path / "run", options, RESOURCES, silent)
    settings = fold(read_journal(tmp_path / "run" / "journal.jsonl")).header["settings"]
    longer = at_another_length({**settings, "epochs": 50}, settings["hyp"], 2, load(options.data))
    assert longer["nominal_batch"] >= settings["batch_size"]
    assert longer["hyp"]["warmup_epochs"] < settings["hyp"]["warmup_epochs"]  # capped in two epochs
    assert longer["hyp"]["lr0"] == settings["hyp"]["lr0"]
