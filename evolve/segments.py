"""A log kept as numbered objects of a store, for one writer at a time and any number of readers.

`journal/00000007.jsonl` is the seventh segment: a head of one line that names its writer, then the lines. It is put
only where there is none, so of two writers that hold themselves for the only one, the first to put number 8 goes on,
and the other finds it there and ends: the numbers are the lock. A writer begins with a segment that holds nothing
but its head. Whole blocks of 64 segments are put together in one object, `00000000-00000063.jsonl`, 64 of those
again, and what they hold is deleted; but never a writer's first, on which a writer of before would still have to
stumble.
"""

import json
import logging
import re
import secrets
import time
from collections.abc import Iterable
from dataclasses import dataclass, field

from evolve.object_store import ObjectStore
from evolve.run_state import JournalError

logger = logging.getLogger(__name__)

BLOCK = 64
NAME = re.compile(r"(\d{8})(?:-(\d{8}))?")
HEAD = b'{"segment": '
LOOKS = 20  # at a list that changes while its objects are read


@dataclass(frozen=True, order=True)
class Span:
    """The segments that one object holds, the first and the last."""

    first: int
    last: int

    @property
    def size(self) -> int:
        """How many they are: 1 for a segment as it was written."""
        return self.last - self.first + 1

    def inside(self, other: "Span") -> bool:
        """Whether the other holds all of them too."""
        return other.first <= self.first and self.last <= other.last

    @property
    def stem(self) -> str:
        """The object's name, without its ending."""
        return f"{self.first:08d}" if self.size == 1 else f"{self.first:08d}-{self.last:08d}"


@dataclass
class Content:
    """What a log holds.

    Attributes:
        lines: All of them, without the heads.
        count: Of the segments, hence the next one's number.
        openings: Numbers of the segments that a writer began with.
    """

    lines: bytes = b""
    count: int = 0
    openings: set[int] = field(default_factory=set)


class SegmentLog:
    """The segments in one folder of a store."""

    def __init__(self, store: ObjectStore, folder: str = "journal", ending: str = ".jsonl") -> None:
        """Nothing is asked of the store yet."""
        self._store = store
        self._folder, self._ending = folder, ending

    def spans(self) -> list[Span]:
        """What objects there are, sorted."""
        found = []
        for name in self._store.names(self._folder):
            match = NAME.fullmatch(name.rsplit("/", 1)[-1].removesuffix(self._ending))
            if match:
                found.append(Span(int(match[1]), int(match[2] or match[1])))
        return sorted(found)

    def read(self) -> Content:
        """All that was written; while others write, delete and put together, too.

        Raises:
            JournalError: A segment in the middle is missing.
            StoreError: The store does not answer.
        """
        for look in range(LOOKS):
            spans, missing = cover(self.spans())
            parts = self._store.get_all(self.path(span) for span in spans)
            if missing is None and None not in parts:
                return _content(part for part in parts if part is not None)
            if missing is not None and look == LOOKS - 1:
                raise JournalError(f"{self._store.url}/{self._folder}: segment {missing} is missing")
            time.sleep(0.05)  # a list of many pages may be older at its begin than at its end
        raise JournalError(f"{self._store.url}/{self._folder}: it changes faster than it can be read")

    def path(self, span: Span) -> str:
        """Name of the object of a span."""
        return f"{self._folder}/{span.stem}{self._ending}"

    def drop(self, number: int) -> None:
        """Delete one that nobody needs any more."""
        self._store.delete([self.path(Span(number, number))])

    def get(self, number: int) -> bytes | None:
        """A segment as it was written; None where there is none, or none any more."""
        return self._store.get(self.path(Span(number, number)))

    def put_new(self, number: int, content: bytes) -> bool:
        """Put a segment; whether it is ours, and not another's that was first."""
        return self._store.create(self.path(Span(number, number)), content)

    def merge(self, openings: set[int]) -> int:
        """Put whole blocks together, and delete what they hold.

        Args:
            openings: Segments that are never deleted.

        Returns:
            How many blocks were made.
        """
        made, spans = 0, self.spans()
        for block in blocks(spans):
            inside, _ = cover([span for span in spans if span.inside(block)], block.first)
            parts = self._store.get_all(self.path(span) for span in inside)
            if None in parts:
                break  # someone else is at it
            self._store.put(self.path(block), b"".join(part for part in parts if part is not None))
            made += 1
        if made:
            spans = self.spans()
        merged = [span for span in spans if span.size > 1]
        self._store.delete(
            self.path(span)
            for span in spans
            if any(each != span and span.inside(each) for each in merged)
            and not (span.size == 1 and span.first in openings)
        )
        return made


class SegmentWriter:
    """The one writer of a log, from its opening segment on."""

    def __init__(self, log: SegmentLog, who: str) -> None:
        """Take the log over: whoever wrote before finds so at its next segment.

        Args:
            log: The log.
            who: For the message that the other one shows.

        Raises:
            JournalError: Others take it over again and again.
            StoreError: The store does not answer.
        """
        self.log = log
        self.who = who
        self.token = secrets.token_hex(8)
        for _ in range(LOOKS):
            self.content = log.read()
            self._next = self.content.count
            self.content.openings.add(self._next)
            if self._put(b""):
                return
        raise JournalError("the journal was taken over by others again and again")

    @property
    def next_number(self) -> int:
        """Of the segment that is written next."""
        return self._next

    def append(self, lines: bytes) -> None:
        """Write whole lines as one more segment; they are safe when this returns.

        Raises:
            JournalError: Another writer has taken the log over.
            StoreError: The store does not answer.
        """
        if not self._put(lines):
            raise JournalError(
                f"another driver has taken the run over ({self.successor()}), so this one ends"
            )

    def _put(self, lines: bytes) -> bool:
        head = {"segment": self._next, "writer": self.token, "who": self.who, "opens": not lines}
        if not self.log.put_new(self._next, json.dumps(head).encode() + b"\n" + lines):
            return False
        self._next += 1
        return True

    def successor(self) -> str:
        """Who wrote the segment that would have been this one's next; empty for nobody."""
        content = self.log.get(self._next)
        return str(json.loads(content.split(b"\n", 1)[0])["who"]) if content else ""


def cover(spans: list[Span], start: int = 0) -> tuple[list[Span], int | None]:
    """The fewest objects that hold all segments from `start` on, and the first segment that is missing between."""
    widest: dict[int, Span] = {}
    for span in spans:
        if span.first not in widest or span.size > widest[span.first].size:
            widest[span.first] = span
    chosen, place = [], start
    while place in widest:
        chosen.append(widest[place])
        place = widest[place].last + 1
    return chosen, place if any(span.first > place for span in spans) else None


def blocks(spans: list[Span]) -> list[Span]:
    """Blocks of 64 parts of one size, each in line with its own size, that are whole and not made yet."""
    have, found = set(spans), []
    size = 1
    while any(span.size == size for span in have):
        wide = size * BLOCK
        for first in sorted({span.first // wide * wide for span in have if span.size == size}):
            block = Span(first, first + wide - 1)
            parts = [Span(at, at + size - 1) for at in range(first, first + wide, size)]
            if block not in have and all(part in have for part in parts):
                found.append(block)
        have |= set(found)
        size = wide
    return found


def _content(parts: Iterable[bytes]) -> Content:
    found = Content()
    lines = []
    for line in b"".join(parts).splitlines(keepends=True):
        if not line.startswith(HEAD):
            lines.append(line)
            continue
        found.count += 1
        if json.loads(line)["opens"]:
            found.openings.add(found.count - 1)
    found.lines = b"".join(lines)
    return found
