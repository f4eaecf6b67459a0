"""A local job's record on disk, and which of its processes still live.

`job.json` has one writer, the job's keeper; whoever asks for a stop leaves the empty file `stop` beside it.
"""

import json
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self, TypeVar

from cluster.spec import ClusterError
from evolve.aside import write_aside

Kept = TypeVar("Kept")

VERSION = 1
RECORD, LOG, STOP = "job.json", "output.log", "stop"


@dataclass(frozen=True)
class Process:
    """One process for good: pids are used again, a pid with its time of start is not.

    Attributes:
        pid: Its number on its machine.
        start: BOOT/TICKS: the machine's boot, and clock ticks from there to the start of the process.
    """

    pid: int
    start: str

    @classmethod
    def of(cls, pid: int) -> Self:
        """The process that has this pid now, a zombie included.

        Raises:
            ClusterError: There is none, or the system has no /proc.
        """
        found = _look_up(pid)
        if found is None:
            raise ClusterError(f"process {pid} is not in /proc (local jobs need Linux)")
        return cls(pid, found[0])

    @property
    def lives(self) -> bool:
        """Whether it runs on this machine; a zombie does not."""
        found = _look_up(self.pid)
        return found is not None and found[0] == self.start and found[1] not in "ZX"


def _look_up(pid: int) -> tuple[str, str] | None:
    """Start and state of a process; None where there is none. Source: proc_pid_stat(5), fields 3 and 22."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = stat.rpartition(")")[2].split()  # field 2 is the program's name and may hold blanks and brackets
    return f"{boot}/{fields[19]}", fields[0]


@dataclass(frozen=True)
class Record:
    """What is written down about a job; never its environment."""

    id: str
    words: tuple[str, ...]
    folder: str
    host: str
    process: Process
    keeper: Process
    started_at: float
    ended_at: float | None = None
    exit_code: int | None = None
    version: int = VERSION

    @property
    def is_running(self) -> bool:
        """Whether the command or its keeper lives, and no exit code is known yet."""
        return self.exit_code is None and (self.keeper.lives or self.process.lives)

    def save(self, job: Path) -> None:
        """Write it into the job's folder, aside and then into place."""
        write_aside(job / RECORD, json.dumps(asdict(self), indent=2))


def load_record(job: Path) -> Record:
    """Read the record in a job's folder.

    Raises:
        ClusterError: It can't be read, is damaged, or is of another version.
    """
    return read_versioned(job / RECORD, VERSION, _as_record)


def _as_record(data: dict[str, Any]) -> Record:
    process, keeper = Process(**data["process"]), Process(**data["keeper"])
    return Record(**{**data, "words": tuple(data["words"]), "process": process, "keeper": keeper})


def read_versioned(path: Path, version: int, build: Callable[[dict[str, Any]], Kept]) -> Kept:
    """Read a record that was written as JSON with its version.

    Args:
        path: The file.
        version: Which it must have.
        build: Makes the record of it; KeyError, TypeError and ValueError say that it is damaged.

    Raises:
        ClusterError: It can't be read, is damaged, or is of another version.
    """
    try:
        data: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        found = data["version"]
        if found == version:
            return build(data)
    except OSError as error:
        raise ClusterError(f"{path}: the job's record can't be read ({error.strerror})") from error
    except (ValueError, TypeError, KeyError) as error:
        raise ClusterError(
            f"{path}: the job's record is damaged ({type(error).__name__}: {error})"
        ) from error
    raise ClusterError(f"{path}: the record's version must be {version}, but got {found!r}")


def new_job_folder(folder: Path, name: str) -> Path:
    """Make an empty folder for a job in `folder`: called `name`, with a number behind where that is taken."""
    folder.mkdir(parents=True, exist_ok=True)
    job, number = folder / name, 1
    while True:
        try:
            job.mkdir()
            return job
        except FileExistsError:  # making it is the test, so two that submit at once get two folders
            number += 1
            job = folder / f"{name}-{number}"


def take_environment(path: Path) -> None:
    """Set the variables that were handed over in a file, and delete it."""
    os.environ.update(json.loads(path.read_text(encoding="utf-8")))
    path.unlink()
