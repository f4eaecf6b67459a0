"""What places that run jobs elsewhere have in common: how a job is written down, listed, waited for and stopped."""

import shutil
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar

from cluster.record import STOP
from cluster.remote_record import open_folder, remote_ids
from cluster.spec import ClusterError, JobInfo, JobSpec


class RemotePlace(ABC):
    """The base of the places.

    Attributes:
        folder: Of all jobs, absolute.
        name: Of the place, as records have it.
        holder: Who still has a job that does not end, for the message.
        look_again_s: Between two looks at a job.
        grace_s: How long a stop is waited for after its patience is over.
    """

    name: ClassVar[str]
    holder: ClassVar[str]
    look_again_s: ClassVar[float] = 1.0
    grace_s: ClassVar[float] = 60.0

    def __init__(self, folder: Path) -> None:
        self.folder = folder.absolute()

    @abstractmethod
    def status(self, job_id: str) -> JobInfo:
        """How a job stands.

        Raises:
            ClusterError: There is no such job, or the place does not answer.
        """

    @abstractmethod
    def _interrupt(self, info: JobInfo, patience_s: float) -> None:
        """Ask the place to end a job that waits or runs: gently, for as long."""

    def list(self) -> tuple[JobInfo, ...]:
        """All jobs of the place that were submitted from here, oldest first."""
        return tuple(self.status(job_id) for job_id in remote_ids(self.folder, self.name))

    def stop(self, job_id: str, patience_s: float = 60.0) -> JobInfo:
        """Ask a job to end, gently for `patience_s` seconds and then by force; one that has ended is left alone.

        Raises:
            ClusterError: There is no such job, or it does not end.
        """
        info = self.status(job_id)
        if not info.active:
            return info
        (self.folder / job_id / STOP).touch()
        self._interrupt(info, patience_s)
        info = self._wait(job_id, patience_s + self.grace_s)
        if info.active:
            raise ClusterError(f"{job_id} does not end: {self.holder} still holds its job {info.native_id}")
        return info

    def _wait(self, job_id: str, seconds: float) -> JobInfo:
        """How a job stands when it has ended, or when the time is over."""
        end = time.monotonic() + seconds
        while (info := self.status(job_id)).active and time.monotonic() < end:
            time.sleep(self.look_again_s)
        return info

    @contextmanager
    def _new_job(self, spec: JobSpec) -> Iterator[Path]:
        """A folder for a new job, gone again when it can't be handed over.

        Raises:
            ClusterError: It can't, for the reason that came up within.
        """
        job = open_folder(self.folder, spec)
        try:
            yield job
        except (ClusterError, OSError) as error:
            shutil.rmtree(job, ignore_errors=True)
            raise ClusterError(f"the job can't be submitted: {error}") from error
