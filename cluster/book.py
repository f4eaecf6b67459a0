"""All jobs that were submitted from one folder, wherever they run."""

import logging
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from cluster.local import LocalSubmitter
from cluster.record import RECORD
from cluster.remote_record import REMOTE, load_remote
from cluster.spec import ClusterError, JobInfo, JobSpec
from cluster.submit import Submitter, build_submitter

logger = logging.getLogger(__name__)


class JobBook:
    """The jobs of a folder: each is asked for at the place that has it.

    Args:
        folder: Where jobs are written down.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder.absolute()

    def list(self) -> tuple[JobInfo, ...]:
        """All jobs, oldest first; one whose place does not answer is left out with a logged warning."""
        jobs = list(LocalSubmitter(self.folder).list())
        for path in self.folder.glob(f"*/{REMOTE}"):
            try:
                jobs.append(self.status(path.parent.name))
            except ClusterError as error:
                logger.warning("%s: %s", path.parent.name, error)
        return tuple(sorted(jobs, key=lambda job: (job.started_at, job.id)))

    def place(self, job_id: str) -> Submitter:
        """The place that has a job.

        Raises:
            ClusterError: There is no such job.
        """
        job = self.folder / job_id
        if job.parent == self.folder and (job / REMOTE).is_file():
            record = load_remote(self.folder, job_id)
            return build_submitter(record.place, self.folder, record.settings)
        if job.parent != self.folder or not (job / RECORD).is_file():
            known = sorted(
                path.parent.name for name in (RECORD, REMOTE) for path in self.folder.glob(f"*/{name}")
            )
            hint = f"jobs are: {', '.join(known)}" if known else "there are no jobs here yet"
            raise ClusterError(f"there is no job {job_id!r} in {self.folder} ({hint})")
        return LocalSubmitter(self.folder)

    def status(self, job_id: str) -> JobInfo:
        """How a job stands. Raises ClusterError as its place does."""
        return self.place(job_id).status(job_id)

    def logs(self, job_id: str, follow: bool = False) -> Iterator[str]:
        """Pieces of a job's output. Raises ClusterError as its place does."""
        return self.place(job_id).logs(job_id, follow)

    def stop(self, job_id: str, patience_s: float = 60.0) -> JobInfo:
        """End a job. Raises ClusterError as its place does."""
        return self.place(job_id).stop(job_id, patience_s)

    def retry(self, job_id: str, spec: JobSpec | None = None) -> str:
        """Hand a job that has ended over once more, to the same place: an evolution goes on where it stopped.

        Args:
            job_id: Of the job that has ended.
            spec: What is handed over; by default what was, without variables, since those are written nowhere.

        Returns:
            The new job's id.

        Raises:
            ClusterError: There is no such job, it has not ended, or its place refuses it.
        """
        place = self.place(job_id)
        info = place.status(job_id)
        if info.active:
            raise ClusterError(f"{job_id} is {info.status}: stop it first, or wait for its end")
        return place.submit(spec or self.spec(job_id))

    def spec(self, job_id: str) -> JobSpec:
        """What was handed over, without its variables. Raises ClusterError: there is no such job."""
        if (self.folder / job_id / REMOTE).is_file():
            return load_remote(self.folder, job_id).to_spec()
        info = self.status(job_id)
        return JobSpec(info.words, info.folder, info.id)


def with_environment(spec: JobSpec, environment: dict[str, str]) -> JobSpec:
    """The same job with other variables."""
    return replace(spec, environment=environment)
