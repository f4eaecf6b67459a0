"""Where decoded images at training scale are kept: in memory, on disk, or nowhere.

Processes that train on the same images at the same scale share one copy. In memory that is a file that all of them
map, in the machine's memory file system where that has room, else in the cache folder; whoever leaves last deletes
it, and what a killed process left is deleted by the next to come. On disk it is one .npy file an image, which stays.
"""

import hashlib
import logging
import mmap
import os
import tempfile
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from dataset import Split
from dataset.cache import cache_folder
from trainer.shared_file import leave, open_shared

logger = logging.getLogger(__name__)

Image = NDArray[np.uint8]

MEMORY_SHARE = 4
"""In memory, images may take one part in so many of what is free."""


class Cache(Protocol):
    """Keeps decoded images."""

    def get(self, index: int) -> Image | None:
        """The image (H, W, 3) at a place of the split, not to be edited, or None when it is not kept (yet)."""
        ...

    def put(self, index: int, image: Image) -> None:
        """Keep a copy of an image, if there is room."""
        ...

    def notes(self) -> list[str]:
        """What a result should say."""
        ...


def build_cache(kind: str, split: Split, shapes: Sequence[tuple[int, int]], way: str) -> Cache:
    """Build the cache of a split.

    Args:
        kind: "ram", "disk" or "off".
        split: The images; their files' names, lengths and times of change tell one content from another.
        shapes: Height, width of each at training scale.
        way: How they are scaled; images scaled in another way are others.
    """
    if kind == "off":
        return NoCache()
    key = content_key(split, shapes, way)
    if kind == "disk":
        return DiskCache(cache_folder() / "images" / key, shapes)
    return MemoryCache(shapes, free_memory() // MEMORY_SHARE, key)


def content_key(split: Split, shapes: Sequence[tuple[int, int]], way: str) -> str:
    """A digest over all that decoded images depend on."""
    digest = hashlib.sha256(f"1\0{way}\0{list(shapes)!r}".encode())
    for path in split.images:
        try:
            status = path.stat()
            facts = f"{status.st_size} {status.st_mtime_ns}"
        except OSError:
            facts = "missing"
        digest.update(os.fsencode(path) + f"\0{facts}\0".encode())
    return digest.hexdigest()[:32]


class NoCache:
    """Keeps nothing."""

    def get(self, index: int) -> Image | None:
        """None."""
        return None

    def put(self, index: int, image: Image) -> None:
        """Nothing."""

    def notes(self) -> list[str]:
        """Nothing."""
        return []


class DiskCache:
    """One .npy file an image, written aside and moved into place: whole or not there, whoever writes it."""

    def __init__(self, folder: Path, shapes: Sequence[tuple[int, int]]) -> None:
        self._folder = folder
        self._shapes = shapes
        self._problem: str | None = None

    def get(self, index: int) -> Image | None:
        """See `Cache`."""
        try:
            # Mapped, so that processes share the pages; read-only.
            image = np.asarray(np.load(self._place(index), mmap_mode="r", allow_pickle=False))
        except (OSError, ValueError, EOFError):  # not there yet, or damaged: it is made again
            return None
        return image if image.dtype == np.uint8 and image.shape == (*self._shapes[index], 3) else None

    def put(self, index: int, image: Image) -> None:
        """See `Cache`; a disk that is full keeps no more."""
        if self._problem:
            return
        place = self._place(index)
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile(dir=place.parent, prefix=".", delete=False) as file:
                temporary = Path(file.name)
                try:
                    np.save(file, image, allow_pickle=False)
                    file.flush()
                    os.fsync(file.fileno())
                    temporary.replace(place)
                finally:
                    temporary.unlink(missing_ok=True)
        except OSError as error:
            self._problem = f"{self._folder} keeps no more images: {error.strerror or error}"
            logger.warning("%s", self._problem)

    def notes(self) -> list[str]:
        """See `Cache`."""
        return [self._problem] if self._problem else []

    def _place(self, index: int) -> Path:
        return self._folder / f"{index // 1000:04}" / f"{index:07}.npy"  # folders of a thousand stay quick


class MemoryCache:
    """Images in memory that all processes of this machine share: what one has read, the others need not.

    Memory is taken as images come in. As many as fit the budget have a place; what another process, with more room,
    has put into theirs is used as well.

    Attributes:
        places: How many images, from the first, this process may put.
    """

    def __init__(self, shapes: Sequence[tuple[int, int]], budget: int, key: str | None = None) -> None:
        """Plan places for images of these heights and widths, in order, within a budget in bytes.

        Args:
            shapes: Height, width px.
            budget: Bytes that this process may add.
            key: Processes that give the same one share; None shares with forked processes alone.
        """
        ends = np.cumsum([height * width * 3 for height, width in shapes], dtype=np.int64)
        self._shapes, self._budget, self._key = shapes, budget, key
        self._ends = ends + len(shapes)  # a byte for each image comes first: whether it is there
        length = int(self._ends[-1]) if len(shapes) else 0
        places = int(np.searchsorted(ends, budget, side="right"))
        shared = open_shared(key, length, len(shapes), budget) if key and length else None
        self._file: int | None = None
        if shared is None:
            # Anonymous shared memory does not count against a container's small /dev/shm.
            self._bytes = np.frombuffer(mmap.mmap(-1, length), np.uint8) if length else np.empty(0, np.uint8)
        else:
            path, self._file = shared
            weakref.finalize(self, leave, path, self._file, os.getpid())
            self._bytes = np.frombuffer(mmap.mmap(self._file, length), np.uint8)
            held = self._bytes[: len(shapes)].astype(bool)
            sizes = np.diff(ends, prepend=0)
            places = int(np.searchsorted(ends, budget + int(sizes[held].sum()), side="right"))
        self.places = places

    def __reduce__(self) -> tuple[type["MemoryCache"], tuple[Any, ...]]:
        return type(self), (self._shapes, self._budget, self._key)

    def get(self, index: int) -> Image | None:
        """See `Cache`."""
        if not self._bytes[index]:
            return None
        image = self._place(index)
        image.flags.writeable = False
        return image

    def put(self, index: int, image: Image) -> None:
        """See `Cache`. Two writers at once write the same bytes."""
        if index >= self.places:
            return
        if self._file is None:
            self._place(index)[:] = image
        elif not self._write(index, image):
            self.places = 0
            return
        self._bytes[index] = 1

    def notes(self) -> list[str]:
        """See `Cache`."""
        kept, images = (
            max(self.places, int(np.count_nonzero(self._bytes[: len(self._shapes)]))),
            len(self._shapes),
        )
        return (
            []
            if kept >= images
            else [f"{kept} of {images} images fit into memory; the others are read each time"]
        )

    def _write(self, index: int, image: Image) -> bool:
        """Write an image to the file; False when the file system is full.

        Not through the map: there a full file system ends the process, and pages that are made one by one and
        filled with zeros first take twice the time.
        """
        file, left = self._file, np.ascontiguousarray(image).reshape(-1).data
        place = int(self._ends[index]) - len(left)
        try:
            while left and file is not None:
                written = os.pwrite(file, left, place)
                left, place = left[written:], place + written
        except OSError:
            return False
        return True

    def _place(self, index: int) -> Image:
        height, width = self._shapes[index]
        end = int(self._ends[index])
        return self._bytes[end - height * width * 3 : end].reshape(height, width, 3)


def free_memory() -> int:
    """Bytes that this process may still take: what the machine has left, or the container if that is less."""
    available = 0
    for line in _read_lines(Path("/proc/meminfo")):
        if line.startswith("MemAvailable:"):
            available = int(line.split()[1]) * 1024
    limit = "".join(_read_lines(Path("/sys/fs/cgroup/memory.max"))).strip()
    used = "".join(_read_lines(Path("/sys/fs/cgroup/memory.current"))).strip()
    if limit.isdecimal() and used.isdecimal():
        available = min(available, max(int(limit) - int(used), 0))
    return available


def _read_lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except OSError:  # another system, or no container
        return []
