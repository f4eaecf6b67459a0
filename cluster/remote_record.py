"""What is written down about a job that another place runs: enough to find it again, and to hand it over once more.

`remote.json` stands in the job's folder; whoever asks for a stop leaves the empty file `stop` beside it.
"""

import json
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

from cluster.record import new_job_folder, read_versioned
from cluster.spec import ClusterError, JobSpec, Resources
from evolve.aside import write_aside

VERSION = 1
REMOTE = "remote.json"


@dataclass(frozen=True)
class RemoteRecord:
    """One job of another place; never its environment.

    Attributes:
        id: Its name here: that of its folder.
        place: "slurm", "ray" or "kubernetes".
        native_id: What the place calls it.
        words: What follows `beagle`.
        folder: Working folder.
        submitted_at: Unix seconds.
        settings: Of the place.
        resources: What it asked for.
        retries: How often the job starts the command again.
    """

    id: str
    place: str
    native_id: str
    words: tuple[str, ...]
    folder: str
    submitted_at: float
    settings: Mapping[str, str] = field(default_factory=dict)
    resources: Mapping[str, Any] = field(default_factory=dict)
    retries: int = 2
    version: int = VERSION

    @classmethod
    def of(cls, job: Path, place: str, native_id: str, spec: JobSpec, settings: Mapping[str, str]) -> Self:
        """The record of a job that was handed over just now."""
        return cls(
            id=job.name,
            place=place,
            native_id=native_id,
            words=spec.words,
            folder=str(spec.folder),
            submitted_at=time.time(),
            settings=dict(settings),
            resources=asdict(spec.resources),
            retries=spec.retries,
        )

    def to_spec(self) -> JobSpec:
        """The same job, to be handed over once more."""
        return JobSpec(
            self.words,
            Path(self.folder),
            self.id,
            resources=Resources(**self.resources),
            retries=self.retries,
        )

    def save(self, job: Path) -> None:
        """Write it into the job's folder, aside and then into place.

        Raises:
            ClusterError: It can't be written.
        """
        try:
            write_aside(job / REMOTE, json.dumps(asdict(self), indent=2))
        except OSError as error:
            raise ClusterError(
                f"{job / REMOTE}: the job's record can't be written ({error.strerror})"
            ) from error


def load_remote(folder: Path, job_id: str) -> RemoteRecord:
    """Read the record of a job in the folder of jobs.

    Raises:
        ClusterError: There is no such job, or its record is damaged or of another version.
    """
    job = folder / job_id
    path = job / REMOTE
    if job.parent != folder or not path.is_file():
        known = sorted(each.parent.name for each in folder.glob(f"*/{REMOTE}"))
        hint = f"jobs are: {', '.join(known)}" if known else "there are no jobs here yet"
        raise ClusterError(f"there is no job {job_id!r} in {folder} ({hint})")
    return read_versioned(path, VERSION, lambda data: RemoteRecord(**{**data, "words": tuple(data["words"])}))


def remote_ids(folder: Path, place: str) -> tuple[str, ...]:
    """Ids of the jobs of one place in the folder of jobs; damaged records are left out.

    Args:
        folder: Of all jobs.
        place: "slurm", "ray" or "kubernetes".
    """
    found = []
    for path in folder.glob(f"*/{REMOTE}"):
        try:
            record = load_remote(folder, path.parent.name)
        except ClusterError:
            continue
        if record.place == place:
            found.append((record.submitted_at, record.id))
    return tuple(job_id for _, job_id in sorted(found))


def open_folder(folder: Path, spec: JobSpec) -> Path:
    """A new folder for a job, readable by its owner alone.

    Raises:
        ClusterError: The working folder is missing, or the job's can't be made.
    """
    if not spec.folder.is_dir():
        raise ClusterError(f"the working folder must exist, but {spec.folder} is no folder")
    try:
        job = new_job_folder(folder, spec.name)
        job.chmod(0o700)
    except OSError as error:
        raise ClusterError(f"the job can't be written down: {error.strerror} ({folder})") from error
    return job
