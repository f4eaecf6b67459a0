"""The Ray driver with real processes: what is killed, crashes or is stopped, and what stands afterwards."""

import os
import signal
from pathlib import Path

import pytest

from evolve.ledger import trial_folder
from evolve.ray_driver import Resources
from evolve.ray_session import worker_environment
from evolve.space import EvolveError

pytestmark = pytest.mark.ray


def test_a_killed_driver_is_resumed_and_every_trial_ends_exactly_once(
    tmp_path: Path, drivers: type, ray_address: str
) -> None:
    folder = tmp_path / "run"
    first = drivers.start(folder, trials=7, epochs=8, epoch_s=0.15, address=ray_address)
    before = drivers.wait_until(
        folder,
        lambda s: len(s.finished) >= 2 and any(1 <= len(trial.reports) <= 5 for trial in s.running),
    )
    first.send_signal(signal.SIGKILL)
    first.communicate(timeout=240)
    told = {trial.id: drivers.epochs_run(folder, trial.id) for trial in before.finished}
    open_ids = [trial.id for trial in drivers.state_of(folder).running]
    assert open_ids

    drivers.finish(drivers.start(folder, address=ray_address))

    after = drivers.state_of(folder)
    assert sorted(drivers.tells(folder)) == list(range(7))
    assert len(after.finished) == 7
    for trial, epochs in told.items():
        assert drivers.epochs_run(folder, trial) == epochs, "a finished trial ran again"
    for trial in open_ids:
        ran = drivers.epochs_run(folder, trial)
        assert sorted(set(ran)) == list(range(8))
        # At most the epoch in flight at the kill, and one that an orphan still finished, run a second time.
        assert len(ran) <= 10, f"trial {trial} did not go on from its checkpoint: {ran}"
    assert all(set(trial.reports) == set(range(8)) for trial in after.finished)


def test_a_killed_worker_s_trial_is_retried_from_its_checkpoint_and_ends(
    tmp_path: Path, drivers: type, ray_address: str
) -> None:
    folder = tmp_path / "run"
    driver = drivers.start(folder, trials=3, epochs=10, epoch_s=0.2, address=ray_address)
    state = drivers.wait_until(folder, lambda s: any(len(trial.reports) >= 3 for trial in s.running))
    victim = next(trial.id for trial in state.running if len(trial.reports) >= 3)
    os.kill(int((trial_folder(folder, victim) / "pid").read_text()), signal.SIGKILL)

    drivers.finish(driver)

    after = drivers.state_of(folder)
    assert len(after.finished) == 3
    assert sorted(drivers.tells(folder)) == [0, 1, 2]
    assert "worker process died" in after.trials[victim].retries[0]
    ran = drivers.epochs_run(folder, victim)
    assert sorted(set(ran)) == list(range(10))
    assert len(ran) <= 11, f"it did not go on from its checkpoint: {ran}"


def test_a_terminated_driver_says_so_leaves_its_trials_open_and_can_be_resumed(
    tmp_path: Path, drivers: type, ray_address: str
) -> None:
    folder = tmp_path / "run"
    driver = drivers.start(folder, trials=4, epochs=10, epoch_s=0.3, address=ray_address)
    drivers.wait_until(folder, lambda s: any(len(trial.reports) >= 2 for trial in s.running))
    driver.send_signal(signal.SIGTERM)
    said, _ = driver.communicate(timeout=240)
    assert driver.returncode != 0
    assert "KeyboardInterrupt" in said
    stopped = drivers.state_of(folder)
    assert stopped.stopped == "interrupted"
    assert stopped.running

    drivers.finish(drivers.start(folder, address=ray_address))
    assert sorted(drivers.tells(folder)) == [0, 1, 2, 3]


def test_a_second_driver_on_one_run_is_refused(tmp_path: Path, drivers: type, ray_address: str) -> None:
    folder = tmp_path / "run"
    first = drivers.start(folder, trials=2, epochs=5, epoch_s=0.3, address=ray_address)
    drivers.wait_until(folder, lambda s: bool(s.running))
    second = drivers.start(folder, address=ray_address)
    said, _ = second.communicate(timeout=240)
    assert second.returncode != 0
    assert f"process {first.pid}" in said
    drivers.finish(first)


def test_two_trials_on_half_a_gpu_each_run_at_once_and_see_the_same_gpu(
    tmp_path: Path, drivers: type, ray_address: str
) -> None:
    folder = tmp_path / "run"
    drivers.finish(drivers.start(folder, trials=2, epochs=10, epoch_s=0.3, gpus=0.5, address=ray_address))
    first, second = drivers.state_of(folder).finished
    assert first.told_at is not None
    assert second.asked_at < first.told_at
    assert {(trial_folder(folder, trial) / "gpus").read_text() for trial in (0, 1)} == {"0"}


def test_a_worker_whose_trial_ends_takes_the_next_while_others_still_start(
    tmp_path: Path, drivers: type, ray_address: str
) -> None:
    folder = tmp_path / "run"
    # Eight workers on two CPUs take long to start; the first of them end many trials meanwhile.
    options = {"cpus": 0.25, "concurrent": 8, "epoch_s": 0.02, "address": ray_address}
    said = drivers.finish(drivers.start(folder, trials=60, epochs=2, **options))
    assert "told 60 of 60" in said
    assert "workers asked for: 8\n" in said


def test_trials_share_a_cluster_by_cpus_and_by_fractions_of_gpus() -> None:
    cluster = [{"CPU": 8.0, "GPU": 2.0}]
    assert Resources(cpus=1).slots(cluster) == 8
    assert Resources(cpus=1, gpus=0.5).slots(cluster) == 4
    assert Resources(cpus=4, gpus=0.5).slots(cluster) == 2
    assert Resources(cpus=1, gpus=0.1).slots(cluster) == 8
    assert Resources(cpus=0.5, gpus=0.4).slots(cluster) == 4  # the rests of two GPUs make no third place
    assert Resources(cpus=1, gpus=2).slots(cluster) == 1
    assert Resources(cpus=1, concurrent=3).slots(cluster) == 3


def test_a_trial_never_spans_two_nodes() -> None:
    cluster = [{"CPU": 3.0, "GPU": 1.0}, {"CPU": 3.0, "GPU": 1.0}, {"memory": 1.0}]
    assert Resources(cpus=2).slots(cluster) == 2
    with pytest.raises(
        EvolveError, match="2 GPUs on one node, but the cluster has at most 3 CPUs and 1 GPUs"
    ):
        Resources(gpus=2).slots(cluster)
    assert Resources(gpus=2).room(cluster) == 0
    assert Resources(cpus=1).room([]) == 0


def test_a_trial_larger_than_the_cluster_is_refused_with_both_sizes() -> None:
    with pytest.raises(
        EvolveError,
        match=r"asks for 4 CPUs and 1 GPUs on one node, but the cluster has at most 2 CPUs and 0 GPUs",
    ):
        Resources(cpus=4, gpus=1).slots([{"CPU": 2.0}])


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"cpus": 0}, "cpus > 0 must hold"),
        ({"gpus": 1.5}, "a fraction of one or a whole number"),
        ({"gpus": -1}, "a fraction of one or a whole number"),
        ({"concurrent": 0}, "concurrent >= 1 must hold"),
        ({"retries": -1}, "retries >= 0 must hold"),
        ({"silence_s": 0}, "silence > 0 must hold"),
    ],
)
def test_resources_that_make_no_sense_are_refused(values: dict[str, float], message: str) -> None:
    with pytest.raises(EvolveError, match=message):
        Resources(**values)


def test_a_worker_has_as_many_threads_as_cpus_and_none_that_spins() -> None:
    assert worker_environment(4)["OMP_NUM_THREADS"] == "4"
    assert worker_environment(0.5)["OMP_NUM_THREADS"] == "1"
    assert worker_environment(1)["OMP_WAIT_POLICY"] == "PASSIVE"
