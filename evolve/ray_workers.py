"""Workers that go from trial to trial: starting one costs seconds, and a busy machine many of them.

Tune reuses the worker of a trial that ended. But while workers start, it gives one that became free to a trial whose
own is just starting, and gives that one up; the trial asked for next starts another. And it keeps at most one
that no trial waits for. With 64 workers on two cores and trials of 24 s that never came to rest: in ten minutes no 61
trials ran at once. See ADR 20.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from ray.tune.execution import tune_controller
from ray.tune.schedulers import FIFOScheduler


class InOrder(FIFOScheduler):
    """Trials begin in the order in which they were asked for, those whose worker is starting among them.

    Tune asks its scheduler at each of its steps which trial to run next, to give it a free worker; FIFOScheduler
    names the first that waits, though its own worker may be about to start. Trials that have none get one anyway.
    """

    def choose_trial_to_run(self, tune_controller: Any) -> None:
        """None: no trial comes before those that have no worker yet."""


@contextmanager
def workers_kept(wanted: Callable[[], bool]) -> Iterator[None]:
    """Within it Tune keeps every worker whose trial ended, for as long as another trial may come.

    The class that holds them is no public part of Ray. Where a release names it otherwise, workers are merely started
    more often.

    Args:
        wanted: Whether another trial may come.
    """
    before: Any = getattr(tune_controller, "_ObjectCache", None)
    if before is None:
        yield
        return

    class Kept(before):
        @property
        def num_cached_objects(self) -> int:
            # Only asked for in order to replace workers that are starting.
            return 0

        def cache_object(self, key: Any, obj: Any) -> bool:
            if not wanted():
                return bool(super().cache_object(key, obj))
            self._cached_objects[key].append(obj)
            self._num_cached_objects += 1
            return True

        def flush_cached_objects(self, force_all: bool = False) -> Iterator[Any]:
            if self._num_cached_objects and (force_all or not wanted()):
                yield from super().flush_cached_objects(force_all=True)

    tune_controller._ObjectCache = Kept
    try:
        yield
    finally:
        tune_controller._ObjectCache = before
