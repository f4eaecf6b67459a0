import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from anchors import AnchorError, metrics

COCO = [[10, 13], [16, 30], [33, 23], [30, 61], [62, 45], [59, 119], [116, 90], [156, 198], [373, 326]]

sides = st.floats(0.5, 2000)


def shapes(least=1, most=30):
    return st.integers(least, most).flatmap(lambda n: arrays(np.float64, (n, 2), elements=sides))


def test_the_ratio_is_that_of_the_worse_side():
    assert metrics.ratio([[10, 10]], [[20, 10], [10, 40], [5, 40]]).tolist() == [[0.5, 0.25, 0.25]]


def test_the_iou_of_centred_boxes_follows_by_hand():
    assert metrics.centred_iou([[10, 10]], [[20, 5]])[0, 0] == pytest.approx(50 / 150)


def test_a_box_exactly_at_the_threshold_is_not_recalled():
    assert metrics.best_possible_recall([[40, 10]], [[10, 10]], threshold=4.0) == 0.0
    assert metrics.best_possible_recall([[30, 10]], [[10, 10]], threshold=3.0) == 0.0
    assert metrics.best_possible_recall([[39.999, 10]], [[10, 10]], threshold=4.0) == 1.0


def test_the_figures_of_two_boxes_follow_by_hand():
    found = metrics.evaluate([[10, 10], [10, 100]], [[10, 20], [5, 10]], threshold=4.0)
    assert found.bpr == 0.5
    assert found.aat == 1.0
    assert found.fitness == pytest.approx(0.25)
    assert found.mean_best_ratio == pytest.approx((0.5 + 0.2) / 2)
    assert found.mean_best_iou == pytest.approx((0.5 + 0.2) / 2)


def test_the_single_figures_are_those_of_evaluate(people):
    found = metrics.evaluate(people, COCO, 3.0)
    assert metrics.best_possible_recall(people, COCO, 3.0) == found.bpr
    assert metrics.anchors_above_threshold(people, COCO, 3.0) == found.aat
    assert metrics.fitness(people, COCO, 3.0) == found.fitness
    assert metrics.mean_best_iou(people, COCO) == found.mean_best_iou
    assert metrics.best_ratio(people, COCO).mean() == pytest.approx(found.mean_best_ratio)


def test_levels_of_anchors_count_like_the_same_anchors_in_one_list(people):
    assert metrics.evaluate(people, np.reshape(COCO, (3, 3, 2))) == metrics.evaluate(people, COCO)


def test_more_boxes_than_one_slice_holds_are_all_counted():
    wh = np.ones((150_000, 2)) * 10
    wh[-1] = 1000
    assert metrics.evaluate(wh, [[10, 10]]).bpr == pytest.approx(1 - 1 / 150_000, abs=1e-12)


@pytest.mark.parametrize("function", [metrics.ratio, metrics.centred_iou])
def test_no_boxes_give_an_empty_table(function):
    assert function(np.empty((0, 2)), COCO).shape == (0, 9)
    assert function([], COCO).shape == (0, 9)


def test_no_boxes_give_figures_of_zero():
    assert metrics.evaluate([], COCO) == metrics.AnchorMetrics(0.0, 0.0, 0.0, 0.0, 0.0)
    assert metrics.best_ratio([], COCO).shape == (0,)


@given(wh=shapes(), anchors=shapes(most=6))
def test_the_ratio_is_the_exponential_of_a_chebyshev_distance(wh, anchors):
    distance = np.abs(np.log(wh)[:, None] - np.log(anchors)).max(axis=-1)
    np.testing.assert_allclose(metrics.ratio(wh, anchors), np.exp(-distance), rtol=1e-9)


@given(wh=shapes(), anchors=shapes(most=6), scale=st.floats(0.1, 10))
def test_both_tables_are_within_bounds_and_blind_to_scale(wh, anchors, scale):
    for function in (metrics.ratio, metrics.centred_iou):
        table = function(wh, anchors)
        assert ((table > 0) & (table <= 1 + 1e-12)).all()
        np.testing.assert_allclose(function(wh * scale, anchors * scale), table, rtol=1e-9)


@given(wh=shapes(), anchors=shapes(least=2, most=6), threshold=st.floats(1.1, 8))
def test_another_anchor_never_lowers_a_figure(wh, anchors, threshold):
    fewer = metrics.evaluate(wh, anchors[:-1], threshold)
    more = metrics.evaluate(wh, anchors, threshold)
    for name in ("bpr", "aat", "fitness", "mean_best_iou", "mean_best_ratio"):
        assert getattr(more, name) >= getattr(fewer, name) - 1e-12


@given(wh=shapes(), anchors=shapes(most=6))
def test_inputs_are_not_edited(wh, anchors):
    before = wh.copy(), anchors.copy()
    metrics.evaluate(wh, anchors)
    np.testing.assert_array_equal(wh, before[0])
    np.testing.assert_array_equal(anchors, before[1])


@pytest.mark.parametrize(
    ("wh", "message"),
    [
        ([[1, 2, 3]], r"shape \(N, 2\), but got \(1, 3\)"),
        ([[1, 2], [0, 5]], r"1 bad rows of 2, the first is row 1: \[0.0, 5.0\]"),
        ([[1, np.nan]], "finite and greater than 0"),
        ([[1, 2], [np.inf, 5]], "finite and greater than 0"),
        ([[-1, 2]], "finite and greater than 0"),
        ([[1, 2], [3]], "must be an .N, 2. array of numbers"),
        ("shapes", "must be an .N, 2. array of numbers"),
    ],
)
def test_shapes_that_are_none_are_refused(wh, message):
    with pytest.raises(AnchorError, match=message):
        metrics.evaluate(wh, COCO)


@pytest.mark.parametrize(
    ("anchors", "message"),
    [
        ([], "anchors must have shape"),
        ([1, 2], "anchors must have shape"),
        ([[[[1, 2]]]], "anchors must have shape"),
        ([[1, 2], [3]], "ragged rows"),
        ([[1, -2]], "anchors must be finite"),
    ],
)
def test_anchors_that_are_none_are_refused(anchors, message):
    with pytest.raises(AnchorError, match=message):
        metrics.evaluate([[1, 2]], anchors)


@pytest.mark.parametrize("threshold", [1.0, 0.25, np.nan, np.inf])
def test_a_threshold_that_nothing_can_pass_is_refused(threshold):
    with pytest.raises(AnchorError, match="threshold must be finite and greater than 1"):
        metrics.evaluate([[1, 2]], COCO, threshold)


@pytest.mark.shared
@pytest.mark.parametrize(
    ("name", "bpr"),
    [
        ("lines_timeus", 0.381),
        ("lines_cremma_medieval", 0.943),
        ("sroie_textlines", 0.950),
        ("uavvaste", 0.951),
    ],
)
def test_the_recall_of_the_coco_anchors_is_the_one_known(label_set, name, bpr):
    assert metrics.best_possible_recall(label_set(name), COCO) == pytest.approx(bpr, abs=6e-4)
