"""Joining or starting Ray, and the environment of its workers: shared by all that puts work on a cluster."""

import logging
import math
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import chdir, contextmanager
from pathlib import Path
from typing import Any, TypeVar

import ray

from evolve.space import EvolveError

Item = TypeVar("Item")
Answer = TypeVar("Answer")

# Set before Ray is imported by a worker or started by us; each is the driver's to change from outside.
RAY_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_TRAIN_ENABLE_V2_MIGRATION_WARNINGS": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}
ADDRESS_VARIABLE = "BEAGLE_RAY_ADDRESS"
OBJECT_STORE_BYTES = 200_000_000  # trials exchange numbers, not tensors
CHUNKS_PER_CPU = 4  # so that a CPU that got the long items does not keep all others waiting


@contextmanager
def connected(address: str | None = None, cpus: float = 1.0) -> Iterator[None]:
    """Join the cluster, or start one on this machine; one that is already joined is used and left alone.

    Args:
        address: Ray cluster to join; None starts one on this machine, or joins that of the environment variable
            BEAGLE_RAY_ADDRESS, by which a job on a cluster tells its driver where it is.
        cpus: CPUs of each worker, hence its number of threads.

    Raises:
        EvolveError: No cluster answers at the address, or none can be started here.
    """
    for name, value in RAY_ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    if ray.is_initialized():
        yield
        return
    # Workers import from where Ray is started first, and the user's own folder may well have a `model` or a
    # `dataset` that is not ours: so it is started from an empty one.
    with tempfile.TemporaryDirectory(prefix="beagle-") as folder:
        _join(address, cpus, Path(folder))
        try:
            yield
        finally:
            ray.shutdown()


def _join(address: str | None, cpus: float, folder: Path) -> None:
    address = address or os.environ.get(ADDRESS_VARIABLE) or None
    local = address is None
    options: dict[str, Any] = (
        {"include_dashboard": False, "object_store_memory": OBJECT_STORE_BYTES} if local else {}
    )
    try:
        with chdir(folder):
            ray.init(
                address="local" if local else address,
                log_to_driver=False,
                logging_level=logging.ERROR,
                runtime_env={"env_vars": worker_environment(cpus)},
                **options,
            )
    except (ConnectionError, TimeoutError) as error:
        where = f"no Ray cluster answers at {address}" if address else "Ray can't be started on this machine"
        raise EvolveError(f"{where}: {' '.join(str(error).split())[:200]}") from error


def nodes() -> list[Mapping[str, float]]:
    """What each node of the cluster that lives holds in all, "CPU" and "GPU" among it."""
    return [dict(node["Resources"]) for node in ray.nodes() if node["Alive"]]


def ray_map(
    function: Callable[[Item], Answer], items: Sequence[Item], address: str | None = None
) -> list[Answer]:
    """Apply a function to many items on all CPUs of a cluster.

    A task whose node is lost is run again elsewhere, so the function must bear being called twice for an item.

    Args:
        function: Importable by the workers, as are its arguments and answers.
        items: What it is called with, one at a time.
        address: Ray cluster to join; None uses the one already joined, or else starts one on this machine.

    Returns:
        The answers, in the order of the items.

    Raises:
        EvolveError: No cluster answers, or its workers were lost again and again.
        Exception: Whatever the function raised first.
    """
    if not items:
        return []
    with connected(address):
        cpus = max(int(sum(node.get("CPU", 0.0) for node in nodes())), 1)
        parts = min(len(items), CHUNKS_PER_CPU * cpus)
        size = math.ceil(len(items) / parts)
        task = ray.remote(num_cpus=1, max_retries=3)(_apply)
        futures = [
            task.remote(function, list(items[start : start + size])) for start in range(0, len(items), size)
        ]
        try:
            return [answer for answers in ray.get(futures) for answer in answers]
        except ray.exceptions.RayTaskError as error:
            raise error.cause if isinstance(error.cause, Exception) else error from None
        except ray.exceptions.RayError as error:
            first_line = str(error).strip().split("\n")[0]
            raise EvolveError(f"the cluster lost the workers of a task: {first_line[:200]}") from error


def _apply(function: Callable[[Item], Answer], items: list[Item]) -> list[Answer]:
    return [function(item) for item in items]


def worker_environment(cpus: float) -> dict[str, str]:
    """Environment of a worker: as many threads as the trial has CPUs, and none that spins while it waits.

    Several torch processes on few cores slow each other down more than tenfold when OpenMP's idle threads spin.
    """
    threads = str(max(int(cpus), 1))
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    return {name: threads for name in names} | {"OMP_WAIT_POLICY": "PASSIVE"}
