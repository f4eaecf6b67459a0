"""The jobs that drive the service's runs, or are to: how they stand, and what is known from them alone."""

import math
import threading
import time
from pathlib import Path

from cluster.book import JobBook
from cluster.service_models import Evolution, Summary
from cluster.spec import ClusterError, JobInfo

_LISTED_SECONDS = 2.0  # a place, Slurm say, is asked no more often than that
_LISTED_AT_MOST = 10.0  # what was heard longer ago is not repeated


class RunJobs:
    """The newest job of each run of a folder. Safe for many threads.

    Attributes:
        book: All jobs of the folder.
    """

    def __init__(self, runs: Path) -> None:
        """Nobody is asked yet."""
        self.book = JobBook(runs / "jobs")
        self._runs = runs
        self._asking = threading.Lock()
        self._heard: tuple[float, dict[str, JobInfo]] = (-math.inf, {})

    def newest(self, *, fresh: bool = False) -> dict[str, JobInfo]:
        """The newest job of each run that was handed over as one, by the run's id."""
        asked, found = self._heard
        age = time.monotonic() - asked
        if fresh or age > _LISTED_AT_MOST:
            return self._ask()
        if age > _LISTED_SECONDS and self._asking.acquire(blocking=False):
            # Behind the answer: a place may take a second to say how its jobs stand.
            threading.Thread(target=self._ask_and_release, daemon=True).start()
        return found

    def waiting(self, run_id: str) -> Evolution | None:
        """A run that has not begun, as its job has it; None without one."""
        job = self.newest().get(run_id)
        if job is None:
            return None
        words = job.words
        ended = job.status not in ("queued", "running")
        return Evolution(
            **Summary(
                id=run_id,
                name=run_id,
                state="failed" if ended else "waiting",
                reason=self._last_words(job) if ended else job.detail or f"its job is {job.status}",
                data=words[1] if len(words) > 1 else "",
                model=_option(words, "--model") or "",
                created=job.started_at,
                updated=job.ended_at or job.started_at,
                planned=int(_option(words, "--trials") or 0),
                asked=0,
                finished=0,
                failed=0,
                cut=0,
                running=0,
                epochs=int((_option(words, "--epochs") or "0").split(",")[-1]),
                best=None,
                start_fitness=None,
                job=job.id,
            ).model_dump(),
            genes=[],
            trials=[],
            winner=None,
            anchors=None,
            offset=0,
        )

    def _ask_and_release(self) -> None:
        try:
            self._ask()
        finally:
            self._asking.release()

    def _ask(self) -> dict[str, JobInfo]:
        found = {}
        for job in self.book.list():
            out = _out_of(job)
            if out is not None and out.parent == self._runs:
                found[out.name] = job
        self._heard = (time.monotonic(), found)
        return found

    def _last_words(self, job: JobInfo) -> str:
        """The line in which a job said why it failed."""
        try:
            said = "".join(self.book.logs(job.id)).strip().splitlines()
        except ClusterError as error:
            return str(error)
        told = [line for line in said if line.startswith("error:")] or said
        return told[-1].removeprefix("error:").strip() if told else f"its job is {job.status}"


def _option(words: tuple[str, ...], name: str) -> str | None:
    """The value of an option among words that the service itself put together."""
    return words[words.index(name) + 1] if name in words[:-1] else None


def _out_of(job: JobInfo) -> Path | None:
    """The run folder of a job that evolves."""
    if job.words[:1] != ("evolve",):
        return None
    out = _option(job.words, "--out")
    return None if out is None else Path(job.folder, out)
