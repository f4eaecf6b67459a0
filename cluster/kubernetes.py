"""Jobs on Kubernetes with the KubeRay operator, through kubectl."""

import json
import subprocess
import uuid
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from cluster.kubernetes_manifest import KubernetesSettings, environment_secret, native_name, rayjob
from cluster.probe import Needs, too_many_gpus
from cluster.record import STOP
from cluster.remote_place import RemotePlace
from cluster.remote_record import RemoteRecord, load_remote
from cluster.spec import ClusterError, JobInfo, JobSpec, JobStatus

MANIFEST = "rayjob.json"
ANSWER_S = 60.0
# By the operator's account of the deployment, then by Ray's own of the job.
DEPLOYMENT: dict[str, JobStatus] = {
    "Complete": "done",
    "Failed": "failed",
    "ValidationFailed": "failed",
    "Suspending": "running",
    "Suspended": "stopped",
    "Running": "running",
    "Initializing": "queued",
    "Waiting": "queued",
    "Retrying": "queued",
    "": "queued",
}


class KubernetesSubmitter(RemotePlace):
    """Jobs as RayJobs: each gets a Ray cluster of its own, which is taken down when it has ended.

    Data and run folders are on the claim that all pods mount; the folder of jobs stays on this machine.
    """

    name = "kubernetes"
    holder = "Kubernetes"
    look_again_s = 2.0

    def __init__(self, folder: Path, settings: KubernetesSettings | None = None) -> None:
        super().__init__(folder)
        self.settings = settings or KubernetesSettings()

    def submit(self, spec: JobSpec) -> str:
        """Hand a job over and give its id.

        Raises:
            ClusterError: Kubernetes refuses it (its own words are shown), or it can't be written down.
        """
        with self._new_job(spec) as job:
            native = native_name(job.name, uuid.uuid4().hex[:5])
            manifest = rayjob(spec, self.settings, native)
            (job / MANIFEST).write_text(json.dumps(manifest, indent=2), encoding="utf-8")
            if spec.environment:
                self._kubectl("apply", "-f", "-", given=environment_secret(spec, self.settings, native))
            self._kubectl("apply", "-f", "-", given=manifest)
            RemoteRecord.of(job, self.name, native, spec, self.settings.to_dict()).save(job)
        return job.name

    def check(self, spec: JobSpec, needs: Needs) -> tuple[str, ...]:
        """What stands in a job's way, one line each: what the cluster itself says, asked without starting anything.

        Whether the pods will find the data and the run folder is not looked at: that would need the image. The claim
        on which they are is.

        Args:
            spec: The job.
            needs: What it needs to find.
        """
        found = too_many_gpus(needs, spec.resources.gpus)
        manifest = rayjob(spec, self.settings, native_name(spec.name, "check"))
        try:
            self._kubectl("apply", "--dry-run=server", "-f", "-", given=manifest)
        except ClusterError as error:
            if 'no matches for kind "RayJob"' in str(error):
                return (
                    *found,
                    f"the cluster has no KubeRay operator, which runs RayJobs: install it ({error})",
                )
            return (*found, f"Kubernetes would not start it: {error}")
        if self.settings.claim:
            found += self._not_claimed(self.settings.claim)
        return (*found, *self._without_gpus(spec.resources.gpus))

    def _not_claimed(self, claim: str) -> list[str]:
        try:
            told = json.loads(self._kubectl("get", "pvc", claim, "-o", "json"))
        except ClusterError as error:
            return [f"the claim {claim} can't be mounted: {error}"]
        phase, modes = told.get("status", {}).get("phase"), told.get("spec", {}).get("accessModes", [])
        found = (
            [] if phase == "Bound" else [f"the claim {claim} must be bound to a volume, but it is {phase}"]
        )
        if "ReadWriteMany" not in modes:
            found.append(
                f"the claim {claim} must be ReadWriteMany, since all pods write, but it is {', '.join(modes)}"
            )
        return found

    def _without_gpus(self, gpus: int) -> list[str]:
        if not gpus:
            return []
        try:
            nodes = json.loads(self._kubectl("get", "nodes", "-o", "json"))["items"]
        except ClusterError:
            return []  # few users may look at nodes; then the scheduler will say it
        most = max((int(_allocatable(node)) for node in nodes), default=0)
        if most >= gpus:
            return []
        return [
            f"a worker asks for {gpus} GPUs, but no node has more than {most}: ask for less (--no-check where the "
            "cluster adds nodes by itself)"
        ]

    def status(self, job_id: str) -> JobInfo:
        """How a job stands.

        Raises:
            ClusterError: There is no such job, or Kubernetes does not answer.
        """
        record = load_remote(self.folder, job_id)
        try:
            found: dict[str, Any] = json.loads(self._kubectl("get", "rayjob", record.native_id, "-o", "json"))
        except ClusterError as error:
            if "NotFound" not in str(error):
                raise
            found = {}
        told = found.get("status", {})
        asked = (self.folder / job_id / STOP).exists()
        status: JobStatus = (
            DEPLOYMENT.get(told.get("jobDeploymentStatus", ""), "running") if found else "lost"
        )
        if status == "done" and told.get("jobStatus") in ("FAILED", "STOPPED"):
            status = "failed" if told["jobStatus"] == "FAILED" else "stopped"
        if asked and status in ("failed", "lost"):
            status = "stopped"
        return JobInfo(
            id=job_id,
            words=record.words,
            status=status,
            exit_code=0 if status == "done" else None,
            started_at=record.submitted_at,
            ended_at=_seconds(told.get("endTime")),
            host=self.settings.context or "kubernetes",
            pid=None,
            folder=Path(record.folder),
            log=None,
            place="kubernetes",
            native_id=f"{record.native_id}",
            detail=" ".join(str(told.get("message", "")).split())[:300],
        )

    def logs(self, job_id: str, follow: bool = False) -> Iterator[str]:
        """Pieces of a job's output so far; with `follow` until it ends.

        Raises:
            ClusterError: There is no such job, or kubectl is not installed.
        """
        record = load_remote(self.folder, job_id)
        # The operator submits by a Kubernetes Job of the same name, whose pod shows the command's output.
        words = ["logs", f"job/{record.native_id}", "--tail=-1", *(["--follow"] if follow else [])]
        return self._stream(words)

    def _stream(self, words: Sequence[str]) -> Iterator[str]:
        with subprocess.Popen(
            self._words(*words),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
        ) as process:
            out, err = process.stdout, process.stderr
            if out is None or err is None:  # pipes were asked for; this tells the type checker
                raise ClusterError("kubectl gave no output to read")
            yield from out
            said = err.read()
            if process.wait():
                raise ClusterError(_last_line(said) or "kubectl can't show the log")

    def _interrupt(self, info: JobInfo, patience_s: float) -> None:
        """By a suspension: Ray interrupts the command, and its pods are taken down."""
        change = json.dumps({"spec": {"suspend": True}})
        self._kubectl("patch", "rayjob", info.native_id, "--type=merge", f"--patch={change}")

    def _words(self, *words: str) -> tuple[str, ...]:
        context = [f"--context={self.settings.context}"] if self.settings.context else []
        return ("kubectl", f"--namespace={self.settings.namespace}", *context, *words)

    def _kubectl(self, *words: str, given: dict[str, Any] | None = None) -> str:
        """What kubectl prints; what it is given goes in by its standard input, where no process list shows it."""
        try:
            done = subprocess.run(
                self._words(*words),
                input=None if given is None else json.dumps(given),
                stdin=subprocess.DEVNULL if given is None else None,
                capture_output=True,
                text=True,
                errors="replace",
                check=False,
                timeout=ANSWER_S,
            )
        except FileNotFoundError as error:
            raise ClusterError("kubectl is not installed here: submit from a machine that has it") from error
        except subprocess.TimeoutExpired as error:
            raise ClusterError(f"kubectl has not answered in {ANSWER_S:g} s: is the cluster up?") from error
        if done.returncode:
            raise ClusterError(_last_line(done.stderr) or f"kubectl ended with exit code {done.returncode}")
        return done.stdout


def _allocatable(node: dict[str, Any]) -> str:
    return str(node.get("status", {}).get("allocatable", {}).get("nvidia.com/gpu", "0"))


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:300] if lines else ""


def _seconds(when: str | None) -> float | None:
    return datetime.fromisoformat(when.replace("Z", "+00:00")).timestamp() if when else None
