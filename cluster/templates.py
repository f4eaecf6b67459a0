"""Cluster configurations to begin with: written from what a user says of her machines, and checked."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from cluster.kubernetes_manifest import KubernetesSettings, raycluster
from cluster.slurm_script import SlurmSettings, sbatch_script
from cluster.spec import ClusterError, JobSpec, Resources

KINDS = ("ray", "kuberay", "slurm")


def template(kind: str, resources: Resources, settings: Mapping[str, str]) -> str:
    """The text of a configuration.

    Args:
        kind: "ray" for `ray up`, "kuberay" for `kubectl apply`, "slurm" for `sbatch`.
        resources: Nodes, and what each has.
        settings: See `RayUpSettings`, `KubernetesSettings`, `SlurmSettings`; `python` is one more for "slurm".

    Raises:
        ClusterError: There is no such kind or setting, or the configuration would not be accepted.
    """
    if kind == "ray":
        from cluster.ray_up import RayUpSettings, ray_up  # Ray takes a second to import

        config = ray_up(resources, RayUpSettings.from_dict(settings))
        return _yaml("A Ray cluster on machines of your own, or of a cloud: ray up THIS", config)
    if kind == "kuberay":
        given = {"image": "registry.example/beagle:latest", **settings}
        manifest = raycluster(resources, KubernetesSettings.from_dict(given), "beagle")
        return _yaml("A Ray cluster that stays up: kubectl apply -f THIS", manifest)
    if kind == "slurm":
        rest = {name: value for name, value in settings.items() if name != "python"}
        spec = JobSpec(
            ("evolve", "data.yaml", "--resume", "--out", "runs/evolve"),
            Path.cwd(),
            "beagle",
            resources=resources,
        )
        python = settings.get("python", ".venv/bin/python")
        return sbatch_script(spec, SlurmSettings.from_dict(rest), Path.cwd(), str(Path.cwd() / python))
    raise ClusterError(f"the kind must be one of {', '.join(KINDS)}, but got {kind!r}")


def _yaml(comment: str, data: Mapping[str, Any]) -> str:
    return f"# {comment}\n{yaml.safe_dump(dict(data), sort_keys=False)}"
