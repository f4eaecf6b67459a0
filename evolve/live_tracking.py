"""A thread that keeps MLflow level with a running evolution.

With the server away it says so once and tries again; the evolution never waits for it.
"""

import logging
import threading
from pathlib import Path

from evolve.journal import JournalReader
from evolve.mlflow_store import Store, TrackingError
from evolve.space import EvolveError
from evolve.tracking import Mirror

logger = logging.getLogger(__name__)


class LiveMirror:
    """A thread that keeps MLflow level with a running evolution."""

    def __init__(self, folder: Path, store: Store, period_s: float = 3.0) -> None:
        """Nothing is sent before `start`.

        Args:
            folder: The run folder.
            store: Where to send.
            period_s: Seconds between two comparisons.
        """
        self._folder = folder.resolve()  # a driver changes the current folder for a moment
        self._mirror = Mirror(folder, store)
        self._journal = JournalReader(self._folder / "journal.jsonl")
        self._period_s = period_s
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, name="mlflow-mirror", daemon=True)
        self.problem: TrackingError | None = None

    def start(self) -> None:
        """Begin mirroring."""
        self._thread.start()

    def close(self, patience_s: float = 60.0) -> TrackingError | None:
        """Send the rest, and end the thread.

        Args:
            patience_s: How long to wait; what is not sent by then is left to `beagle sync`.

        Returns:
            What kept MLflow from being level with the journal; None where nothing did.
        """
        self._end.set()
        self._thread.join(patience_s)
        if self._thread.is_alive():
            return TrackingError("MLflow is too slow to wait for")
        return self.problem

    def _run(self) -> None:
        while not self._end.wait(self._period_s):
            self._push(final=False)
        self._push(final=True)

    def _push(self, *, final: bool) -> None:
        try:
            self._mirror.push(self._journal.state(), final=final)
            self.problem = None
        except EvolveError as error:
            if self.problem is None:
                logger.warning("%s; the evolution goes on (`beagle sync` fills it in)", error)
            self.problem = error if isinstance(error, TrackingError) else TrackingError(str(error))
