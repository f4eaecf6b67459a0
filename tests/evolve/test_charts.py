"""Axes, ticks and marks: where values are drawn, and that nothing else than a number is."""

import math
import re
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evolve.charts import Axis, Chart, drawable, fixed, range_bar, short
from evolve.space import Gene

NUMBERS = st.floats(-1e12, 1e12)


@st.composite
def axes(draw: st.DrawFn) -> Axis:
    log = draw(st.booleans())
    values = draw(st.lists(st.floats(1e-30, 1e30) if log else NUMBERS, min_size=0, max_size=8))
    return Axis.around(values, log=log, whole=draw(st.booleans()))


@given(axes(), st.integers(2, 9))
def test_ticks_ascend_within_the_axis_and_are_no_more_than_asked_for(axis: Axis, most: int) -> None:
    ticks = axis.ticks(most)
    slack = 1e-6 * max(abs(axis.low), abs(axis.high))
    assert len(ticks) <= most
    assert all(before < after for before, after in pairwise(ticks))
    assert all(axis.low - slack <= tick <= axis.high + slack for tick in ticks)


@given(axes(), NUMBERS, NUMBERS)
def test_a_larger_value_never_lies_lower_and_none_lies_outside(axis: Axis, a: float, b: float) -> None:
    low, high = sorted((a, b))
    assert 0.0 <= axis.place(low) <= axis.place(high) <= 1.0


@given(st.lists(NUMBERS, min_size=1, max_size=9))
def test_an_axis_around_values_holds_them_with_air_on_both_sides(values: list[float]) -> None:
    axis = Axis.around(values)
    assert axis.low < min(values)
    assert max(values) < axis.high


@pytest.mark.parametrize(
    ("axis", "most", "ticks"),
    [
        (Axis(0.0, 1.0), 6, [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]),
        (Axis(0.0, 1.0), 4, [0.0, 0.5, 1.0]),
        (Axis(0.0, 3.0, whole=True), 6, [0.0, 1.0, 2.0, 3.0]),
        (Axis(1e-5, 1e-1, log=True), 6, [1e-5, 1e-4, 1e-3, 1e-2, 1e-1]),
        (Axis(2.0, 8.0, log=True), 6, [2.0, 3.0, 5.0]),
        (Axis(4.1, 4.9, log=True), 6, [4.2, 4.4, 4.6, 4.8]),
        (Axis(1e-12, 1.0, log=True), 4, [1e-12, 1e-8, 1e-4, 1.0]),
    ],
)
def test_ticks_are_round(axis: Axis, most: int, ticks: list[float]) -> None:
    assert axis.ticks(most) == pytest.approx(ticks)


@pytest.mark.parametrize(
    "gene", [Gene("a", 1e-5, 0.1, log=True), Gene("b", -2.0, 5.0), Gene("c", 0, 9, log=True)]
)
def test_a_gene_is_drawn_where_the_search_encodes_it(gene: Gene) -> None:
    axis = Axis(gene.low, gene.high, log=gene.logarithmic)
    for unit in (0.0, 0.1, 0.5, 1.0):
        value = gene.decode(unit)
        assert axis.place(value) == pytest.approx(gene.encode(value), abs=1e-9)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, None, "3", True, [1.0], 1e200])
def test_what_is_no_usable_number_is_a_dash_and_not_drawn(value: object) -> None:
    assert drawable(value) is None
    assert short(value) == fixed(value) == "–"


@given(st.floats(-1e20, 1e20))
def test_a_short_number_reads_back_to_its_digits(value: float) -> None:
    assert float(short(value)) == pytest.approx(value, rel=1e-3, abs=0)


def _path(chart: Chart) -> str:
    found = re.search(r'<path d="([^"]+)"', chart.render())
    assert found is not None
    return found.group(1)


def test_a_long_line_is_thinned_and_keeps_both_ends() -> None:
    points = [(float(n), math.sin(n)) for n in range(1000)]
    chart = Chart(Axis(0.0, 999.0), Axis(-1.0, 1.0), "sine")
    chart.line(points, "curve")
    path = _path(chart)
    assert path.count("L") <= 150
    assert path.startswith("M0.0 500.0")
    assert path.split("L")[-1].startswith("1000.0 ")


def test_steps_go_level_and_are_never_thinned() -> None:
    chart = Chart(Axis(0.0, 2.0), Axis(0.0, 1.0), "steps")
    chart.line([(0.0, 0.0), (1.0, 1.0), (2.0, 1.0)], "curve", steps=True)
    assert _path(chart) == "M0.0 1000.0H500.0V0.0H1000.0V0.0"


def test_a_chart_without_points_is_a_grid_alone() -> None:
    chart = Chart(Axis.around([]), Axis.around([]), "nothing")
    chart.line([], "curve")
    chart.cloud([], "cloud")
    assert "<path" not in chart.render()
    assert 'class="grid"' in chart.render()


def test_a_cloud_is_bounded_and_its_points_are_spread_over_all() -> None:
    chart = Chart(Axis(0.0, 20000.0), Axis(0.0, 1.0), "cloud")
    chart.cloud([(float(n), 0.5) for n in range(20001)], "cloud")
    places = [float(x) for x in re.findall(r"M([\d.]+) ", _path(chart))]
    assert len(places) <= 4000
    assert places[0] == 0.0
    assert places[-1] > 999.0


def test_marks_lie_where_their_values_are_and_say_them() -> None:
    chart = Chart(Axis(0.0, 4.0), Axis(0.0, 1.0), "marks", height=200)
    chart.dot((1.0, 0.75), "one", strength=0.5)
    chart.mark((2.0, 0.5), "best", "two")
    drawn = chart.render()
    assert '<circle cx="25.00%" cy="50.0" r="4" class="dot" fill-opacity="0.50"><title>one</title>' in drawn
    assert '<title>two</title><use href="#mark-best" x="50.00%" y="100.0" class="best">' in drawn


def test_a_range_bar_leaves_out_a_value_that_is_not_there() -> None:
    bar = range_bar(Axis(0.0, 1.0), 0.25, None)
    assert 'x="25.00%"' in bar
    assert "mark-best" not in bar
