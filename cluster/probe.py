"""What a worker can reach, looked at from there before anything is trained.

Run as `python -m cluster.probe [--environment FILE] NEEDS` on the machine in question, where NEEDS is JSON; it
prints one line, MARK and a JSON list of what is lacking.
"""

import importlib.metadata
import json
import os
import shutil
import socket
import sys
import tempfile
from dataclasses import asdict, dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from cluster.record import take_environment
from cluster.spec import ClusterError
from evolve.object_store import ObjectStore
from evolve.store_url import StoreError, StoreUrl

MARK = "beagle-probe:"
CONNECT_S = 5.0
STORE_S = 20.0
VERSIONED = ("ray", "torch", "numpy")
FREE_GB = 1.0


@dataclass(frozen=True)
class Needs:
    """What a job needs to find where it runs.

    Attributes:
        paths: Files and folders that must be readable.
        writable: Folders in which it must be able to write; made where they are missing.
        urls: Servers that must answer, for example MLflow's.
        gpus: GPUs of one trial.
        versions: Of Beagle and its libraries on the submitting machine, by name; a trial's results depend on them.
        stores: URLs of object stores in which it must be able to write and read.
    """

    paths: tuple[str, ...] = ()
    writable: tuple[str, ...] = ()
    urls: tuple[str, ...] = ()
    gpus: float = 0.0
    versions: dict[str, str] = field(default_factory=dict)
    stores: tuple[str, ...] = ()

    def to_json(self) -> str:
        """One line of JSON."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> "Needs":
        """The same back."""
        data = json.loads(text)
        tuples = {name: tuple(data[name]) for name in ("paths", "writable", "urls", "stores")}
        return cls(**tuples, gpus=float(data["gpus"]), versions=dict(data["versions"]))


def versions_here() -> dict[str, str]:
    """Versions of Python and of the libraries that trials stand on."""
    found = {"python": ".".join(map(str, sys.version_info[:2]))}
    for name in VERSIONED:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "none"
    return found


def findings(needs: Needs) -> list[str]:
    """What this machine lacks: one line each, saying what to mend; empty when all is there."""
    host = socket.gethostname()
    found = []
    here = versions_here()
    for name, version in needs.versions.items():
        if here.get(name, "none").split("+")[0] != version.split("+")[0]:
            found.append(
                f"{name} is {here.get(name, 'none')} on {host}, but {version} here: install the same, or set python"
            )
    found += [
        f"{path} can't be read on {host}: put it on storage that all machines share, or ship the folder"
        for path in needs.paths
        if not os.access(path, os.R_OK)
    ]
    for folder in needs.writable:
        found += _not_writable(Path(folder), host)
    for url in needs.urls:
        found += not_answering(url, host)
    for store in needs.stores:
        found += _not_a_store(store, host)
    return found


def too_many_gpus(needs: Needs, per_node: int) -> list[str]:
    """One line where a trial asks for more GPUs than a machine of the job has, since it never spans two."""
    if needs.gpus <= per_node:
        return []
    return [
        f"a trial asks for {needs.gpus:g} GPUs, but a machine of the job has {per_node}: give --gpus before the --, "
        "too"
    ]


def gpus_here() -> int:
    """NVIDIA GPUs that this machine's driver knows; 0 without one."""
    folder = Path("/proc/driver/nvidia/gpus")
    return len(list(folder.iterdir())) if folder.is_dir() else 0


def _not_writable(folder: Path, host: str) -> list[str]:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"0" * 4096)
            file.flush()
            os.fsync(file.fileno())
        free = shutil.disk_usage(folder).free / 1e9
    except OSError as error:
        return [f"{folder} can't be written on {host} ({error.strerror}): choose shared storage with --out"]
    if free < FREE_GB:
        return [f"{folder} has {free:.1f} GB free on {host}: checkpoints of an evolution take several"]
    return []


def not_answering(url: str, host: str) -> list[str]:
    """One line where no server answers at a URL, shown without user and password; empty where one does."""
    parts = urlsplit(url)
    try:
        port = parts.port or (443 if parts.scheme == "https" else 80)
        with socket.create_connection((parts.hostname or "", port), timeout=CONNECT_S):
            return []
    except (OSError, ValueError) as error:
        shown = f"{parts.scheme}://{parts.hostname}:{parts.port or ''}".rstrip(
            ":"
        )  # without user and password
        return [f"{shown} does not answer from {host} ({error}): is it a name that the cluster knows?"]


def _not_a_store(text: str, host: str) -> list[str]:
    try:
        url = StoreUrl.parse(text)
        if url is not None:
            ObjectStore(url, STORE_S).check()
    except StoreError as error:
        return [f"on {host}: {error}"]
    return []


def read_findings(text: str) -> tuple[str, ...]:
    """What a probe found, out of all that its job printed.

    Raises:
        ClusterError: It printed no findings.
    """
    for line in reversed(text.splitlines()):
        if line.startswith(MARK):
            return tuple(json.loads(line.removeprefix(MARK)))
    raise ClusterError(f"the look at a worker brought no answer, but {text.strip()[-200:]!r}")


def main(words: list[str]) -> None:
    """What the module does when it is run; a job's variables are in the file behind `--environment`."""
    unread: list[str] = []
    if words[0] == "--environment":
        path, words = Path(words[1]), words[2:]
        try:
            take_environment(path)
        except OSError as error:
            host = socket.gethostname()
            unread.append(
                f"{path.parent} can't be read on {host} ({error.strerror}), so a job can't be given variables "
                "(--env): submit from a folder on storage that all machines share"
            )
    sys.stdout.write(MARK + json.dumps(unread + findings(Needs.from_json(words[0]))) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
