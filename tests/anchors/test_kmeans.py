import numpy as np
import pytest

from anchors import AnchorError, metrics
from anchors.kmeans import kmeans, seed_indices


def rng():
    return np.random.default_rng(3)


def test_three_tight_crowds_are_found_sorted_by_area():
    crowds = np.array([[200.0, 150.0], [10.0, 10.0], [40.0, 80.0]])
    wh = np.repeat(crowds, 50, axis=0) * rng().uniform(0.98, 1.02, size=(150, 2))
    np.testing.assert_allclose(kmeans(wh, 3, rng()), crowds[[1, 2, 0]], rtol=0.01)


def test_a_centre_is_the_median_which_one_huge_box_does_not_drag_away():
    wh = np.array([[10.0, 20.0]] * 9 + [[900.0, 900.0]])
    assert kmeans(wh, 1, rng()).tolist() == [[10, 20]]


def test_weights_count_like_repeated_shapes():
    wh = np.array([[10.0, 10.0], [12.0, 10.0], [100.0, 90.0]])
    repeated = np.repeat(wh, [5, 1, 1], axis=0)
    weighted = kmeans(wh, 2, rng(), weights=np.array([5.0, 1.0, 1.0]))
    np.testing.assert_array_equal(weighted, kmeans(repeated, 2, rng()))


def test_more_centres_and_more_restarts_do_not_lower_the_mean_iou(people):
    few, many = (metrics.mean_best_iou(people, kmeans(people, k, rng())) for k in (3, 9))
    assert many > few
    one, five = (metrics.mean_best_iou(people, kmeans(people, 9, rng(), restarts=r)) for r in (1, 5))
    assert five >= one


def test_as_many_centres_as_shapes_are_the_shapes():
    wh = np.array([[3.0, 4.0], [10.0, 10.0], [70.0, 30.0]])
    np.testing.assert_array_equal(kmeans(wh, 3, rng()), wh)


def test_seeds_are_distinct_rows_even_when_shapes_repeat():
    wh = np.array([[5.0, 5.0]] * 4 + [[9.0, 3.0]])
    chosen = seed_indices(wh, 4, rng(), np.ones(5))
    assert len(set(chosen.tolist())) == 4
    assert 4 in chosen[:2]  # the other shape comes before a repeat


@pytest.mark.parametrize(("k", "count"), [(0, 3), (4, 3), (1, 0)])
def test_a_number_of_centres_that_cannot_be_is_refused(k, count):
    with pytest.raises(AnchorError, match=f"but got k={k} and {count} shapes"):
        kmeans(np.ones((count, 2)), k, rng())


def test_no_restart_at_all_is_refused():
    with pytest.raises(AnchorError, match="restarts and rounds must be at least 1"):
        kmeans(np.ones((3, 2)), 1, rng(), restarts=0)
