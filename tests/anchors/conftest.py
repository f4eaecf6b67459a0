"""Shapes that the tests of this room share."""

import csv
import gzip
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@pytest.fixture(scope="session")
def people() -> Floats:
    """3,000 shapes in two crowds and a thin spread, as detection data has them: (3000, 2) px."""
    rng = np.random.default_rng(11)
    logs = np.concatenate(
        [
            rng.normal([3.0, 3.8], [0.5, 0.5], size=(1800, 2)),
            rng.normal([4.8, 5.2], [0.4, 0.5], size=(900, 2)),
            rng.uniform([1.5, 1.5], [6.2, 6.2], size=(300, 2)),
        ]
    )
    return np.exp(logs)


@pytest.fixture(scope="session")
def label_set(shared: Path) -> Callable[[str], Floats]:
    """Reads a real label set by name: (N, 2) px, longer image side 640."""

    def read(name: str) -> Floats:
        with gzip.open(shared / "data" / "labels" / f"{name}.csv.gz", "rt", newline="") as file:
            rows = [
                [float(row[key]) for key in ("image_width", "image_height", "box_w", "box_h")]
                for row in csv.DictReader(file)
            ]
        table = np.array(rows)
        return table[:, 2:] * (640 / table[:, :2].max(axis=1, keepdims=True))

    return read
