"""The ladder of epochs with real processes: who is stopped, and that neither a death nor a resume changes it."""

import json
import os
import signal
from pathlib import Path

import pytest

from evolve import search_from_events
from evolve.journal import RunState, read_journal
from evolve.ledger import trial_folder

pytestmark = pytest.mark.ray

LADDER = json.dumps({"rungs": [2, 4, 8], "reduction": 2})


def judged(state: RunState) -> dict[int, list[tuple[int, float, bool]]]:
    return {
        trial.id: [(rung.epochs, rung.fitness, rung.goes_on) for rung in trial.rungs.values()]
        for trial in state.trials.values()
    }


def test_hopeless_trials_end_at_their_rung_and_their_worker_takes_the_next_one(
    tmp_path: Path, drivers: type, ray_address: str
) -> None:
    folder = tmp_path / "run"
    options = {"epoch_s": 0.03, "ladder": LADDER, "address": ray_address}
    assert "told 14 of 14, stopped: None" in drivers.finish(drivers.start(folder, 14, 8, **options))
    state = drivers.state_of(folder)
    assert sorted(drivers.asks(folder)) == sorted(drivers.tells(folder)) == list(range(14))
    assert len(state.cut) >= 4
    assert len(state.finished) >= 2
    assert not state.failed
    for trial in state.trials.values():
        ran = drivers.epochs_run(folder, trial.id)
        assert ran == list(range(trial.epochs)), "an epoch ran that was not asked for"
        assert trial.epochs == (8 if trial.status == "finished" else max(trial.rungs))
    pids = {(trial_folder(folder, number) / "pid").read_text() for number in range(14)}
    assert len(pids) <= 2 + len(state.trials) // 4, "workers of stopped trials were not used again"
    search = search_from_events(read_journal(folder / "journal.jsonl"))
    assert search.best().trial.id == state.best().id
    assert state.best().epochs == 8


def test_a_ladder_whose_driver_is_killed_between_its_rungs_ends_as_the_unbroken_one(
    tmp_path: Path, drivers: type, ray_address: str
) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    confirm = json.dumps({"top": 1, "epochs": 3, "seeds": 2})
    options = {"epoch_s": 0.1, "ladder": LADDER, "confirm": confirm, "concurrent": 1, "address": ray_address}
    drivers.finish(drivers.start(whole, 8, 8, **options))

    def between(state: RunState) -> bool:
        return any(trial.rungs and trial.epochs in (3, 5) for trial in state.running)

    for kills in range(2):
        driver = drivers.start(broken, 8, 8, **options)
        told = drivers.state_of(broken).told if kills else 0
        drivers.wait_until(broken, lambda s, told=told: s.told >= told and between(s), driver)
        driver.send_signal(signal.SIGKILL)
        driver.communicate()
    drivers.finish(drivers.start(broken, **options))

    before, after = drivers.state_of(whole), drivers.state_of(broken)
    assert drivers.configs(broken) == drivers.configs(whole)
    assert judged(after) == judged(before)
    assert sorted(drivers.tells(broken)) == sorted(drivers.asks(broken)) == list(range(len(before.trials)))
    assert [t.fitness for t in after.trials.values()] == [t.fitness for t in before.trials.values()]
    for trial in after.trials.values():
        ran = drivers.epochs_run(broken, trial.id)
        assert sorted(set(ran)) == list(range(trial.epochs))
        assert len(ran) <= trial.epochs + 2, f"it did not go on from its checkpoint: {ran}"
    # Confirmed at another length, under seeds that reached the trainings.
    again = after.confirming
    assert [(t.epochs, t.result["epochs"]) for t in again] == [(3, 3)] * len(again)
    assert {t.result["seed"] for t in again} == {1003, 1004}


def test_a_killed_worker_s_trial_goes_on_between_its_rungs_and_is_judged_once(
    tmp_path: Path, drivers: type, ray_address: str
) -> None:
    folder = tmp_path / "run"
    options = {"epoch_s": 0.2, "ladder": LADDER, "address": ray_address}
    driver = drivers.start(folder, 6, 8, **options)
    state = drivers.wait_until(
        folder, lambda s: any(trial.rungs and trial.epochs == 3 for trial in s.running), driver
    )
    victim = next(trial for trial in state.running if trial.rungs and trial.epochs == 3)
    os.kill(int((trial_folder(folder, victim.id) / "pid").read_text()), signal.SIGKILL)
    drivers.finish(driver)
    after = drivers.state_of(folder)
    assert sorted(drivers.tells(folder)) == list(range(6))
    assert "worker process died" in after.trials[victim.id].retries[0]
    assert after.trials[victim.id].rungs[2] == victim.rungs[2]
    ran = drivers.epochs_run(folder, victim.id)
    assert sorted(set(ran)) == list(range(after.trials[victim.id].epochs))
    rungs = [
        (e["trial"], e["epochs"]) for e in read_journal(folder / "journal.jsonl") if e["event"] == "rung"
    ]
    assert len(rungs) == len(set(rungs))


def test_a_worker_that_a_stopped_trial_leaves_unfit_is_replaced_and_no_trial_suffers(
    tmp_path: Path, drivers: type, ray_address: str
) -> None:
    """A thread that a trial leaves running is found when it is stopped, within its `report`."""
    folder = tmp_path / "run"
    options = {"epoch_s": 0.03, "ladder": LADDER, "concurrent": 1, "address": ray_address}
    drivers.finish(drivers.start(folder, 5, 8, faults={2: "thread"}, **options))
    state = drivers.state_of(folder)
    assert sorted(drivers.tells(folder)) == list(range(5))
    assert [trial.id for trial in state.cut] == [2, 3, 4]
    assert not any(trial.retries for trial in state.trials.values())
    pids = [(trial_folder(folder, number) / "pid").read_text() for number in range(5)]
    assert pids[0] == pids[1] == pids[2] != pids[3] == pids[4]
