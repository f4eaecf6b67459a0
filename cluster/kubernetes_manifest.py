"""What Kubernetes is told: KubeRay's RayJob and RayCluster as plain data, by pure functions.

Source: the custom resources `rayjobs.ray.io` and `rayclusters.ray.io`, version v1, against which tests check them.
"""

import importlib.metadata
import re
import shlex
from dataclasses import dataclass
from typing import Any

from cluster.settings import Settings
from cluster.spec import ClusterError, JobSpec, Resources

API_VERSION = "ray.io/v1"
KEEP_S = 24 * 3600
HEAD_CPUS, HEAD_MEMORY = "2", "8Gi"
WORKER_CPUS, WORKER_MEMORY_GB = 4, 16.0
SHARED_MEMORY = "8Gi"
SHARED = "/dev/shm"  # noqa: S108 (a mount of the pod's own)


@dataclass(frozen=True)
class KubernetesSettings(Settings):
    """Where pods come from and what they share.

    Attributes:
        image: Container image that has Beagle and its libraries; it must be given.
        namespace: Of the job.
        context: Of kubectl; its current one by default.
        claim: PersistentVolumeClaim (ReadWriteMany) that holds the data and the run folders.
        mount: Where the claim is mounted, in every pod.
        folder: In which the command runs in the pods; the mount by default.
        account: Service account of the pods.
        pull_secret: With which the image is fetched.
    """

    image: str = ""
    namespace: str = "default"
    context: str = ""
    claim: str = ""
    mount: str = "/data"
    folder: str = ""
    account: str = ""
    pull_secret: str = ""

    def __post_init__(self) -> None:
        if not self.mount.startswith("/"):
            raise ClusterError(f"mount must be an absolute path, but got {self.mount!r}")


def rayjob(spec: JobSpec, settings: KubernetesSettings, name: str) -> dict[str, Any]:
    """A RayJob: a Ray cluster of its own for one command, taken down when that has ended.

    Args:
        spec: The job; its folder is of no account in the pods.
        settings: Of the cluster.
        name: Of the RayJob in Kubernetes, a DNS label.

    Raises:
        ClusterError: No image is given.
    """
    _check_image(settings)
    words = ["python", "-u", "-m", "cluster.attempts", "0", *spec.words]
    body: dict[str, Any] = {
        # Ray's submitter runs this line by a shell; every word is quoted.
        "entrypoint": f"cd {shlex.quote(settings.folder or settings.mount)} && exec {shlex.join(words)}",
        "submissionMode": "K8sJobMode",
        "backoffLimit": spec.retries,
        "shutdownAfterJobFinishes": True,
        "ttlSecondsAfterFinished": KEEP_S,
        "runtimeEnvYAML": (
            "env_vars:\n"
            "  BEAGLE_RAY_ADDRESS: auto\n"
            "  RAY_JOB_STOP_SIGNAL: SIGINT\n"
            '  RAY_JOB_STOP_WAIT_TIME_S: "60"\n'
            '  RAY_USAGE_STATS_ENABLED: "0"\n'
        ),
        "rayClusterSpec": cluster_spec(spec.resources, settings, name if spec.environment else ""),
    }
    if spec.resources.hours is not None:
        body["activeDeadlineSeconds"] = max(int(spec.resources.hours * 3600), 1)
    return {
        "apiVersion": API_VERSION,
        "kind": "RayJob",
        "metadata": {"name": name, "namespace": settings.namespace, "labels": _labels(spec.name)},
        "spec": body,
    }


def raycluster(resources: Resources, settings: KubernetesSettings, name: str) -> dict[str, Any]:
    """A RayCluster that stays up, for `beagle submit --to ray`.

    Raises:
        ClusterError: No image is given.
    """
    _check_image(settings)
    return {
        "apiVersion": API_VERSION,
        "kind": "RayCluster",
        "metadata": {"name": name, "namespace": settings.namespace, "labels": _labels(name)},
        "spec": cluster_spec(resources, settings, ""),
    }


def environment_secret(spec: JobSpec, settings: KubernetesSettings, name: str) -> dict[str, Any]:
    """The Secret that holds a job's variables; its pods get them from there, and no command line shows them."""
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": name, "namespace": settings.namespace, "labels": _labels(spec.name)},
        "type": "Opaque",
        "stringData": dict(spec.environment),
    }


def cluster_spec(resources: Resources, settings: KubernetesSettings, secret: str) -> dict[str, Any]:
    """Head and workers: the head runs the driver and no trials, each worker what `resources` says of one node.

    Args:
        resources: Nodes, and what each has.
        settings: Of the cluster.
        secret: Whose variables all pods get; empty for none.
    """
    asked: dict[str, str] = {
        "cpu": str(resources.cpus or WORKER_CPUS),
        "memory": f"{round((resources.memory_gb or WORKER_MEMORY_GB) * 1024)}Mi",
    }
    if resources.gpus:
        asked["nvidia.com/gpu"] = str(resources.gpus)
    head = _pod("head", {"cpu": HEAD_CPUS, "memory": HEAD_MEMORY}, settings, secret)
    return {
        "rayVersion": importlib.metadata.version("ray"),
        "authOptions": {"mode": "token"},
        "headGroupSpec": {"rayStartParams": {"num-cpus": "0"}, "template": head},
        "workerGroupSpecs": [
            {
                "groupName": "trials",
                "replicas": resources.nodes,
                "minReplicas": resources.nodes,
                "maxReplicas": resources.nodes,
                "rayStartParams": {},
                "template": _pod("worker", asked, settings, secret),
            }
        ],
    }


def native_name(job_id: str, suffix: str) -> str:
    """A job's name as Kubernetes allows it: lower-case letters, digits and dashes, at most 47 of them."""
    label = re.sub(r"[^a-z0-9]+", "-", job_id.lower()).strip("-")[: 46 - len(suffix)].rstrip("-")
    if not label or not label[0].isalpha():
        label = f"job-{label}"[: 46 - len(suffix)].rstrip("-")
    return f"{label}-{suffix}"


def _pod(kind: str, asked: dict[str, str], settings: KubernetesSettings, secret: str) -> dict[str, Any]:
    container: dict[str, Any] = {
        "name": f"ray-{kind}",
        "image": settings.image,
        "resources": {"requests": dict(asked), "limits": dict(asked)},
        # The usual 64 MB of /dev/shm is too little for loaders that share batches between processes.
        "volumeMounts": [{"name": "shared-memory", "mountPath": SHARED}],
    }
    volumes: list[dict[str, Any]] = [
        {"name": "shared-memory", "emptyDir": {"medium": "Memory", "sizeLimit": SHARED_MEMORY}}
    ]
    if settings.claim:
        container["volumeMounts"].append({"name": "data", "mountPath": settings.mount})
        volumes.append({"name": "data", "persistentVolumeClaim": {"claimName": settings.claim}})
    if secret:
        container["envFrom"] = [{"secretRef": {"name": secret}}]
    pod: dict[str, Any] = {"containers": [container], "volumes": volumes}
    if settings.account:
        pod["serviceAccountName"] = settings.account
    if settings.pull_secret:
        pod["imagePullSecrets"] = [{"name": settings.pull_secret}]
    return {"spec": pod}


def _labels(name: str) -> dict[str, str]:
    return {"app.kubernetes.io/name": "beagle", "app.kubernetes.io/instance": native_name(name, "job")}


def _check_image(settings: KubernetesSettings) -> None:
    if not settings.image:
        raise ClusterError(
            "Kubernetes needs an image that has Beagle: give it by --set image=REGISTRY/NAME:TAG"
        )
