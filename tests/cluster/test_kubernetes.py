"""Manifests against the custom resources' schema, and the submitter with a kubectl that keeps what it is told."""

import functools
import json
import os
import re
import stat
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from cluster.kubernetes import KubernetesSubmitter
from cluster.kubernetes_manifest import KubernetesSettings, native_name, raycluster, rayjob
from cluster.probe import Needs
from cluster.spec import ClusterError, JobSpec, Resources

SETTINGS = KubernetesSettings(
    image="registry.example/beagle:1",
    namespace="vision",
    claim="nfs",
    account="trainer",
    pull_secret="pull",  # noqa: S106 (a name)
)
SPEC = JobSpec(
    ("evolve", "it's/data.yaml", "--out", "/data/runs/night", "--resume"),
    Path("/"),
    "night",
    {"MLFLOW_TRACKING_TOKEN": "s3cret"},
    Resources(nodes=3, cpus=16, gpus=4, memory_gb=64.5, hours=12),
    retries=4,
)

# A stand-in for a cluster that this machine can't have: it keeps what is applied, and answers like the operator.
KUBECTL = """\
#!{python}
import json, os, pathlib, sys
place = pathlib.Path(os.environ["KUBE_HOME"])
words = [word for word in sys.argv[1:] if not word.startswith(("--namespace", "--context"))]
if (place / "refuses").exists():
    sys.exit((place / "refuses").read_text())  # exit code 1 and a line on stderr, as kubectl's own errors
with (place / "calls").open("a") as calls:
    calls.write(json.dumps(sys.argv[1:]) + "\\n")
if words[0] == "apply" and "--dry-run=server" in words:
    json.load(sys.stdin)
elif words[0] == "get" and words[1] in ("pvc", "nodes"):
    path = place / words[1]
    if not path.exists():
        sys.exit("Error from server (NotFound): %s not found" % words[1])
    print(path.read_text())
elif words[0] == "apply":
    given = json.load(sys.stdin)
    given.setdefault("status", {{}})
    (place / (given["kind"] + "-" + given["metadata"]["name"])).write_text(json.dumps(given))
elif words[0] == "get":
    path = place / ("RayJob-" + words[2])
    if not path.exists():
        sys.exit('Error from server (NotFound): rayjobs.ray.io "%s" not found' % words[2])
    print(path.read_text())
elif words[0] == "patch":
    path = place / ("RayJob-" + words[2])
    job = json.loads(path.read_text())
    job["status"] = {{"jobDeploymentStatus": "Suspended"}}
    path.write_text(json.dumps(job))
elif words[0] == "logs":
    print("line of " + words[1])
"""


@functools.cache
def schema(shared: Path, name: str) -> dict[str, Any]:
    text = (shared / "data" / "kuberay" / name).read_text(encoding="utf-8")
    resource = yaml.load(text, Loader=yaml.CSafeLoader)  # a megabyte: the one in Python takes half a minute
    (version,) = [each for each in resource["spec"]["versions"] if each["name"] == "v1"]
    return closed(version["schema"]["openAPIV3Schema"])


def closed(node: Any) -> Any:
    """The same schema, but no unknown field passes; Kubernetes would drop it without a word."""
    if isinstance(node, list):
        return [closed(each) for each in node]
    if not isinstance(node, dict):
        return node
    node = {key: closed(value) for key, value in node.items()}
    if (
        "properties" in node
        and node.get("type") == "object"
        and not node.get("x-kubernetes-preserve-unknown-fields")
    ):
        node.setdefault("additionalProperties", False)
    return node


def check(manifest: dict[str, Any], against: dict[str, Any]) -> None:
    body = {key: value for key, value in manifest.items() if key != "metadata"}  # its type stands elsewhere
    jsonschema.Draft202012Validator(against).validate(body)


@pytest.mark.shared
@pytest.mark.parametrize("resources", [Resources(), SPEC.resources])
@pytest.mark.parametrize("settings", [SETTINGS, KubernetesSettings(image="beagle")])
def test_manifests_are_what_the_custom_resources_ask_for(
    shared: Path, resources: Resources, settings: KubernetesSettings
) -> None:
    spec = JobSpec(SPEC.words, SPEC.folder, "night", SPEC.environment, resources)
    check(rayjob(spec, settings, "night-1"), schema(shared, "ray.io_rayjobs.yaml"))
    check(raycluster(resources, settings, "beagle"), schema(shared, "ray.io_rayclusters.yaml"))


@pytest.mark.shared
def test_the_check_finds_a_field_that_does_not_exist(shared: Path) -> None:
    manifest = rayjob(SPEC, SETTINGS, "night-1")
    manifest["spec"]["rayClusterSpec"]["workers"] = 3
    with pytest.raises(jsonschema.ValidationError, match="workers"):
        check(manifest, schema(shared, "ray.io_rayjobs.yaml"))


def test_a_job_asks_for_its_machines_and_shows_no_secret() -> None:
    manifest = rayjob(SPEC, SETTINGS, "night-1")
    body = manifest["spec"]
    assert body["entrypoint"] == (
        "cd /data && exec python -u -m cluster.attempts 0 "
        "evolve 'it'\"'\"'s/data.yaml' --out /data/runs/night --resume"
    )
    assert (body["backoffLimit"], body["activeDeadlineSeconds"]) == (4, 12 * 3600)
    (workers,) = body["rayClusterSpec"]["workerGroupSpecs"]
    (container,) = workers["template"]["spec"]["containers"]
    assert workers["replicas"] == 3
    assert container["resources"]["limits"] == {"cpu": "16", "memory": "66048Mi", "nvidia.com/gpu": "4"}
    assert container["envFrom"] == [{"secretRef": {"name": "night-1"}}]
    assert {"name": "data", "mountPath": "/data"} in container["volumeMounts"]
    assert body["rayClusterSpec"]["authOptions"] == {"mode": "token"}
    assert "s3cret" not in json.dumps(manifest)


def test_without_an_image_nothing_is_written() -> None:
    with pytest.raises(ClusterError, match="needs an image that has Beagle"):
        rayjob(SPEC, KubernetesSettings(), "night-1")


@pytest.mark.parametrize("job_id", ["evolve", "A_b.c", "9lives", "-", "x" * 80, "a-" * 40])
def test_every_job_has_a_name_that_kubernetes_takes(job_id: str) -> None:
    name = native_name(job_id, "0af3c")
    assert len(name) <= 47
    assert name[0].isalpha()
    assert not set(name) - set("abcdefghijklmnopqrstuvwxyz0123456789-")
    assert name.endswith("-0af3c")
    assert "--" not in name


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in which the stand-in keeps what it was told."""
    programs, home = tmp_path / "bin", tmp_path / "kube"
    programs.mkdir()
    home.mkdir()
    program = programs / "kubectl"
    program.write_text(KUBECTL.format(python=sys.executable))
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    monkeypatch.setenv("KUBE_HOME", str(home))
    return home


def told(cluster: Path, kind: str) -> dict[str, Any]:
    (path,) = cluster.glob(f"{kind}-*")
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def set_status(cluster: Path, **status: str) -> None:
    (path,) = cluster.glob("RayJob-*")
    path.write_text(json.dumps(json.loads(path.read_text()) | {"status": status}))


def test_a_job_is_applied_followed_and_stopped(cluster: Path, tmp_path: Path) -> None:
    place = KubernetesSubmitter(tmp_path / "jobs", SETTINGS)
    job = place.submit(JobSpec(SPEC.words, tmp_path, "night", SPEC.environment))
    assert told(cluster, "Secret")["stringData"] == {"MLFLOW_TRACKING_TOKEN": "s3cret"}
    assert "s3cret" not in (cluster / "calls").read_text()
    assert "s3cret" not in "".join(path.read_text() for path in (tmp_path / "jobs" / job).iterdir())
    assert place.status(job).status == "queued"
    set_status(cluster, jobDeploymentStatus="Running", jobStatus="RUNNING")
    assert place.status(job).status == "running"
    assert "".join(place.logs(job)) == f"line of job/{place.status(job).native_id}\n"
    assert place.stop(job).status == "stopped"
    assert [each.id for each in place.list()] == [job]


@pytest.mark.parametrize(
    ("deployment", "job_status", "expected"),
    [
        ("Complete", "SUCCEEDED", "done"),
        ("Complete", "FAILED", "failed"),
        ("Failed", "FAILED", "failed"),
        ("Initializing", "", "queued"),
    ],
)
def test_the_operators_words_become_ours(
    cluster: Path, tmp_path: Path, deployment: str, job_status: str, expected: str
) -> None:
    place = KubernetesSubmitter(tmp_path / "jobs", SETTINGS)
    job = place.submit(JobSpec(("train", "digits"), tmp_path))
    set_status(
        cluster,
        jobDeploymentStatus=deployment,
        jobStatus=job_status,
        message="two\nlines",
        endTime="2026-01-02T03:04:05Z",
    )
    info = place.status(job)
    assert (info.status, info.detail, info.ended_at) == (expected, "two lines", 1767323045.0)


def test_a_job_that_the_cluster_has_forgotten_is_lost(cluster: Path, tmp_path: Path) -> None:
    place = KubernetesSubmitter(tmp_path / "jobs", SETTINGS)
    job = place.submit(JobSpec(("train", "digits"), tmp_path))
    for path in cluster.glob("RayJob-*"):
        path.unlink()
    assert place.status(job).status == "lost"


def test_without_kubectl_one_line_says_so_and_no_job_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    place = KubernetesSubmitter(tmp_path / "jobs", SETTINGS)
    with pytest.raises(ClusterError, match="kubectl is not installed here"):
        place.submit(JobSpec(("train", "digits"), tmp_path))
    assert list((tmp_path / "jobs").iterdir()) == []


CLAIM = {"spec": {"accessModes": ["ReadWriteMany"]}, "status": {"phase": "Bound"}}


def node(gpus: int) -> dict[str, Any]:
    return {"status": {"allocatable": {"cpu": "64", "nvidia.com/gpu": str(gpus)}}}


def test_a_cluster_that_has_all_has_no_findings(cluster: Path, tmp_path: Path) -> None:
    (cluster / "pvc").write_text(json.dumps(CLAIM))
    (cluster / "nodes").write_text(json.dumps({"items": [node(0), node(8)]}))
    place = KubernetesSubmitter(tmp_path / "jobs", SETTINGS)
    assert place.check(SPEC, Needs(gpus=4)) == ()
    assert list(cluster.glob("RayJob-*")) == []
    assert not (tmp_path / "jobs").exists()


def test_what_a_cluster_lacks_is_told_in_one_line_each(cluster: Path, tmp_path: Path) -> None:
    place = KubernetesSubmitter(tmp_path / "jobs", SETTINGS)
    claim = {"spec": {"accessModes": ["ReadWriteOnce"]}, "status": {"phase": "Pending"}}
    (cluster / "pvc").write_text(json.dumps(claim))
    (cluster / "nodes").write_text(json.dumps({"items": [node(0), node(2)]}))
    trial, bound, modes, few = place.check(SPEC, Needs(gpus=8))
    assert "a trial asks for 8 GPUs, but a machine of the job has 4" in trial
    assert "nfs must be bound to a volume, but it is Pending" in bound
    assert "nfs must be ReadWriteMany" in modes
    assert "no node has more than 2" in few
    (cluster / "pvc").unlink()
    (cluster / "nodes").unlink()  # not allowed to look: the scheduler will say it
    (missing,) = place.check(SPEC, Needs())
    assert "the claim nfs can't be mounted: Error from server (NotFound)" in missing


@pytest.mark.parametrize(
    ("said", "told"),
    [
        (
            'error: resource mapping not found for name: "x": no matches for kind "RayJob" in version "ray.io/v1"',
            "has no KubeRay operator",
        ),
        ("Error from server (Forbidden): rayjobs.ray.io is forbidden", "would not start it: .*Forbidden"),
        (
            "Unable to connect to the server: dial tcp 192.0.2.1:443: i/o timeout",
            "would not start it: Unable to connect",
        ),
    ],
)
def test_what_kubernetes_refuses_is_told_in_its_own_words(
    cluster: Path, tmp_path: Path, said: str, told: str
) -> None:
    (cluster / "refuses").write_text(said)
    place = KubernetesSubmitter(tmp_path / "jobs", SETTINGS)
    (line,) = place.check(SPEC, Needs())
    assert re.search(told, line)
    with pytest.raises(ClusterError, match=re.escape(said.split(":", maxsplit=1)[0])):
        place.submit(JobSpec(("train", "digits"), tmp_path))
    assert list((tmp_path / "jobs").iterdir()) == []
