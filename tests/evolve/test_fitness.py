"""Fitness of an epoch and of a history."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evolve.fitness import FitnessError, best_epoch, fitness

unit = st.floats(0, 1)


@given(unit, unit, unit)
def test_average_precision_counts_and_precision_does_not(
    map50: float, map50_95: float, precision: float
) -> None:
    metrics = {"map50": map50, "map50_95": map50_95, "precision": precision}
    assert fitness(metrics) == pytest.approx(0.1 * map50 + 0.9 * map50_95)


@given(unit)
def test_weights_can_be_chosen(recall: float) -> None:
    assert fitness({"recall": recall}, {"recall": 2.0, "map50": 0.0}) == 2 * recall


@pytest.mark.parametrize("bad", [None, math.nan, math.inf, -math.inf])
def test_a_metric_without_a_value_is_a_failed_epoch(bad: float | None) -> None:
    assert fitness({"map50": 0.5, "map50_95": bad}) is None


def test_a_metric_that_weighs_nothing_may_be_anything() -> None:
    assert fitness({"map50": 0.5, "map50_95": 0.5, "recall": math.nan}) == pytest.approx(0.5)


def test_a_metric_that_is_not_there_is_an_error_that_names_it() -> None:
    with pytest.raises(FitnessError, match=r"metrics must hold map50_95, but got only \['map50', 'map75'\]"):
        fitness({"map50": 0.5, "map75": 0.3})


@pytest.mark.parametrize("weights", [{"map50": -1.0}, {"map50": math.nan}, {"map50": 0.0}, {}])
def test_weights_that_rank_nothing_are_refused(weights: dict[str, float]) -> None:
    with pytest.raises(FitnessError, match="weight"):
        fitness({"map50": 0.5}, weights)


def test_the_best_epoch_is_the_fittest_and_the_earlier_of_equals() -> None:
    history = {
        0: {"map50": 0.2, "map50_95": 0.1},
        1: {"map50": 0.5, "map50_95": 0.4},
        2: {"map50": 0.9, "map50_95": None},
        3: {"map50": 0.5, "map50_95": 0.4},
    }
    assert best_epoch(history) == (1, pytest.approx(0.41))


@pytest.mark.parametrize("history", [{}, {0: {"map50": None, "map50_95": 0.5}}])
def test_a_history_without_a_good_epoch_has_no_best(history: dict[int, dict[str, float | None]]) -> None:
    assert best_epoch(history) is None
