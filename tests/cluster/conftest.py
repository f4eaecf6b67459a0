"""A place for jobs, and jobs that run for as long as a test wants."""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from cluster.local import LocalSubmitter
from cluster.spec import JobInfo, JobSpec


class Held:
    """A job that reads a data file which is a pipe, so that it runs until the pipe is closed."""

    def __init__(self, place: LocalSubmitter, folder: Path, environment: dict[str, str]) -> None:
        pipe = folder / f"data-{len(list(folder.glob('*.yaml')))}.yaml"
        os.mkfifo(pipe)
        self.id = place.submit(JobSpec(("data", "check", pipe.name), folder, "held", environment))
        self.pipe = self._open_when_read(pipe)

    @staticmethod
    def _open_when_read(pipe: Path) -> int:
        end = time.monotonic() + 30
        while time.monotonic() < end:
            with suppress(OSError):  # nobody reads yet
                return os.open(pipe, os.O_WRONLY | os.O_NONBLOCK)
            time.sleep(0.02)
        raise TimeoutError(f"no job opened {pipe}")

    def let_go(self) -> None:
        """Give it what it reads, which is no data set, so that it ends with exit code 1."""
        if self.pipe >= 0:
            with suppress(BrokenPipeError):
                os.write(self.pipe, b"names: 7\n")
            os.close(self.pipe)
            self.pipe = -1


@pytest.fixture
def place(tmp_path: Path) -> Iterator[LocalSubmitter]:
    """A fresh place for jobs; none is left running."""
    here = LocalSubmitter(tmp_path / "runs" / "jobs")
    yield here
    for job in here.list():
        here.stop(job.id, patience_s=0)


@pytest.fixture
def hold(place: LocalSubmitter, tmp_path: Path) -> Iterator[Callable[..., Held]]:
    """Starts a job that runs until it is let go, and waits until it is well under way."""
    jobs: list[Held] = []

    def start(environment: dict[str, str] | None = None) -> Held:
        jobs.append(Held(place, tmp_path, environment or {}))
        return jobs[-1]

    yield start
    for job in jobs:
        job.let_go()


@pytest.fixture
def until_ended(place: LocalSubmitter) -> Callable[[str], JobInfo]:
    """Waits for a job's end."""

    def wait(job_id: str) -> JobInfo:
        end = time.monotonic() + 30
        while time.monotonic() < end:
            job = place.status(job_id)
            if job.status != "running":
                return job
            time.sleep(0.02)
        raise TimeoutError(f"{job_id} does not end")

    return wait


@pytest.fixture
def in_every_job(tmp_path: Path) -> Callable[[str], dict[str, str]]:
    """Environment in which a job's Python first runs some code: a real stubborn or prolific command."""

    def environment(code: str) -> dict[str, str]:
        folder = tmp_path / "first"
        folder.mkdir()
        only_jobs = "import sys\nif '-c' in sys.orig_argv:\n"
        text = only_jobs + "".join(f"    {line}\n" for line in code.splitlines())
        (folder / "sitecustomize.py").write_text(text)
        return {"PYTHONPATH": str(folder)}

    return environment
