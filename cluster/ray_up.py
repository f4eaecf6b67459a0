"""A cluster configuration for `ray up`: machines that stand there already, or instances of Amazon's cloud."""

import copy
from dataclasses import dataclass
from typing import Any

import jsonschema
from ray.autoscaler._private.util import prepare_config, validate_config

from cluster.settings import Settings
from cluster.spec import ClusterError, Resources

PROVIDERS = ("local", "aws")


@dataclass(frozen=True)
class RayUpSettings(Settings):
    """What `ray up` needs to know.

    Attributes:
        provider: "local" for machines that stand there, reached by ssh; "aws" for instances.
        head: Address of the first machine (local).
        workers: Addresses of the others, with commas (local).
        user: For ssh.
        key: Private key for ssh; the agent's by default.
        region: Of the instances (aws).
        head_type: Of the first instance (aws); it runs the driver and no trials.
        worker_type: Of the others (aws).
        setup: Shell command that makes Beagle available on each machine.
        name: Of the cluster.
    """

    provider: str = "local"
    head: str = "192.0.2.1"
    workers: str = "192.0.2.2"
    user: str = "ubuntu"
    key: str = ""
    region: str = "us-west-2"
    head_type: str = "m5.xlarge"
    worker_type: str = "g5.xlarge"
    setup: str = "pip install beagle-evolve"
    name: str = "beagle"

    def __post_init__(self) -> None:
        if self.provider not in PROVIDERS:
            raise ClusterError(f"provider must be one of {', '.join(PROVIDERS)}, but got {self.provider!r}")


def ray_up(resources: Resources, settings: RayUpSettings) -> dict[str, Any]:
    """The configuration as plain data, which Ray's own check has accepted.

    Every machine must have RAY_AUTH_TOKEN in the environment of the user who starts Ray, the same one: without it
    Ray refuses to start with `RAY_AUTH_MODE=token`.

    Raises:
        ClusterError: Ray does not accept it.
    """
    config: dict[str, Any] = {
        "cluster_name": settings.name,
        "auth": {"ssh_user": settings.user} | ({"ssh_private_key": settings.key} if settings.key else {}),
        "setup_commands": [settings.setup],
        "head_start_ray_commands": ["ray stop", _start("--head --port=6379 --dashboard-host=127.0.0.1")],
        "worker_start_ray_commands": ["ray stop", _start('--address="$RAY_HEAD_IP:6379"')],
    }
    config |= _local(settings) if settings.provider == "local" else _aws(resources, settings)
    check_ray_up(config)
    return config


def check_ray_up(config: dict[str, Any]) -> None:
    """Let Ray look at a configuration as `ray up` does before it starts anything.

    Raises:
        ClusterError: It does not accept it.
    """
    try:
        validate_config(prepare_config(copy.deepcopy(config)))
    except (jsonschema.ValidationError, ValueError, RuntimeError, KeyError, TypeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ClusterError(f"Ray does not accept the configuration: {reason}") from error


def _start(where: str) -> str:
    return f"RAY_AUTH_MODE=token RAY_USAGE_STATS_ENABLED=0 ray start {where}"


def _local(settings: RayUpSettings) -> dict[str, Any]:
    workers = [address for each in settings.workers.split(",") if (address := each.strip())]
    return {
        "max_workers": len(workers),
        "provider": {"type": "local", "head_ip": settings.head, "worker_ips": workers},
    }


def _aws(resources: Resources, settings: RayUpSettings) -> dict[str, Any]:
    count = resources.nodes
    return {
        "max_workers": count,
        "provider": {"type": "aws", "region": settings.region, "cache_stopped_nodes": False},
        "head_node_type": "head",
        "available_node_types": {
            # No CPUs for trials: a driver that a trial starves loses its hold on all of them.
            "head": {
                "node_config": {"InstanceType": settings.head_type},
                "resources": {"CPU": 0},
                "max_workers": 0,
            },
            "trials": {
                "node_config": {"InstanceType": settings.worker_type},
                "resources": {},
                "min_workers": 0,
                "max_workers": count,
            },
        },
    }
