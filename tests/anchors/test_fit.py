import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import anchors
from anchors import AnchorError, fit, metrics
from anchors.kmeans import kmeans

COCO = np.reshape(
    [10, 13, 16, 30, 33, 23, 30, 61, 62, 45, 59, 119, 116, 90, 156, 198, 373, 326], (3, 3, 2)
).astype(float)


def environment():
    return {**os.environ, "PYTHONPATH": str(Path(anchors.__file__).parents[1])}


def rank(figures, target):
    return figures.bpr >= target, figures.fitness


def test_the_anchors_come_by_level_sorted_by_area_with_their_exact_figures(people):
    found = fit(people, levels=4, per_level=2)
    assert found.anchors.shape == (4, 2, 2)
    area = found.anchors.prod(axis=2).ravel()
    assert (np.diff(area) > 0).all()
    assert found.after == metrics.evaluate(people, found.anchors)
    assert found.boxes == 3000
    assert found.ignored == 0
    assert found.before is None
    assert found.reaches_target
    assert found.seconds > 0


def test_a_search_beats_kmeans_and_the_default_anchors(people):
    found = fit(people, start=COCO)
    clustered = metrics.evaluate(people, kmeans(people, 9, np.random.default_rng(0)))
    assert found.before == metrics.evaluate(people, COCO)
    assert found.after.fitness > max(clustered.fitness, found.before.fitness) + 0.004


def test_the_same_seed_gives_the_same_anchors_in_another_process(people, tmp_path):
    np.save(tmp_path / "wh.npy", people[:900])
    code = (
        "import sys, numpy as np; from anchors import fit;"
        "np.save(sys.argv[2], fit(np.load(sys.argv[1]), levels=2, seed=7).anchors)"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "wh.npy"), str(tmp_path / "anchors.npy")]
    subprocess.run(command, check=True, env=environment())
    np.testing.assert_array_equal(
        np.load(tmp_path / "anchors.npy"), fit(people[:900], levels=2, seed=7).anchors
    )


def test_the_global_random_state_is_neither_read_nor_changed(people):
    np.random.seed(1)  # noqa: NPY002  the state under test is the global one
    first = fit(people[:300], levels=1).anchors
    state = np.random.get_state()[1].copy()  # noqa: NPY002
    np.testing.assert_array_equal(fit(people[:300], levels=1).anchors, first)
    np.testing.assert_array_equal(np.random.get_state()[1], state)  # noqa: NPY002


def test_as_many_shapes_as_anchors_are_the_anchors():
    wh = np.array([[50.0, 60.0], [10.0, 20.0], [300.0, 310.0], [33.0, 12.0]])
    found = fit(np.repeat(wh, 3, axis=0), levels=2, per_level=2)
    np.testing.assert_array_equal(found.anchors.reshape(-1, 2), wh[[1, 3, 0, 2]])
    assert found.after.fitness == 1.0
    assert found.unreachable == 0


def test_shapes_that_hardly_differ_are_no_hindrance():
    wh = 50 + np.linspace(0, 1e-3, 24).reshape(12, 2)
    assert fit(wh).after.fitness > 0.9999


def test_boxes_under_two_pixels_on_both_sides_are_left_out_and_counted(people):
    tiny = np.array([[1.9, 1.9], [1.0, 0.5], [1.0, 5.0], [2.0, 2.0]])
    found = fit(np.concatenate([people[:200], tiny]), levels=1)
    assert found.ignored == 2
    assert found.boxes == 202


def test_boxes_out_of_reach_are_counted():
    wh = np.array([[10.0, 10.0]] * 98 + [[10.0, 300.0], [300.0, 10.0]])
    found = fit(wh, levels=1, per_level=1)
    assert found.unreachable == 2
    assert found.after.bpr == pytest.approx(0.98)
    assert found.reaches_target
    assert not fit(wh, levels=1, per_level=1, target_bpr=0.99).reaches_target


def test_recall_is_bought_with_fitness_when_the_target_asks_for_it():
    # One anchor fits 70 boxes exactly, or reaches all 100 from in between.
    wh = np.array([[10.0, 10.0]] * 70 + [[90.0, 10.0]] * 30)
    free = fit(wh, levels=1, per_level=1, target_bpr=0.5)
    bound = fit(wh, levels=1, per_level=1, target_bpr=0.98)
    assert free.after.bpr == pytest.approx(0.7)
    assert bound.after.bpr == 1.0
    assert bound.after.fitness < free.after.fitness
    # The best such anchor is as near to the many as the few allow: a quarter of their width.
    assert bound.after.fitness == pytest.approx(0.7 * 10 / 22.5 + 0.3 * 0.25, abs=0.01)


@pytest.mark.parametrize("gap", [2.0, 3.0, 3.9])
def test_a_target_that_only_a_place_between_shapes_reaches_is_reached(gap):
    centres = np.array([[20.0, 20.0], [20.0, 400.0], [150.0, 60.0]])
    wh = np.concatenate([centres * [gap, 1], centres / [gap, 1], centres * [1, gap], centres / [1, gap]])
    found = fit(wh, levels=1, per_level=3, threshold=gap * 1.05, target_bpr=1.0)
    assert found.after.bpr == 1.0


def test_a_start_that_cannot_be_bettered_is_kept():
    wh = np.array([[10.0, 20.0], [40.0, 30.0], [200.0, 200.0]])
    found = fit(wh, levels=1, start=wh[::-1])
    np.testing.assert_allclose(found.anchors[0], wh)
    assert found.before is not None
    assert found.after == found.before


def test_a_start_keeps_its_recall_where_the_target_cannot_be_had():
    rng = np.random.default_rng(4)
    wh = np.exp(rng.uniform(1, 6.5, size=(400, 2)))
    start = [[40.0, 40.0]]
    found = fit(wh, levels=1, per_level=1, threshold=2.0, start=start)
    assert not found.reaches_target
    assert found.before is not None
    assert found.after.bpr >= found.before.bpr
    assert found.after.fitness >= found.before.fitness


@settings(max_examples=6, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    levels=st.integers(1, 3),
    per_level=st.integers(1, 2),
    threshold=st.floats(1.5, 8),
    target=st.floats(0.3, 1.0),
)
def test_no_fit_is_worse_than_its_start(seed, levels, per_level, threshold, target):
    rng = np.random.default_rng(seed)
    wh = np.exp(rng.normal(4, 0.8, size=(120, 2))) + 2
    start = np.exp(rng.normal(4, 0.8, size=(levels, per_level, 2)))
    found = fit(wh, levels, per_level, threshold, target, seed, start=start)
    assert found.before == metrics.evaluate(wh, start, threshold)
    assert rank(found.after, target) >= rank(found.before, target)
    assert found.unreachable == round((1 - found.after.bpr) * 120)
    if not found.reaches_target:
        assert found.after.bpr >= found.before.bpr


@pytest.mark.parametrize(("levels", "per_level"), [(1, 1), (2, 1), (5, 4)])
@pytest.mark.parametrize("threshold", [2.0, pytest.param(8.0, marks=pytest.mark.slow)])
def test_one_to_twenty_anchors_are_found_at_tight_and_loose_thresholds(people, levels, per_level, threshold):
    found = fit(people[:150], levels, per_level, threshold, target_bpr=0.5)
    assert found.anchors.shape == (levels, per_level, 2)
    assert len(np.unique(found.anchors.reshape(-1, 2), axis=0)) == levels * per_level


def test_progress_rises_from_nothing_to_all(people):
    told = []
    fit(people[:300], progress=told.append)
    assert told[0] == 0.0
    assert told[-1] == 1.0
    assert told == sorted(told)
    assert len(told) > 5
    told.clear()
    fit(people[:300], levels=1, per_level=1, threshold=2.0, progress=told.append)
    assert told == sorted(told)
    assert told[-1] == 1.0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"wh": []}, "there are no boxes to fit anchors to: check that the labels were found"),
        ({"wh": [[1, 1], [0.5, 1]]}, "2 of 2 boxes are under 2 px on both sides and were left out"),
        ({"wh": [[10, 0]]}, "wh must be finite and greater than 0"),
        (
            {"wh": [[10, 20]] * 50},
            r"at least 9 distinct box shapes, but there are 1 .*fewer levels or anchors",
        ),
        ({"wh": [[10, 20, 30]]}, r"wh must have shape \(N, 2\)"),
        ({"levels": 0}, "levels must be at least 1, but got 0"),
        ({"per_level": -1}, "per_level must be at least 1, but got -1"),
        ({"levels": 2.5}, "levels must be a whole number, but got 2.5"),
        ({"seed": -1}, "seed must be at least 0, but got -1"),
        ({"threshold": 1.0}, "threshold must be finite and greater than 1, but got 1.0"),
        ({"target_bpr": 1.5}, "0 <= target_bpr <= 1 must hold, but got 1.5"),
        ({"target_bpr": np.nan}, "0 <= target_bpr <= 1 must hold, but got nan"),
        ({"start": COCO[:2]}, r"start must have shape \(3, 3, 2\) or \(9, 2\), but got \(2, 3, 2\)"),
        ({"start": COCO.reshape(9, 1, 2)}, "start must have shape"),
        ({"start": -COCO}, "start must be finite and greater than 0"),
    ],
)
def test_what_cannot_be_fitted_is_refused_in_one_line(people, change, message):
    with pytest.raises(AnchorError, match=message) as caught:
        fit(**{"wh": people, **change})
    assert "\n" not in str(caught.value)


def test_importing_the_room_imports_neither_matplotlib_nor_torch():
    code = "import sys, anchors; sys.exit(bool({'matplotlib', 'torch'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False, env=environment()).returncode == 0


@pytest.mark.shared
@pytest.mark.parametrize(
    ("name", "known"),
    [
        pytest.param("lines_timeus", 0.9311, marks=pytest.mark.slow),
        ("coco_person_val2017", 0.7968),
        ("uavvaste", 0.7930),
    ],
)
def test_real_sets_come_as_close_as_can_be_to_the_best_known_fitness(label_set, name, known):
    found = fit(label_set(name))
    assert found.after.fitness >= 0.999 * known
    assert found.after.bpr >= 0.98


@pytest.mark.shared
@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "known"),
    [
        ("sroie_textlines", 0.8062),
        ("coco_person_train2017", 0.7953),
        ("ccpd_plates", 0.8606),
        ("deepforest_trees", 0.8694),
        ("lines_cremma_medieval", 0.8944),
        ("rico_icons", 0.8749),
    ],
)
def test_large_sets_reach_the_best_known_fitness_from_every_seed(label_set, name, known):
    wh = label_set(name)
    for seed in range(5):
        found = fit(wh, seed=seed)
        assert found.after.fitness >= 0.999 * known
        assert found.after.bpr >= 0.98
