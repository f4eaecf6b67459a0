"""What can go wrong in the night, looked at before: the machine, its devices, the run folder, Ray, MLflow, data."""

import fcntl
import importlib.metadata
import os
import resource
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

GOOD, ABSENT, WARNING, FAULT = "ok", "absent", "warning", "fault"

_SHARED_MEMORY_GB = 1.0
_FREE_DISK_GB = 5.0
_FREE_MEMORY_GB = 2.0
_OPEN_FILES = 4096
_LOCK_PROGRAM = """
import fcntl, sys
with open(sys.argv[1], "a") as file:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        sys.exit(7)
"""


@dataclass(frozen=True)
class Finding:
    """One thing looked at.

    Attributes:
        what: The thing.
        state: "ok", "absent" (needed by some commands alone), "warning", or "fault" (nothing runs till it is mended).
        found: What is there.
        advice: What to do, empty where nothing is to be done.
    """

    what: str
    state: str
    found: str
    advice: str = ""


def examine(
    runs: Path,
    data: str | None = None,
    ray_address: str | None = None,
    skip: Sequence[str] = (),
) -> Iterator[Finding]:
    """Look at everything, the quick things first.

    Args:
        runs: Folder that will hold the runs; it need not exist.
        data: A data set as `dataset.load` reads it; None leaves it out.
        ray_address: Cluster to join; None starts Ray on this machine.
        skip: Of "ray" and "devices", what is left out since it takes seconds.
    """
    yield from _python()
    yield from _machine()
    yield from _folder(runs)
    yield _store(runs)
    yield from _programs()
    if data is not None:
        yield _data(data)
    if "devices" not in skip:
        yield from _devices()
    if "ray" not in skip:
        yield from _ray(ray_address)


def _python() -> Iterator[Finding]:
    version = ".".join(map(str, sys.version_info[:3]))
    yield Finding("Python", GOOD, version)
    installed = {name: _version(name) for name in ("torch", "ray", "mlflow", "numpy", "optuna")}
    missing = [name for name, version in installed.items() if version is None]
    found = ", ".join(f"{name} {version}" for name, version in installed.items() if version)
    if missing:
        yield Finding("packages", FAULT, found, f"install {', '.join(missing)}")
    else:
        yield Finding("packages", GOOD, found)
    providers = [
        name
        for name in ("opencv-python", "opencv-contrib-python", "opencv-python-headless")
        if _version(name)
    ]
    if len(providers) > 1:
        advice = "they overwrite each other's files: uninstall all, then install opencv-python-headless"
        yield Finding("cv2", WARNING, " and ".join(providers), advice)
    else:
        yield Finding(
            "cv2", GOOD, ", ".join(f"{name} {_version(name)}" for name in providers) or "built here"
        )


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _machine() -> Iterator[Finding]:
    usable = float(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)
    quota = _cpu_quota()
    found = f"{usable:g} usable of {os.cpu_count()}"
    if quota is not None and quota < usable:
        advice = f"give each trial --cpus so that all together need no more than {quota:g}"
        yield Finding("CPU cores", WARNING, f"{found}, but the container may use {quota:g}", advice)
    else:
        yield Finding("CPU cores", GOOD, found)
    memory = psutil.virtual_memory()
    yield _enough(
        "memory",
        memory.available / 1e9,
        _FREE_MEMORY_GB,
        f"of {memory.total / 1e9:.0f} GB",
        "end other programs, or run fewer trials at once",
    )
    shared = Path("/dev/shm")  # noqa: S108  (looked at, not written to)
    if shared.is_dir():
        yield _enough(
            "shared memory",
            shutil.disk_usage(shared).free / 1e9,
            _SHARED_MEMORY_GB,
            "in /dev/shm",
            "give the container more (--shm-size=8g), or Ray and data loaders fall back to the disk",
        )
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    shown = "unlimited" if soft == resource.RLIM_INFINITY else str(soft)
    if soft == resource.RLIM_INFINITY or soft >= _OPEN_FILES:
        yield Finding("open files", GOOD, f"{shown} at most")
    else:
        most = "any" if hard == resource.RLIM_INFINITY else hard
        yield Finding("open files", WARNING, f"{shown} at most", f"ulimit -n 65536 ({most} is allowed here)")


def _cpu_quota() -> float | None:
    """CPUs that the control group of this process may use; None without a limit. Source: cgroup v2, cpu.max."""
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text(encoding="ascii").split()
    except (OSError, ValueError):
        return None
    return None if quota == "max" else int(quota) / int(period)


def _enough(what: str, free_gb: float, least_gb: float, of: str, advice: str) -> Finding:
    found = f"{free_gb:.1f} GB free {of}"
    return Finding(what, GOOD, found) if free_gb >= least_gb else Finding(what, WARNING, found, advice)


def _folder(runs: Path) -> Iterator[Finding]:
    """Can a journal be kept there: written, synced, moved into place, and locked against a second driver."""
    runs = runs.resolve()
    parent = next(folder for folder in (runs, *runs.parents) if folder.is_dir())
    try:
        with tempfile.TemporaryDirectory(prefix=".beagle-doctor-", dir=parent) as folder:
            fault = _journal_fault(Path(folder))
    except OSError as error:
        yield Finding("run folder", FAULT, f"{runs}: {error.strerror}", "choose another with --runs or --out")
        return
    if fault:
        yield Finding("run folder", FAULT, f"{runs}: {fault}", "choose another file system with --out")
    else:
        yield Finding("run folder", GOOD, f"{runs}: writes, syncs, renames and locks")
    free_gb = shutil.disk_usage(parent).free / 1e9
    yield _enough("disk", free_gb, _FREE_DISK_GB, "there", "checkpoints of an evolution take several GB")


def _journal_fault(folder: Path) -> str | None:
    aside, journal = folder / "aside", folder / "journal"
    with aside.open("wb") as file:
        file.write(b"{}\n")
        file.flush()
        os.fsync(file.fileno())
    aside.replace(journal)
    with journal.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        second = subprocess.run([sys.executable, "-c", _LOCK_PROGRAM, str(journal)], check=False, timeout=60)
    return None if second.returncode == 7 else "a second process can lock what is locked already"


def _store(runs: Path) -> Finding:
    from cluster.probe import not_answering

    uri = os.environ.get("MLFLOW_TRACKING_URI")
    if not uri:
        return Finding("MLflow", GOOD, f"SQLite in {runs.resolve() / 'mlflow.db'}")
    if not uri.startswith(("http://", "https://")):
        return Finding("MLflow", GOOD, uri.partition("://")[0] + " store, by MLFLOW_TRACKING_URI")
    missing = not_answering(uri, "this machine")
    if missing:
        return Finding(
            "MLflow", WARNING, missing[0], "the evolution goes on without it; `beagle sync` catches up"
        )
    return Finding("MLflow", GOOD, "the server of MLFLOW_TRACKING_URI answers")


def _programs() -> Iterator[Finding]:
    for what, names, needed in (
        ("compiler", ("c++", "g++", "clang++"), "--compile"),
        ("Slurm", ("sbatch",), "submit --to slurm"),
        ("kubectl", ("kubectl",), "submit --to kubernetes"),
    ):
        path = next((found for name in names if (found := shutil.which(name))), None)
        yield Finding(what, GOOD, path) if path else Finding(what, ABSENT, "not here", f"only for {needed}")
    for package, needed in (
        ("aiohttp-cors", "submit --to ray"),
        ("onnxruntime", "model convert --to *.onnx"),
    ):
        extra = "onnx" if package == "onnxruntime" else "cluster"
        if _version(package):
            yield Finding(f"extra {extra}", GOOD, f"{package} {_version(package)}")
        else:
            yield Finding(f"extra {extra}", ABSENT, "not installed", f"only for {needed}")


def _data(data: str) -> Finding:
    from dataset import DataError
    from dataset.check import check

    try:
        report = check(data)
    except DataError as error:
        return Finding(
            "data", FAULT, str(error), f"`beagle data check {data}` lists all faults once it can be read"
        )
    images = ", ".join(f"{name} {count.images} images" for name, count in report.counts.items())
    if report.fatal:
        first = report.fatal[0]
        return Finding("data", FAULT, f"{first.file}: {first.what}", f"`beagle data check {data}` lists all")
    rest = f"; {len(report.faults)} faults are mended" if report.faults else ""
    return Finding("data", GOOD, f"{report.name}: {images}{rest}")


def _devices() -> Iterator[Finding]:
    from trainer.devices import survey

    for each in survey():
        memory = f", {each.memory_gb:.0f} GB" if each.memory_gb else ""
        found = f"{each.name}{memory}, {each.precision}"
        if each.fault:
            yield Finding(
                each.device, FAULT, f"{found}: {each.fault}", "a training step fails: look at the driver"
            )
        else:
            yield Finding(
                each.device, GOOD, f"{found}, a step of yolov5n at 64 px took {each.step_ms:.0f} ms"
            )


def _ray(address: str | None) -> Iterator[Finding]:
    from cluster.probe import versions_here
    from evolve.ray_session import connected, nodes, ray_map
    from evolve.space import EvolveError

    try:
        with connected(address):
            alive = nodes()
            seen = ray_map(_versions_of_worker, list(range(4 * len(alive))))
    except EvolveError as error:
        yield Finding("Ray", FAULT, str(error), "look at `ray status`, and at the address")
        return
    cpus, gpus = (sum(node.get(kind, 0.0) for node in alive) for kind in ("CPU", "GPU"))
    found = f"{len(alive)} node{'s' * (len(alive) > 1)}, {cpus:g} CPUs, {gpus:g} GPUs; tasks ran"
    here = versions_here()
    differing = sorted(
        {
            f"{name} {there[name]} on {host}, {version} here"
            for host, there in seen
            for name, version in here.items()
            if there.get(name) != version
        }
    )
    if differing:
        yield Finding("Ray", WARNING, f"{found}; {differing[0]}", "install the same versions on every node")
    else:
        yield Finding("Ray", GOOD, found)


def _versions_of_worker(_: int) -> tuple[str, dict[str, str]]:
    import socket

    from cluster.probe import versions_here

    return socket.gethostname(), versions_here()
