"""What each trial of a run gets, and how many trials a cluster has room for."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, Self

from evolve.run_state import RunState
from evolve.space import EvolveError


@dataclass(frozen=True)
class Resources:
    """What each trial gets, and how many run at once.

    Attributes:
        cpus: CPUs per trial, and its number of threads; over 0.
        gpus: GPUs per trial, all on one node; a fraction lets trials share one.
        concurrent: Most trials at once; None takes what the cluster holds.
        retries: How often a trial whose worker died, hung or raised is started again.
        address: Ray cluster to join; None starts one on this machine.
        silence_s: Seconds without an epoch after which a trial is taken for hung; None for ten times the longest.
    """

    cpus: float = 1.0
    gpus: float = 0.0
    concurrent: int | None = None
    retries: int = 2
    address: str | None = None
    silence_s: float | None = None

    def __post_init__(self) -> None:
        if self.cpus <= 0:
            raise EvolveError(f"cpus > 0 must hold, but got {self.cpus:g}")
        if self.gpus < 0 or (self.gpus > 1 and self.gpus != int(self.gpus)):
            raise EvolveError(f"gpus must be a fraction of one or a whole number, but got {self.gpus:g}")
        if self.concurrent is not None and self.concurrent < 1:
            raise EvolveError(f"concurrent >= 1 must hold, but got {self.concurrent}")
        if self.retries < 0:
            raise EvolveError(f"retries >= 0 must hold, but got {self.retries}")
        if self.silence_s is not None and self.silence_s <= 0:
            raise EvolveError(f"silence > 0 must hold, but got {self.silence_s:g} s")

    def to_dict(self) -> dict[str, Any]:
        """The same as plain data."""
        return asdict(self)

    @classmethod
    def of(cls, state: RunState) -> Self:
        """Those of a run as its journal has them; a key that is not known here is left out.

        Raises:
            EvolveError: They make no sense.
        """
        known = {field.name for field in fields(cls)}
        return cls(**{key: value for key, value in state.resources.items() if key in known})

    def room(self, nodes: Sequence[Mapping[str, float]]) -> int:
        """How many trials run at once on these nodes; a trial never spans two.

        Args:
            nodes: What each holds ("CPU", "GPU").
        """
        fits = sum(self._fit(node) for node in nodes)
        return min(fits, fits if self.concurrent is None else self.concurrent)

    def _fit(self, node: Mapping[str, float]) -> int:
        fits = int(node.get("CPU", 0.0) / self.cpus + 1e-9)
        gpus = int(node.get("GPU", 0.0) + 1e-9)
        if self.gpus >= 1:
            return min(fits, gpus // int(self.gpus))
        # A fraction of a GPU is never made up of two GPUs' rests.
        return min(fits, gpus * int(1 / self.gpus + 1e-9)) if self.gpus else fits

    def slots(self, nodes: Sequence[Mapping[str, float]]) -> int:
        """The same as `room`, for a cluster that must have some.

        Raises:
            EvolveError: Not even one trial fits.
        """
        room = self.room(nodes)
        if room < 1:
            most = [max((node.get(kind, 0.0) for node in nodes), default=0.0) for kind in ("CPU", "GPU")]
            raise EvolveError(
                f"a trial asks for {self.cpus:g} CPUs and {self.gpus:g} GPUs on one node, but the cluster has at "
                f"most {most[0]:g} CPUs and {most[1]:g} GPUs on one: ask for less"
            )
        return room
