"""Where work runs: commands handed over as jobs that outlive the terminal, behind one interface for every place.

The place that exists is this machine. This room knows no detector and no search: a job is the words of a command.
"""

from cluster.spec import ClusterError, JobInfo, JobSpec, JobStatus
from cluster.submit import LocalSubmitter, Submitter, build_submitter

__all__ = [
    "ClusterError",
    "JobInfo",
    "JobSpec",
    "JobStatus",
    "LocalSubmitter",
    "Submitter",
    "build_submitter",
]
