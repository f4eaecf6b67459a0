import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from anchors import metrics
from anchors.bins import build_bins, compress


def test_equal_shapes_share_a_bin_weighted_by_their_number():
    bins = build_bins(np.array([[10.0, 20.0], [30.0, 5.0], [10.0, 20.0], [10.0, 21.0]]))
    np.testing.assert_allclose(np.exp(bins.logs), [[10, 20], [10, 21], [30, 5]])
    assert bins.weights.tolist() == [0.5, 0.25, 0.25]
    assert bins.error == 0


def test_no_shapes_give_no_bins():
    bins = build_bins(np.empty((0, 2)))
    assert len(bins) == 0
    assert len(compress(bins, 10)) == 0


def test_few_bins_are_left_as_they_are(people):
    bins = build_bins(people[:50])
    assert compress(bins, 50) is bins


@pytest.mark.parametrize("most", [4, 37, 400, 2999])
def test_bins_are_as_many_as_allowed_and_not_far_fewer(people, most):
    bins = compress(build_bins(people), most)
    assert most * 0.5 <= len(bins) <= most
    assert bins.weights.sum() == pytest.approx(1)


def test_a_crowd_beside_one_far_shape_is_still_resolved():
    rng = np.random.default_rng(0)
    crowd = np.exp(rng.normal(3, 0.001, size=(2000, 2)))
    bins = compress(build_bins(np.concatenate([crowd, [[1e5, 1e5]]])), 300)
    assert len(bins) > 100
    assert bins.error < 0.001


@given(
    wh=st.integers(1, 200).flatmap(lambda n: arrays(np.float64, (n, 2), elements=st.floats(0.5, 2000))),
    most=st.integers(4, 40),
)
def test_the_stated_error_bounds_the_change_of_any_best_ratio(wh, most):
    anchors = np.array([[5.0, 9.0], [60.0, 40.0], [700.0, 900.0]])
    bins = compress(build_bins(wh), most)
    assert len(bins) <= most
    gaps = np.abs(np.log(wh)[:, None] - bins.logs).max(axis=-1).min(axis=1)
    assert gaps.max() <= bins.error + 1e-9
    exact = metrics.evaluate(wh, anchors).mean_best_ratio
    binned = metrics.best_ratio(np.exp(bins.logs), anchors) @ bins.weights
    assert abs(np.log(binned / exact)) <= bins.error + 1e-9


def test_compressing_twice_adds_the_errors(people):
    once = compress(build_bins(people), 1000)
    twice = compress(once, 100)
    gaps = np.abs(np.log(people)[:, None] - twice.logs).max(axis=-1).min(axis=1)
    assert once.error < gaps.max() <= twice.error
