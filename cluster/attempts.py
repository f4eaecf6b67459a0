"""A job's own retry: the command is started again when it was killed, or failed by our fault.

Run as `python -m cluster.attempts [--environment FILE] RETRIES WORDS…`. An evolution goes on where it stopped, since
`beagle submit` hands it over with `--resume`; nothing that finished is run again. What the user can mend (exit code
1) is not tried again, and neither is a command that was asked to stop. Its last attempt's exit code is this one's.

FILE is JSON, the variables that the command gets: it is read and deleted at once.
"""

import signal
import subprocess
import sys
import time
from pathlib import Path
from types import FrameType

from cluster.keeper import COMMAND
from cluster.record import take_environment

INTERNAL_ERROR = 3
PAUSE_S = 1.0


def run(retries: int, words: tuple[str, ...]) -> int:
    """Run the command to its end, with up to `retries` further attempts.

    Returns:
        Its exit code, 128 + N where signal N ended it.
    """
    asked = False
    child: subprocess.Popen[bytes] | None = None
    code = 0

    def interrupt(number: int, frame: FrameType | None) -> None:
        nonlocal asked
        asked = True
        if child is not None and child.poll() is None:
            child.send_signal(signal.SIGINT)

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, interrupt)
    for attempt in range(retries + 1):
        # A session of its own: a signal to the whole group reaches the command once, through the handler.
        child = subprocess.Popen([*COMMAND, *words], start_new_session=True)
        if asked:
            child.send_signal(signal.SIGINT)  # it came between the two lines
        code = child.wait()
        if asked or (0 <= code != INTERNAL_ERROR):
            break
        if attempt < retries:
            what = f"was killed by signal {-code}" if code < 0 else "failed by our fault"
            sys.stderr.write(f"the command {what}: attempt {attempt + 2} of {retries + 1}\n")
            time.sleep(PAUSE_S)
    return code if code >= 0 else 128 - code


def main(words: list[str]) -> int:
    """What the module does when it is run; its exit code."""
    if words[0] == "--environment":
        path, words = Path(words[1]), words[2:]
        try:
            take_environment(path)
        except OSError as error:
            sys.stderr.write(
                f"error: {path} can't be read ({error.strerror}): the folder of jobs must be on storage that the "
                "cluster shares, or a job can't be given variables\n"
            )
            return 1
    return run(int(words[0]), tuple(words[1:]))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
