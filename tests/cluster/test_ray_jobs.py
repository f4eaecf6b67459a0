"""Jobs on a real Ray head with its dashboard, which asks for a token."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from cluster.book import JobBook
from cluster.probe import Needs, versions_here
from cluster.ray_jobs import RaySettings, RaySubmitter, entrypoint, runtime_environment
from cluster.spec import ClusterError, JobInfo, JobSpec

pytestmark = pytest.mark.ray

PATIENCE_S = 180.0


@pytest.fixture(scope="module")
def address(ray_machines: Any) -> str:
    """The dashboard of a head that runs jobs itself."""
    ray_machines.start("head", cpus=2)
    return str(ray_machines.dashboard)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def until_ended(place: RaySubmitter, job_id: str) -> JobInfo:
    end = time.monotonic() + PATIENCE_S
    while (info := place.status(job_id)).status in ("queued", "running"):
        assert time.monotonic() < end, info
        time.sleep(0.3)
    return info


@pytest.fixture
def place(address: str, tmp_path: Path) -> RaySubmitter:
    return RaySubmitter(tmp_path / "jobs", RaySettings(address))


@pytest.mark.slow
def test_a_job_runs_on_the_cluster_and_is_followed_from_here(place: RaySubmitter, tmp_path: Path) -> None:
    good = place.submit(JobSpec(("--version",), tmp_path, "good"))
    bad = place.submit(JobSpec(("data", "check", "no where; touch run"), tmp_path, "bad", retries=0))
    assert "beagle " in "".join(place.logs(good, follow=True))
    assert until_ended(place, good).status == "done"
    ended = until_ended(place, bad)
    assert (ended.status, ended.place) == ("failed", "ray")
    assert "no where; touch run" in "".join(place.logs(bad))
    assert not (tmp_path / "run").exists()
    assert [job.id for job in JobBook(place.folder).list()] == [good, bad]


@pytest.mark.slow
def test_a_driver_that_is_killed_is_started_again_by_its_job_and_a_stop_interrupts_it(
    place: RaySubmitter, tmp_path: Path
) -> None:
    pipe = tmp_path / "data.yaml"
    os.mkfifo(pipe)
    secret = {"BEAGLE_TEST_SECRET": "only by the environment"}
    job = place.submit(JobSpec(("data", "check", str(pipe)), tmp_path, "held", secret))
    handle = os.open(pipe, os.O_RDWR)  # a reader waits for as long as this is open
    first = driver_of(pipe)
    assert b"only by the environment" in Path(f"/proc/{first}/environ").read_bytes()
    assert not (place.folder / job / "environment.json").exists()
    os.kill(first, signal.SIGKILL)
    second = driver_of(pipe, but=first)
    assert second != first
    stopped = place.stop(job)
    os.close(handle)
    assert stopped.status == "stopped"
    text = "".join(place.logs(job))
    assert "was killed by signal 9: attempt 2 of 3" in text
    assert "attempt 3" not in text
    shown = json.dumps([runtime_environment(JobSpec(("x",), tmp_path, "", secret), place.settings), text])
    assert "only by" not in shown


def driver_of(pipe: Path, but: int = 0) -> int:
    end = time.monotonic() + PATIENCE_S
    while time.monotonic() < end:
        told = subprocess.run(
            ["pgrep", "-f", f"main.. data check {pipe}"], capture_output=True, text=True, check=False
        )
        for pid in map(int, told.stdout.split()):
            if pid != but:
                time.sleep(2)  # until its handlers are set
                return pid
        time.sleep(0.2)
    raise TimeoutError("no driver was started")


@pytest.mark.slow
def test_what_a_worker_lacks_is_said_before_anything_is_sent(place: RaySubmitter, tmp_path: Path) -> None:
    spec = JobSpec(("evolve", "digits"), tmp_path)
    needs = Needs(
        paths=(str(tmp_path / "nowhere"),),
        writable=(str(tmp_path / "runs"),),
        urls=(f"http://user:word@127.0.0.1:{free_port()}",),
        versions={**versions_here(), "numpy": "0.1"},
    )
    told = place.check(spec, needs)
    assert len(told) == 3, told
    assert "numpy is" in told[0]
    assert "nowhere can't be read" in told[1]
    assert "does not answer" in told[2]
    assert "word" not in told[2]


@pytest.mark.slow
def test_missing_and_wrong_tokens_and_addresses_are_told_apart(
    place: RaySubmitter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = JobSpec(("--version",), tmp_path)
    script = (
        "import sys; from pathlib import Path; from cluster.ray_jobs import *; from cluster.spec import *\n"
        "try: RaySubmitter(Path(sys.argv[1]), RaySettings(sys.argv[2])).submit(JobSpec(('--version',), Path.cwd()))\n"
        "except ClusterError as error: print(error)"
    )

    def told(address: str, **variables: str) -> str:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
        return subprocess.run(
            [sys.executable, "-c", script, str(tmp_path / "jobs"), address],
            env={**environment, **variables},
            capture_output=True,
            text=True,
            check=True,
        ).stdout

    address = place.settings.address
    assert "asks for a token" in told(address)
    assert "does not accept the token" in told(address, RAY_AUTH_MODE="token", RAY_AUTH_TOKEN="f" * 64)
    assert "no Ray cluster answers" in told(f"http://127.0.0.1:{free_port()}")
    assert not (tmp_path / "jobs").exists() or not list((tmp_path / "jobs").iterdir())
    assert entrypoint(spec, place.settings, tmp_path).startswith("cd ")


@pytest.mark.slow
def test_code_and_folder_are_sent_along(address: str, tmp_path: Path) -> None:
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "no_data.yaml").write_text("names: 7\n")
    place = RaySubmitter(tmp_path / "jobs", RaySettings(address, ship="code,folder"))
    job = place.submit(JobSpec(("data", "check", "no_data.yaml"), tmp_path / "here", retries=0))
    assert until_ended(place, job).status == "failed"
    text = "".join(place.logs(job))
    assert "no_data.yaml" in text
    assert str(tmp_path / "here") not in text
    with (tmp_path / "here" / "large").open("wb") as file:
        file.truncate(120_000_000)
        file.write(os.urandom(110_000_000))
    with pytest.raises(ClusterError, match="too large to be sent"):
        place.submit(JobSpec(("--version",), tmp_path / "here"))


def test_settings_that_make_no_sense_are_refused() -> None:
    with pytest.raises(ClusterError, match="must be that of Ray's dashboard"):
        RaySettings("ray://head:10001")
    with pytest.raises(ClusterError, match="ship must be code, folder or both"):
        RaySettings(ship="everything")
