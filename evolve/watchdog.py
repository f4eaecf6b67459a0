"""Which running trials have been silent for too long: a hang raises nothing, so someone must look at the clock."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field

FIRST_EPOCH_S = 3 * 3600.0  # before any epoch is known: a large data set may well take an hour
LEAST_S = 600.0
EPOCHS = 10.0  # silence is measured in the longest epochs so far
ASLEEP_S = 30.0  # a driver that looked away for so long did not hear what was said meanwhile


@dataclass
class Watchdog:
    """Hears running trials report.

    Attributes:
        silence_s: Seconds of silence that a trial is given; None for ten of the longest epochs so far and at
            least ten minutes, or three hours before the first epoch.
        longest_epoch_s: Of any trial so far; 0 while none is known.
        clock: Seconds that only go forward, whatever the system's time is set to.
    """

    silence_s: float | None = None
    longest_epoch_s: float = 0.0
    clock: Callable[[], float] = time.monotonic
    _heard: dict[int, float] = field(default_factory=dict)
    _looked: float | None = None

    @property
    def patience_s(self) -> float:
        """Seconds of silence that are borne now."""
        if self.silence_s is not None:
            return self.silence_s
        return max(LEAST_S, EPOCHS * self.longest_epoch_s) if self.longest_epoch_s else FIRST_EPOCH_S

    def started(self, trial: int) -> None:
        """An attempt of the trial begins."""
        self._heard[trial] = self.clock()

    def heard(self, trial: int) -> None:
        """The trial reported an epoch."""
        now = self.clock()
        if trial in self._heard:
            self.longest_epoch_s = max(self.longest_epoch_s, now - self._heard[trial])
            self._heard[trial] = now

    def ended(self, trial: int) -> None:
        """The attempt is over."""
        self._heard.pop(trial, None)

    def hung(self) -> list[int]:
        """Trials whose silence is no longer borne; each is named until it has ended."""
        now = self.clock()
        asleep = 0.0 if self._looked is None else now - self._looked
        self._looked = now
        if asleep > ASLEEP_S:  # it was the driver that stood still; what was said lies in the queue
            self._heard = {trial: moment + asleep for trial, moment in self._heard.items()}
        return [trial for trial, moment in self._heard.items() if now - moment > self.patience_s]
