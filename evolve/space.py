"""Genes and the space they span: what a search may change, and by how much.

A search works in the encoded space, where every gene is a number in [0, 1]; a trial is given the decoded
values.
"""

import difflib
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

SIGNIFICANT_DIGITS = 5


class EvolveError(ValueError):
    """Base of what this room raises for a mistake that the user can mend."""


class SpaceError(EvolveError):
    """A gene or a configuration that cannot be."""


@dataclass(frozen=True)
class Gene:
    """One hyperparameter and its range.

    A decoded value has five significant digits (more where the range is narrow beside its values), so that
    what is printed, trained and exported is the same number. Bounds are given back exactly; an integer
    gene gives an int.

    Attributes:
        name: what the trial calls it.
        low: least value, in the gene's own unit.
        high: greatest value, more than `low`.
        start: where the search begins; None for a gene without a default, which then begins in the middle.
        log: the encoded scale is the logarithm of the value. A gene whose `low` is 0 is linear all the
            same, since the logarithm has no end there, and a gene that starts at 0 must be able to leave it.
        integer: whole numbers only, bounds included.
    """

    name: str
    low: float
    high: float
    start: float | None = None
    log: bool = False
    integer: bool = False

    def __post_init__(self) -> None:
        """Refuse what cannot be searched.

        Raises:
            SpaceError: a bound is not a finite number, `low < high` does not hold, a gene on a log scale
                goes below 0, an integer gene has a fraction, or the start is outside the bounds.
        """
        if not str(self.name).strip():
            raise SpaceError(f"a gene's name must be a word, but got {self.name!r}")
        self._number("low", self.low)
        self._number("high", self.high)
        if self.start is not None:
            self._number("start", self.start)
        if not self.low < self.high:
            raise SpaceError(
                f"gene {self.name}: low < high must hold, but got low={self.low}, high={self.high}"
            )
        if not math.isfinite(self.high - self.low):
            raise SpaceError(
                f"gene {self.name}: high - low must be finite, but got {self.low} to {self.high}"
            )
        if self.log and self.low < 0:
            raise SpaceError(f"gene {self.name}: low must be >= 0 on a log scale, but got low={self.low}")
        if self.start is not None and not self.low <= self.start <= self.high:
            raise SpaceError(
                f"gene {self.name}: start must be in [low, high], but got start={self.start} outside "
                f"[{self.low}, {self.high}]"
            )

    def _number(self, key: str, value: object) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise SpaceError(f"gene {self.name}: {key} must be a finite number, but got {value!r}")
        if self.integer and value != int(value):
            raise SpaceError(f"gene {self.name}: {key} must be a whole number, but got {value!r}")
        return float(value)

    @property
    def logarithmic(self) -> bool:
        """Whether the encoded scale is in fact the logarithm (asked for, and `low` above 0)."""
        return self.log and self.low > 0

    @property
    def first(self) -> float | int:
        """The value of the start configuration: `start`, or the middle of the encoded range."""
        if self.start is None:
            return self.decode(0.5)
        return int(self.start) if self.integer else float(self.start)

    def check(self, value: object) -> float | int:
        """Give back a value of this gene as a plain number.

        Raises:
            SpaceError: it is not a finite number in [low, high], or not whole where it must be.
        """
        number = self._number("value", value)
        if not self.low <= number <= self.high:
            raise SpaceError(
                f"gene {self.name}: value must be in [low, high], but got {value!r} outside [{self.low}, {self.high}]"
            )
        return int(number) if self.integer else number

    def encode(self, value: float) -> float:
        """Map a value in [low, high] to [0, 1].

        Raises:
            SpaceError: the value is outside the gene's range.
        """
        number = float(self.check(value))
        if self.logarithmic:
            low, high = math.log(self.low), math.log(self.high)
            unit = (math.log(number) - low) / (high - low)
        else:
            unit = (number - self.low) / (self.high - self.low)
        return min(max(unit, 0.0), 1.0)

    def decode(self, unit: float) -> float | int:
        """Map [0, 1] to a value, rounded to five significant digits; 0 and 1 give the bounds exactly.

        Raises:
            SpaceError: `unit` is outside [0, 1].
        """
        if not 0.0 <= unit <= 1.0:
            raise SpaceError(f"gene {self.name}: an encoded value must be in [0, 1], but got {unit!r}")
        if unit in (0.0, 1.0):
            bound = self.high if unit else self.low
            return int(bound) if self.integer else float(bound)
        if self.logarithmic:
            low, high = math.log(self.low), math.log(self.high)
            value = math.exp(low + (high - low) * float(unit))
        else:
            value = self.low + (self.high - self.low) * float(unit)
        # Rounding may step over a bound that has more digits than are kept.
        if self.integer:
            return int(min(max(round(value), self.low), self.high))
        return min(max(float(f"{value:.{self._digits}g}"), float(self.low)), float(self.high))

    @property
    def _digits(self) -> int:
        """Significant digits kept: more than five only for a range that is narrow beside its values."""
        widest = max(abs(self.low), abs(self.high)) / (self.high - self.low)
        return min(SIGNIFICANT_DIGITS + max(0, math.floor(math.log10(widest))), 17)

    def to_dict(self) -> dict[str, Any]:
        """Plain data that `Space.from_dict` reads back."""
        return {
            "name": self.name,
            "low": self.low,
            "high": self.high,
            "start": self.start,
            "log": self.log,
            "integer": self.integer,
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Read what `to_dict` wrote, or a person: start, log and integer may be left out.

        Raises:
            SpaceError: a key is missing or unknown, or the gene cannot be.
        """
        known = tuple(field.name for field in fields(cls))
        for key in data:
            if key not in known:
                raise SpaceError(f"gene {data.get('name')}: {unknown_name('key', key, known)}")
        for key in ("name", "low", "high"):
            if key not in data:
                raise SpaceError(f"gene {data.get('name')}: {key} must be given, but got only {sorted(data)}")
        return cls(**data)


@dataclass(frozen=True, init=False)
class Space:
    """Genes in a fixed order, with different names.

    >>> space = Space([Gene("lr0", 1e-5, 1e-1, start=0.01, log=True), Gene("mixup", 0, 1, start=0)])
    >>> space.start
    {'lr0': 0.01, 'mixup': 0.0}
    >>> space.decode([0.5, 0.25])
    {'lr0': 0.001, 'mixup': 0.25}

    Attributes:
        genes: in the order of the encoded vector.
    """

    genes: tuple[Gene, ...]

    def __init__(self, genes: Iterable[Gene]) -> None:
        """Take the genes in their order.

        Raises:
            SpaceError: there is no gene, or two have one name.
        """
        object.__setattr__(self, "genes", tuple(genes))
        if not self.genes:
            raise SpaceError("a space must have a gene, but got none")
        seen: set[str] = set()
        for gene in self.genes:
            if gene.name in seen:
                raise SpaceError(f"genes must have different names, but got {gene.name!r} twice")
            seen.add(gene.name)

    def __len__(self) -> int:
        return len(self.genes)

    def __getitem__(self, name: str) -> Gene:
        """Give the gene of this name; SpaceError with the nearest name where there is none."""
        for gene in self.genes:
            if gene.name == name:
                return gene
        raise SpaceError(unknown_name("gene", name, self.names))

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the genes, in order."""
        return tuple(gene.name for gene in self.genes)

    @property
    def start(self) -> dict[str, float | int]:
        """The configuration where a search begins."""
        return {gene.name: gene.first for gene in self.genes}

    @property
    def cells(self) -> float:
        """How many configurations there are: infinite with a gene that is not integer."""
        return math.prod(gene.high - gene.low + 1 if gene.integer else math.inf for gene in self.genes)

    def check(self, config: Mapping[str, object]) -> dict[str, float | int]:
        """Give back a configuration as plain numbers in the order of the genes.

        Raises:
            SpaceError: a gene is missing or unknown (with the nearest name), or a value is outside its range.
        """
        for name in config:
            self[name]
        missing = [name for name in self.names if name not in config]
        if missing:
            raise SpaceError(f"a configuration must have every gene, but {', '.join(missing)} is missing")
        return {gene.name: gene.check(config[gene.name]) for gene in self.genes}

    def encode(self, config: Mapping[str, float]) -> NDArray[np.float64]:
        """Map a configuration to its point (D,) in [0, 1], in the order of the genes.

        Raises:
            SpaceError: as `check`.
        """
        checked = self.check(config)
        return np.array([gene.encode(checked[gene.name]) for gene in self.genes])

    def decode(self, unit: ArrayLike) -> dict[str, float | int]:
        """Map a point (D,) in [0, 1] to its configuration.

        Raises:
            SpaceError: the shape is not (D,), or a coordinate is outside [0, 1].
        """
        point = np.asarray(unit, dtype=np.float64)
        if point.shape != (len(self),):
            raise SpaceError(f"an encoded point must have the shape ({len(self)},), but got {point.shape}")
        return {gene.name: gene.decode(u) for gene, u in zip(self.genes, point.tolist(), strict=True)}

    def to_dict(self) -> dict[str, Any]:
        """Plain data that `from_dict` reads back."""
        return {"genes": [gene.to_dict() for gene in self.genes]}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Read what `to_dict` wrote.

        Raises:
            SpaceError: the key `genes` is not there or not alone, or a gene cannot be.
        """
        if set(data) != {"genes"}:
            raise SpaceError(f"a space must have the one key genes, but got {sorted(data)}")
        return cls(Gene.from_dict(gene) for gene in data["genes"])


def unknown_name(what: str, name: object, known: Iterable[str]) -> str:
    """Say in words that a name is unknown, with the nearest known one."""
    names = list(known)
    near = difflib.get_close_matches(str(name), names, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(names)}"
    return f"{what} {name!r} is unknown; {hint}"
