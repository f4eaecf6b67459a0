"""One run of a command: started by its keeper, its output kept, its end explained."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from evolve.command_keeper import NOT_STARTED

KEEPER = Path(__file__).with_name("command_keeper.py")
LOCK = ".command"
TAIL_BYTES = 65_536
LINES_SAID = 3
MOST_SAID = 220

# What PyTorch, CUDA, JAX, TensorFlow and the C library say when memory runs out, on the device or on the host.
_OUT_OF_MEMORY = re.compile(
    r"out of memory|OutOfMemoryError|CUBLAS_STATUS_ALLOC_FAILED|RESOURCE_EXHAUSTED|can't allocate memory"
    r"|cannot allocate memory|^MemoryError|std::bad_alloc|not enough memory",
    re.IGNORECASE | re.MULTILINE,
)
_DISK_FULL = re.compile(r"no space left on device|disk quota exceeded", re.IGNORECASE)
_CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|[^\x20-\x7e\u00a0-\U0010ffff]")


@dataclass(frozen=True)
class Place:
    """Where a command runs.

    Attributes:
        folder: Of the trial; holds the keeper's lock.
        output: File that its output is added to.
        directory: Its working directory.
        environment: All of its variables.
        stop_s: Seconds between asking it to end and ending it.
    """

    folder: Path
    output: Path
    directory: Path
    environment: Mapping[str, str]
    stop_s: float


class Command:
    """A running command; leaving the context ends it, with all processes of its group."""

    def __init__(self, words: Sequence[str], place: Place) -> None:
        """Nothing is started before the context is entered.

        Args:
            words: The program and its arguments.
            place: Where.
        """
        self._words = list(words)
        self._place = place
        self._keeper: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        place = self._place
        keeper = [sys.executable, "-I", "-S", str(KEEPER), str(place.folder / LOCK), str(place.output)]
        self._keeper = subprocess.Popen(
            [*keeper, str(place.stop_s), *self._words],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd=place.directory,
            env=dict(place.environment),
            start_new_session=True,  # Ctrl-C at the driver's terminal is not for it
        )
        return self

    def wait(self, seconds: float) -> int | None:
        """The exit code, or None when it still runs after so long; 128 and the signal's number for a killed one."""
        if self._keeper is None:
            return None
        try:
            code = self._keeper.wait(seconds)
        except subprocess.TimeoutExpired:
            return None
        return code if code >= 0 else 128 - code

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._keeper is not None:
            if self._keeper.stdin is not None:
                self._keeper.stdin.close()  # nobody waits any more: the keeper ends the command
            self._keeper.wait()


@dataclass(frozen=True)
class Ending:
    """How a command ended.

    Attributes:
        code: Exit code; None when it was ended for its silence or its length.
        words: Why, for a person; with the last lines of its output.
        out_of_memory: It ran out of memory.
        disk_full: It found no room on the disk.
    """

    code: int | None
    words: str
    out_of_memory: bool = False
    disk_full: bool = False

    @property
    def well(self) -> bool:
        """Whether it did what it should."""
        return self.code == 0

    @property
    def signalled(self) -> bool:
        """Whether a signal ended it."""
        return self.code is not None and self.code > 128

    @property
    def killed(self) -> bool:
        """Whether something killed it outright, as a system short of memory does."""
        return self.code == 128 + signal.SIGKILL


def explain(code: int | None, why: str, output: Path, offset: int) -> Ending:
    """What a command's end says.

    Args:
        code: Exit code; None when we ended it.
        why: Why we ended it.
        output: File of its output.
        offset: Where in it this run began, bytes.
    """
    text = tail(output, offset)
    last = last_lines(text)
    said = f": {last}" if last else ""
    if code is None:
        return Ending(None, f"{why}{said}")
    if code == 0:
        return Ending(0, "")
    if code == NOT_STARTED:
        return Ending(code, last or "the command was not found")
    return Ending(
        code,
        f"the command {_code_words(code)}{said}",
        out_of_memory=bool(_OUT_OF_MEMORY.search(text)),
        disk_full=bool(_DISK_FULL.search(text)),
    )


def _code_words(code: int) -> str:
    if code <= 128:
        return f"ended with exit code {code}"
    try:
        return f"was ended by {signal.Signals(code - 128).name}"
    except ValueError:
        return f"ended with exit code {code}"


def tail(output: Path, offset: int = 0) -> str:
    """The end of a file, from `offset` on and at most 64 KiB."""
    try:
        with output.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(offset, size - TAIL_BYTES))
            return file.read().decode("utf-8", errors="replace")
    except OSError:
        return ""


def last_lines(text: str) -> str:
    r"""The last few lines that say something, on one line.

    >>> last_lines("a\nTraceback\n\nb\nKeyError: 'x'\n")
    "Traceback | b | KeyError: 'x'"
    """
    # Of the end alone, since a program may write a line of megabytes.
    lines = [_CONTROL.sub("", line).strip() for line in re.split(r"[\r\n]+", text[-8192:])]
    lines = [line for line in lines if line][-LINES_SAID:]
    while len(lines) > 1 and sum(map(len, lines)) > MOST_SAID:
        lines.pop(0)
    return " | ".join(lines)[:MOST_SAID]
