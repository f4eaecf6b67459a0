"""The ladder of epochs with real processes: who is stopped, and that neither a death nor a resume changes it."""

import json
from pathlib import Path

from evolve import search_from_events
from evolve.journal import RunState, read_journal
from evolve.ledger import trial_folder

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
