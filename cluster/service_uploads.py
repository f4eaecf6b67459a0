"""Box shapes out of files that strangers send: nothing in them is run, followed, or unpacked beyond its limits.

What is taken: a CSV of shapes (`dataset.shapes_csv`), YOLO label files, Pascal VOC XML, a COCO JSON, or a zip of any
of these. A data.yaml is not read: it names paths of this machine.
"""

import gzip
import json
import re
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from xml.etree.ElementTree import Element, ParseError

import numpy as np
from defusedxml.common import DefusedXmlException
from defusedxml.ElementTree import fromstring
from numpy.typing import NDArray

from cluster.spec import ClusterError
from dataset import DataError
from dataset.shapes_csv import load_shapes

Wh = NDArray[np.float64]

SUFFIXES = (".csv", ".csv.gz", ".txt", ".xml", ".json", ".zip")
_INNER = (".csv", ".txt", ".xml", ".json")
_MOST_ENTRIES = 200_000
_MOST_RATIO = 200.0  # label files shrink to a tenth or so; what shrinks to less than this is a bomb
_LARGEST_XML = 1 << 20
_READ = 1 << 16
_NO_LABELS = re.compile(
    r"(?i)(readme.*|license.*|(classes|labels|names|train|val|valid|test|trainval)\.txt$)"
)


@dataclass(frozen=True)
class Limits:
    """What an upload may come to.

    Attributes:
        expanded_bytes: Of all its files together, unpacked.
        boxes: At most.
    """

    expanded_bytes: int
    boxes: int = 20_000_000


@dataclass(frozen=True, eq=False)
class Uploaded:
    """What an upload holds.

    Attributes:
        wh: (N, 2) box sides in px at the image size asked for.
        notes: What was decided, a line each.
    """

    wh: Wh
    notes: tuple[str, ...]


def read_upload(path: Path, name: str, image_size: int, limits: Limits) -> Uploaded:
    """The box shapes of an uploaded file.

    Args:
        path: Where it lies.
        name: What its sender called it: its ending says what it is.
        image_size: px that an image's longer side is scaled to.
        limits: Beyond which it is refused.

    Raises:
        ClusterError: It is none of the kinds, damaged, hostile, or holds no boxes; the message names the file in it.
    """
    if not name.lower().endswith(SUFFIXES):
        raise ClusterError(f"{name}: a file must be one of {', '.join(SUFFIXES)}")
    found: list[Wh] = []
    notes: dict[str, None] = {}
    boxes = 0
    for inner, content in _files(path, name, limits):
        shapes = _read(inner, content, image_size, notes.setdefault)
        boxes += len(shapes)
        if boxes > limits.boxes:
            raise ClusterError(f"{name}: it holds more than {limits.boxes} boxes")
        found.append(shapes)
    if not boxes:
        raise ClusterError(f"{name}: it holds no boxes")
    return Uploaded(np.concatenate(found), tuple(notes))


def _files(path: Path, name: str, limits: Limits) -> Iterator[tuple[str, bytes]]:
    """Every label file of an upload, by its name."""
    if name.lower().endswith(".gz"):
        yield name[: -len(".gz")], _gunzip(path, name, limits)
        return
    if not name.lower().endswith(".zip"):
        if path.stat().st_size > limits.expanded_bytes:
            raise ClusterError(f"{name}: it has more than {limits.expanded_bytes} bytes")
        yield name, path.read_bytes()
        return
    try:
        with zipfile.ZipFile(path) as archive:
            yield from _entries(archive, name, limits)
    except (zipfile.BadZipFile, zipfile.LargeZipFile, zlib.error, EOFError, RuntimeError) as error:
        raise ClusterError(f"{name}: it can't be unpacked ({error})") from error
    except (OSError, ValueError) as error:
        raise ClusterError(f"{name}: it is damaged ({error})") from error


def _gunzip(path: Path, name: str, limits: Limits) -> bytes:
    pieces, left = [], min(limits.expanded_bytes, int(_MOST_RATIO * path.stat().st_size) + _READ)
    try:
        with gzip.open(path) as file:
            while piece := file.read(_READ):
                left -= len(piece)
                if left < 0:
                    raise ClusterError(f"{name}: it unpacks to too much")
                pieces.append(piece)
    except (OSError, EOFError, zlib.error) as error:
        raise ClusterError(f"{name}: it can't be unpacked ({error})") from error
    return b"".join(pieces)


def _entries(archive: zipfile.ZipFile, name: str, limits: Limits) -> Iterator[tuple[str, bytes]]:
    """Read in pieces and counted: what an archive says of its own sizes is not believed."""
    infos = [info for info in archive.infolist() if not info.is_dir()]
    if len(infos) > _MOST_ENTRIES:
        raise ClusterError(f"{name}: it holds more than {_MOST_ENTRIES} files")
    left, packed = limits.expanded_bytes, max(sum(info.compress_size for info in infos), 1)
    unpacked = 0
    for info in _labels_among(infos):
        pieces = []
        with archive.open(info) as file:
            while piece := file.read(_READ):
                unpacked += len(piece)
                if unpacked > left or unpacked > _MOST_RATIO * packed + _READ:
                    raise ClusterError(f"{name}: it unpacks to too much ({info.filename})")
                pieces.append(piece)
        yield info.filename, b"".join(pieces)


def _labels_among(infos: list[zipfile.ZipInfo]) -> list[zipfile.ZipInfo]:
    """The files of an archive that hold boxes: class lists, image lists and notes of their makers are text too."""
    paths = [(info, PurePosixPath(info.filename)) for info in infos]
    in_labels = any("labels" in path.parts[:-1] for _, path in paths)
    found = []
    for info, path in paths:
        if path.suffix.lower() not in _INNER or path.name.startswith(".") or "__MACOSX" in path.parts:
            continue
        if path.suffix.lower() == ".txt":
            kept = "labels" in path.parts[:-1] if in_labels else not _NO_LABELS.match(path.name)
            if not kept:
                continue
        found.append(info)
    return found


def _read(name: str, content: bytes, image_size: int, note: Callable[[str], object]) -> Wh:
    suffix = Path(name).suffix.lower()
    if suffix == ".csv":
        return _csv(name, content, image_size)
    if suffix == ".xml":
        return _voc(name, content, image_size)
    if suffix == ".json":
        return _coco(name, content, image_size)
    note("YOLO labels say nothing of their images' shape: the images are taken to be square")
    return _yolo(name, content) * image_size


def _csv(name: str, content: bytes, image_size: int) -> Wh:
    # The reader wants a file; this one's name is ours.
    with tempfile.NamedTemporaryFile(suffix=".csv") as file:
        file.write(content)
        file.flush()
        try:
            return load_shapes(Path(file.name)).shapes(image_size)
        except DataError as error:
            raise ClusterError(str(error).replace(file.name, name)) from error


def _yolo(name: str, content: bytes) -> Wh:
    """(N, 2) sides as shares of the image; rows of polygons count by the box around them."""
    sides = []
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ClusterError(f"{name}: it is no text ({error.reason})") from error
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        try:
            row = np.array(line.split()[1:], dtype=np.float64)
        except ValueError:
            row = np.zeros(0)
        wh = _sides_of(row)
        if wh is None:
            raise ClusterError(f"{name}:{number}: a row must be `class x y w h` in shares of the image")
        sides.append(wh)
    return np.array(sides, dtype=np.float64).reshape(-1, 2)


def _sides_of(row: Wh) -> Wh | None:
    if len(row) == 4:
        wh: Wh = row[2:]
    elif len(row) >= 6 and len(row) % 2 == 0:
        points = row.reshape(-1, 2)
        wh = points.max(axis=0) - points.min(axis=0)
    else:
        return None
    return wh if bool((np.isfinite(wh) & (wh > 0) & (wh <= 1.01)).all()) else None


def _voc(name: str, content: bytes, image_size: int) -> Wh:
    if len(content) > _LARGEST_XML:
        raise ClusterError(f"{name}: an XML file may have {_LARGEST_XML} bytes at most")
    try:
        root: Element = fromstring(content, forbid_dtd=True)
    except (ParseError, DefusedXmlException, ValueError) as error:
        what = "document types and entities are refused" if isinstance(error, DefusedXmlException) else error
        raise ClusterError(f"{name}: it is no Pascal VOC file ({what})") from error
    try:
        longer = max(float(root.findtext(f"size/{side}") or "nan") for side in ("width", "height"))
        corners = [
            [float(box.findtext(side) or "nan") for side in ("xmin", "ymin", "xmax", "ymax")]
            for box in root.iterfind("object/bndbox")
        ]
    except ValueError as error:
        raise ClusterError(f"{name}: a number can't be read ({error})") from error
    boxes = np.array(corners, dtype=np.float64).reshape(-1, 4)
    return _scaled(name, boxes[:, 2:] - boxes[:, :2], np.full(len(boxes), longer), image_size)


def _coco(name: str, content: bytes, image_size: int) -> Wh:
    try:
        data = json.loads(content)
        longer = {image["id"]: float(max(image["width"], image["height"])) for image in data["images"]}
        rows = [
            (*map(float, each["bbox"][2:4]), longer[each["image_id"]])
            for each in data["annotations"]
            if not each.get("iscrowd")
        ]
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise ClusterError(f"{name}: it is no COCO file ({type(error).__name__}: {error})") from error
    table = np.array(rows, dtype=np.float64).reshape(-1, 3)
    return _scaled(name, table[:, :2], table[:, 2], image_size)


def _scaled(name: str, wh: Wh, longer: Wh, image_size: int) -> Wh:
    good = (np.isfinite(wh) & (wh > 0)).all(axis=1) & np.isfinite(longer) & (longer > 0)
    if not bool(good.all()):
        raise ClusterError(f"{name}: box {int((~good).argmax()) + 1} has no sides or its image no size")
    scaled: Wh = wh * (image_size / longer[:, None])
    return scaled
