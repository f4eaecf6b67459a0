"""Handing commands over as jobs: the interface that every place has, and how a place is found by its name."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Protocol

from cluster.spec import ClusterError, JobInfo, JobSpec

PLACES = ("local", "slurm", "ray", "kubernetes")


class Submitter(Protocol):
    """A place where jobs run. All but `submit` raise ClusterError when there is no such job."""

    def submit(self, spec: JobSpec) -> str:
        """Start a job, or put it into the queue, and give its id.

        Raises:
            ClusterError: It could not be started.
        """

    def list(self) -> tuple[JobInfo, ...]:
        """All jobs of the place, oldest first."""

    def status(self, job_id: str) -> JobInfo:
        """How a job stands."""

    def logs(self, job_id: str, follow: bool = False) -> Iterator[str]:
        """Pieces of a job's output so far; with `follow` until it ends."""

    def stop(self, job_id: str, patience_s: float = 60.0) -> JobInfo:
        """Ask a job to end, gently for `patience_s` seconds and then by force; one that has ended is left alone.

        Returns:
            How it stands at its end.

        Raises:
            ClusterError: It does not end, or may not be stopped from here.
        """


def build_submitter(place: str, folder: Path, settings: Mapping[str, str] | None = None) -> Submitter:
    """The submitter for a place by its name.

    Args:
        place: One of `PLACES`.
        folder: Where jobs are written down; shared with the machines that run them, but for `local`.
        settings: What else the place asks for: see `SlurmSettings`, `RaySettings` and `KubernetesSettings`.

    Raises:
        ClusterError: There is no such place, it has no such setting, or its program is not installed.
    """
    settings = dict(settings or {})
    # Imported here: a place costs its own libraries, and no other place's.
    if place == "slurm":
        from cluster.slurm import SlurmSubmitter
        from cluster.slurm_script import SlurmSettings

        return SlurmSubmitter(folder, SlurmSettings.from_dict(settings))
    if place == "ray":
        from cluster.ray_jobs import RaySettings, RaySubmitter

        return RaySubmitter(folder, RaySettings.from_dict(settings))
    if place == "kubernetes":
        from cluster.kubernetes import KubernetesSubmitter
        from cluster.kubernetes_manifest import KubernetesSettings

        return KubernetesSubmitter(folder, KubernetesSettings.from_dict(settings))
    if place != "local":
        raise ClusterError(f"the place must be one of {', '.join(PLACES)}, but got {place!r}")
    if settings:
        raise ClusterError(f"a local job has no settings, but got {', '.join(sorted(settings))}")
    from cluster.local import LocalSubmitter

    return LocalSubmitter(folder)
