"""An exponential moving average of a detector's weights: what is evaluated and exported."""

import copy
import math
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn

DetectorT = TypeVar("DetectorT", bound=nn.Module)

LIMIT = 0.9999
RAMP = 2000.0


def decay_at(update: int, share: float = 0.0) -> float:
    """Share of the old average that update number `update` (from 1) keeps: the larger of two, at most 0.9999.

    - `0.9999 (1 - exp(-u / 2000))`, as YOLOv5 has it: made for some 100,000 updates, and next to nothing in a
      training of 1,000, whose average then spans two updates;
    - `s u / (1 + s u)`: the average spans the newest share s of all updates so far, be they many or few.

    Source: Karras et al. 2024, "Analyzing and improving the training dynamics of diffusion models" (averages whose
    span grows with the training).
    """
    grown = share * update
    return max(LIMIT * (1.0 - math.exp(-update / RAMP)), min(grown / (1.0 + grown), LIMIT))


class MovingAverage(Generic[DetectorT]):
    """The averaged copy of a detector.

    Attributes:
        detector: The copy, in eval mode and without gradients.
        share: Of the updates so far that the average spans at least, see `decay_at`.
        updates: How many updates it has seen.
    """

    def __init__(self, detector: DetectorT, share: float = 0.0) -> None:
        self.detector = copy.deepcopy(detector).eval().requires_grad_(False)
        self.share = share
        self.updates = 0
        self._followed: nn.Module | None = None
        self._averaged: tuple[list[Tensor], list[Tensor]] = ([], [])
        self._copied: tuple[list[Tensor], list[Tensor]] = ([], [])

    @torch.no_grad()
    def update(self, detector: nn.Module) -> None:
        """Move towards a detector of the same shape: floating state is averaged, counters are copied.

        The host never waits for the device, and all tensors go in one call: a third of the cost of a loop for small
        detectors. The detector must stay on its device from one update to the next.
        """
        if self._followed is not detector:
            self._follow(detector)
        self.updates += 1
        torch._foreach_lerp_(*self._averaged, 1.0 - decay_at(self.updates, self.share))
        if self._copied[0]:
            torch._foreach_copy_(*self._copied)

    def _follow(self, detector: nn.Module) -> None:
        """Pair the tensors once: making a state dict for each update would cost more than the update."""
        own, current = self.detector.state_dict(), detector.state_dict()
        pairs = [(kept, current[name]) for name, kept in own.items()]
        floating = [pair for pair in pairs if pair[0].is_floating_point()]
        counters = [pair for pair in pairs if not pair[0].is_floating_point()]
        self._averaged = ([old for old, _ in floating], [new for _, new in floating])
        self._copied = ([old for old, _ in counters], [new for _, new in counters])
        self._followed = detector

    def state_dict(self) -> dict[str, Any]:
        """Weights and the count of updates."""
        return {"weights": self.detector.state_dict(), "updates": self.updates}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what `state_dict` gave."""
        self.detector.load_state_dict(state["weights"])
        self.updates = int(state["updates"])
