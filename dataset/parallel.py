"""Many label files at once: by processes of this machine, or by whatever the caller has."""

import multiprocessing
import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from typing import Any, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

MapFiles = Callable[[Callable[[Any], Any], list[Any]], list[Any]]
"""Applies a picklable function to each item of a list, and gives the results in order."""

_PART = 2000  # files read in one go: a second's work
_WORTH = 8000  # files from which on processes help: starting them takes a tenth of a second
_CHUNK = 64  # small files that a thread takes at once


def map_threads(function: Callable[[Item], Result], items: Sequence[Item]) -> list[Result]:
    """Apply a function that opens, reads or hashes a file, all of which let other threads run; results in order.

    A thread takes many items at once: to hand over one takes as long as to read it from a warm disk.
    """
    chunks = [items[first : first + _CHUNK] for first in range(0, len(items), _CHUNK)]
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        return [
            result
            for results in pool.map(lambda chunk: [function(item) for item in chunk], chunks)
            for result in results
        ]


def map_parts(
    function: Callable[[Sequence[Item]], Result], items: Sequence[Item], map_files: MapFiles | None = None
) -> list[Result]:
    """Apply a function to runs of items, in parallel where that helps, and give the results in order.

    Args:
        function: Takes some of the items; a function of a module, since it goes to other processes.
        items: What to divide.
        map_files: Used whatever the number, when given.
    """
    if not items:
        return []
    parts = [items[first : first + _PART] for first in range(0, len(items), _PART)]
    if map_files is not None:
        return map_files(function, parts)
    workers = min(os.cpu_count() or 1, len(parts))
    # A process that has threads must not be forked, and other ways of starting one run the user's script again.
    if len(items) < _WORTH or workers < 2 or threading.active_count() > 1:
        return [function(part) for part in parts]
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("fork")) as pool:
        return list(pool.map(function, parts))
