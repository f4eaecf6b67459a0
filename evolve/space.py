"""The space that genes span: what a search may change, and by how much.

A search works in the encoded space, where every gene is a number in [0, 1]; a trial is given the decoded values.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from evolve.gene import EvolveError, Gene, SpaceError, Value, unknown_name

# Genes have a file of their own for its size; whoever builds a space needs them.
__all__ = ["EvolveError", "Gene", "Space", "SpaceError", "Value", "unknown_name"]


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
            SpaceError: there is no gene, two have one name, or a condition names no gene above.
        """
        object.__setattr__(self, "genes", tuple(genes))
        if not self.genes:
            raise SpaceError("a space must have a gene, but got none")
        seen: set[str] = set()
        for gene in self.genes:
            if gene.name in seen:
                raise SpaceError(f"genes must have different names, but got {gene.name!r} twice")
            self._check_condition(gene, seen)
            seen.add(gene.name)

    def _check_condition(self, gene: Gene, above: set[str]) -> None:
        if gene.when is None:
            return
        other, values = gene.when
        if other not in above:
            raise SpaceError(f"gene {gene.name}: when must name a gene above it, but got {other!r}")
        for value in values:
            self[other].check(value)

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
    def start(self) -> dict[str, Value]:
        """The configuration where a search begins."""
        return {gene.name: gene.first for gene in self.genes}

    @property
    def cells(self) -> float:
        """How many configurations there are at most: infinite with a gene of real numbers."""
        return math.prod(gene.cells for gene in self.genes)

    @property
    def unordered(self) -> NDArray[np.bool_]:
        """Which genes (D,) are choices, so that a step or a mean of two says nothing."""
        return np.array([bool(gene.choices) for gene in self.genes], dtype=np.bool_)

    def check(self, config: Mapping[str, object]) -> dict[str, Value]:
        """Give back a configuration as plain values in the order of the genes.

        Raises:
            SpaceError: a gene is missing or unknown (with the nearest name), or a value is outside its range.
        """
        for name in config:
            self[name]
        missing = [name for name in self.names if name not in config]
        if missing:
            raise SpaceError(f"a configuration must have every gene, but {', '.join(missing)} is missing")
        return {gene.name: gene.check(config[gene.name]) for gene in self.genes}

    def encode(self, config: Mapping[str, Value]) -> NDArray[np.float64]:
        """Map a configuration to its point (D,) in [0, 1], in the order of the genes.

        Raises:
            SpaceError: as `check`.
        """
        checked = self.check(config)
        return np.array([gene.encode(checked[gene.name]) for gene in self.genes])

    def decode(self, unit: ArrayLike) -> dict[str, Value]:
        """Map a point (D,) in [0, 1] to its configuration; a gene whose condition does not hold is at its start.

        Raises:
            SpaceError: the shape is not (D,), or a coordinate is outside [0, 1].
        """
        point = np.asarray(unit, dtype=np.float64)
        if point.shape != (len(self),):
            raise SpaceError(f"an encoded point must have the shape ({len(self)},), but got {point.shape}")
        config: dict[str, Value] = {}
        resting: set[str] = set()
        for gene, coordinate in zip(self.genes, point.tolist(), strict=True):
            if gene.when and (gene.when[0] in resting or config[gene.when[0]] not in gene.when[1]):
                resting.add(gene.name)
            config[gene.name] = gene.first if gene.name in resting else gene.decode(coordinate)
        return config

    def features(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        """What a model of the fitness sees of points (N, D): columns (N, F) in [0, 1].

        A range is its own column; of a gene of choices each choice is a column, 1 where it is taken, so that all
        choices are equally far from each other.
        """
        if not self.unordered.any():
            return points
        columns = []
        for index, gene in enumerate(self.genes):
            if gene.choices:
                taken = np.minimum((points[:, index] * len(gene.choices)).astype(int), len(gene.choices) - 1)
                columns.append(np.eye(len(gene.choices))[taken])
            else:
                columns.append(points[:, [index]])
        return np.hstack(columns)

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
