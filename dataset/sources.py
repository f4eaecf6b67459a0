"""What readers find before any judgement, and how they read text, YAML and JSON that may be broken or hostile."""

import json
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import yaml
from numpy.typing import NDArray

from dataset.dataset import DataError
from dataset.polygons import Rings

IMAGE_SUFFIXES = frozenset({".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"})
UNSPLIT = ""  # the split of images that no list or folder assigns to one
SPLIT_WORDS = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
    "testing": "test",
}

_YAML_BYTES = 1 << 20
_YAML_DEPTH = 16


@dataclass(frozen=True)
class Fault:
    """One thing that is wrong with a data set.

    Attributes:
        file: The file it stands in, absolute.
        line: 1-based line in that file; None where the fault is the whole file's, or the file has no useful lines.
        what: What is wrong: a fixed phrase, and after a colon its details.
        action: What is done about it.
        fatal: Whether ``load`` refuses the data set for it.
    """

    file: Path
    line: int | None
    what: str
    action: str
    fatal: bool = False

    @property
    def place(self) -> str:
        """``file:line``, or the file alone."""
        return f"{self.file}" if self.line is None else f"{self.file}:{self.line}"


@dataclass(frozen=True)
class Item:
    """An image with the file that holds its labels (None: no such file)."""

    split: str
    image: Path
    label: Path | None


@dataclass(frozen=True)
class Survey:
    """What belongs to a data set, found by listing folders and reading lists, before labels are read.

    Attributes:
        kind: Which reader understands the labels.
        name: The data set's name.
        source: Absolute path that the user named.
        root: Folder that notes are relative to.
        names: Class names, None when only the labels tell.
        items: Images with a label file each (YOLO, VOC).
        files: (split, annotation file) where one file speaks of many images (COCO).
        faults: What was wrong already.
        notes: What was decided already.
        difficult: What becomes of objects that a VOC file calls difficult, see ``dataset.load``.
    """

    kind: Literal["yolo", "coco", "voc"]
    name: str
    source: Path
    root: Path
    names: tuple[str, ...] | None = None
    items: tuple[Item, ...] = ()
    files: tuple[tuple[str, Path], ...] = ()
    faults: tuple[Fault, ...] = ()
    notes: tuple[str, ...] = ()
    difficult: str = "learn"


@dataclass(frozen=True, eq=False)
class RawImage:
    """An image with its label rows as they were written.

    Attributes:
        split: "train", "val", "test" or UNSPLIT.
        path: Absolute path of the image, which may not exist.
        label: File that the rows stand in; the image where there is none.
        rows: (n, 5) class, x1, y1, x2, y2 (corners; NaN where a row could not be read).
        marks: n line numbers (or places in a COCO annotation list), -1 where unknown.
        said_wh: Width and height that the labels claim for the image, where they do.
        outlines: Rings of each row, in the units of the rows; empty when no row has any.
        regions: (k, 5) like the rows: where detections are not to be counted.
    """

    split: str
    path: Path
    label: Path
    rows: NDArray[np.float64]
    marks: tuple[int, ...]
    said_wh: tuple[int, int] | None = None
    outlines: tuple[Rings, ...] = ()
    regions: NDArray[np.float64] = field(default_factory=lambda: np.zeros((0, 5)))


@dataclass(frozen=True, eq=False)
class RawSet:
    """What a reader found.

    Attributes:
        names: Class names in the order of class ids.
        images: The images of all splits.
        pixels: Whether rows are in px of the image (COCO, VOC) or shares of it (YOLO).
        listed: Whether marks are places in an annotation list instead of line numbers.
        faults: What the reader could not read or left out.
        notes: What it decided.
    """

    names: tuple[str, ...]
    images: tuple[RawImage, ...]
    pixels: bool
    listed: bool = False
    faults: list[Fault] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def read_text(path: Path) -> str:
    """A file's text in UTF-8 or UTF-16 with or without a byte-order mark, or else in Latin-1, which fits any bytes.

    Raises:
        DataError: The file cannot be opened.
    """
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from error
    if raw.startswith((b"\xff\xfe", b"\xfe\xff")):
        return raw.decode("utf-16", errors="replace")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        return raw.decode("latin-1")


def read_lines(path: Path) -> list[tuple[int, str]]:
    """The lines of a text file that are not blank, stripped, with their 1-based numbers; any line ending will do."""
    # str.splitlines would also split at form feeds and the like, and then count lines as no editor does.
    lines = enumerate(re.split(r"\r\n|\r|\n", read_text(path)), start=1)
    return [(number, line.strip()) for number, line in lines if line.strip()]


def load_yaml(path: Path) -> dict[str, Any]:
    """A YAML file whose top is a mapping.

    Aliases are refused: a few lines of them unfold into gigabytes, and no data set needs them.

    Raises:
        DataError: It cannot be read, is no YAML mapping, nests too deep, is over 1 MiB, or holds an alias.
    """
    text = read_text(path)
    if len(text) > _YAML_BYTES:
        raise DataError(f"{path} must be under 1 MiB to be a data set's YAML, but has {len(text)} characters")
    try:
        _check_events(path, yaml.parse(text, Loader=yaml.SafeLoader))
        content = yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{path}:{mark.line + 1}" if mark else f"{path}"
        raise DataError(
            f"{where} is not YAML: {getattr(error, 'problem', None) or 'unreadable characters'}"
        ) from error
    except ValueError as error:  # such as the date 2024-13-45, or DataError from the check above
        raise error if isinstance(error, DataError) else DataError(f"{path} is not YAML: {error}") from error
    if not isinstance(content, dict):
        raise DataError(
            f"{path} must hold a YAML mapping with train, val and names, but holds {type(content).__name__}"
        )
    return {str(key): value for key, value in content.items()}


def _check_events(path: Path, events: Iterable[yaml.Event]) -> None:
    depth = 0
    for event in events:
        line = event.start_mark.line + 1 if event.start_mark else 1
        if isinstance(event, yaml.AliasEvent):
            raise DataError(f"{path}:{line} holds an alias (*{event.anchor}): write the value out")
        depth += isinstance(event, yaml.CollectionStartEvent)
        depth -= isinstance(event, yaml.CollectionEndEvent)
        if depth > _YAML_DEPTH:
            raise DataError(f"{path}:{line} nests over {_YAML_DEPTH} deep: this is no data.yaml")


def load_json(path: Path) -> Any:
    """A JSON file's content.

    Raises:
        DataError: It cannot be read or is no JSON.
    """
    try:
        return json.loads(read_text(path))
    except json.JSONDecodeError as error:
        raise DataError(f"{path}:{error.lineno} is not JSON: {error.msg}") from error
    except (
        ValueError,
        RecursionError,
    ) as error:  # an integer of thousands of digits; brackets nested without end
        raise DataError(f"{path} is not JSON that can be read: {type(error).__name__}") from error


def read_number(value: object) -> float:
    """A number from text or JSON; NaN for anything else, booleans included."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return float("nan")
    try:
        return float(value)
    except (ValueError, OverflowError):
        return float("nan")


def list_images(folder: Path) -> Iterator[Path]:
    """The image files in a folder by name, then those in the folders below it; hidden ones are left out."""
    # os.walk works on text; pathlib's way of walking is several times slower.
    for place, inner, names in os.walk(folder):
        inner[:] = sorted(name for name in inner if not name.startswith("."))
        here = Path(place)
        for name in sorted(names):
            if not name.startswith(".") and f".{name.rpartition('.')[2].lower()}" in IMAGE_SUFFIXES:
                yield here / name


def split_of(words: str) -> str:
    """The split that a file or folder name speaks of: "train" for ``instances_train2017``; UNSPLIT for none.

    >>> split_of("instances_train2017"), split_of("valid"), split_of("constraints")
    ('train', 'val', '')
    """
    found = [SPLIT_WORDS[word] for word in re.findall(r"[a-z]+", words.lower()) if word in SPLIT_WORDS]
    return found[-1] if found else UNSPLIT
