"""Images of a split: read upright, scaled by one rule, kept while there is room, and packed into least shapes."""

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dataset import Split
from trainer.config import TrainError
from trainer.image_cache import NoCache
from trainer.images import (
    ScaledImages,
    read_image,
    rect_sizes,
    resize,
    scaled_sizes,
)

SIZE = 64


@pytest.fixture
def split(tmp_path):
    """Three noisy images without labels; the second is twice as large as `SIZE`."""
    rng = np.random.default_rng(8)
    sizes = np.array([(96, 72), (2 * SIZE, 80), (40, 64)], np.int32)
    paths = tuple(tmp_path / f"{number:02}.png" for number in range(3))
    for path, (width, height) in zip(paths, sizes, strict=True):
        cv2.imwrite(str(path), rng.integers(0, 256, (height, width, 3), dtype=np.uint8))
    return Split("train", paths, sizes, (np.zeros((0, 5), np.float32),) * 3)


class TestScaledSizes:
    def test_the_longer_side_is_the_one_asked_for(self):
        sizes = np.array([(96, 72), (64, 128), (50, 50), (4000, 2)], np.int32)
        assert scaled_sizes(sizes, 64) == [(48, 64), (64, 32), (64, 64), (1, 64)]

    def test_no_images_have_no_sizes(self):
        assert scaled_sizes(np.zeros((0, 2), np.int32), 64) == []

    @given(st.lists(st.tuples(st.integers(1, 5000), st.integers(1, 5000)), max_size=5), st.integers(32, 1280))
    def test_the_aspect_is_kept_to_half_a_px(self, sizes, image_size):
        for (width, height), (rows, columns) in zip(
            sizes, scaled_sizes(np.array(sizes, np.int32).reshape(-1, 2), image_size), strict=True
        ):
            assert max(rows, columns) == image_size
            ratio = image_size / max(width, height)
            assert abs(rows - height * ratio) <= 0.5 or rows == 1
            assert abs(columns - width * ratio) <= 0.5 or columns == 1


class TestRectangles:
    @pytest.mark.parametrize(
        ("aspects", "shape"),
        [
            ([0.5, 0.75], (512, 672)),  # 480/32 + 0.5 up is 16, 640/32 + 0.5 up is 21
            ([0.5, 1.0], (672, 672)),
            ([1.25, 2.0], (672, 544)),  # 640 / 1.25 is 512
            ([0.5, 2.0], (672, 672)),
        ],
    )
    def test_the_squarest_image_decides(self, aspects, shape):
        assert rect_sizes(np.array(aspects), 2, 640, 32) == [shape]

    def test_no_images_make_no_batches(self):
        assert rect_sizes(np.zeros(0), 4, 640, 32) == []

    @settings(max_examples=200)
    @given(
        st.lists(st.tuples(st.integers(1, 3000), st.integers(1, 3000)), min_size=1, max_size=9),
        st.integers(1, 4),
    )
    def test_every_image_fits_its_batch(self, sizes, batch_size):
        wh = np.array(sorted(sizes, key=lambda pair: pair[1] / pair[0]), float)
        shapes = rect_sizes(wh[:, 1] / wh[:, 0], batch_size, 640, 32)
        for place, (width, height) in enumerate(wh):
            rows, columns = shapes[place // batch_size]
            assert rows >= round(height * 640 / max(width, height))
            assert columns >= round(width * 640 / max(width, height))
            assert rows % 32 == columns % 32 == 0


class TestScaledImages:
    @pytest.mark.parametrize("smooth", [True, False])
    def test_an_image_is_the_file_resized(self, split, smooth):
        images = ScaledImages(split, SIZE, smooth=smooth)
        assert images.sizes == [(48, 64), (40, 64), (64, 40)]
        for index, size in enumerate(images.sizes):
            expected = resize(cv2.imread(str(split.images[index])), size, smooth=smooth)
            for _ in range(2):  # read, then from the cache
                assert np.array_equal(images[index], expected)

    def test_only_smooth_images_are_averages_when_shrunk(self, split):
        smooth, sharp = (ScaledImages(split, SIZE, smooth=smooth) for smooth in (True, False))
        whole = cv2.imread(str(split.images[1])).astype(float)
        means = whole.reshape(40, 2, SIZE, 2, 3).mean(axis=(1, 3))
        assert np.abs(smooth[1] - means).max() <= 0.75
        assert np.array_equal(smooth[2], sharp[2])  # not resized

    def test_a_cached_image_needs_its_file_no_more(self, split):
        images = ScaledImages(split, SIZE, smooth=False)
        before = images[1].copy()
        split.images[1].unlink()
        assert np.array_equal(before, images[1])

    def test_without_room_images_are_read_each_time_and_are_the_same(self, split):
        kept, unkept = ScaledImages(split, SIZE, smooth=False), ScaledImages(split, SIZE, smooth=False)
        unkept.cache = NoCache()
        for index in (0, 2, 2):
            assert np.array_equal(kept[index], unkept[index])
        for path in split.images:
            path.unlink()
        with pytest.raises(TrainError, match="can't be read"):
            unkept[2]

    def test_an_image_that_changed_its_size_is_named(self, split):
        cv2.imwrite(str(split.images[0]), np.zeros((40, 50, 3), np.uint8))
        with pytest.raises(TrainError, match=r"00\.png: the image must be 96x72 px .* but is 50x40"):
            ScaledImages(split, SIZE, smooth=True)[0]


class TestReducedReading:
    """JPEGs that are going to be shrunk by 2 or more are decoded at a half, a quarter or an eighth of their sides."""

    @pytest.fixture(params=[(126, 98, 1), (131, 257, 4), (600, 471, 8), (71, 513, 8)])
    def case(self, request, tmp_path):
        """A smooth photograph of odd sides, and the factor by which it may be reduced."""
        width, height, factor = request.param
        ys, xs = np.mgrid[:height, :width] / max(width, height)
        image = np.stack([255 * xs, 255 * ys, 127 + 120 * np.sin(9 * xs + 5 * ys)], axis=2).astype(np.uint8)
        path = tmp_path / "photo.jpg"
        cv2.imwrite(str(path), image, [cv2.IMWRITE_JPEG_QUALITY, 98])
        labels = (np.zeros((0, 5), np.float32),)
        return Split("train", (path,), np.array([(width, height)], np.int32), labels), image, factor

    def test_the_picture_is_the_one_that_is_read_whole_and_averaged(self, case):
        split, image, _ = case
        images = ScaledImages(split, SIZE, smooth=False, cache="off")
        expected = resize(image, images.sizes[0], smooth=True).astype(int)
        assert images[0].shape[:2] == images.sizes[0]
        assert np.abs(images[0] - expected).mean() < 4

    def test_less_is_decoded(self, case, monkeypatch):
        split, image, factor = case
        seen = []
        monkeypatch.setattr("trainer.images.resize", lambda image, size, smooth: seen.append(image) or image)
        for smooth in (True, False):
            ScaledImages(split, SIZE, smooth=smooth, cache="off")[0]
        whole, reduced = (found.shape[:2] for found in seen)
        assert whole == image.shape[:2]
        assert reduced == tuple(-(-side // factor) if factor > 1 else side for side in whole)
        assert max(reduced) >= SIZE

    @pytest.mark.parametrize("share", [0.3, 0.6, 0.99])
    @pytest.mark.parametrize("reduce", [1, 2, 8])
    def test_a_photograph_that_was_cut_short_is_refused_not_half_read(self, case, share, reduce):
        path = case[0].images[0]
        whole = path.read_bytes()
        path.write_bytes(whole[: int(share * len(whole))])
        with pytest.raises(TrainError, match=r"photo\.jpg: the file must be an image, but can't be decoded"):
            read_image(path, reduce=reduce)

    def test_an_image_that_changed_its_size_is_named(self, case):
        split, image, _ = case
        cv2.imwrite(str(split.images[0]), image[:-20])
        with pytest.raises(TrainError, match=r"photo\.jpg: the image must be \d+x\d+ px .* but is"):
            ScaledImages(split, SIZE, smooth=False, cache="off")[0]


def test_an_image_turned_by_its_exif_tag_is_read_upright(tmp_path):
    path = tmp_path / "turned.jpg"
    plain = cv2.imencode(".jpg", np.zeros((20, 30, 3), np.uint8))[1].tobytes()
    # Orientation 6: the camera was held upright. A big-endian TIFF with one entry.
    tiff = (
        b"MM\x00\x2a\x00\x00\x00\x08\x00\x01\x01\x12\x00\x03\x00\x00\x00\x01\x00\x06\x00\x00\x00\x00\x00\x00"
    )
    body = b"Exif\x00\x00" + tiff
    path.write_bytes(plain[:2] + b"\xff\xe1" + (len(body) + 2).to_bytes(2, "big") + body + plain[2:])
    assert read_image(path).shape == (30, 20, 3)
    assert read_image(path, reduce=2).shape == (15, 10, 3)
