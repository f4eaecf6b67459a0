"""Augmentation: boxes stay on their objects, inputs stay as they are, and the published rules hold."""

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trainer import augment
from trainer.config import Hyperparameters
from trainer.mixes import draw_blend, lay_mosaic
from trainer.warp import Scene, draw_warp, render, warp_labels

STILL = Hyperparameters(translate=0, scale=0, fliplr=0, hsv_h=0, hsv_s=0, hsv_v=0, mosaic=0)
NONE = np.zeros((0, 5), np.float32)
RED = (0, 0, 255)

seeds = st.integers(0, 2**32 - 1)
geometry = st.builds(
    Hyperparameters,
    degrees=st.sampled_from([0.0, 10.0, 45.0, 180.0]),
    translate=st.sampled_from([0.0, 0.1, 0.4]),
    scale=st.sampled_from([0.0, 0.3, 0.6]),
    shear=st.sampled_from([0.0, 5.0, 20.0]),
    perspective=st.sampled_from([0.0, 0.0005, 0.001]),
)


def painted(height, width, box, label=1.0):
    """A grey image with one red rectangle, and its label."""
    image = np.full((height, width, 3), 114, np.uint8)
    x1, y1, x2, y2 = box
    image[y1:y2, x1:x2] = RED
    return image, np.array([[label, *box]], np.float32)


def found(image):
    """x1, y1, x2, y2 around the px of an image that are at least a quarter red; None without."""
    ys, xs = np.nonzero(image[:, :, 2] >= 114 + (255 - 114) // 4)
    if not len(xs):
        return None
    return np.array([xs.min(), ys.min(), xs.max() + 1, ys.max() + 1], float)


def check_box(image, xyxy):
    """The box holds all that is red and, where the picture does not cut it, is tight."""
    seen = found(image)
    assert seen is not None
    height, width = image.shape[:2]
    outwards = (seen - xyxy) * (-1, -1, 1, 1)
    assert outwards.max() < 1.5
    if (xyxy[:2] > 0).all() and (xyxy[2:] < (width, height)).all():
        assert outwards.min() > -1.5


def noise(rng, height, width):
    return rng.integers(0, 256, (height, width, 3), dtype=np.uint8)


def random_perspective(rng, image, labels, hyp, size):
    scene = Scene(image.shape[:2], ((image, 0, 0),))
    warp = draw_warp(rng, hyp, scene.size, size)
    return render(scene, warp), warp_labels(labels, warp)


def mosaic4(rng, samples, size, hyp):
    canvas = (2 * size, 2 * size)
    tiles = lay_mosaic(rng, size, range(4), [image.shape[:2] for image, _ in samples])
    boxes = [
        labels + np.array([0, tile.x, tile.y, tile.x, tile.y], np.float32)
        for (_, labels), tile in zip(samples, tiles, strict=True)
    ]
    joined = np.concatenate(boxes)
    joined[:, 1:] = joined[:, 1:].clip(0, 2 * size)
    scene = Scene(canvas, tuple((samples[tile.index][0], tile.x, tile.y) for tile in tiles))
    warp = draw_warp(rng, hyp, canvas, (size, size))
    return render(scene, warp), warp_labels(joined, warp)


def jitter_hsv(rng, image, hyp):
    return augment.shift_colour(image, augment.draw_colour(rng, hyp))


def random_flips(rng, image, labels, hyp):
    flips = augment.draw_flips(rng, hyp)
    return augment.flip(image, flips), augment.flip_labels(labels, image.shape[:2], flips)


class TestLetterbox:
    @pytest.mark.parametrize(
        ("shape", "size", "left_top", "ratio"),
        [
            ((48, 64), (64, 64), (0, 8), (1.0, 1.0)),
            ((47, 64), (64, 64), (0, 8), (1.0, 1.0)),  # 17 px: 8 above, 9 below
            ((64, 61), (64, 64), (1, 0), (1.0, 1.0)),  # 3 px: 1 left, 2 right
            ((63, 64), (64, 64), (0, 0), (1.0, 1.0)),  # 1 px: below
            ((96, 128), (64, 64), (0, 8), (0.5, 0.5)),
            ((64, 64), (64, 64), (0, 0), (1.0, 1.0)),
            ((24, 32), (64, 64), (0, 8), (2.0, 2.0)),
            ((10, 100), (64, 96), (0, 27), (0.96, 1.0)),  # 9.6 px rounded to 10
        ],
    )
    def test_padding_is_split_by_the_published_rounding(self, shape, size, left_top, ratio):
        image, got_ratio, pad = augment.letterbox(np.zeros((*shape, 3), np.uint8), size, scale_up=True)
        assert image.shape == (*size, 3)
        assert pad == left_top
        assert got_ratio == pytest.approx(ratio)
        empty = np.flatnonzero((image == 114).all(axis=(1, 2)))
        assert len(empty[empty < size[0] // 2]) == left_top[1]

    def test_a_small_image_is_not_enlarged_unless_asked(self):
        image, ratio, pad = augment.letterbox(np.zeros((20, 30, 3), np.uint8), (64, 64), scale_up=False)
        assert (image.shape, ratio, pad) == ((64, 64, 3), (1.0, 1.0), (17, 22))

    def test_the_padding_has_the_value_asked_for(self):
        image, _, _ = augment.letterbox(np.full((8, 16, 3), 7, np.uint8), (16, 16), scale_up=False, pad=9)
        assert set(np.unique(image[:4])) == set(np.unique(image[12:])) == {9}
        assert set(np.unique(image[4:12])) == {7}

    def test_a_line_one_px_high_stays_visible_when_shrunk(self):
        image, ratio, _ = augment.letterbox(np.full((1, 400, 3), 255, np.uint8), (32, 32), scale_up=False)
        assert (image == 255).any()
        assert ratio[1] == 1.0

    @given(st.integers(1, 90), st.integers(1, 90), st.booleans())
    def test_ratio_and_padding_lead_back_to_the_whole_image(self, height, width, scale_up):
        image, ratio, pad = augment.letterbox(
            np.full((height, width, 3), 255, np.uint8), (64, 32), scale_up=scale_up
        )
        box = np.array([pad[0], pad[1], pad[0] + width * ratio[0], pad[1] + height * ratio[1]])
        ys, xs = np.nonzero(image[:, :, 0] == 255)
        np.testing.assert_allclose(box, [xs.min(), ys.min(), xs.max() + 1, ys.max() + 1], atol=1e-9)


class TestRandomPerspective:
    @settings(max_examples=300, deadline=None)
    @given(seeds, geometry, st.sampled_from([(96, 96), (64, 128)]))
    def test_a_box_stays_on_its_rectangle(self, seed, hyp, size):
        source, labels = painted(120, 150, (50, 40, 95, 85))
        image, moved = random_perspective(np.random.default_rng(seed), source, labels, hyp, size)
        assert image.shape == (*size, 3)
        if len(moved):
            assert moved[0, 0] == 1
            check_box(image, moved[0, 1:])

    def test_an_image_is_returned_as_it_is_when_nothing_moves(self):
        image, labels = painted(64, 64, (10, 12, 30, 40))
        same, moved = random_perspective(np.random.default_rng(0), image, labels, STILL, (64, 64))
        assert same is image
        np.testing.assert_array_equal(moved, labels)

    def test_scale_zooms_about_the_middle(self):
        image, labels = painted(100, 100, (40, 40, 60, 60))
        areas = []
        for seed in range(50):
            _, moved = random_perspective(
                np.random.default_rng(seed),
                image,
                labels,
                Hyperparameters(translate=0, scale=0.5),
                (100, 100),
            )
            x1, y1, x2, y2 = moved[0, 1:]
            assert (x1 + x2) / 2 == pytest.approx(50, abs=1.1)
            assert (y1 + y2) / 2 == pytest.approx(50, abs=1.1)
            areas.append((x2 - x1) / 20)
        assert 0.5 <= min(areas) < 0.6
        assert 1.4 < max(areas) <= 1.51

    def test_outside_the_image_is_grey(self):
        image = np.zeros((50, 50, 3), np.uint8)
        hyp = Hyperparameters(translate=0, scale=0, degrees=45)
        turned, _ = random_perspective(np.random.default_rng(3), image, NONE, hyp, (100, 100))
        assert (turned[0] == 114).all()
        assert (turned[50, 50] == 0).all()

    @settings(max_examples=50, deadline=None)
    @given(seeds)
    def test_the_wildest_hyperparameters_give_boxes_within_the_picture(self, seed):
        hyp = Hyperparameters(degrees=180, translate=1, scale=0.99, shear=60, perspective=0.01)
        rng = np.random.default_rng(seed)
        labels = np.column_stack([np.zeros(20), rng.uniform(0, 90, (20, 2)), rng.uniform(100, 200, (20, 2))])
        image, moved = random_perspective(rng, noise(rng, 200, 200), labels.astype(np.float32), hyp, (64, 64))
        assert image.shape == (64, 64, 3)
        assert np.isfinite(moved).all()
        assert ((moved[:, 1:] >= 0) & (moved[:, 1:] <= 64)).all()
        assert (moved[:, 3:] - moved[:, 1:3] >= 1.99).all()

    def test_no_labels_give_no_labels(self):
        _, moved = random_perspective(
            np.random.default_rng(0),
            noise(np.random.default_rng(0), 20, 30),
            NONE,
            Hyperparameters(degrees=5),
            (32, 32),
        )
        assert moved.shape == (0, 5)
        assert moved.dtype == np.float32

    def test_the_number_of_draws_does_not_depend_on_the_hyperparameters(self):
        after = []
        for hyp in (STILL, Hyperparameters(degrees=9, shear=2, perspective=0.001)):
            rng = np.random.default_rng(5)
            draw_warp(rng, hyp, (64, 64), (64, 64))
            jitter_hsv(rng, np.zeros((4, 4, 3), np.uint8), hyp)
            random_flips(rng, np.zeros((4, 4, 3), np.uint8), NONE, hyp)
            after.append(rng.random())
        assert after[0] == after[1]


class TestMosaic:
    @staticmethod
    def plain(rng, samples, size, hyp):
        """The mosaic drawn whole, then warped: what ours must equal."""
        centre_x, centre_y = (int(v) for v in rng.uniform(0.5 * size, 1.5 * size, 2))
        canvas = np.full((2 * size, 2 * size, 3), 114, np.uint8)
        for corner, (image, _) in enumerate(samples):
            height, width = image.shape[:2]
            x = centre_x if corner in (1, 3) else centre_x - width
            y = centre_y if corner in (2, 3) else centre_y - height
            for row in range(max(y, 0), min(y + height, 2 * size)):
                start, stop = max(x, 0), min(x + width, 2 * size)
                canvas[row, start:stop] = image[row - y, start - x : stop - x]
        warp = draw_warp(rng, hyp, (2 * size, 2 * size), (size, size))
        half = np.array([[1, 0, 0.5], [0, 1, 0.5], [0, 0, 1]])
        return cv2.warpPerspective(
            canvas, np.linalg.inv(half) @ warp.matrix @ half, (size, size), borderValue=(114, 114, 114)
        )

    @settings(max_examples=60, deadline=None)
    @given(seeds, geometry)
    def test_it_equals_the_whole_canvas_warped(self, seed, hyp):
        rng = np.random.default_rng(seed)
        samples = [
            (cv2.GaussianBlur(noise(rng, height, width), (0, 0), 4), NONE)
            for height, width in rng.integers(20, 65, (4, 2)).tolist()
        ]
        ours, _ = mosaic4(np.random.default_rng(seed), samples, 64, hyp)
        plain = self.plain(np.random.default_rng(seed), samples, 64, hyp)
        off = np.abs(ours.astype(int) - plain.astype(int)).max(axis=2)[1:-1, 1:-1]
        assert (off <= 3).mean() > 0.995  # seams are sharp: rounding of coordinates shows there
        assert off.max() <= 24

    @settings(max_examples=150, deadline=None)
    @given(seeds, geometry, st.integers(0, 3))
    def test_a_box_stays_on_its_rectangle_in_every_corner(self, seed, hyp, corner):
        samples = [(np.full((96, 128, 3), 114, np.uint8), NONE) for _ in range(4)]
        samples[corner] = painted(96, 128, (40, 30, 90, 70), label=2)
        image, labels = mosaic4(np.random.default_rng(seed), samples, 128, hyp)
        assert image.shape == (128, 128, 3)
        if len(labels):
            assert labels[0, 0] == 2
            check_box(image, labels[0, 1:])
        else:  # what is left without a box is a small part
            assert (image[:, :, 2] > 200).sum() < 0.15 * 2.6 * 50 * 40

    def test_labels_of_all_four_are_joined_in_order(self):
        samples = [painted(64, 64, (20, 20, 44, 44), label=number) for number in range(4)]
        for seed in range(20):
            _, labels = mosaic4(np.random.default_rng(seed), samples, 64, STILL)
            assert labels[:, 0].tolist() == sorted(labels[:, 0].tolist())
            assert 1 <= len(labels) <= 4

    def test_the_centre_is_spread_over_the_middle_half_of_the_canvas(self):
        samples = [(np.full((100, 100, 3), value, np.uint8), NONE) for value in (10, 60, 160, 210)]
        centres = []
        for seed in range(200):
            image, _ = mosaic4(np.random.default_rng(seed), samples, 100, STILL)
            left = np.isin(image[:, :, 0], (10, 160)).any(axis=0)
            top = np.isin(image[:, :, 0], (10, 60)).any(axis=1)
            centres.append((left.sum(), top.sum()))
        spread = np.array(centres)
        assert spread.min(axis=0).max() <= 5
        assert spread.max(axis=0).min() >= 95
        assert spread.mean(axis=0) == pytest.approx([50, 50], abs=7)

    def test_four_images_without_objects_give_no_labels(self):
        samples = [(np.zeros((32, 32, 3), np.uint8), NONE)] * 4
        _, labels = mosaic4(np.random.default_rng(0), samples, 32, Hyperparameters())
        assert labels.shape == (0, 5)
        assert labels.dtype == np.float32


class TestColour:
    def test_value_alone_scales_brightness(self):
        hyp = Hyperparameters(hsv_h=0, hsv_s=0, hsv_v=0.4)
        image = np.full((4, 4, 3), 100, np.uint8)
        levels = [int(jitter_hsv(np.random.default_rng(s), image, hyp)[0, 0, 0]) for s in range(100)]
        assert 59 <= min(levels) < 70
        assert 130 < max(levels) <= 141

    def test_a_grey_image_stays_grey(self):
        image = np.repeat(np.arange(240, dtype=np.uint8).reshape(12, 20, 1), 3, axis=2)
        for seed in range(10):
            out = jitter_hsv(np.random.default_rng(seed), image, Hyperparameters())
            assert (np.ptp(out, axis=2) == 0).all()

    def test_bright_px_saturate_and_do_not_wrap_round(self):
        image = np.full((2, 2, 3), (250, 250, 250), np.uint8)
        for seed in range(30):
            out = jitter_hsv(np.random.default_rng(seed), image, Hyperparameters(hsv_v=0.9))
            draw = np.random.default_rng(seed).uniform(-1, 1, 3)[2] * 0.9 + 1
            assert int(out[0, 0, 0]) == pytest.approx(min(250 * draw, 255), abs=1)

    def test_hue_goes_round(self):
        image = np.full((2, 2, 3), (20, 0, 255), np.uint8)  # hue 178 of 180
        hyp = Hyperparameters(hsv_h=0.1, hsv_s=0, hsv_v=0)
        hues = set()
        for seed in range(40):
            out = jitter_hsv(np.random.default_rng(seed), image, hyp)
            hues.add(int(cv2.cvtColor(out, cv2.COLOR_BGR2HSV)[0, 0, 0]))
        assert min(hues) < 18  # beyond red, towards yellow
        assert max(hues) > 160

    def test_zero_jitter_returns_the_image_itself(self):
        image = noise(np.random.default_rng(1), 8, 8)
        assert jitter_hsv(np.random.default_rng(0), image, STILL) is image


class TestFlips:
    @pytest.mark.parametrize(("flipud", "fliplr"), [(0, 0), (0, 1), (1, 0), (1, 1)])
    @given(seed=seeds)
    @settings(max_examples=20, deadline=None)
    def test_a_box_stays_on_its_rectangle_exactly(self, flipud, fliplr, seed):
        rng = np.random.default_rng(seed)
        x1, y1 = (int(v) for v in rng.integers(0, 20, 2))
        box = (x1, y1, x1 + int(rng.integers(1, 20)), y1 + int(rng.integers(1, 10)))
        image, labels = painted(32, 48, box)
        hyp = Hyperparameters(flipud=flipud, fliplr=fliplr)
        flipped, moved = random_flips(rng, image, labels, hyp)
        np.testing.assert_array_equal(found(flipped), moved[0, 1:])
        np.testing.assert_array_equal(flipped, image[:: -1 if flipud else 1, :: -1 if fliplr else 1])

    def test_no_labels_give_no_labels(self):
        _, moved = random_flips(
            np.random.default_rng(0), np.zeros((4, 4, 3), np.uint8), NONE, Hyperparameters(flipud=1, fliplr=1)
        )
        assert moved.shape == (0, 5)
        assert moved.dtype == np.float32


def test_the_blend_is_near_a_half_as_beta_32_32_is():
    shares = [draw_blend(np.random.default_rng(seed)) for seed in range(400)]
    assert np.mean(shares) == pytest.approx(0.5, abs=0.01)
    assert np.std(shares) == pytest.approx(np.sqrt(0.25 / 65), rel=0.1)


def test_no_function_edits_its_inputs():
    rng = np.random.default_rng(0)
    image, labels = noise(rng, 64, 64), np.array([[1, 5, 5, 40, 50], [0, 10, 2, 30, 20]], np.float32)
    image.flags.writeable = labels.flags.writeable = False  # editing raises
    hyp = Hyperparameters(flipud=1, fliplr=1, degrees=5)
    for chosen in (hyp, Hyperparameters(), STILL):
        random_perspective(rng, image, labels, chosen, (64, 64))
        mosaic4(rng, [(image, labels)] * 4, 64, chosen)
        jitter_hsv(rng, image, chosen)
        random_flips(rng, image, labels, chosen)
    augment.letterbox(image, (96, 32), scale_up=True)


def test_the_same_generator_gives_the_same_sample():
    rng = np.random.default_rng(0)
    samples = [(noise(rng, 50, 64), np.array([[1, 5, 5, 40, 50]], np.float32)) for _ in range(4)]
    hyp = Hyperparameters(degrees=5, perspective=0.0005)
    first, second = (mosaic4(np.random.default_rng(7), samples, 64, hyp) for _ in range(2))
    np.testing.assert_array_equal(first[0], second[0])
    np.testing.assert_array_equal(first[1], second[1])
