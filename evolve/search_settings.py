"""What steers the genetic search: numbers that are refused at birth."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Self

from evolve.space import EvolveError, unknown_name


class SearchError(EvolveError):
    """A search that is asked or told what cannot be."""


@dataclass(frozen=True)
class SearchSettings:
    """What steers the search; the defaults were chosen on the set `develop` of benchmarks/search.py.

    Attributes:
        initial: trials before the first child, the start included, >= 1.
        around: share of them that mutate the start instead of filling the whole space, [0, 1].
        parents: how many of the fittest may breed, >= 2.
        pressure: how much more often the fittest breed, >= 0; see `operators.select`.
        mutation: share of children that are mutants of one parent, [0, 1].
        crossover: share of children of two parents, [0, 1 - mutation]; the rest recombine several.
        extension: how far a child of two may lie beyond its parents, >= 0; see `operators.cross`.
        expansion: spread of recombined children against their parents', > 0; see `operators.recombine`.
        rate: probability that a gene mutates, (0, 1].
        step: standard deviation of a mutation at first, in the encoded space, (0, 1].
        least_step: what it may shrink to, (0, step]; it grows again to at most twice `step`.
        learning: how fast the step follows success (x e^learning) and failure to improve (x e^(-learning / 4)).
        spacing: children nearer than this to an open trial are bred again, [0, 1); root mean square over genes.
        children: bred for each trial, >= 0, among which a surrogate chooses one (see `evolve.screening`); 0 breeds
            without a surrogate, as `parents` to `spacing` say. With one, they hold until `initial` trials were asked.
        replicas: how often a leading configuration is tried at most before it is believed, >= 1.
    """

    initial: int = 12
    around: float = 0.5
    parents: int = 6
    pressure: float = 4.0
    mutation: float = 0.5
    crossover: float = 0.4
    extension: float = 0.4
    expansion: float = 1.0
    rate: float = 0.5
    step: float = 0.16
    least_step: float = 0.03
    learning: float = 0.3
    spacing: float = 0.01
    children: int = 300
    replicas: int = 3

    def __post_init__(self) -> None:
        """Refuse what makes no search.

        Raises:
            SearchError: a value is outside the range given above.
        """
        for item in fields(self):
            self._check_number(item.name, whole=item.name in ("initial", "parents", "children", "replicas"))
        rules = {
            "initial": self.initial >= 1,
            "around": 0 <= self.around <= 1,
            "parents": self.parents >= 2,
            "pressure": self.pressure >= 0,
            "mutation": 0 <= self.mutation <= 1,
            "crossover": 0 <= self.crossover <= 1 - self.mutation + 1e-9,
            "extension": self.extension >= 0,
            "expansion": self.expansion > 0,
            "rate": 0 < self.rate <= 1,
            "step": 0 < self.step <= 1,
            "least_step": 0 < self.least_step <= self.step,
            "learning": self.learning >= 0,
            "spacing": 0 <= self.spacing < 1,
            "children": self.children >= 0,
            "replicas": self.replicas >= 1,
        }
        for name, holds in rules.items():
            if not holds:
                raise SearchError(f"search setting {name} is out of its range: got {getattr(self, name)!r}")

    def _check_number(self, name: str, *, whole: bool) -> None:
        value = getattr(self, name)
        number = isinstance(value, int if whole else int | float) and not isinstance(value, bool)
        if not number or not math.isfinite(value):
            kind = "whole number" if whole else "finite number"
            raise SearchError(f"search setting {name} must be a {kind}, but got {value!r}")

    def to_dict(self) -> dict[str, Any]:
        """Plain data that `from_dict` reads back."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Read settings; what is left out takes its default.

        Settings written before there was a surrogate say nothing of `children`: they go on without one.

        Raises:
            SearchError: a key is unknown, or a value out of its range.
        """
        known = [item.name for item in fields(cls)]
        for key in data:
            if key not in known:
                raise SearchError(unknown_name("search setting", key, known))
        plain = {"children": 0, "replicas": 1} if "spacing" in data and "children" not in data else {}
        return cls(**{**plain, **data})
