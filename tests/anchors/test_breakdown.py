"""Figures by level and class, the sweep, and the shapes that a network sees."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from anchors import AnchorError, metrics
from anchors.breakdown import by_class, by_level, find_level, find_unmatched, remark
from anchors.jitter import jitter
from anchors.sweep import find_knee, sweep

LEVELS = np.array([[[10.0, 10.0], [20.0, 12.0]], [[80.0, 90.0], [200.0, 180.0]]])


def test_a_box_belongs_to_the_level_whose_anchor_suits_it_best():
    assert find_level([[11, 9], [210, 170], [90, 90]], LEVELS).tolist() == [0, 1, 1]
    assert find_level(np.zeros((0, 2)), LEVELS).tolist() == []


def test_the_figures_of_levels_and_classes_add_up_to_those_of_all(people):
    classes = np.arange(len(people)) % 3
    whole = metrics.evaluate(people, LEVELS)
    for parts in (by_level(people, LEVELS), by_class(people, classes, ("a", "b", "c"), LEVELS)):
        assert sum(part.boxes for part in parts) == len(people)
        mean = sum(part.boxes * part.metrics.fitness for part in parts) / len(people)
        assert mean == pytest.approx(whole.fitness)


def test_a_class_without_a_name_is_called_by_its_id():
    parts = by_class([[10, 10], [20, 20]], np.array([0, 7]), ("cat",), LEVELS)
    assert [part.name for part in parts] == ["cat", "7"]


def test_boxes_out_of_reach_come_with_the_farthest_first():
    wh = [[10, 10], [10, 300], [10, 90], [10, 2000]]
    assert find_unmatched(wh, LEVELS).tolist() == [3, 1, 2]


def test_a_level_that_no_box_uses_and_boxes_too_small_for_the_stride_are_told():
    lines = remark([[9, 10], [3, 2], [12, 12]], LEVELS, (8, 16))
    assert "level 1 (stride 16) suits none of 3 boxes" in lines[0]
    assert "1 of 3 boxes are under half the smallest stride (8 px)" in lines[1]
    assert remark([[9, 10], [100, 100]], LEVELS, (8, 16)) == []
    with pytest.raises(AnchorError, match="a stride for each of 2 levels, but got 3"):
        remark([[9, 10]], LEVELS, (8, 16, 32))


def test_flat_anchors_have_no_levels():
    with pytest.raises(AnchorError, match=r"must have shape \(levels, per_level, 2\)"):
        find_level([[9, 10]], LEVELS[0])


def test_a_sweep_has_a_point_for_each_size_and_number_and_grows_with_the_number(people):
    points = sweep(people[:400], 640, (320, 640), (1, 3))
    assert [(point.image_size, point.k) for point in points] == [(320, 1), (320, 3), (640, 1), (640, 3)]
    assert points[0].metrics.fitness < points[1].metrics.fitness
    assert points[0].ignored >= points[2].ignored


def test_numbers_beyond_the_distinct_shapes_are_left_out():
    assert [point.k for point in sweep([[9, 9], [30, 30]], 64, (64,), (1, 2, 3))] == [1, 2]


@pytest.mark.parametrize(("sizes", "counts"), [((), (1,)), ((64,), ()), ((0,), (1,))])
def test_nothing_to_sweep_over_is_refused(sizes, counts):
    with pytest.raises(AnchorError, match="must be 1 or more"):
        sweep([[9, 9]], 64, sizes, counts)


def test_the_knee_is_where_the_curve_bends():
    assert find_knee([1, 2, 3, 6, 9], [0.4, 0.7, 0.8, 0.82, 0.83]) == 3
    assert find_knee([5], [0.5]) == 5
    with pytest.raises(AnchorError, match="a fitness for each number"):
        find_knee([1], [])


@given(scale=st.floats(0, 0.99), multi=st.floats(0, 0.99))
def test_jittered_shapes_keep_their_aspect_and_stay_within_their_factors(scale, multi):
    wh = np.array([[10.0, 20.0], [300.0, 30.0]])
    seen = jitter(wh, np.random.default_rng(0), scale=scale, multi_scale=multi)
    factor = seen.reshape(-1, 2, 2) / wh
    np.testing.assert_allclose(factor[..., 0], factor[..., 1])
    assert factor.max() <= (1 + scale) * (1 + multi) + 1e-9
    assert factor.min() >= (1 - scale) * (1 - multi) - 1e-9


def test_jitter_of_nothing_is_nothing_and_bounds_are_kept(people):
    assert jitter(people, np.random.default_rng(0)) is people
    assert jitter(people, np.random.default_rng(0), scale=0.9, limit=640).max() <= 640
    resized = jitter(people, np.random.default_rng(0), scale=0.9, multi_scale=0.5, limit=640)
    assert 640 < resized.max() <= 960  # the batch is resized after its boxes are cut
    assert len(jitter(np.zeros((0, 2)), np.random.default_rng(0), scale=0.5)) == 0
    with pytest.raises(AnchorError, match=r"0 <= scale <= 0\.99 must hold"):
        jitter(people, np.random.default_rng(0), scale=1.5)
