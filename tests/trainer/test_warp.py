"""Warps: px and boxes go through one map, and only boxes that still show their object are kept."""

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from trainer.config import Hyperparameters
from trainer.warp import (
    GREY,
    Scene,
    Warp,
    draw_warp,
    render,
    to_corners,
    to_shares,
    warp_labels,
    worth_showing,
)

NONE = np.zeros((0, 5), np.float32)

seeds = st.integers(0, 2**32 - 1)
shares = st.floats(0, 1, width=32)


class TestRender:
    @settings(max_examples=100, deadline=None)
    @given(seeds, st.sampled_from([0.0, 0.1, 0.4]), st.sampled_from([0.0, 0.3, 0.6]))
    def test_a_stretch_is_the_warp_by_the_same_matrix(self, seed, translate, scale):
        hyp = Hyperparameters(translate=translate, scale=scale)
        warp = draw_warp(np.random.default_rng(seed), hyp, (90, 120), (64, 96))
        noise = np.random.default_rng(seed).integers(0, 256, (90, 120, 3), dtype=np.uint8)
        blurred = cv2.GaussianBlur(noise, (0, 0), 3)
        scene = Scene((90, 120), ((blurred, 0, 0),))
        fast = render(scene, warp).astype(int)
        exact = render(scene, Warp(warp.matrix, warp.size, warp.area_scale)).astype(int)
        # At the border of the window a resize repeats its px where a warp sees the neighbours.
        edge = 2
        assert np.abs(fast - exact)[edge:-edge, edge:-edge].max() <= 2

    def test_a_full_turn_of_a_half_keeps_the_box_at_the_mirrored_place(self):
        image = np.full((100, 100, 3), GREY, np.uint8)
        image[20:50, 10:30] = (0, 0, 255)
        labels = np.array([[1, 10, 20, 30, 50]], np.float32)
        matrix = np.diag([-1.0, -1.0, 1.0])
        matrix[:2, 2] = 100
        warp = Warp(matrix, (100, 100), 1.0)
        turned = render(Scene((100, 100), ((image, 0, 0),)), warp)
        moved = warp_labels(labels, warp)
        np.testing.assert_allclose(moved[0, 1:], [70, 50, 90, 80], atol=1e-4)
        np.testing.assert_array_equal(turned, image[::-1, ::-1])

    def test_a_view_beyond_the_canvas_is_grey_there_and_shows_no_tile_outside_it(self):
        tiles = ((np.full((4, 4, 3), 7, np.uint8), -2, 1), (np.full((2, 9, 3), 9, np.uint8), 3, 0))
        seen = Scene((4, 6), tiles).view(-1, -1, 9, 7)[:, :, 0]
        expected = np.full((7, 9), GREY)
        expected[2:5, 1:3] = 7  # columns 0 and 1, rows 1 to 3 of the canvas
        expected[1:3, 4:7] = 9
        np.testing.assert_array_equal(seen, expected)


class TestWarpLabels:
    def test_a_box_that_reaches_behind_the_eye_gives_finite_sides_within_the_picture(self):
        matrix = np.eye(3)
        matrix[2, 0] = -0.02  # the horizon is at x = 50
        warp = Warp(matrix, (100, 100), 1.0)
        labels = np.array([[0, 20, 20, 80, 60], [1, 60, 20, 80, 60], [2, 10, 10, 30, 30]], np.float32)
        moved = warp_labels(labels, warp)
        assert np.isfinite(moved).all()
        assert moved[:, 0].tolist() == [0, 2]  # the second is behind altogether
        np.testing.assert_allclose(moved[0, 1:], [20 / 0.6, 20 / 0.6, 100, 100], rtol=1e-5)

    def test_no_labels_give_no_labels(self):
        moved = warp_labels(NONE, Warp(np.eye(3), (8, 8), 1.0))
        assert moved.shape == (0, 5)
        assert moved.dtype == np.float32


class TestShares:
    def test_shares_are_of_the_width_and_of_the_height(self):
        labels = np.array([[2, 0.5, 0.25, 0.25, 0.5]], np.float32)
        corners = to_corners(labels, (80, 160))
        assert corners.tolist() == [[2, 60, 0, 100, 40]]
        assert to_shares(corners, (80, 160)).tolist() == labels.tolist()

    @given(
        arrays.arrays(np.float32, st.tuples(st.integers(0, 5), st.just(5)), elements=shares),
        st.integers(1, 4000),
        st.integers(1, 4000),
    )
    def test_there_and_back_is_the_same(self, labels, height, width):
        back = to_shares(to_corners(labels, (height, width)), (height, width))
        assert back.dtype == np.float32
        np.testing.assert_allclose(back, labels, atol=1e-6)

    def test_no_labels_give_no_labels(self):
        assert to_corners(NONE, (8, 8)).shape == to_shares(NONE, (8, 8)).shape == (0, 5)


class TestWorthShowing:
    @pytest.mark.parametrize(
        ("after", "keeps"),
        [
            ((0, 0, 100, 100), True),
            ((0, 0, 100, 10.1), True),
            ((0, 0, 100, 9.9), False),  # under 10 % of the area
            ((0, 0, 0, 0), False),
            ((0, 0, 40, 40), True),
        ],
    )
    def test_a_box_that_loses_nine_tenths_of_its_area_is_dropped(self, after, keeps):
        before = np.array([[0, 0, 100, 100.0]])
        assert worth_showing(before, np.array([after], float)).tolist() == [keeps]

    @pytest.mark.parametrize(
        ("wh", "keeps"),
        [((1.9, 50), False), ((2, 50), True), ((50, 1.9), False), ((2, 200), True), ((2, 201), False)],
    )
    def test_thin_and_long_boxes_are_dropped(self, wh, keeps):
        box = np.array([[5.0, 5, 5 + wh[0], 5 + wh[1]]])
        assert worth_showing(box, box).tolist() == [keeps]

    def test_the_scale_of_the_map_is_no_loss_of_area(self):
        before, after = np.array([[0, 0, 100, 100.0]]), np.array([[0, 0, 20, 20.0]])
        assert worth_showing(before, after).tolist() == [False]
        assert worth_showing(before, after, area_scale=0.04).tolist() == [True]

    def test_no_boxes_give_no_answers(self):
        assert worth_showing(np.zeros((0, 4)), np.zeros((0, 4))).shape == (0,)
