"""Where work runs: commands handed over as jobs that outlive the terminal, behind one interface for every place.

The places are this machine, a Slurm cluster, a Ray cluster and Kubernetes. This room knows no detector and no
search: a job is the words of a command.
"""

from cluster.local import LocalSubmitter
from cluster.spec import ClusterError, JobInfo, JobSpec, JobStatus, Resources
from cluster.submit import PLACES, Submitter, build_submitter

__all__ = [
    "PLACES",
    "ClusterError",
    "JobInfo",
    "JobSpec",
    "JobStatus",
    "LocalSubmitter",
    "Resources",
    "Submitter",
    "build_submitter",
]
