"""Many label files at once: by processes of this machine, or by whatever the caller has."""

import multiprocessing
import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import Any, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

MapFiles = Callable[[Callable[[Any], Any], list[Any]], list[Any]]
"""Applies a picklable function to each item of a list, and gives the results in order."""

_PART = 2000  # files read in one go: a second's work
_WORTH = 8000  # files from which on processes help: starting them takes a tenth of a second


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
