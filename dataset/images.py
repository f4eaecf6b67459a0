"""Image sizes from headers, without decoding, and digests of contents.

A size is the one that ``cv2.imread`` gives: turned by the EXIF orientation. Whatever the header readers below are not
sure of (a cut-off file, a rare kind, several EXIF blocks) is decoded by cv2 itself, which settles it.
"""

import hashlib
import os
import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2

from dataset.parallel import MapFiles, map_parts, map_threads

_END = 1 << 19  # bytes read from each end of a large file
_WHOLE = 2 * _END  # files up to this size are read whole
_MOST_PIXELS = 1 << 30  # cv2.imread refuses more
_MOST_SIDE = 1 << 20

Size = tuple[int, int]


@dataclass(frozen=True)
class ImageFacts:
    """What is known of an image file.

    Attributes:
        length: Bytes in the file.
        mtime_ns: When it was last changed, in ns.
        width: px as cv2.imread gives it; 0 when the file cannot be read as an image.
        height: The same.
        digest: sha256 (hex) of the content; of the length and both ends (512 KiB each) for files over 1 MiB.
    """

    length: int
    mtime_ns: int
    width: int
    height: int
    digest: str


def gather_facts(
    paths: Iterable[Path], known: Mapping[Path, ImageFacts], map_files: MapFiles | None = None
) -> dict[Path, ImageFacts]:
    """The facts of every image that exists, in the order of ``paths``.

    Args:
        paths: Image files.
        known: Facts from before; they hold for a file whose length and time of change are the same.
        map_files: As `dataset.load` has it.
    """
    found: dict[Path, ImageFacts | None] = {}
    fresh: list[Path] = []
    for path in dict.fromkeys(paths):
        status = _status(path)
        before = known.get(path)
        if status and before and (before.length, before.mtime_ns) == (status.st_size, status.st_mtime_ns):
            found[path] = before
        elif status:
            found[path] = None  # keeps its place
            fresh.append(path)
    for part in map_parts(_read_part, fresh, map_files):
        found.update(part)
    return {path: facts for path, facts in found.items() if facts is not None}


def _read_part(paths: Sequence[Path]) -> list[tuple[Path, ImageFacts]]:
    return list(zip(paths, map_threads(_read_facts, paths), strict=True))


def _status(path: Path) -> os.stat_result | None:
    try:
        return path.stat()
    except (OSError, ValueError):  # ValueError: a name that no file can have
        return None


def _read_facts(path: Path) -> ImageFacts:
    try:
        with path.open("rb") as file:
            status = os.fstat(file.fileno())
            length = status.st_size
            head = file.read(_WHOLE if length <= _WHOLE else _END)
            tail = b""
            if length > _WHOLE:
                file.seek(-_END, os.SEEK_END)
                tail = file.read(_END)
    except OSError:  # no permission, or a folder: looked at anew each time, since no file has this length
        return ImageFacts(-1, 0, 0, 0, "")
    digest = hashlib.sha256(head)
    if tail:
        digest.update(tail)
        digest.update(str(length).encode())
    width, height = read_header(head, tail or head, length) or _decode_size(path)
    if width * height > _MOST_PIXELS or max(width, height) > _MOST_SIDE:
        width = height = 0
    return ImageFacts(length, status.st_mtime_ns, width, height, digest.hexdigest())


def _decode_size(path: Path) -> Size:
    try:
        image = cv2.imread(str(path))
    except cv2.error:
        return 0, 0
    return (0, 0) if image is None else (int(image.shape[1]), int(image.shape[0]))


def read_header(head: bytes, tail: bytes, length: int) -> Size | None:
    """Width and height in px of a JPEG, PNG or BMP as cv2.imread would give them; None when that is not certain.

    Args:
        head: The file's first bytes.
        tail: Its last bytes, or all of them.
        length: Bytes in the file.
    """
    try:
        if head.startswith(b"\xff\xd8\xff"):
            return _read_jpeg(head) if tail.rstrip(b"\0").endswith(b"\xff\xd9") else None
        if head.startswith(b"\x89PNG\r\n\x1a\n\0\0\0\x0dIHDR"):
            return _read_png(head, tail)
        return _read_bmp(head, length) if head.startswith(b"BM") else None
    except (struct.error, IndexError):
        return None


def _read_jpeg(head: bytes) -> Size | None:
    """Walks the segments up to the first scan. Source: ITU T.81, annex B."""
    size, orientation, exifs, position = None, 1, 0, 2
    while head[position] == 0xFF:
        marker = head[position + 1]
        if marker == 0xFF:  # fill byte
            position += 1
            continue
        (step,) = struct.unpack_from(">H", head, position + 2)
        body = head[position + 4 : position + 2 + step]
        if marker in {0xC0, 0xC1, 0xC2}:  # baseline, extended and progressive frames
            precision, height, width = struct.unpack_from(">BHH", body)
            size = (width, height) if precision == 8 and width and height else None
        elif marker == 0xE1 and body.startswith(b"Exif\0\0"):
            exifs += 1
            orientation = _read_orientation(body[6:])
        elif marker == 0xDA:
            is_sure = size is not None and exifs < 2 and orientation in range(1, 9)
            return (size if orientation < 5 else size[::-1]) if is_sure and size else None
        position += 2 + step
    return None


def _read_orientation(tiff: bytes) -> int:
    """EXIF orientation 1..8 (5 and up swap the sides), 0 when unsure. Source: EXIF 2.3, section 4.6."""
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(tiff[:4])
    if order is None:
        return 0
    (offset,) = struct.unpack_from(f"{order}I", tiff, 4)
    (count,) = struct.unpack_from(f"{order}H", tiff, offset)
    for index in range(count):
        tag, kind, values, value = struct.unpack_from(f"{order}HHIH", tiff, offset + 2 + 12 * index)
        if tag == 0x0112:
            return int(value) if kind == 3 and values == 1 else 0
    return 1


def _read_png(head: bytes, tail: bytes) -> Size | None:
    ended = tail.endswith(b"\0\0\0\0IEND\xaeB`\x82")
    if not ended or b"eXIf" in head or b"eXIf" in tail:
        return None
    width, height = struct.unpack_from(">II", head, 16)
    return (width, height) if width and height else None


def _read_bmp(head: bytes, length: int) -> Size | None:
    """Uncompressed true-colour bitmaps with a header of the Windows kind."""
    offset, header, width, height, _, depth, compression = struct.unpack_from("<IIiiHHI", head, 10)
    if header < 40 or depth not in {24, 32} or compression or width <= 0 or not height:
        return None
    height = abs(height)  # negative: rows from the top
    rows = (width * depth + 31) // 32 * 4 * height
    return (width, height) if offset + rows <= length else None
