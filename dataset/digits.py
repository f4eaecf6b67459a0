"""The built-in set: real handwritten digits composed into scenes, for first steps, tests and demonstrations.

The digits are those of scikit-learn's ``load_digits`` (UCI "Optical Recognition of Handwritten Digits", 1797 samples
of 8 × 8 px), which come with the package. Every scene has its own size, aspect, background, clutter and noise. Only
arithmetic that IEEE 754 fixes is used, and PNG files are written uncompressed, so that the files are the same bytes
wherever they are made.
"""

import importlib
import json
import shutil
import struct
import tempfile
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dataset.dataset import DataError

VERSION = 1
FOLDER = f"digits-{VERSION}"
NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")

_MARK = "complete.json"  # holds what the folder was built from; written last
_SIDES = (128, 256)  # px of a scene
_ASPECT = (0.6, 1.0)  # shorter side over longer
_HEIGHTS = (0.24, 0.80)  # height of a digit as a share of the scene's shorter side
_DIGITS = (2, 6)  # in a scene
_SMALLER = 0.08  # by so much the largest height falls with each digit above two
_TRIES = 24
_APART = 2  # px between two digits' boxes
_CONTRAST = 90  # least difference of grey level between a digit and the scene around it
_INK = 0.28  # darkness of a sample, or between samples, where a stroke begins
_EDGE = 0.4  # opacity from which a px belongs to the digit's box
_BLOCK = 65535  # most bytes in a stored block; Source: RFC 1951, section 3.2.4

Floats = NDArray[np.float32]
Box = tuple[int, int, int, int]  # left, top, right, bottom px


@dataclass(frozen=True, eq=False)
class _Pool:
    """Handwritten samples by class, of one split alone."""

    by_class: tuple[Floats, ...]  # ten arrays (n, 8, 8), ink in 0..1

    def draw(self, rng: np.random.Generator) -> tuple[int, Floats]:
        label = int(rng.integers(len(self.by_class)))
        samples = self.by_class[label]
        return label, samples[rng.integers(len(samples))]


def build_digits(folder: Path, train: int = 320, val: int = 80, seed: int = 0) -> Path:
    """Build the digits set as a YOLO folder with a data.yaml; a folder that holds it already is left as it is.

    It is built aside and then renamed: of several processes that start at once, all get a whole set.

    Args:
        folder: Where to; it must not exist, or be such a set with the same numbers.
        train: Number of training scenes, 1 or more.
        val: Number of validation scenes, 1 or more; their digits are other samples than those of training.
        seed: Which scenes.

    Returns:
        The folder.

    Raises:
        DataError: A number is out of range, or the folder exists and is something else.
    """
    if min(train, val) < 1 or seed < 0:
        raise DataError(f"train >= 1, val >= 1 and seed >= 0 must hold, but got {train}, {val} and {seed}")
    mark = json.dumps({"version": VERSION, "train": train, "val": val, "seed": seed}) + "\n"
    if not _is_built(folder, mark):
        folder.parent.mkdir(parents=True, exist_ok=True)
        aside = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}-"))
        try:
            _write_set(aside, {"train": train, "val": val}, seed)
            (aside / _MARK).write_text(mark)
            aside.chmod(0o755)
            _move(aside, folder, mark)
        finally:
            shutil.rmtree(aside, ignore_errors=True)
    return folder


def _is_built(folder: Path, mark: str) -> bool:
    if (folder / _MARK).is_file() and (folder / _MARK).read_text() == mark:
        return True
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise DataError(
            f"{folder} must not exist or be the digits set with the same numbers, but is something else"
        )
    return False


def _move(aside: Path, folder: Path, mark: str) -> None:
    try:
        aside.rename(folder)
    except OSError:  # another process was first
        if not _is_built(folder, mark):
            raise


def _write_set(folder: Path, counts: dict[str, int], seed: int) -> None:
    rng = np.random.Generator(np.random.PCG64(seed))
    pools = dict(zip(counts, _load_pools(rng), strict=True))
    for split, count in counts.items():
        images, labels = folder / "images" / split, folder / "labels" / split
        images.mkdir(parents=True)
        labels.mkdir(parents=True)
        for number in range(count):
            image, rows = draw_scene(pools[split], rng)
            (images / f"{number:05}.png").write_bytes(_encode_png(image))
            text = "".join(f"{label} {x:.6f} {y:.6f} {w:.6f} {h:.6f}\n" for label, x, y, w, h in rows)
            (labels / f"{number:05}.txt").write_text(text)
    names = "".join(f"  {index}: {name}\n" for index, name in enumerate(NAMES))
    (folder / "data.yaml").write_text(f"train: images/train\nval: images/val\nnames:\n{names}")


def _load_pools(rng: np.random.Generator) -> tuple[_Pool, _Pool]:
    """Samples for train (four fifths of each class) and val (the rest)."""
    # Imported when asked for: it takes a second, and those who bring their own data never need it.
    source = importlib.import_module("sklearn.datasets").load_digits()
    ink, targets = np.asarray(source.images, np.float32) / 16, np.asarray(source.target)
    train, val = [], []
    for label in range(len(NAMES)):
        samples = ink[targets == label]
        samples = samples[rng.permutation(len(samples))]
        cut = len(samples) * 4 // 5
        train.append(samples[:cut])
        val.append(samples[cut:])
    return _Pool(tuple(train)), _Pool(tuple(val))


def draw_scene(
    pool: _Pool, rng: np.random.Generator
) -> tuple[NDArray[np.uint8], list[tuple[int, float, float, float, float]]]:
    """One scene.

    Returns:
        The image (H, W, 3) RGB, and for each digit its class, cx, cy, w, h, normalised by the scene's sides.
    """
    longer = int(rng.integers(_SIDES[0], _SIDES[1] + 1))
    shorter = max(_SIDES[0], round(longer * rng.uniform(*_ASPECT)))
    width, height = (longer, shorter) if rng.random() < 0.5 else (shorter, longer)
    scene = _draw_background(rng, width, height)
    for _ in range(rng.integers(2, 7)):
        _draw_line(scene, rng)
    wanted = int(rng.integers(_DIGITS[0], _DIGITS[1] + 1))
    # Scenes of many digits have smaller ones, or they would not fit; those of two have the widest range.
    largest = _HEIGHTS[1] - (wanted - _DIGITS[0]) * _SMALLER
    rows: list[tuple[int, float, float, float, float]] = []
    taken: list[Box] = []
    for _ in range(wanted):
        label, ink = pool.draw(rng)
        share = rng.uniform(_HEIGHTS[0], largest)
        alpha, box = _place_digit(rng, ink, share, (width, height), taken)
        if box is None:
            continue
        _blend(scene, alpha, box, rng)
        taken.append(box)
        left, top, right, bottom = box
        middle = (left + right) / 2 / width, (top + bottom) / 2 / height
        rows.append((label, *middle, (right - left) / width, (bottom - top) / height))
    noise = rng.random(scene.shape, dtype=np.float32) + rng.random(scene.shape, dtype=np.float32) - 1
    scene += noise * np.float32(rng.integers(4, 25))  # triangular noise needs no logarithms
    return np.clip(np.rint(scene), 0, 255).astype(np.uint8), rows


def _place_digit(
    rng: np.random.Generator, ink: Floats, share: float, wh: tuple[int, int], taken: list[Box]
) -> tuple[Floats, Box | None]:
    """A digit's opacity and a free place for it, smaller if need be; no place in a scene that is full."""
    while True:
        alpha = _enlarge(ink, share * min(wh), rng)
        h, w = alpha.shape
        for _ in range(_TRIES if w <= wh[0] and h <= wh[1] else 0):
            left, top = int(rng.integers(wh[0] - w + 1)), int(rng.integers(wh[1] - h + 1))
            box = (left, top, left + w, top + h)
            if not any(_touch(box, other) for other in taken):
                return alpha, box
        if share == _HEIGHTS[0]:
            return alpha, None
        share = max(share * 0.7, _HEIGHTS[0])


def _touch(one: Box, other: Box) -> bool:
    return (
        one[0] < other[2] + _APART
        and other[0] < one[2] + _APART
        and one[1] < other[3] + _APART
        and other[1] < one[3] + _APART
    )


def _draw_background(rng: np.random.Generator, width: int, height: int) -> Floats:
    """A gradient between two dark colours that are not too far apart, (height, width, 3) in 0..255."""
    first = rng.integers(10, 121, size=3).astype(np.float32)
    second = np.clip(first + rng.integers(-50, 51, size=3).astype(np.float32), 0, 255)
    across, down = rng.random(2, dtype=np.float32)
    x = np.arange(width, dtype=np.float32)[None, :] * (across / width / 2)
    y = np.arange(height, dtype=np.float32)[:, None] * (down / height / 2)
    return np.asarray(first + (second - first) * (x + y)[:, :, None])


def _draw_line(scene: Floats, rng: np.random.Generator) -> None:
    """A thin line across part of the scene, in a colour near the background's: clutter that is no digit."""
    height, width = scene.shape[:2]
    (x1, x2), (y1, y2) = rng.random(2) * width, rng.random(2) * height
    left, top = int(min(x1, x2)), int(min(y1, y2))
    part = scene[top : int(max(y1, y2)) + 1, left : int(max(x1, x2)) + 1]
    x, y = np.arange(part.shape[1])[None, :] + left, np.arange(part.shape[0])[:, None] + top
    dx, dy = x2 - x1, y2 - y1
    aside = np.abs((x - x1) * dy - (y - y1) * dx)  # distance from the line, times its length
    drawn = aside < rng.uniform(0.5, 1.6) * np.sqrt(dx * dx + dy * dy)
    part[drawn] = np.clip(part[drawn] + rng.integers(-70, 71, size=3).astype(np.float32), 0, 255)


def _enlarge(ink: Floats, size: float, rng: np.random.Generator) -> Floats:
    """A digit drawn large, leaning and stretched at random, and cut to its ink.

    Args:
        ink: (8, 8) in 0..1.
        size: Height to aim at, px.
        rng: Where the leaning and stretching come from.

    Returns:
        (h, w) opacity in 0..1, h within a few px of ``size``.
    """
    top, bottom = np.flatnonzero((ink > _INK).any(axis=1))[[0, -1]]
    left, right = np.flatnonzero((ink > _INK).any(axis=0))[[0, -1]]
    lean, stretch = rng.uniform(-0.25, 0.25), rng.uniform(0.85, 1.25)
    step = np.float32((bottom - top + 1.1) / size)  # samples per px; half a sample's blur above and below
    # One sample more on every side, for the blur; leaning moves the corners outwards.
    reach_y = (bottom - top) / 2 + 1
    reach_x = (right - left) / 2 + 1 + abs(lean) * reach_y
    y = np.arange(-int(reach_y / step), int(reach_y / step) + 1, dtype=np.float32) * step
    x = np.arange(-int(reach_x * stretch / step), int(reach_x * stretch / step) + 1, dtype=np.float32)
    grid_x = (x * (step / np.float32(stretch)))[None, :] + np.float32(lean) * y[:, None]
    blurred = _sample(
        np.pad(ink, 2), grid_x + np.float32((left + right) / 2 + 2), y + np.float32((top + bottom) / 2 + 2)
    )
    alpha = np.clip((blurred - np.float32(_INK)) * np.float32(3.3), 0, 1)
    rows, columns = np.flatnonzero((alpha > _EDGE).any(axis=1)), np.flatnonzero((alpha > _EDGE).any(axis=0))
    return np.asarray(alpha[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1])


def _sample(ink: Floats, x: Floats, y: Floats) -> Floats:
    """Bilinear values at columns ``x`` (h, w) and rows ``y`` (h,), in samples; places outside take the border's."""
    last = np.float32(ink.shape[0] - 1.001)
    x, y = np.clip(x, 0, last), np.clip(y, 0, last)
    column, row = x.astype(np.intp), y.astype(np.intp)[:, None]
    u, v = x - column.astype(np.float32), (y - np.floor(y))[:, None]
    flat, start = ink.ravel(), row * ink.shape[1] + column
    upper = flat[start] + (flat[start + 1] - flat[start]) * u
    start += ink.shape[1]
    lower = flat[start] + (flat[start + 1] - flat[start]) * u
    return np.asarray(upper + (lower - upper) * v)


def _blend(scene: Floats, alpha: Floats, box: Box, rng: np.random.Generator) -> None:
    """Draw a digit in a colour that is lighter than what is there."""
    left, top, right, bottom = box
    part = scene[top:bottom, left:right]
    around = float(np.rint(part).astype(np.int64).mean())  # a sum of whole numbers has no order
    colour = rng.integers(90, 256, size=3).astype(np.float32)
    colour = np.clip(colour + max(around + _CONTRAST - float(colour.mean()), 0.0), 0, 255)
    part += (colour - part) * alpha[:, :, None]


def _encode_png(image: NDArray[np.uint8]) -> bytes:
    """A PNG in stored blocks: zlib's compressed bytes differ from one build of it to the next. Source: RFC 2083."""
    height, width = image.shape[:2]
    lines = np.zeros((height, 1 + width * 3), dtype=np.uint8)  # each line starts with filter 0
    lines[:, 1:] = image.reshape(height, -1)
    raw = lines.tobytes()
    stream = bytearray(b"\x78\x01")
    for start in range(0, len(raw), _BLOCK):
        block = raw[start : start + _BLOCK]
        is_last = start + _BLOCK >= len(raw)
        stream += struct.pack("<BHH", is_last, len(block), len(block) ^ 0xFFFF) + block
    stream += struct.pack(">I", zlib.adler32(raw))
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", bytes(stream)), (b"IEND", b"")]
    packed = [
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        for kind, body in chunks
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(packed)
