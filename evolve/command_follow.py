"""A running command, followed: its epochs reported soon after they are written, its silence noticed."""

import time
from dataclasses import dataclass
from pathlib import Path

from evolve.command_process import Command
from evolve.command_results import Reader
from evolve.command_spec import Limits
from evolve.trainable import Report

LOOK_S = 0.25
MLFLOW_LOOK_S = 3.0


@dataclass
class Live:
    """Epochs as they come.

    Attributes:
        reader: Of the results.
        seen: Epochs that need not be reported.
        report: Called with each other epoch, once.
    """

    reader: Reader
    seen: set[int]
    report: Report
    _stamp: object = None
    _rest_until: float = 0.0

    def look(self, *, last: bool = False) -> bool:
        """Report what is new; whether anything was. An epoch is whole once it has its fitness or another follows."""
        stamp, began = self._now(), time.monotonic()
        if not last and (stamp == self._stamp or began < self._rest_until):
            return False
        self._stamp = stamp
        epochs = self.reader.epochs()
        # A log of many megabytes is looked at less often: reading takes a twentieth of the time at most.
        self._rest_until = time.monotonic() + 20 * (time.monotonic() - began)
        new = [
            e for e in epochs if e not in self.seen and (last or "fitness" in epochs[e] or e < max(epochs))
        ]
        for epoch in new:
            self.seen.add(epoch)
            self.report(epoch, epochs[epoch])
        return bool(new)

    def _now(self) -> object:
        """Something that changes when the results may have."""
        if self.reader.results.format == "mlflow":
            return int(time.monotonic() / MLFLOW_LOOK_S)
        return file_stamp(Path(self.reader.file) if self.reader.file else self.reader.log)


def file_stamp(path: Path) -> tuple[int, int]:
    """Size and time of change of a file, (0, 0) where there is none."""
    try:
        stat = path.stat()
    except OSError:
        return (0, 0)
    return stat.st_size, stat.st_mtime_ns


def follow(command: Command, live: Live, output: Path, limits: Limits) -> tuple[int | None, str]:
    """Report epochs until the command ends, or must be ended.

    Args:
        command: Started.
        live: Told to look again and again.
        output: Of the command: a word there is a sign of life, too.
        limits: When it must be ended.

    Returns:
        (exit code, ""), or (None, why it must be ended)
    """
    began = spoke = time.monotonic()
    said = file_stamp(output)
    while True:
        code = command.wait(LOOK_S)
        if live.look(last=code is not None) or file_stamp(output) != said:
            spoke, said = time.monotonic(), file_stamp(output)
        if code is not None:
            return code, ""
        now = time.monotonic()
        if limits.silent_s is not None and now - spoke > limits.silent_s:
            return None, f"the command said nothing for {limits.silent_s:g} s and was ended"
        if limits.total_s is not None and now - began > limits.total_s:
            return None, f"the command took more than {limits.total_s:g} s and was ended"
