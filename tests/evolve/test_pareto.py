"""Several objectives."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from evolve import pareto

tables = st.integers(1, 4).flatmap(
    lambda k: arrays(np.float64, st.tuples(st.integers(0, 12), st.just(k)), elements=st.floats(-3, 3))
)


def test_a_row_that_is_equal_in_one_and_worse_in_another_objective_is_dominated() -> None:
    assert pareto.dominated([[1, 1], [1, 0], [2, -1], [1, 1]]).tolist() == [False, True, False, False]


def test_without_rows_there_is_nothing_to_rank() -> None:
    for function in (pareto.dominated, pareto.fronts, pareto.crowding, pareto.ranking, pareto.one_score):
        assert len(function(np.zeros((0, 2)))) == 0


def test_the_ends_of_a_front_are_alone_and_the_crowded_come_last() -> None:
    front = [[0, 4], [1, 3], [1.1, 2.9], [3, 1], [4, 0]]
    alone = pareto.crowding(front)
    assert np.isinf(alone[[0, 4]]).all()
    assert np.argmin(alone) == 1
    assert pareto.ranking(front)[-1] == 1


def test_one_objective_is_ranked_as_itself() -> None:
    assert pareto.ranking([[0.2], [0.9], [0.5]]).tolist() == [1, 2, 0]
    assert pareto.one_score([[0.2], [0.9], [0.5]]).tolist() == [0.0, 1.0, 0.5]


def test_objectives_that_are_no_numbers_are_refused() -> None:
    with pytest.raises(ValueError, match="must be finite numbers"):
        pareto.fronts([[np.nan, 1.0]])


@given(tables)
def test_no_row_is_beaten_by_one_of_its_own_or_a_later_front(values: np.ndarray) -> None:
    front = pareto.fronts(values)
    for i, one in enumerate(values):
        for j, other in enumerate(values):
            if (other >= one).all() and (other > one).any():
                assert front[j] < front[i]
    if len(values):
        assert sorted(set(front.tolist())) == list(range(int(front.max()) + 1))


@given(tables)
def test_scores_fall_with_the_front(values: np.ndarray) -> None:
    front, score = pareto.fronts(values), pareto.one_score(values)
    for number in range(int(front.max()) if len(front) else 0):
        assert score[front == number].min() > score[front == number + 1].max()
