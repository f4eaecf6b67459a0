"""Pascal VOC: one XML file per image under ``Annotations``, split lists under ``ImageSets/Main``.

Corners are taken as they are written, as edges in px: xmax − xmin is the width. (The 2012 development kit counts
pixels from 1, but the tools that write most VOC files today do not; the difference is one pixel.)
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree.ElementTree import Element, ParseError, TreeBuilder

import numpy as np
from defusedxml.common import DefusedXmlException
from defusedxml.ElementTree import DefusedXMLParser

from dataset.dataset import DataError
from dataset.parallel import MapFiles, map_parts
from dataset.sources import (
    IMAGE_SUFFIXES,
    UNSPLIT,
    Fault,
    Item,
    RawImage,
    RawSet,
    Survey,
    read_lines,
    read_number,
)

_IMAGE_FOLDERS = ("JPEGImages", "images", "img", "Images", "Annotations", ".")
_CLASS_FILES = ("classes.txt", "labels.txt", "Annotations/classes.txt", "predefined_classes.txt")
_CORNERS = ("xmin", "ymin", "xmax", "ymax")


def survey_folder(folder: Path) -> Survey | None:
    """The VOC data set in a folder, None if there is no ``Annotations`` folder with XML files in it."""
    annotations = {path.stem: path for path in sorted((folder / "Annotations").glob("*.xml"))}
    if not annotations:
        return None
    images = _list_images(folder)
    faults: list[Fault] = []
    stems = _read_lists(folder / "ImageSets" / "Main", faults)
    if not stems:
        stems = [(UNSPLIT, stem) for stem in annotations]
    missing = folder / "JPEGImages"
    items = [
        Item(split, images.get(stem) or missing / f"{stem}.jpg", annotations.get(stem))
        for split, stem in stems
    ]
    classes = next((folder / name for name in _CLASS_FILES if (folder / name).is_file()), None)
    names = tuple(line for _, line in read_lines(classes)) if classes else None
    return Survey("voc", folder.name, folder, folder, names or None, tuple(items), faults=tuple(faults))


def _list_images(folder: Path) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for name in _IMAGE_FOLDERS:
        place = folder / name
        for path in sorted(place.iterdir()) if place.is_dir() else ():
            if path.suffix.lower() in IMAGE_SUFFIXES:
                found.setdefault(path.stem, path)
    return found


def _read_lists(folder: Path, faults: list[Fault]) -> list[tuple[str, str]]:
    """(split, stem) of every image that the lists name; trainval only serves where there is no train list."""
    lists = {split: folder / f"{split}.txt" for split in ("train", "val", "test")}
    if not lists["train"].is_file():
        lists["train"] = folder / "trainval.txt"
    stems: dict[tuple[str, str], None] = {}
    for split, path in lists.items():
        for number, line in read_lines(path) if path.is_file() else ():
            stem, _, flag = line.rpartition(" ")  # lists of one class end in a flag
            key = (split, stem.strip() if stem and flag in {"1", "0", "-1"} else line)
            if key in stems:
                faults.append(Fault(path, number, f"image listed twice: {key[1]}", "read once"))
            stems[key] = None
    if lists["train"].name == "trainval.txt":  # it holds the images of val.txt too
        stems = {
            (split, stem): None for split, stem in stems if split != "train" or ("val", stem) not in stems
        }
    return list(stems)


class _LinedBuilder(TreeBuilder):
    """Builds the tree, and keeps the line on which each ``object`` starts."""

    parser: DefusedXMLParser

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[int] = []

    def start(self, tag: str, attrs: dict[str, str], /) -> Element:
        if tag == "object":
            self.lines.append(self.parser.parser.CurrentLineNumber)
        return super().start(tag, attrs)


def _parse(path: Path) -> tuple[Element, list[int]]:
    builder = _LinedBuilder()
    builder.parser = DefusedXMLParser(target=builder, forbid_dtd=True)
    builder.parser.feed(path.read_bytes())
    return builder.parser.close(), builder.lines


@dataclass(frozen=True)
class _Page:
    """What one XML file says, as plain data: it may come from another process.

    Attributes:
        item: The image.
        boxes: Class name and corners (NaN where a number is missing) of each object.
        difficult: Which of them are called so.
        marks: Their lines, -1 where they can't be told.
        said_wh: Width and height that the file claims.
    """

    item: Item
    boxes: tuple[tuple[str, list[float]], ...]
    marks: tuple[int, ...]
    said_wh: tuple[int, int] | None
    difficult: tuple[bool, ...]


def read_labels(survey: Survey, map_files: MapFiles | None = None) -> RawSet:
    """The boxes of every image that a survey lists.

    Args:
        survey: Images and XML files.
        map_files: As `dataset.load` has it.

    Raises:
        DataError: A file declares a document type or entities, as XML bombs do.
    """
    parts = map_parts(_read_part, survey.items, map_files)
    raw = RawSet((), (), pixels=True, faults=[fault for _, faults in parts for fault in faults])
    pages = [page for found, _ in parts for page in found]
    names = survey.names
    if names is None:
        names = tuple(sorted({name for page in pages for name, _ in page.boxes if name}))
        raw.notes.append("class names are those of the XML files, in alphabetical order")
    ids = {name: float(index) for index, name in enumerate(names)}
    images = []
    for page in pages:
        item, label = page.item, page.item.label or page.item.image
        known, marks, regions = [], [], []
        ignored = page.difficult if survey.difficult == "ignore" else (False,) * len(page.boxes)
        for (name, corners), mark, is_ignored in zip(page.boxes, page.marks, ignored, strict=True):
            if name and name not in ids:
                what = f"class out of range: {name} is not among the {len(ids)} class names"
                raw.faults.append(Fault(label, mark if mark > 0 else None, what, "refused", fatal=True))
            elif is_ignored:
                regions.append([ids.get(name, float("nan")), *corners])
            else:
                known.append([ids.get(name, float("nan")), *corners])
                marks.append(mark)
        rows, areas = (np.array(table, dtype=np.float64).reshape(-1, 5) for table in (known, regions))
        images.append(
            RawImage(item.split, item.image, label, rows, tuple(marks), page.said_wh, regions=areas)
        )
    left_out = sum(len(image.regions) for image in images)
    if left_out:
        what = "1 difficult object is" if left_out == 1 else f"{left_out} difficult objects are"
        raw.notes.append(f"{what} not learnt; in an evaluation detections of them do not count")
    return RawSet(names, tuple(images), pixels=True, faults=raw.faults, notes=raw.notes)


def _read_part(items: Sequence[Item]) -> tuple[list[_Page], list[Fault]]:
    """The XML files of some images, and what is wrong with them."""
    pages, faults = list[_Page](), list[Fault]()
    for item in items:
        if item.label is None:
            pages.append(_Page(item, (), (), None, ()))
            continue
        try:
            root, lines = _parse(item.label)
        except DefusedXmlException as error:
            raise DataError(
                f"{item.label} declares a document type or entities and is refused: remove them"
            ) from error
        except (OSError, ParseError, ValueError) as error:
            line = getattr(error, "position", (None,))[0]
            faults.append(Fault(item.label, line, f"unreadable label file: {error}", "image left out"))
            continue
        found = root.findall("object")
        boxes = tuple((_name(box), _corners(box)) for box in found)
        difficult = tuple((box.findtext("difficult") or "").strip() == "1" for box in found)
        # A count that differs means objects within objects: then no line can be told.
        marks = tuple(lines) if len(lines) == len(boxes) else (-1,) * len(boxes)
        pages.append(_Page(item, boxes, marks, _said_size(root), difficult))
    return pages, faults


def _name(box: Element) -> str:
    return (box.findtext("name") or "").strip()


def _corners(box: Element) -> list[float]:
    return [read_number((box.findtext(f"bndbox/{corner}") or "").strip()) for corner in _CORNERS]


def _said_size(root: Element) -> tuple[int, int] | None:
    width, height = (
        read_number((root.findtext(f"size/{side}") or "").strip()) for side in ("width", "height")
    )
    plausible = 0 < width < 1 << 24 and 0 < height < 1 << 24
    return (round(width), round(height)) if plausible else None
