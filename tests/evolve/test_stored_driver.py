"""Whole drivers and workers of real processes, whose run is kept in an object store that fails now and then."""

import itertools
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from evolve.journal import RunState, fold, read_journal
from evolve.store_url import StoreError, StoreUrl
from evolve.stored_run import mirror_of
from evolve.stored_trial import bring

pytestmark = pytest.mark.ray

URL = StoreUrl("s3", "bucket/runs/first")
PATIENCE_S = 240


def state_once(holds: Callable[[RunState], bool], process: subprocess.Popen[str]) -> RunState:
    end = time.monotonic() + PATIENCE_S
    while time.monotonic() < end:
        try:
            state = fold(read_journal(mirror_of(URL) / "journal.jsonl"))
        except StoreError:
            state = None
        if state is not None and holds(state):
            return state
        assert process.poll() is None, process.communicate()
        time.sleep(0.1)
    raise AssertionError("the run did not come so far in time")


@pytest.mark.slow
def test_a_run_in_a_failing_store_survives_its_driver_and_goes_on_elsewhere(
    drivers: Any, bucket: Any, tmp_path: Path
) -> None:
    requests = itertools.count(1)
    faults = {7: "busy", 13: "unheard", 19: "cut"}

    def now_and_then(method: str, path: str) -> str | None:
        number = next(requests)
        return next((fault for every, fault in faults.items() if number % every == 0), None)

    bucket.fault = now_and_then
    here = {"BEAGLE_CACHE": str(tmp_path / "here"), "BEAGLE_SCRATCH": str(tmp_path / "one")}
    first = drivers.start(URL, 6, 5, faults={1: "raise", 2: "die"}, epoch_s=0.4, **here)
    state_once(lambda state: state.told >= 1 and any(t.reports for t in state.running), first)
    os.kill(first.pid, signal.SIGKILL)
    first.communicate()
    there = {"BEAGLE_CACHE": str(tmp_path / "there"), "BEAGLE_SCRATCH": str(tmp_path / "two")}
    second = drivers.start(URL, 6, 5, faults={1: "raise", 2: "die"}, epoch_s=0.4, **there)
    assert "told 6 of 6" in drivers.finish(second)
    mirror = mirror_of(URL)
    events = read_journal(mirror / "journal.jsonl")
    assert sorted(event["trial"] for event in events if event["event"] == "tell") == list(range(6))
    state = fold(events)
    assert [trial.id for trial in state.failed] == [1]
    assert state.trials[1].reason == "RuntimeError: the device was lost"
    for trial in state.finished:
        ran = [int(line) for line in bring(mirror, f"trials/{trial.id:04d}/ran.txt").read_text().split()]
        assert sorted(set(ran)) == list(range(5))
        assert len(ran) == 5  # what a killed worker had not saved is not in its file either
    assert not [path for path in (tmp_path / "two").rglob("*") if path.is_file() and path.name != ".claim"]
