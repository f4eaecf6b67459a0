"""Files that `torch.save` wrote, of today's form (a zip archive) and of the one before torch 1.6.

The pickle inside is read by `model.pickled`, and a tensor's numbers not before it is asked for. What a file says of
itself is checked against what it is: sizes, offsets, names of members.
"""

import mmap
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from math import prod
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from model.byte_stream import ByteStream
from model.pickled import read_pickle
from model.recorded import RefusedError, Storage, StoredTensor, shown
from model.rows import ModelError

MAX_MEMBERS = 100_000
MAX_PICKLE = 2**27  # bytes; that of the largest detector has half a million
LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
LEGACY_VERSION = 1001
ZIP_MAGIC = b"PK\x03\x04"


class Storages(Protocol):
    """Where the numbers lie."""

    def read(self, key: str, element_bytes: int) -> bytearray:
        """Give the bytes of one storage. Raises KeyError where there is none."""


class TorchFile:
    """An open checkpoint.

    Attributes:
        root: what was saved, as `model.pickled` reads it.
    """

    def __init__(self, root: Any, storages: Storages, size: int) -> None:
        self.root = root
        self._storages = storages
        self._elements_left = size  # no file of so many bytes has more numbers, unless it names some often

    def tensor(self, stored: StoredTensor) -> Tensor:
        """Read a tensor; it shares nothing with others.

        Raises:
            ModelError: the file has no such numbers.
        """
        count = prod(stored.size)
        self._elements_left -= count
        if self._elements_left < 0:
            raise RefusedError("its tensors are larger than the file")
        if not count:
            return torch.empty(stored.size, dtype=stored.dtype)
        try:
            data = self._storages.read(stored.key, stored.dtype.itemsize)
        except KeyError:
            raise ModelError(
                f"the numbers of storage {shown(stored.key)} are missing: it is cut short"
            ) from None
        last = stored.offset + sum((n - 1) * step for n, step in zip(stored.size, stored.stride, strict=True))
        if (last + 1) * stored.dtype.itemsize > len(data):
            raise ModelError(f"storage {shown(stored.key)} has too few numbers: it is cut short or damaged")
        flat = torch.frombuffer(data, dtype=stored.dtype, count=len(data) // stored.dtype.itemsize)
        return flat.as_strided(stored.size, stored.stride, stored.offset).clone(
            memory_format=torch.contiguous_format
        )

    def tensors(self, stored: Mapping[Any, Any]) -> dict[str, Tensor]:
        """Read all tensors of a table by name; whatever else is in it is left out. Raises ModelError."""
        return {
            name: self.tensor(item)
            for name, item in stored.items()
            if isinstance(name, str) and isinstance(item, StoredTensor)
        }


@contextmanager
def open_torch_file(path: Path) -> Iterator[TorchFile]:
    """Open a file of `torch.save`.

    Raises:
        ModelError: it is none, damaged, or asks for what reading a checkpoint doesn't need (`RefusedError`). The
            message does not name the file.
    """
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        if data[:4] != ZIP_MAGIC:
            yield _read_legacy(data)
            return
        try:
            with zipfile.ZipFile(file) as archive:
                yield _read_archive(archive, len(data))
        except (zipfile.BadZipFile, EOFError, NotImplementedError, UnicodeDecodeError) as error:
            raise ModelError(f"it is cut short or damaged ({str(error)[:120]})") from error


class _Archive:
    """The storages of a zip archive."""

    def __init__(self, archive: zipfile.ZipFile, folder: str) -> None:
        self._archive = archive
        self._folder = folder

    def read(self, key: str, element_bytes: int) -> bytearray:
        return bytearray(self._archive.read(f"{self._folder}/data/{key}"))


class _Legacy:
    """The storages that lie one after another behind the pickles: each its count, then its numbers."""

    def __init__(self, data: mmap.mmap, keys: list[str], start: int, storages: dict[str, Storage]) -> None:
        self._data = data
        self._places: dict[str, tuple[int, int]] = {}
        for key in keys:
            count = int.from_bytes(data[start : start + 8], "little")
            end = start + 8 + count * (storages[key].dtype.itemsize if key in storages else 1)
            if end > len(data):
                raise ModelError("it is cut short: numbers are missing at its end")
            self._places[key] = (start + 8, end)
            start = end

    def read(self, key: str, element_bytes: int) -> bytearray:
        start, end = self._places[key]
        return bytearray(self._data[start:end])


def _read_archive(archive: zipfile.ZipFile, size: int) -> TorchFile:
    folder = _check_members(archive.infolist(), size)
    names = set(archive.namelist())
    if f"{folder}/constants.pkl" in names:
        raise RefusedError("it is a TorchScript program, not a checkpoint")
    if f"{folder}/data.pkl" not in names:
        raise ModelError("it is a zip archive, but none of torch.save: data.pkl is missing")
    if archive.getinfo(f"{folder}/data.pkl").file_size > MAX_PICKLE:
        raise RefusedError(f"its pickle is larger than {MAX_PICKLE:,} bytes")
    if f"{folder}/byteorder" in names and archive.read(f"{folder}/byteorder") != b"little":
        raise ModelError("its numbers were written by a big-endian machine, which is not read")
    root = read_pickle(ByteStream(archive.read(f"{folder}/data.pkl")))
    return TorchFile(root, _Archive(archive, folder), size)


def _check_members(members: list[zipfile.ZipInfo], size: int) -> str:
    """Check that an archive of so many bytes is what it says, and return the one folder of its members."""
    names = [member.filename for member in members]
    folder = names[0].partition("/")[0] if names else ""
    if len(names) > MAX_MEMBERS:
        raise RefusedError(f"it has {len(names):,} members, but a checkpoint has at most {MAX_MEMBERS:,}")
    if len(set(names)) < len(names):
        raise RefusedError("two of its members have one name")
    for name in names:
        parts = name.split("/")
        if parts[0] != folder or not folder or ".." in parts or "\\" in name:
            raise RefusedError(f"its member {shown(name)} lies outside of the folder {shown(folder)}")
    if any(member.compress_type != zipfile.ZIP_STORED or member.flag_bits & 1 for member in members):
        raise RefusedError("its members are compressed, but torch.save writes them as they are")
    if sum(member.file_size for member in members) > size:
        raise RefusedError("its members are larger than the file")
    return folder


def _read_legacy(data: mmap.mmap) -> TorchFile:
    stream = ByteStream(data)
    if data[:1] != b"\x80" or read_pickle(stream) != LEGACY_MAGIC:
        raise ModelError("it is no checkpoint that torch.save wrote")
    if read_pickle(stream) != LEGACY_VERSION:
        raise ModelError("it is of a version that is not read")
    system = read_pickle(stream)
    if not isinstance(system, dict) or system.get("little_endian") is not True:
        raise ModelError("its numbers were written by a big-endian machine, which is not read")
    storages: dict[str, Storage] = {}
    root = read_pickle(stream, storages)
    keys = read_pickle(stream)
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
        raise ModelError("its list of storages is damaged")
    return TorchFile(root, _Legacy(data, keys, stream.tell(), storages), len(data))
