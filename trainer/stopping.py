"""A polite request to stop: SIGTERM, as a cluster sends it to a worker that it takes away."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from trainer.config import TrainError


class StoppedError(TrainError):
    """A training was asked to stop; its last checkpoint is whole, and a resume goes on from it."""


@contextmanager
def stop_requests() -> Iterator[Callable[[], bool]]:
    """Notice SIGTERM instead of dying of it, and leave the handler as it was.

    Where this is not the main thread, or somebody else handles the signal already, nothing is changed.

    Yields:
        Whether the process has been asked to stop.
    """
    asked = threading.Event()

    def note(_number: int, _frame: FrameType | None) -> None:
        asked.set()

    main = threading.current_thread() is threading.main_thread()
    if not main or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield asked.is_set
        return
    signal.signal(signal.SIGTERM, note)
    try:
        yield asked.is_set
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
