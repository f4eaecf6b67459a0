"""What a driver shows while it runs."""

import time
from typing import Any

import pytest
from rich.console import Console

from beagle import console
from beagle.live import running_table, seconds_to_go
from evolve.journal import RunState, fold

Event = dict[str, Any]


def state(finished: int, running: int, budget: int = 10, **resources: float) -> RunState:
    """A run whose trials take 60 s each; the running ones were asked just now."""
    now = time.time()
    header: Event = {"event": "run", "version": 1, "name": "night", "trials": budget, "time": now}
    events = [header | {"resources": {"cpus": 1.0, **resources}, "settings": {"epochs": 5}, "space": {}}]
    for number in range(finished + running):
        ask = {"event": "ask", "trial": number, "config": {}, "origin": {}, "time": now}
        events.append(ask)
        if number < finished:
            told = {"status": "finished", "fitness": 0.1 * number, "seconds": 60.0, "metrics": {}}
            events.append(
                {"event": "tell", "trial": number, "time": now, "reason": None, "epochs": 5, **told}
            )
    return fold(events)


def title(run: RunState) -> str:
    return str(running_table(run).title)


def test_the_rest_takes_as_long_as_what_is_left_at_the_present_pace() -> None:
    assert seconds_to_go(state(finished=4, running=2)) == pytest.approx(6 * 60 / 2, abs=1)
    assert seconds_to_go(state(finished=0, running=2)) is None
    assert seconds_to_go(state(finished=4, running=0)) is None


def test_the_table_says_how_far_what_is_best_and_what_each_trial_has() -> None:
    text = title(state(finished=4, running=2, gpus=0.5))
    assert text == "night: 4 of 10 trials, best 0.3000 (trial 3); 1 CPU, 0.5 GPU each; about 3 min to go"
    assert title(state(finished=0, running=1)) == "night: 0 of 10 trials; 1 CPU each"


def test_each_running_trial_has_its_row() -> None:
    table = running_table(state(finished=1, running=3))
    assert table.row_count == 3
    assert list(table.columns[0].cells) == ["1", "2", "3"]


def test_no_tty_writes_as_if_into_a_log(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TTY_COMPATIBLE", raising=False)
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert Console(stderr=True).is_terminal
    monkeypatch.setenv("TTY_COMPATIBLE", "1")  # so that it is put back after the test
    console.as_in_a_log()
    assert not Console(stderr=True).is_terminal
    assert not console.err.is_terminal
