"""COCO json: one file per split with ``images``, ``annotations`` (boxes x, y, w, h in px) and ``categories``."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from dataset.dataset import DataError
from dataset.polygons import Rings
from dataset.sources import UNSPLIT, Fault, RawImage, RawSet, Survey, load_json, read_number, split_of

_IMAGE_FOLDERS = ("img", "images", "JPEGImages", "Images", "imgs", "data")
_PATTERNS = ("instances_*.json", "*.json")
_BOX = 4

_Row = tuple[list[float], int, Rings]
_Rows = dict[str, list[_Row]]


def survey_file(path: Path) -> Survey:
    """The data set in one annotation file, whose images are then divided into train and val."""
    return Survey("coco", path.stem, path, path.parent, files=((UNSPLIT, path),))


def survey_folder(folder: Path) -> Survey | None:
    """The COCO data set in a folder, None if there is no such file.

    Files are looked for as ``annotations/instances_*.json``, ``train.json`` and the like, and in each split's folder.
    """
    places = [folder / "annotations", folder]
    files = next((found for place in places if (found := _list_files(place))), None)
    if not files:
        parts = sorted(path for path in folder.iterdir() if path.is_dir() and split_of(path.name))
        files = [(split_of(path.name), file) for path in parts for file in sorted(path.glob("*coco*.json"))]
    if not files:
        return None
    return Survey("coco", folder.name, folder, folder, files=tuple(files))


def _list_files(folder: Path) -> list[tuple[str, Path]]:
    for pattern in _PATTERNS:
        files = [(split_of(path.stem), path) for path in sorted(folder.glob(pattern))]
        split = [(name, path) for name, path in files if name]
        if split:
            return split
        if files and (pattern != "*.json" or "coco" in files[0][1].stem or "annot" in files[0][1].stem):
            return files[:1]
    return []


def read_labels(survey: Survey) -> RawSet:
    """The boxes of all images of a survey's files; crowd boxes, which mark many objects, become regions.

    Raises:
        DataError: A file is no COCO json, or two files disagree on what a category id means.
    """
    contents = [(split, path, _load(path)) for split, path in survey.files]
    categories: dict[int, str] = {}
    for _, path, content in contents:
        _add_categories(path, content, categories)
    classes = {identity: index for index, identity in enumerate(sorted(categories))}
    names = tuple(categories[identity] for identity in sorted(categories))
    faults: list[Fault] = []
    images: list[RawImage] = []
    for split, path, content in contents:
        images += _read_split(split, path, content, classes, faults)
    notes = []
    regions = sum(len(image.regions) for image in images)
    if regions:
        what = "1 crowd box is" if regions == 1 else f"{regions} crowd boxes are"
        notes.append(f"{what} not learnt; in an evaluation detections in them do not count")
    if list(classes) != list(classes.values()) and list(classes) != [index + 1 for index in classes.values()]:
        notes.append(
            f"category ids {min(classes)}..{max(classes)} are renumbered 0..{len(classes) - 1} in their order"
        )
    return RawSet(names, tuple(images), pixels=True, listed=True, faults=faults, notes=notes)


def _load(path: Path) -> dict[str, Any]:
    content = load_json(path)
    keys = ("images", "annotations", "categories")
    if not isinstance(content, dict) or not all(isinstance(content.get(key), list) for key in keys):
        raise DataError(
            f"{path} must be a COCO json with the lists images, annotations and categories, but is not"
        )
    return content


def _add_categories(path: Path, content: dict[str, Any], categories: dict[int, str]) -> None:
    for index, category in enumerate(content["categories"]):
        identity = category.get("id") if isinstance(category, dict) else None
        if not isinstance(identity, int):
            raise DataError(f"{path}: categories[{index}] must have a whole-number id, but got {identity!r}")
        name = str(category.get("name", identity))
        if categories.setdefault(identity, name) != name:
            known = categories[identity]
            raise DataError(
                f"{path}: category {identity} must mean {known} as in the other files, but means {name}"
            )
    if not categories:
        raise DataError(f"{path} must name at least one category, but categories is empty")


class _ImageFinder:
    """Finds images by trying the folder of the last hit first; image folders are named differently everywhere."""

    def __init__(self, path: Path, split: str) -> None:
        parents = [path.parent, path.parent.parent]
        words = [path.stem.removeprefix("instances_"), split] if split else [path.stem]
        inner = [Path(name) for name in (*_IMAGE_FOLDERS, *words)]
        inner += [Path(name) / word for name in _IMAGE_FOLDERS for word in words]
        self._places = [path.parent, *(parent / name for parent in parents for name in inner), parents[1]]

    def find(self, name: str) -> Path:
        for index, place in enumerate(self._places):
            if (place / name).is_file():
                self._places.insert(0, self._places.pop(index))
                return place / name
        return self._places[0] / name


def _read_split(
    split: str, path: Path, content: dict[str, Any], classes: dict[int, int], faults: list[Fault]
) -> Iterator[RawImage]:
    rows, crowds = _gather_rows(path, content, classes, faults)
    finder = _ImageFinder(path, split)
    for index, image in enumerate(content["images"]):
        named = isinstance(image, dict) and isinstance(image.get("file_name"), str)
        if not named or image.get("id") is None:
            faults.append(
                Fault(path, None, f"bad row: images[{index}] has no file_name or no id", "left out")
            )
            continue
        marked = rows.get(_key(image.get("id")), [])
        array = np.array([row for row, _, _ in marked], dtype=np.float64).reshape(-1, 5)
        width, height = read_number(image.get("width")), read_number(image.get("height"))
        said_wh = (round(width), round(height)) if 0 < width < 1 << 24 and 0 < height < 1 << 24 else None
        marks = tuple(mark for _, mark, _ in marked)
        outlines = tuple(rings for _, _, rings in marked)
        outlines = outlines if any(outlines) else ()
        regions = [row for row, _, _ in crowds.get(_key(image.get("id")), [])]
        yield RawImage(
            split,
            finder.find(image["file_name"]),
            path,
            array,
            marks,
            said_wh,
            outlines,
            np.array(regions, dtype=np.float64).reshape(-1, 5),
        )


def _gather_rows(
    path: Path, content: dict[str, Any], classes: dict[int, int], faults: list[Fault]
) -> tuple[_Rows, _Rows]:
    """Rows (class, x1, y1, x2, y2) with their place in the list and their outlines, by image; and those of crowds."""
    identities = [image.get("id") for image in content["images"] if isinstance(image, dict)]
    rows: _Rows = {_key(one): [] for one in identities if one is not None}
    crowds: _Rows = {key: [] for key in rows}
    for index, annotation in enumerate(content["annotations"]):
        fault = _judge(annotation, rows, classes)
        if fault is not None:
            what, action = fault
            faults.append(Fault(path, None, f"{what} in annotations[{index}]", action, action == "refused"))
            continue
        x, y, w, h = (read_number(value) for value in annotation["bbox"])
        row = [float(classes[annotation["category_id"]]), x, y, x + w, y + h]
        target = crowds if annotation.get("iscrowd") == 1 else rows
        target[_key(annotation["image_id"])].append((row, index, _read_outline(annotation)))
    return rows, crowds


def _read_outline(annotation: dict[str, Any]) -> Rings:
    """The polygons of an annotation; none where it has a mask, or anything in them is no number."""
    polygons = annotation.get("segmentation")
    rings = []
    for polygon in polygons if isinstance(polygons, list) else []:
        if not isinstance(polygon, list) or len(polygon) < 6 or len(polygon) % 2:
            return ()
        ring = np.array([read_number(value) for value in polygon]).reshape(-1, 2)
        if not np.isfinite(ring).all():
            return ()
        rings.append(ring)
    return tuple(rings)


def _judge(annotation: object, images: dict[str, Any], classes: dict[int, int]) -> tuple[str, str] | None:
    """What is wrong with an annotation, and what is done about it."""
    if not isinstance(annotation, dict):
        return "bad row: no mapping", "dropped"
    box = annotation.get("bbox")
    if not isinstance(box, list) or len(box) != _BOX:
        return "bad row: no bbox of 4 numbers", "dropped"
    if _key(annotation.get("image_id")) not in images:
        return "bad row: unknown image_id", "dropped"
    category = annotation.get("category_id")
    if not isinstance(category, int) or category not in classes:
        return f"class out of range: category_id {category!r} is not among the categories", "refused"
    return None


def _key(identity: object) -> str:
    return repr(identity)  # ids may be numbers or text; 1 and "1" are different ids
