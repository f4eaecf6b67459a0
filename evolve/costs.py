"""What a trial costs beside its fitness, as objectives of their own: their names, and how they are read."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from evolve.gene import EvolveError, unknown_name

FITNESS = "fitness"
COSTS: Mapping[str, str] = {
    "latency": "ms an image, the fused model alone, one image at a time on the trial's device",
    "parameters": "trainable parameters",
}
UNITS: Mapping[str, str] = {FITNESS: "", "latency": "ms", "parameters": ""}


def check_objectives(names: Sequence[str]) -> tuple[str, ...]:
    """Names of objectives, fitness first.

    Raises:
        EvolveError: One is unknown or said twice, fitness is not among them, or there is no other.
    """
    for name in names:
        if name != FITNESS and name not in COSTS:
            raise EvolveError(unknown_name("objective", name, (FITNESS, *COSTS)))
    if len(set(names)) < len(names):
        raise EvolveError(f"each objective must be said once, but got {', '.join(names)}")
    if FITNESS not in names or len(names) < 2:
        raise EvolveError(f"objectives must be {FITNESS} and others, but got {', '.join(names) or 'none'}")
    return (FITNESS, *(name for name in names if name != FITNESS))


def objectives_of(header: Mapping[str, Any]) -> tuple[str, ...]:
    """The objectives of a run; empty where fitness alone counts."""
    return tuple((header.get("search") or {}).get("objectives") or ())


def costs_of(result: Mapping[str, Any]) -> dict[str, float]:
    """What a trial's result says that it cost; what is no number is left out."""
    costs = result.get("costs")
    numbers = costs.items() if isinstance(costs, Mapping) else ()
    return {name: float(value) for name, value in numbers if isinstance(value, int | float)}


def gains(fitness: float | None, costs: Mapping[str, float], names: Sequence[str]) -> list[float] | None:
    """All objectives such that more is better; None where one is missing or no number."""
    values = [fitness if name == FITNESS else _negative(costs.get(name)) for name in names]
    known = [value for value in values if value is not None and math.isfinite(value)]
    return known if len(known) == len(names) else None


def _negative(value: float | None) -> float | None:
    return None if value is None else -value
