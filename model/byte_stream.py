"""Bytes that are read in order, however long a line they claim to have."""

from typing import Any, Protocol

MAX_LINE = 4_096  # bytes of a name


class Stream(Protocol):
    """Bytes that are read in order."""

    def read(self, size: int, /) -> bytes:
        """Give up to `size` bytes."""

    def readline(self) -> bytes:
        """Give a line with its end."""

    def tell(self) -> int:
        """Give the position."""


class ByteStream:
    """A stream over bytes or a map of a file; a line has an end, and nothing beyond the data is asked for."""

    def __init__(self, data: Any, position: int = 0) -> None:
        self._data = data
        self._at = position

    def read(self, size: int, /) -> bytes:
        """Give up to `size` bytes."""
        piece = bytes(self._data[self._at : self._at + min(max(size, 0), len(self._data) - self._at)])
        self._at += len(piece)
        return piece

    def readline(self) -> bytes:
        """Give a line; one longer than `MAX_LINE` is cut there."""
        end = self._data.find(b"\n", self._at, self._at + MAX_LINE)
        return self.read((end + 1 if end >= 0 else self._at + MAX_LINE) - self._at)

    def tell(self) -> int:
        """Give the position."""
        return self._at
