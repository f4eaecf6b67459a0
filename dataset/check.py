"""Every fault of a data set as a row: where it is, what is wrong, and what ``load`` does about it."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dataset.cache import Examined
from dataset.dataset import Split
from dataset.loading import examine
from dataset.mending import summarise
from dataset.sources import Fault

__all__ = ["CheckReport", "Fault", "SplitCount", "check"]


@dataclass(frozen=True)
class SplitCount:
    """How much a split holds, once faulty rows and images are left out.

    Attributes:
        images: Number of images.
        backgrounds: Number of images without a box.
        boxes: Number of boxes.
        classes: Number of boxes of each class, by name (equal names are told apart by their id), in the order of ids.
    """

    images: int
    backgrounds: int
    boxes: int
    classes: Mapping[str, int]


@dataclass(frozen=True)
class CheckReport:
    """What a data set holds and what is wrong with it.

    Attributes:
        name: The data set's name.
        source: Absolute path it was read from.
        names: Class names.
        counts: What each split holds, "train" first.
        faults: One row for each fault, in the order of reading.
        notes: What was decided (splits, names), and one line for each kind of fault: what ``load`` would note.
        fingerprint: See ``Dataset``.
    """

    name: str
    source: Path
    names: tuple[str, ...]
    counts: Mapping[str, SplitCount]
    faults: tuple[Fault, ...]
    notes: tuple[str, ...]
    fingerprint: str

    @property
    def fatal(self) -> tuple[Fault, ...]:
        """The faults for which ``load`` refuses the data set; empty when it loads."""
        return tuple(fault for fault in self.faults if fault.fatal)

    def to_dict(self) -> dict[str, Any]:
        """The report as plain data, for JSON."""
        return {
            "name": self.name,
            "source": str(self.source),
            "names": list(self.names),
            "counts": {split: asdict(count) for split, count in self.counts.items()},
            "faults": [asdict(fault) | {"file": str(fault.file)} for fault in self.faults],
            "notes": list(self.notes),
            "fingerprint": self.fingerprint,
        }


def check(source: str | Path, *, cache: bool = True) -> CheckReport:
    """Read a data set as ``load`` does and report every fault, the fatal ones included.

    Args:
        source: As for ``load``.
        cache: As for ``load``.

    Raises:
        DataError: The source cannot be read at all: no such file, no data set, a broken data.yaml or json.
    """
    examined = examine(source, cache=cache)
    return CheckReport(
        name=examined.name,
        source=examined.source,
        names=examined.names,
        counts={name: _count(split, _label_names(examined)) for name, split in examined.splits.items()},
        faults=examined.faults,
        notes=examined.notes + summarise(examined.faults, examined.root),
        fingerprint=examined.fingerprint,
    )


def _label_names(examined: Examined) -> list[str]:
    names = examined.names
    return [name if names.count(name) == 1 else f"{name} ({index})" for index, name in enumerate(names)]


def _count(split: Split, names: list[str]) -> SplitCount:
    rows = np.concatenate(split.labels)
    counts = np.bincount(rows[:, 0].astype(np.int64), minlength=len(names))
    return SplitCount(
        images=len(split),
        backgrounds=sum(not len(rows) for rows in split.labels),
        boxes=split.boxes,
        classes=dict(zip(names, counts.tolist(), strict=True)),
    )
