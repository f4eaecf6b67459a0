"""Who leads when trials are noisy."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evolve.racing import noise_of, standings

runs = st.lists(st.tuples(st.integers(0, 5), st.none() | st.floats(-10, 10)), max_size=30)


def test_without_trials_there_are_no_standings() -> None:
    assert standings([]) == []
    assert standings([(0, None)]) == []


def test_without_repeated_trials_the_fittest_leads_and_the_earlier_of_equals() -> None:
    table = standings([(0, 0.2), (1, 0.5), (2, 0.5), (3, None)])
    assert [each.trial for each in table] == [1, 2, 0]
    assert {each.margin for each in table} == {None}
    assert table[0].low == table[0].mean == 0.5


def test_a_lucky_trial_does_not_beat_a_configuration_that_was_good_three_times() -> None:
    table = standings([(1, 0.50), (1, 0.54), (1, 0.52), (2, 0.525), (3, 0.40), (3, 0.44)])
    assert table[0].trial == 1
    assert table[0].runs == 3


def test_a_far_better_single_trial_leads_all_the_same() -> None:
    assert standings([(0, 0.50), (0, 0.52), (1, 0.9)])[0].trial == 1


def test_the_start_keeps_its_place_before_what_is_hardly_better() -> None:
    # A standard deviation of 0.02, so 0.028 between two single trials.
    noise = [(5, 0.30), (5, 0.34), (5, 0.32)]
    assert [each.trial for each in standings([(0, 0.50), (1, 0.52), *noise])] == [0, 1, 5]
    assert [each.trial for each in standings([(0, 0.50), (1, 0.54), *noise])] == [1, 0, 5]
    # Nine trainings of each tell them apart.
    often = [(0, 0.50)] * 9 + [(1, 0.52)] * 9
    assert standings([*often, *noise])[0].trial == 1


def test_without_repeated_trials_nothing_holds_the_start() -> None:
    assert standings([(0, 0.50), (1, 0.501)])[0].trial == 1


def test_a_start_that_failed_once_keeps_no_place() -> None:
    assert standings([(0, 0.50), (0, None), (1, 0.505), (2, 0.30), (2, 0.34)])[0].trial == 1


def test_a_configuration_that_failed_once_comes_after_all_that_never_did() -> None:
    table = standings([(0, 0.9), (0, None), (1, 0.1), (1, 0.12)])
    assert [(each.trial, each.failures) for each in table] == [(1, 0), (0, 1)]


def test_the_noise_is_pooled_within_groups() -> None:
    assert noise_of([[1.0, 3.0], [10.0, 10.0], [5.0], []]) == (pytest.approx(1.0), 2)
    assert noise_of([[1.0], [2.0]]) is None


def test_more_trials_narrow_the_interval() -> None:
    few = standings([(0, 0.4), (0, 0.6)])[0]
    many = standings([(0, 0.4), (0, 0.6)] * 4 + [(1, -5.0)])[0]
    assert few.margin is not None
    assert many.margin is not None
    assert many.margin < few.margin / 2


@given(runs)
def test_lower_bounds_never_exceed_means_and_every_finished_configuration_stands_once(
    history: list[tuple[int, float | None]],
) -> None:
    table = standings(history)
    assert sorted(each.trial for each in table) == sorted(
        {first for first, value in history if value is not None}
    )
    for each in table:
        assert each.low <= each.mean
        assert each.runs == sum(first == each.trial and value is not None for first, value in history)
