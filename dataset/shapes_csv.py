"""Box shapes from a CSV: for sets of which nobody has the images at hand."""

import csv
import gzip
import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dataset.dataset import DataError

_WIDTHS = ("box_w", "w", "width")
_HEIGHTS = ("box_h", "h", "height")
_SUFFIXES = (".csv", ".csv.gz")


@dataclass(frozen=True, eq=False)
class ShapeTable:
    """Box shapes of a CSV.

    Attributes:
        wh: (N, 2) px as they stand in the file.
        longer: (N,) px, the longer side of each box's image; None where the file has no image sizes.
        classes: (N,) class ids, 0 where the file has none.
    """

    wh: NDArray[np.float64]
    longer: NDArray[np.float64] | None
    classes: NDArray[np.intp]

    def shapes(self, image_size: int) -> NDArray[np.float64]:
        """(N, 2) px with each image's longer side scaled to `image_size`; as they stand without image sizes."""
        return self.wh if self.longer is None else self.wh * (image_size / self.longer[:, None])


def is_shape_table(source: str) -> bool:
    """Whether a source is named like a CSV."""
    return source.lower().endswith(_SUFFIXES)


def load_shapes(path: Path) -> ShapeTable:
    """Read a CSV whose first line names its columns; gzipped ones too.

    Columns: ``box_w`` and ``box_h`` (or ``w``, ``h``; ``width``, ``height``) in px, ``image_width`` and
    ``image_height`` where boxes are to be scaled as training scales their images, and ``class_id``. Others are not
    read.

    Raises:
        DataError: It cannot be read, has no such columns, or a row is no box.
    """
    try:
        raw = path.read_bytes()
        text = (gzip.decompress(raw) if path.suffix == ".gz" else raw).decode("utf-8-sig")
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read as a CSV: {error}") from error
    head, _, body = text.partition("\n")
    names = [name.strip().lower() for name in next(csv.reader([head]), [])]
    chosen = [_find(path, names, options) for options in (_WIDTHS, _HEIGHTS)]
    has_images = {"image_width", "image_height"} <= set(names)
    chosen += [names.index(name) for name in ("image_width", "image_height") if has_images]
    chosen += [names.index("class_id")] if "class_id" in names else []
    try:
        table = (
            np.loadtxt(io.StringIO(body), delimiter=",", usecols=chosen, ndmin=2, quotechar='"')
            if body.strip()
            else np.zeros((0, len(chosen)))
        )
    except ValueError as error:
        raise DataError(f"{path}: a row is not one of numbers ({error})") from error
    _check_rows(path, table[:, : 4 if has_images else 2])
    return ShapeTable(
        wh=table[:, :2],
        longer=table[:, 2:4].max(axis=1) if has_images else None,
        classes=table[:, -1].astype(np.intp) if "class_id" in names else np.zeros(len(table), dtype=np.intp),
    )


def _find(path: Path, names: list[str], options: tuple[str, ...]) -> int:
    for option in options:
        if option in names:
            return names.index(option)
    raise DataError(
        f"{path}:1 must name a column {options[0]} (or {', '.join(options[1:])}), but has {', '.join(names)[:80]}"
    )


def _check_rows(path: Path, sides: NDArray[np.float64]) -> None:
    if not len(sides):
        raise DataError(f"{path} must hold boxes, but has none")
    good = (np.isfinite(sides) & (sides > 0)).all(axis=1)
    if not good.all():
        row = int((~good).argmax())
        raise DataError(
            f"{path}: sides must be finite and greater than 0 px, but row {row + 1} has {sides[row].tolist()}"
        )
