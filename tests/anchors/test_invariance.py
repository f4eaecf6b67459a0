"""What must not change the anchors, and what must change them along."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

import anchors
from anchors import AnchorError, fit, metrics
from anchors.bins import build_bins, compress
from anchors.cover import cover
from anchors.search import Search

sides = st.floats(2, 640)


def shapes(least=4, most=40):
    return st.integers(least, most).flatmap(lambda n: arrays(np.float64, (n, 2), elements=sides, unique=True))


@settings(max_examples=3, deadline=None)
@given(wh=shapes(), order=st.randoms(use_true_random=False))
def test_the_order_of_boxes_and_repeating_all_of_them_change_nothing(wh, order):
    shuffled = wh[order.sample(range(len(wh)), len(wh))]
    first = fit(wh, 1, 2).anchors
    np.testing.assert_array_equal(fit(shuffled, 1, 2).anchors, first)
    np.testing.assert_array_equal(fit(np.repeat(wh, 3, axis=0), 1, 2).anchors, first)


@settings(max_examples=3, deadline=None)
@given(wh=shapes(), factor=st.sampled_from([4.0, 64.0, 2.0**-1]), high=st.sampled_from([1.0, 8.0]))
def test_shapes_scaled_by_any_factor_scale_the_anchors(wh, factor, high):
    scale = np.array([factor, factor * high])
    larger = wh * 4 * scale  # none falls under 2 px
    np.testing.assert_allclose(fit(larger, 1, 2).anchors, fit(wh * 4, 1, 2).anchors * scale, rtol=1e-8)


@given(
    wh=arrays(np.float64, (20, 2), elements=sides),
    anchors_=arrays(np.float64, (4, 2), elements=sides),
    threshold=st.floats(1.1, 8),
)
def test_more_anchors_never_lower_the_recall(wh, anchors_, threshold):
    fewer = metrics.evaluate(wh, anchors_[:3], threshold)
    more = metrics.evaluate(wh, anchors_, threshold)
    assert more.bpr >= fewer.bpr
    assert more.aat >= fewer.aat
    assert more.fitness >= fewer.fitness - 1e-12


def test_boxes_with_more_weight_count_more():
    wh = np.array([[10.0, 10.0]] * 50 + [[90.0, 10.0]] * 50)
    light = fit(wh, 1, 1, target_bpr=0.0, weights=np.repeat([1.0, 3.0], 50))
    heavy = fit(wh, 1, 1, target_bpr=0.0, weights=np.repeat([3.0, 1.0], 50))
    assert light.anchors.ravel().tolist() == [90, 10]
    assert heavy.anchors.ravel().tolist() == [10, 10]
    assert heavy.after.fitness == pytest.approx(0.75)
    with pytest.raises(AnchorError, match="one number for each of 100 boxes"):
        fit(wh, weights=[1.0])
    with pytest.raises(AnchorError, match="weights must be finite and greater than 0"):
        fit(wh, weights=np.zeros(100))


@pytest.mark.parametrize(
    "features",
    [
        pytest.param("AVX512F AVX512CD AVX512_SKX", marks=pytest.mark.slow),
        "AVX2 FMA3 AVX512F AVX512CD AVX512_SKX",
    ],
)
def test_machines_without_wide_registers_find_the_same_anchors(people, tmp_path, features):
    np.save(tmp_path / "wh.npy", people[:800])
    code = (
        "import sys, numpy as np; from anchors import fit;"
        "np.save(sys.argv[2], fit(np.load(sys.argv[1]), seed=1).anchors)"
    )
    environment = {
        **os.environ,
        "PYTHONPATH": str(Path(anchors.__file__).parents[1]),
        "NPY_DISABLE_CPU_FEATURES": features,
    }
    command = [
        sys.executable,
        "-W",
        "ignore",
        "-c",
        code,
        str(tmp_path / "wh.npy"),
        str(tmp_path / "out.npy"),
    ]
    subprocess.run(command, check=True, env=environment)
    np.testing.assert_array_equal(np.load(tmp_path / "out.npy"), fit(people[:800], seed=1).anchors)


def test_very_many_shapes_are_gathered_within_the_stated_bound(people):
    anchors_ = np.array([[20.0, 40.0], [100.0, 180.0]])
    cells = build_bins(people, most=1000)
    assert 0 < cells.error < 0.05
    assert cells.weights.sum() == pytest.approx(1)
    gaps = np.abs(np.log(people)[:, None] - cells.logs).max(axis=-1).min(axis=1)
    assert gaps.max() <= cells.error + 1e-9
    exact = metrics.evaluate(people, anchors_).mean_best_ratio
    binned = metrics.best_ratio(np.exp(cells.logs), anchors_) @ cells.weights
    assert abs(np.log(binned / exact)) <= cells.error


def test_boxes_as_wide_as_their_image_are_not_mixed_with_others(people):
    wide = people.copy()
    wide[:300, 0] = 640.0
    bins = compress(build_bins(wide), 200)
    assert bins.weights[bins.logs[:, 0] == build_bins(wide).logs[:, 0].max()].sum() == pytest.approx(0.1)


def test_two_crowds_that_one_anchor_covers_are_covered():
    wh = np.array([[10.0, 10.0], [40.0, 10.0], [300.0, 300.0]])
    bins, reach = build_bins(wh), float(np.log(2.1))
    best = cover(bins, 2, reach, np.random.default_rng(0))[0]
    assert metrics.best_possible_recall(wh, np.exp(best), 2.1) == 1.0


def test_a_target_out_of_reach_is_counted_and_the_widest_set_named():
    wh = np.array([[10.0, 10.0]] * 60 + [[10.0, 600.0]] * 25 + [[600.0, 10.0]] * 15)
    found = fit(wh, 1, 1, threshold=2.0, target_bpr=0.98)
    assert not found.reaches_target
    assert found.beyond == 40
    assert found.widest is not None
    assert metrics.count_unreached(wh, found.widest, 2.0) == 40
    assert fit(wh, 1, 1, threshold=2.0, target_bpr=0.5).beyond is None


@pytest.mark.shared
@pytest.mark.slow
def test_a_target_that_binds_is_met_alike_from_every_seed(label_set):
    found = [fit(label_set("coco_person_val2017"), 2, 2, 2.0, seed=seed).after for seed in range(5)]
    assert min(one.bpr for one in found) >= 0.98
    fitness = [one.fitness for one in found]
    assert min(fitness) >= 0.673
    assert max(fitness) / min(fitness) < 1.01


@pytest.mark.parametrize(
    ("wh", "message"),
    [
        ([[np.nan, 5]], "finite and greater than 0"),
        ([[np.inf, 5]], "finite and greater than 0"),
        ([[-3, 5]], "finite and greater than 0"),
        ([[0, 5]], "finite and greater than 0"),
        ([[1e-300, 5]], "finite and greater than 0"),
        ([[1e300, 5]], "finite and greater than 0"),
    ],
)
def test_sides_that_no_box_has_are_refused(wh, message):
    with pytest.raises(AnchorError, match=message):
        fit(wh, 1, 1)


def test_shapes_of_any_size_are_fitted_without_a_warning():
    rng = np.random.default_rng(0)
    wh = np.exp(rng.uniform(np.log(1e-3), np.log(1e6), size=(500, 2)))
    found = fit(wh, 3, 3)
    assert np.isfinite(found.anchors).all()
    assert found.ignored == int((wh < 2).all(axis=1).sum())
    assert fit([[5, 7]] * 3, 1, 1).anchors.tolist() == [[[5.0, 7.0]]]
    assert Search.over(build_bins(wh), 3, 4.0, rng).k == 3
