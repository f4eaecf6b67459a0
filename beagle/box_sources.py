"""The boxes that anchors are fitted to: of one data set or several, with weights, or of CSV files."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from beagle.folders import CommandError
from dataset import Dataset, load
from dataset.parallel import MapFiles
from dataset.shapes_csv import ShapeTable, is_shape_table, load_shapes


@dataclass(frozen=True, eq=False)
class Source:
    """One of the sources.

    Attributes:
        name: As the user named it.
        content: What was read.
        names: Class names; empty where the source has none.
    """

    name: str
    content: Dataset | ShapeTable
    names: tuple[str, ...]

    def shapes(self, image_size: int) -> NDArray[np.float64]:
        """(N, 2) px of the training boxes."""
        return self.content.shapes(image_size)

    def classes(self) -> NDArray[np.intp]:
        """(N,) class ids."""
        if isinstance(self.content, ShapeTable):
            return self.content.classes
        labels = [rows[:, 0] for rows in self.content.train.labels]
        return np.concatenate(labels).astype(np.intp) if labels else np.zeros(0, dtype=np.intp)

    def places(self) -> list[str]:
        """Where each box comes from: its image, or its line of the CSV."""
        if isinstance(self.content, ShapeTable):
            return [f"{self.name}:{number}" for number in range(2, len(self.content.wh) + 2)]
        split = self.content.train
        return [str(path) for path, rows in zip(split.images, split.labels, strict=True) for _ in rows]


@dataclass(frozen=True, eq=False)
class Boxes:
    """All boxes of a fit.

    Attributes:
        sources: Where they come from, in order.
        image_size: px.
        wh: (N, 2) px at the image size.
        weights: (N,), or None where all boxes count alike.
        classes: (N,) class ids.
        names: Class names.
    """

    sources: tuple[Source, ...]
    image_size: int
    wh: NDArray[np.float64]
    weights: NDArray[np.float64] | None
    classes: NDArray[np.intp]
    names: tuple[str, ...]

    def places(self) -> list[str]:
        """Where each box comes from."""
        return [place for source in self.sources for place in source.places()]


def read_sources(
    data: Sequence[str], note: Callable[[str], None], map_files: MapFiles | None = None
) -> tuple[Source, ...]:
    """Read every source.

    Raises:
        DataError: One can't be read.
    """
    found = []
    for name in data:
        if is_shape_table(name):
            found.append(Source(name, load_shapes(Path(name).expanduser()), ()))
            continue
        dataset = load(name, map_files=map_files)
        for line in dataset.notes:
            note(line)
        found.append(Source(name, dataset, dataset.names))
    return tuple(found)


def gather_boxes(sources: tuple[Source, ...], weights: Sequence[float], image_size: int) -> Boxes:
    """The training boxes of all sources.

    Args:
        sources: At least one.
        weights: What each source counts as a whole; empty: every box counts alike.
        image_size: px.

    Raises:
        CommandError: Not one weight for each source, or one that is not greater than 0.
    """
    if weights and len(weights) != len(sources):
        raise CommandError(
            f"--weight must be said for each of {len(sources)} data sets, but got {len(weights)}"
        )
    if any(not 0 < weight < np.inf for weight in weights):
        raise CommandError(f"--weight must be greater than 0, but got {', '.join(map(str, weights))}")
    shapes = [source.shapes(image_size) for source in sources]
    names = max((source.names for source in sources), key=len)
    classes = np.concatenate([source.classes() for source in sources])
    share = None
    if weights:
        each = [
            np.full(len(wh), weight / max(len(wh), 1)) for wh, weight in zip(shapes, weights, strict=True)
        ]
        share = np.concatenate(each)
    return Boxes(sources, image_size, np.concatenate(shapes), share, classes, names)
