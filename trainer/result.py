"""What a training gives back: plain frozen data."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, kw_only=True)
class TrainResult:
    """What a training came to. A training that diverged is a result too.

    Attributes:
        fitness: 0.1 · map50 + 0.9 · map50_95 of the best epoch; None when diverged.
        metrics: The report of the best epoch; empty when there is none.
        history: One report per epoch that was finished.
        epochs: Epochs that were finished.
        best_epoch: Its index from 0; None when no epoch was finished.
        anchors: px, nested list (levels, per level, 2), as the detector was built with.
        best: Checkpoint of the best epoch; not there when no epoch was finished.
        last: Checkpoint of the last epoch; likewise.
        seconds: Wall-clock time of all epochs, those before a resume included.
        status: "finished" or "diverged".
        reason: Why it diverged, else None.
        notes: What was decided or mended on the way, one line each.
    """

    fitness: float | None
    metrics: dict[str, float]
    history: list[dict[str, float]]
    epochs: int
    best_epoch: int | None
    anchors: list[list[list[float]]]
    best: Path
    last: Path
    seconds: float
    status: str
    reason: str | None = None
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Plain data that JSON can hold."""
        return asdict(self) | {"best": str(self.best), "last": str(self.last), "notes": list(self.notes)}
