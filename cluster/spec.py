"""What a job is: the words that it runs, what it asks for, and how it stands."""

import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

JobStatus = Literal["queued", "running", "done", "failed", "stopped", "lost"]
"""How a job stands.

queued: it waits for its place. running: it has not ended. done: exit code 0. failed: another one. stopped: another
one, after it was asked to stop. lost: it is not here and left no exit code, since the machine went down, its keeper
was killed, the disk was full when it ended, it was started on another machine that shares this folder (see
`JobInfo.host`), or its place has forgotten it.
"""

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,49}")


class ClusterError(RuntimeError):
    """A job can't be made, found or stopped as asked."""


@dataclass(frozen=True)
class Resources:
    """What a job asks of a place that shares machines out.

    Attributes:
        nodes: Machines, 1 or more; several are joined into one Ray cluster for an evolution.
        cpus: CPUs of each; None takes what the place gives.
        gpus: GPUs of each.
        memory_gb: Memory of each in GB; None takes what the place gives.
        hours: Longest time; an evolution that runs out of it is put into the queue again. None: the place's own.
    """

    nodes: int = 1
    cpus: int | None = None
    gpus: int = 0
    memory_gb: float | None = None
    hours: float | None = None

    def __post_init__(self) -> None:
        for name, value, low in (("nodes", self.nodes, 1), ("cpus", self.cpus, 1), ("gpus", self.gpus, 0)):
            if value is not None and value < low:
                raise ClusterError(f"{name} >= {low} must hold, but got {value}")
        for name, amount in (("memory", self.memory_gb), ("hours", self.hours)):
            if amount is not None and not 0 < amount < math.inf:
                raise ClusterError(f"{name} > 0 must hold and be finite, but got {amount:g}")


@dataclass(frozen=True)
class JobSpec:
    """What to run. The words are written down and shown, the environment is not: secrets belong there.

    Attributes:
        words: What follows `beagle` on the command line; at least one.
        folder: Absolute working folder, from which relative paths in the words are meant.
        name: What the job is called, 1 to 50 of `A-Z a-z 0-9 . _ -`; made of the first word when empty.
        environment: Variables set in addition to those of the process that submits.
        resources: What it asks for; a place that shares nothing out (local) has no use for it.
        retries: How often a command that was killed, or failed by our fault, is started again by the job itself.
    """

    words: tuple[str, ...]
    folder: Path
    name: str = ""
    environment: Mapping[str, str] = field(default_factory=dict, repr=False, hash=False)
    resources: Resources = field(default_factory=Resources)
    retries: int = 2

    def __post_init__(self) -> None:
        words = tuple(self.words)
        if not words or words[0] in ("", "beagle") or any("\0" in word for word in words):
            raise ClusterError(f"words must be those after `beagle` on the command line, but got {words!r}")
        if not self.folder.is_absolute():
            raise ClusterError(f"the working folder must be absolute, but got {self.folder}")
        name = self.name or re.sub(r"[^A-Za-z0-9]+", "-", words[0]).strip("-")[:50] or "job"
        if not NAME.fullmatch(name):
            raise ClusterError(
                f"a job's name must be 1 to 50 letters, digits, dots, dashes or underscores and start with a letter "
                f"or digit, but got {name!r}"
            )
        for key, value in self.environment.items():
            if not key or "=" in key or "\0" in key + value:
                raise ClusterError(
                    f"a variable needs a name without '=' and a value without NUL, but got {key!r}"
                )
        if self.retries < 0:
            raise ClusterError(f"retries >= 0 must hold, but got {self.retries}")
        object.__setattr__(self, "words", words)
        object.__setattr__(self, "name", name)
        object.__setattr__(self, "environment", MappingProxyType(dict(self.environment)))


@dataclass(frozen=True)
class JobInfo:
    """How a job stands.

    Attributes:
        id: Its name, with a number behind where the name was taken.
        words: What follows `beagle`.
        status: See `JobStatus`.
        exit_code: 0 to 255, or −N when signal N ended it; None while it has not ended, when it is lost, and where
            the place does not tell.
        started_at: Unix seconds; of its submission where it was put into a queue.
        ended_at: Unix seconds; None as for the exit code.
        host: Machine that it was started on.
        pid: Process on that machine; None in a place that has none to show.
        folder: Working folder.
        log: File that its output goes to; None in a place that keeps none.
        place: Where it runs: local, slurm, ray or kubernetes.
        native_id: What the place itself calls it; empty on this machine.
        detail: What the place says of it beside: why it waits, or why it failed.
    """

    id: str
    words: tuple[str, ...]
    status: JobStatus
    exit_code: int | None
    started_at: float
    ended_at: float | None
    host: str
    pid: int | None
    folder: Path
    log: Path | None
    place: str = "local"
    native_id: str = ""
    detail: str = ""

    @property
    def active(self) -> bool:
        """Whether it waits or runs."""
        return self.status in ("queued", "running")

    def to_dict(self) -> dict[str, Any]:
        """The same as plain data; paths become text."""
        paths = {"folder": str(self.folder), "log": str(self.log) if self.log else None}
        return {**asdict(self), "words": list(self.words), **paths}
