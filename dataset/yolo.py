"""YOLO txt: one text file per image, one row ``class cx cy w h`` per box, normalised by the image's width and height.

Layouts: a data.yaml whose entries are folders or list files, and folders without one (``images/`` and ``labels/``,
with ``train.txt`` lists or split folders if there are any). A row of a class and three points or more is a segment:
an outline, and the box around it.
"""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dataset.dataset import DataError
from dataset.parallel import MapFiles, map_parts
from dataset.polygons import Rings
from dataset.sources import (
    IMAGE_SUFFIXES,
    SPLIT_WORDS,
    UNSPLIT,
    Fault,
    Item,
    RawImage,
    RawSet,
    Survey,
    list_images,
    load_yaml,
    read_lines,
    split_of,
)

_CLASS_FILES = ("labels/classes.txt", "classes.txt", "obj.names", "names.txt", "labels/names.txt")
_MOST_UNNAMED = 10_000  # a class id above this is a mistake, not a name that nobody wrote down
_DROPPED = "dropped"
_PLAIN = 1e100  # numbers beyond are judged one by one


class _LabelFinder:
    """Finds label files by listing each folder once, which is far cheaper than asking for each file."""

    def __init__(self) -> None:
        self._listed: dict[Path, list[tuple[Path, frozenset[str]]]] = {}

    def find(self, image: Path) -> Path | None:
        """The label file of an image: under ``labels`` in place of ``images``, or else beside the image."""
        parent, name = image.parent, f"{image.stem}.txt"
        if parent not in self._listed:
            self._listed[parent] = [(folder, _list_names(folder)) for folder in _label_folders(parent)]
        return next((folder / name for folder, names in self._listed[parent] if name in names), None)


def _label_folders(parent: Path) -> Iterator[Path]:
    parts = parent.parts
    if "images" in parts:
        last = len(parts) - 1 - parts[::-1].index("images")
        yield Path(*parts[:last], "labels", *parts[last + 1 :])
    yield parent.parent / "labels"
    yield parent


def _list_names(folder: Path) -> frozenset[str]:
    return frozenset(path.name for path in folder.iterdir()) if folder.is_dir() else frozenset()


class _Collector:
    """Gathers the images of all splits, in order and once each."""

    def __init__(self) -> None:
        self.items: list[Item] = []
        self.faults: list[Fault] = []
        self._finder = _LabelFinder()

    def add(self, split: str, images: Iterable[tuple[Path, Fault]]) -> None:
        seen: set[Path] = {item.image for item in self.items if item.split == split}
        for image, twice in images:
            if image in seen:
                self.faults.append(twice)
                continue
            seen.add(image)
            self.items.append(Item(split, image, self._finder.find(image)))

    def add_folder(self, split: str, folder: Path) -> None:
        self.add(split, ((image, _twice(folder, None, image)) for image in list_images(folder)))

    def add_list(self, split: str, path: Path, roots: Iterable[Path]) -> None:
        bases = [path.parent, *roots, *(base / "images" for base in (path.parent, *roots))]
        lines = read_lines(path)
        self.add(split, ((_place(line, bases), _twice(path, number, Path(line))) for number, line in lines))


def _twice(file: Path, line: int | None, image: Path) -> Fault:
    return Fault(file, line, f"image listed twice: {image.name}", "read once")


def _place(line: str, bases: list[Path]) -> Path:
    # An absolute path swallows the base before it; one that exists nowhere is reported where it was looked for first.
    places = [base / line for base in bases]
    return next((place for place in places if place.is_file()), places[0])


def survey_yaml(path: Path) -> Survey:
    """The data set that a data.yaml describes.

    Keys: ``train``, ``val`` (or ``valid``, ``validation``), ``test``: a folder, a list file, or a list of both, below
    ``path`` (which itself is below the YAML's folder) or below the YAML's folder; ``names``: a list, or a map from id
    to name; ``nc``: their number. Other keys, ``download`` among them, are not acted on.

    Raises:
        DataError: A key is missing or says something impossible, or an entry does not exist.
    """
    content = load_yaml(path)
    folder = path.parent
    roots = [folder]
    if isinstance(content.get("path"), str):
        named = Path(content["path"])
        roots = list(dict.fromkeys([folder / named, named.absolute(), folder]))
    collector = _Collector()
    notes = []
    entries = {SPLIT_WORDS[key.lower()]: content[key] for key in content if key.lower() in SPLIT_WORDS}
    if not entries.get("train"):
        raise DataError(f"{path} must say where the training images are (train: FOLDER), but has no such key")
    for split, entry in entries.items():
        for one in entry if isinstance(entry, list) else [entry]:
            place = _find_entry(path, split, one, roots) if one else None
            if place is not None and place.is_dir():
                collector.add_folder(split, place)
            elif place is not None:
                collector.add_list(split, place, roots)
            elif one:
                notes.append(f"test: {one} does not exist and is left out")
    return Survey(
        kind="yolo",
        name=path.stem if path.stem not in {"data", "dataset"} else folder.name,
        source=path,
        root=folder,
        names=_read_names(path, content),
        items=tuple(collector.items),
        faults=tuple(collector.faults),
        notes=tuple(notes),
    )


def _find_entry(path: Path, split: str, entry: object, roots: list[Path]) -> Path | None:
    if not isinstance(entry, str):
        raise DataError(f"{path}: {split} must be a folder or a list file, but got {entry!r}")
    # Exports of some labelling services say ../train/images for what lies beside the YAML.
    inside = [root / entry.removeprefix("../") for root in roots]
    for place in [*(root / entry for root in roots), *inside]:
        if place.is_dir() or (place.is_file() and place.suffix.lower() not in IMAGE_SUFFIXES):
            return place
    if split == "test":
        return None  # the published YAML of many sets names a test folder that few people fetch
    raise DataError(
        f"{path}: {split} names {entry}, but there is no such folder or list file at {roots[0] / entry}"
    )


def _read_names(path: Path, content: dict[str, Any]) -> tuple[str, ...] | None:
    names, count = content.get("names"), content.get("nc")
    if isinstance(names, str):
        return _read_class_file(path.parent / names)
    if isinstance(names, dict):
        names = _order_names(path, names)
    if names is not None and (not isinstance(names, list) or not names):
        raise DataError(f"{path}: names must be a list or a map of class names, but got {names!r}")
    if count is not None and (isinstance(count, bool) or not isinstance(count, int) or count < 1):
        raise DataError(f"{path}: nc must be a positive whole number, but got {count!r}")
    if names is None:
        return tuple(str(index) for index in range(min(count, _MOST_UNNAMED))) if count else None
    if count is not None and count != len(names):
        raise DataError(f"{path}: nc must be the number of names ({len(names)}), but got {count}")
    return tuple(str(name) for name in names)


def _order_names(path: Path, names: dict[Any, Any]) -> list[Any]:
    by_id = {str(key): name for key, name in names.items()}
    ids = [str(index) for index in range(len(names))]
    if set(by_id) != set(ids):
        raise DataError(
            f"{path}: names must have the ids 0..{len(names) - 1}, but has {', '.join(by_id)[:80]}"
        )
    return [by_id[index] for index in ids]


def _read_class_file(path: Path) -> tuple[str, ...]:
    names = tuple(line for _, line in read_lines(path))
    if not names:
        raise DataError(f"{path} must hold one class name a line, but is empty")
    return names


def survey_folder(folder: Path) -> Survey | None:
    """The YOLO data set in a folder without a data.yaml, None if the folder does not look like one."""
    collector = _Collector()
    lists = {path: SPLIT_WORDS.get(path.stem.lower()) for path in sorted(folder.glob("*.txt"))}
    lists = {path: split for path, split in lists.items() if split}
    parts = {path: split_of(path.name) for path in sorted(folder.iterdir()) if path.is_dir()}
    parts = {path: split for path, split in parts.items() if split and (path / "images").is_dir()}
    images = folder / "images"
    if images.is_dir() and (lists or (folder / "labels").is_dir()):
        within = {path: split_of(path.name) for path in sorted(images.iterdir()) if path.is_dir()}
        for path, split in lists.items():
            collector.add_list(split or UNSPLIT, path, [folder])
        for path, split in within.items():
            if split and not lists:
                collector.add_folder(split, path)
        if not collector.items:
            collector.add_folder(UNSPLIT, images)
    elif parts:
        for path, split in parts.items():
            collector.add_folder(split, path / "images")
    else:
        return None
    classes = next((folder / name for name in _CLASS_FILES if (folder / name).is_file()), None)
    return Survey(
        kind="yolo",
        name=folder.name,
        source=folder,
        root=folder,
        names=_read_class_file(classes) if classes else None,
        items=tuple(collector.items),
        faults=tuple(collector.faults),
    )


def read_labels(survey: Survey, map_files: MapFiles | None = None) -> RawSet:
    """The label rows of every image that a survey lists. A row that cannot be read is left out and reported.

    Args:
        survey: What to read.
        map_files: Applies a function to each of many items, elsewhere where it likes; by default processes of this
            machine do, where there are enough files for that to help.
    """
    parts = map_parts(_read_part, survey.items, map_files)
    raw = RawSet(
        survey.names or (), (), pixels=False, faults=[fault for _, faults in parts for fault in faults]
    )
    images = [image for images, _ in parts for image in images]
    names = survey.names
    if names is None:
        highest = max((int(image.rows[:, 0].max()) for image in images if len(image.rows)), default=-1)
        names = tuple(str(index) for index in range(min(highest + 1, _MOST_UNNAMED)))
        raw.notes.append(f"no class names: {len(names)} classes are called by their ids")
    return RawSet(names, tuple(images), pixels=False, faults=raw.faults, notes=raw.notes)


def _read_part(items: Sequence[Item]) -> tuple[list[RawImage], list[Fault]]:
    """The label rows of some images, and what is wrong with them."""
    images, faults = list[RawImage](), list[Fault]()
    for item in items:
        try:
            rows, marks, outlines = (
                _read_rows(item.label, faults) if item.label else (np.zeros((0, 5)), (), ())
            )
        except DataError as error:
            faults.append(
                Fault(item.label or item.image, None, f"unreadable label file: {error}", "image left out")
            )
            continue
        label = item.label or item.image
        images.append(RawImage(item.split, item.image, label, rows, marks, outlines=outlines))
    return images, faults


def _read_rows(
    path: Path, faults: list[Fault]
) -> tuple[NDArray[np.float64], tuple[int, ...], tuple[Rings, ...]]:
    """Rows, their lines, and their outlines (empty when no row is a segment)."""
    lines = read_lines(path)
    boxes = _read_boxes([line for _, line in lines])
    if boxes is not None:
        return boxes, tuple(number for number, _ in lines), ()
    rows, marks, outlines = [], [], list[Rings]()
    for number, line in lines:
        try:
            row = np.array(line.split(), dtype=np.float64)
        except ValueError:
            faults.append(Fault(path, number, "bad row: it holds something that is not a number", _DROPPED))
            continue
        is_segment = len(row) >= 7 and len(row) % 2 == 1
        if len(row) != 5 and not is_segment:
            faults.append(
                Fault(path, number, f"bad row: 5 numbers are expected, but got {len(row)}", _DROPPED)
            )
        elif not np.isfinite(row).all():
            faults.append(Fault(path, number, "bad row: it holds NaN or infinity", _DROPPED))
        else:
            rows.append(_segment_to_corners(row) if is_segment else _box_to_corners(row))
            marks.append(number)
            outlines.append((row[1:].reshape(-1, 2),) if is_segment else ())
    table = np.array(rows, dtype=np.float64).reshape(-1, 5)
    return table, tuple(marks), tuple(outlines) if any(outlines) else ()


def _read_boxes(lines: Sequence[str]) -> NDArray[np.float64] | None:
    """All rows at once, where each is a box of five plain numbers, as in nearly every file; None elsewhere."""
    cells = [line.split() for line in lines]
    if any(len(row) != 5 for row in cells):
        return None
    try:
        table = np.array(cells, dtype=np.float64).reshape(-1, 5)
    except ValueError:
        return None
    if not (np.abs(table) < _PLAIN).all():
        return None
    corners = table.copy()
    half = table[:, 3:] / 2
    corners[:, 1:3], corners[:, 3:] = table[:, 1:3] - half, table[:, 1:3] + half
    return corners


def _box_to_corners(row: NDArray[np.float64]) -> NDArray[np.float64]:
    label, x, y, w, h = row.tolist()  # Python's numbers overflow to infinity without a warning
    return np.array([label, x - w / 2, y - h / 2, x + w / 2, y + h / 2])


def _segment_to_corners(row: NDArray[np.float64]) -> NDArray[np.float64]:
    x, y = row[1::2], row[2::2]
    return np.array([row[0], x.min(), y.min(), x.max(), y.max()])
