"""Keeps one command: starts it in a process group of its own, and ends the group when nobody waits for it any more.

Run as `python -I -S command_keeper.py LOCK OUTPUT STOP_S WORDS…`. Whoever started it holds the other end of its
stdin: when that is closed, by a wish or because the holder was killed, the command is asked to end (SIGTERM), and
ended (SIGKILL) STOP_S seconds later. A lock, given up after the last of its processes, keeps two of one trial apart.

Only the standard library, and no room of Beagle: it starts in hundredths of a second and takes a few MB.
"""

import ctypes
import fcntl
import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

LOOK_S = 0.1
LOCK_PATIENCE_S = 60.0
NOT_STARTED, LOCKED = 127, 125
_PR_SET_PDEATHSIG = 1


def keep(lock: Path, output: Path, stop_s: float, words: list[str]) -> int:
    """Run the command to its end.

    Returns:
        Its exit code; 128 and the number of the signal that ended it; `NOT_STARTED`, `LOCKED`.
    """
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: None)
    with lock.open("a") as held, output.open("ab", buffering=0) as log:
        if not _take(held.fileno()):
            log.write(f"an earlier attempt still runs after {LOCK_PATIENCE_S:.0f} s\n".encode())
            return LOCKED
        try:
            child = subprocess.Popen(
                words,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=_end_with_me,  # noqa: PLW1509 (this process has one thread)
            )
        except (OSError, ValueError) as error:
            log.write(f"{words[0]}: the command can't be started: {error}\n".encode())
            return NOT_STARTED
        wanted = _watch(child)
        if not wanted:
            _ask(child, stop_s)
        # While the leader is a zombie its number stands for its group alone.
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        _signal_group(child.pid, signal.SIGKILL)
        code = child.wait()
        return code if code >= 0 else 128 - code


def _take(handle: int) -> bool:
    deadline = time.monotonic() + LOCK_PATIENCE_S
    while time.monotonic() < deadline:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(LOOK_S)
        else:
            return True
    return False


def _watch(child: "subprocess.Popen[bytes]") -> bool:
    """Wait for the command's end; False as soon as nobody waits for it."""
    while True:
        # Without reaping it: its number must stay its own until its group is dead.
        ended = os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT | os.WNOHANG)
        if ended is not None:
            return True
        readable, _, _ = select.select([0], [], [], LOOK_S)
        if readable and not os.read(0, 1024):
            return False


def _ask(child: "subprocess.Popen[bytes]", stop_s: float) -> None:
    _signal_group(child.pid, signal.SIGTERM)
    deadline = time.monotonic() + stop_s
    while time.monotonic() < deadline:
        if os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT | os.WNOHANG) is not None:
            return
        time.sleep(LOOK_S / 4)
    _signal_group(child.pid, signal.SIGKILL)


def _signal_group(group: int, number: int) -> None:
    try:
        os.killpg(group, number)
    except (ProcessLookupError, PermissionError):
        return


def _end_with_me() -> None:
    """In the child: the kernel kills it should even this keeper be killed. Only Linux knows how."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


if __name__ == "__main__":
    sys.exit(keep(Path(sys.argv[1]), Path(sys.argv[2]), float(sys.argv[3]), sys.argv[4:]))
