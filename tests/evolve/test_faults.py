"""The fault matrix, with real processes: whatever happens, every trial ends once and the books are right."""

import os
import random
import shutil
import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path

import pytest

from evolve import search_from_events
from evolve.control import ask_to_stop, driver_of, requested_stop
from evolve.journal import Journal, read_journal
from evolve.ledger import trial_folder

pytestmark = pytest.mark.ray


def test_each_fault_is_answered_in_its_own_way_and_no_trial_is_lost_or_told_twice(
    tmp_path: Path, drivers: type, ray_address: str
) -> None:
    """One evolution in which nearly every trial has another fault."""
    folder = tmp_path / "run"
    faults = {
        1: "raise",
        2: "hang",
        3: "die",
        4: "host memory",
        5: "device memory",
        6: "nan",
        7: "infinite",
        8: "refuse",
        9: "freeze",
    }
    options = {"epoch_s": 0.05, "silence_s": 10, "retries": 1, "address": ray_address}
    said = drivers.finish(drivers.start(folder, trials=12, epochs=3, faults=faults, **options))

    assert "told 12 of 12, stopped: None" in said
    assert sorted(drivers.asks(folder)) == sorted(drivers.tells(folder)) == list(range(12))
    state = drivers.state_of(folder)
    reasons = {trial.id: trial.reason for trial in state.failed}
    assert reasons == {
        1: "RuntimeError: the device was lost",
        5: "OutOfMemoryError: CUDA out of memory. Tried to allocate 20.00 GiB (with 1/2 of the micro-batch)",
        6: "the fitness is not a finite number",
        7: "the fitness is not a finite number",
        8: "ValueError: such a configuration can't work",
    }
    retries = {trial.id: trial.retries for trial in state.trials.values() if trial.retries}
    assert retries == {
        1: ["RuntimeError: the device was lost"],
        2: ["it was silent for 10 s, so it was ended"],
        3: ["the worker process died (killed, out of memory, or its node was lost)"],
        4: ["MemoryError"],
        5: ["OutOfMemoryError: CUDA out of memory. Tried to allocate 20.00 GiB"],
        9: ["it was silent for 10 s, so it was ended"],
    }
    assert {trial.id: trial.halvings for trial in state.trials.values() if trial.halvings} == {4: 1, 5: 1}
    for trial in state.finished:  # what was retried went on from its checkpoint
        assert drivers.epochs_run(folder, trial.id) == [0, 1, 2]
    search = search_from_events(read_journal(folder / "journal.jsonl"))
    assert not search.open
    assert search.best().trial.id == state.best().id


def test_a_worker_is_used_again_and_carries_nothing_over_from_one_trial_to_the_next(
    tmp_path: Path, drivers: type, ray_address: str
) -> None:
    folder = tmp_path / "run"
    options = {"epoch_s": 0.02, "concurrent": 1, "address": ray_address}
    drivers.finish(drivers.start(folder, 5, 2, faults={1: "litter", 2: "thread"}, **options))
    found = [trial.result for trial in drivers.state_of(folder).finished]
    assert [row["marker"] for row in found] == [None] * 5
    assert (
        found[0]["drawn"] == found[1]["drawn"] == found[2]["drawn"]
    )  # the state before the first, each time
    pids = [row["pid"] for row in found]
    assert len(set(pids[:3])) == len(set(pids[3:])) == 1
    assert pids[2] != pids[3], "a worker with a thread left running was used again"


def test_a_run_of_one_worker_proposes_the_same_whatever_happens_to_its_driver(
    tmp_path: Path, drivers: type, ray_address: str
) -> None:
    """Stopped, resumed, killed, its journal cut in the middle of a line, resumed, and given more trials."""
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    options = {"epoch_s": 0.15, "concurrent": 1, "address": ray_address}
    drivers.finish(drivers.start(whole, 6, 3, **options))

    first = drivers.start(broken, 4, 3, **options)
    drivers.wait_until(broken, lambda s: s.told >= 1, first)
    assert driver_of(broken).startswith(f"{first.pid} on ")
    ask_to_stop(broken)
    assert "of 4, stopped: asked to stop" in drivers.finish(first)
    assert driver_of(broken) is None
    assert requested_stop(broken) is None
    stopped = drivers.state_of(broken)
    assert 1 <= stopped.told < 4
    for trial in stopped.running:  # each ended with the epoch that it was in
        assert drivers.epochs_run(broken, trial.id) == sorted(trial.reports)

    second = drivers.start(broken, **options)
    drivers.wait_until(broken, lambda s: s.told > stopped.told and any(t.reports for t in s.running), second)
    second.send_signal(signal.SIGKILL)
    second.communicate()
    with (broken / "journal.jsonl").open("ab") as journal:
        journal.write(b'{"event": "tell", "trial": 3, "sta')
    with Journal(broken / "journal.jsonl") as journal:
        journal.append({"event": "resume", "trials": 6})
    drivers.finish(drivers.start(broken, **options))

    assert drivers.configs(broken) == drivers.configs(whole)
    assert drivers.tells(broken) == drivers.tells(whole) == list(range(6))
    before, after = drivers.state_of(whole), drivers.state_of(broken)
    assert [trial.fitness for trial in after.finished] == [trial.fitness for trial in before.finished]


def test_a_clock_that_is_set_back_neither_disorders_the_journal_nor_hangs_the_run(tmp_path: Path) -> None:
    """The times of a journal go on from its last one, whatever the system's clock says."""
    path = tmp_path / "journal.jsonl"
    tomorrow = time.time() + 86_400
    with Journal(path) as journal:
        journal.append({"event": "run", "version": 1, "name": "a", "trials": 1, "time": tomorrow})
        journal.append({"event": "stop", "reason": "a"})
    with Journal(path) as journal:
        journal.append({"event": "stop", "reason": "b"})
        journal.append({"event": "stop", "reason": "c"})
    times = [event["time"] for event in read_journal(path)]
    assert times[2:] == sorted(times[2:])
    assert times[2] >= times[1]


def test_a_driver_whose_clock_jumps_to_and_fro_ends_every_trial_once_and_takes_none_for_hung(
    tmp_path: Path, drivers: type, ray_address: str
) -> None:
    folder = tmp_path / "run"
    options = {"epoch_s": 0.2, "silence_s": 20, "address": ray_address, "clock": "[0, -3600, 86400]"}
    assert "told 6 of 6, stopped: None" in drivers.finish(drivers.start(folder, 6, 4, **options))
    assert sorted(drivers.asks(folder)) == sorted(drivers.tells(folder)) == list(range(6))
    state = drivers.state_of(folder)
    assert len(state.finished) == 6
    assert not any(trial.retries for trial in state.trials.values())
    times = [event["time"] for event in read_journal(folder / "journal.jsonl")]
    assert times == sorted(times)
    assert times[-1] - times[1] < 600  # the offsets are in none of the steps


@pytest.mark.slow
def test_a_driver_that_is_killed_at_twenty_random_moments_ends_its_run_all_the_same(
    tmp_path: Path, drivers: type, ray_address: str
) -> None:
    folder, rng = tmp_path / "run", random.Random(5)
    options = {"epoch_s": 0.2, "address": ray_address}
    told: dict[int, list[int]] = {}
    for _ in range(20):
        driver = drivers.start(folder, 40, 6, **options)
        driver.stdout.close()
        begun = len((folder / "journal.jsonl").read_bytes()) if (folder / "journal.jsonl").exists() else 0
        try:
            drivers.wait_until(
                folder, lambda s, b=begun: len((folder / "journal.jsonl").read_bytes()) > b, driver
            )
            time.sleep(rng.uniform(0, 4))
        finally:
            driver.send_signal(signal.SIGKILL)
            driver.wait()
        state = drivers.state_of(folder)
        for trial, epochs in told.items():
            assert drivers.epochs_run(folder, trial) == epochs, "a finished trial ran again"
        told |= {trial.id: drivers.epochs_run(folder, trial.id) for trial in state.finished}
        assert state.told < 40, "the run ended before its driver was killed often enough"
    drivers.finish(drivers.start(folder, **options))
    assert sorted(drivers.asks(folder)) == sorted(drivers.tells(folder)) == list(range(40))
    state = drivers.state_of(folder)
    assert len(state.finished) == 40
    assert all(set(drivers.epochs_run(folder, trial)) == set(range(6)) for trial in range(40))
    assert all(trial.failures == 0 for trial in state.trials.values())  # a driver's death is no trial's fault


@pytest.mark.slow
def test_a_node_that_is_lost_takes_no_trial_with_it(
    tmp_path: Path, drivers: type, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ray.cluster_utils import Cluster

    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    folder = tmp_path / "run"
    node = {"num_cpus": 1, "object_store_memory": 80_000_000}
    cluster = Cluster(initialize_head=True, head_node_args={**node, "include_dashboard": False})
    try:
        others = [cluster.add_node(**node) for _ in range(2)]
        options = {"epoch_s": 0.5, "concurrent": 3, "address": cluster.address}
        driver = drivers.start(folder, 6, 12, **options)
        drivers.wait_until(folder, lambda s: sum(len(trial.reports) > 1 for trial in s.running) == 3, driver)
        cluster.remove_node(others[0], allow_graceful=False)
        drivers.finish(driver)
    finally:
        cluster.shutdown()
    state = drivers.state_of(folder)
    assert sorted(drivers.tells(folder)) == list(range(6))
    assert len(state.finished) == 6
    lost = [trial for trial in state.trials.values() if trial.retries]
    assert len(lost) == 1
    assert "its node was lost" in lost[0].retries[0]
    ran = drivers.epochs_run(folder, lost[0].id)
    assert sorted(set(ran)) == list(range(12))
    assert len(ran) <= 13, f"it did not go on from its checkpoint: {ran}"


@pytest.mark.slow
def test_a_disk_that_fills_up_stops_the_run_with_one_line_and_fails_no_trial(
    small_disk: Path, drivers: type, ray_address: str
) -> None:
    folder = small_disk / "run"
    options = {"epoch_s": 0.3, "address": ray_address}
    driver = drivers.start(folder, 4, 8, **options)
    drivers.wait_until(folder, lambda s: any(len(trial.reports) > 1 for trial in s.running), driver)
    filler = small_disk / "filler"
    fill(filler)
    said, _ = driver.communicate(timeout=240)
    assert driver.returncode == 1
    assert len([line for line in said.splitlines() if line.startswith("error:")]) == 1, said
    assert "No space left" in said
    assert not drivers.state_of(folder).failed
    filler.unlink()
    drivers.finish(drivers.start(folder, **options))
    assert sorted(drivers.tells(folder)) == [0, 1, 2, 3]
    assert len(drivers.state_of(folder).finished) == 4


def fill(path: Path) -> None:
    """Write until there is no room."""
    with path.open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(bytes(1 << 14))


@pytest.fixture
def small_disk(tmp_path: Path):
    """A file system of 8 MiB, or a skip that says why there is none."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount, umount = shutil.which("mount"), shutil.which("umount")
    if mount is None or umount is None or os.geteuid() != 0:
        pytest.skip("no full disk to test with: mounting a tmpfs takes root and the program mount")
    command = [mount, "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(folder)]
    made = subprocess.run(command, capture_output=True, text=True, check=False)
    if made.returncode:
        pytest.skip(f"no full disk to test with: mounting a tmpfs is refused ({made.stderr.strip()})")
    yield folder
    subprocess.run([umount, "-l", str(folder)], check=True)


def test_a_driver_that_is_asked_to_stop_now_does_not_wait_for_the_epoch(
    tmp_path: Path, drivers: type, ray_address: str
) -> None:
    folder = tmp_path / "run"
    driver = drivers.start(folder, 2, 2, epoch_s=600, address=ray_address)
    drivers.wait_until(
        folder, lambda s: any((trial_folder(folder, t.id) / "pid").exists() for t in s.running), driver
    )
    ask_to_stop(folder, "now")
    assert "told 0 of 2, stopped: asked to stop" in drivers.finish(driver)
