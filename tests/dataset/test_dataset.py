from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataset import DataError, Dataset, Split


def _split(sizes: list[tuple[int, int]], labels: list[list[list[float]]]) -> Split:
    rows = tuple(np.array(label, dtype=np.float32).reshape(-1, 5) for label in labels)
    images = tuple(Path(f"/{index}.png") for index in range(len(sizes)))
    return Split("train", images, np.array(sizes, dtype=np.int32).reshape(-1, 2), rows)


def test_the_longer_side_is_scaled_to_the_image_size() -> None:
    split = _split(
        [(640, 480), (100, 400)], [[[0, 0.5, 0.5, 0.5, 0.5]], [[0, 0.5, 0.5, 1, 1], [1, 0.5, 0.5, 0.1, 0.5]]]
    )
    np.testing.assert_allclose(split.shapes(320), [[160, 120], [80, 320], [8, 160]], rtol=1e-6)
    assert len(split) == 2
    assert split.boxes == 3


@pytest.mark.parametrize("split", [_split([], []), _split([(640, 480)], [[]])])
def test_no_boxes_have_no_shapes(split: Split) -> None:
    assert split.shapes(640).shape == (0, 2)
    assert split.shapes(640).dtype == np.float64


@given(st.integers(1, 5000), st.integers(1, 5000), st.integers(1, 2000))
def test_a_box_of_the_whole_image_has_the_image_size_as_its_longer_side(
    width: int, height: int, size: int
) -> None:
    (shape,) = _split([(width, height)], [[[0, 0.5, 0.5, 1, 1]]]).shapes(size)
    assert shape.max() == pytest.approx(size)
    assert shape[0] / shape[1] == pytest.approx(width / height)


def test_a_size_that_is_not_positive_and_an_unknown_split_are_refused() -> None:
    split = _split([(640, 480)], [[[0, 0.5, 0.5, 1, 1]]])
    data = Dataset("a", Path("/a"), ("cat",), {"train": split, "val": split}, (), "")
    assert data.train is data.val is split
    np.testing.assert_array_equal(data.shapes(64), split.shapes(64))
    with pytest.raises(DataError, match="image_size > 0 must hold, but got 0"):
        data.shapes(0)
    with pytest.raises(DataError, match="split must be one of train, val, but got 'test'"):
        data.shapes(64, "test")
