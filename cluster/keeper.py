"""The keeper of one local job: a detached process that starts the command, waits for it, and writes its exit code.

Run as `python -m cluster.keeper JOB_FOLDER WORDS…` from the working folder. It forks and the first process ends at
once; its output closes when the job has been recorded, or when something was wrong, of which stderr tells.
"""

import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from cluster.record import LOG, Process, Record
from cluster.spec import ClusterError

# -P: a file of the working folder, dataset.py say, is not taken for a room. -u: the log can be followed.
COMMAND = (sys.executable, "-P", "-u", "-c", "from beagle.cli import main; main()")


def keep(job: Path, words: tuple[str, ...]) -> None:
    """Run the command to its end, recorded in the folder `job`."""
    # Handlers rather than SIG_IGN: an ignored signal stays ignored in the command, which must hear them.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: None)
    with (job / LOG).open("wb") as log:
        child = subprocess.Popen(
            [*COMMAND, *words],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        record = Record(
            id=job.name,
            words=words,
            folder=str(Path.cwd()),
            host=socket.gethostname(),
            process=Process.of(child.pid),
            keeper=Process.of(os.getpid()),
            started_at=time.time(),
        )
        record.save(job)
    except (OSError, ClusterError):
        child.kill()  # nobody could find it again
        raise
    _close_output()
    # While the command is a zombie its number stands for its group alone: what it left there is ended with it.
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(child.pid, signal.SIGKILL)
    replace(record, exit_code=child.wait(), ended_at=time.time()).save(job)


def _close_output() -> None:
    nowhere = os.open(os.devnull, os.O_RDWR)
    for stream in (1, 2):
        os.dup2(nowhere, stream)
    os.close(nowhere)


if __name__ == "__main__":
    if os.fork() == 0:
        keep(Path(sys.argv[1]), tuple(sys.argv[2:]))
