"""Spreading a function over Ray's workers: order, errors, and what is left running."""

import json
import operator
import os
from pathlib import Path

import pytest

from evolve.ray_session import ray_map
from evolve.space import EvolveError

pytestmark = pytest.mark.ray


@pytest.fixture(scope="module", autouse=True)
def ray_processes():
    """One Ray for the module, ended with it."""
    import ray

    ray.init("local", num_cpus=2, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


def test_answers_come_in_the_order_of_the_items_and_from_other_processes() -> None:
    assert ray_map(operator.neg, list(range(37))) == [-number for number in range(37)]
    assert os.getpid() not in ray_map(_pid, [None] * 4)


def _pid(_item: None) -> int:
    return os.getpid()


def test_nothing_to_do_is_done_at_once() -> None:
    assert ray_map(operator.neg, [], address="127.0.0.1:1") == []


def test_what_the_function_raises_is_raised_here_as_itself(tmp_path: Path) -> None:
    with pytest.raises(json.JSONDecodeError, match="Expecting value"):
        ray_map(json.loads, ["1", "2", "no json", "4"])


def _die(_item: int) -> None:
    os._exit(1)


def test_workers_that_always_die_are_one_line() -> None:
    with pytest.raises(EvolveError, match="lost the workers of a task"):
        ray_map(_die, [1])
