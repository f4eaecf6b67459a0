from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from dataset.images import ImageFacts
from dataset.mending import Mended, find_leaks, mend, summarise
from dataset.sources import Fault, RawImage, RawSet

A, B = Path("/set/a.png"), Path("/set/b.png")
FACTS = {A: ImageFacts(1, 1, 100, 50, "a"), B: ImageFacts(1, 1, 40, 80, "b")}


def _mend(rows: object, *, pixels: bool = False, names: int = 3) -> Mended:
    array = np.asarray(rows, dtype=np.float64).reshape(-1, 5)
    image = RawImage("train", A, Path("/set/a.txt"), array, tuple(range(1, len(array) + 1)))
    return mend(RawSet(tuple("abcdefgh"[:names]), (image,), pixels), FACTS)


@pytest.mark.parametrize(
    ("row", "what", "action"),
    [
        ([0, np.nan, 0.1, 0.2, 0.2], "bad row: a name or number is missing or impossible", "dropped"),
        ([0, 0.1, 0.1, np.inf, 0.2], "bad row: a name or number is missing or impossible", "dropped"),
        ([3, 0.1, 0.1, 0.2, 0.2], "class out of range: 3 is not in 0..2", "refused"),
        ([-1, 0.1, 0.1, 0.2, 0.2], "class out of range: -1 is not in 0..2", "refused"),
        ([0.5, 0.1, 0.1, 0.2, 0.2], "class out of range: 0.5 is not in 0..2", "refused"),
        ([1e300, 0.1, 0.1, 0.2, 0.2], "class out of range: 1e+300 is not in 0..2", "refused"),
        ([0, 0.1, 0.1, 0.1, 0.2], "zero-area box", "dropped"),
        ([0, 0.3, 0.1, 0.1, 0.2], "zero-area box", "dropped"),
        ([0, 1.1, 0.1, 1.2, 0.2], "box outside the image: nothing of it lies inside", "dropped"),
        ([0, 0.9, 0.1, 1.2, 0.2], "box outside the image", "clipped"),
        ([0, 0.1, -0.1, 0.2, 0.2], "box outside the image", "clipped"),
    ],
)
def test_each_fault_of_a_row_is_reported_with_its_line(row: list[float], what: str, action: str) -> None:
    mended = _mend([[1, 0.4, 0.4, 0.6, 0.6], row])
    assert mended.faults == (Fault(Path("/set/a.txt"), 2, what, action, fatal=action == "refused"),)
    assert len(mended.labels[0]) == (2 if action == "clipped" else 1)


def test_a_clipped_box_ends_at_the_border() -> None:
    (labels,) = _mend([2, 0.8, -0.5, 1.5, 0.5]).labels
    np.testing.assert_allclose(labels, [[2, 0.9, 0.25, 0.2, 0.5]], rtol=1e-6)


def test_an_overhang_of_rounding_alone_is_no_fault() -> None:
    mended = _mend([0, 0.5, 0.5, 1.00005, 1.0])
    assert mended.faults == ()
    np.testing.assert_allclose(mended.labels[0], [[0, 0.75, 0.75, 0.5, 0.5]])


def test_the_later_of_equal_rows_is_dropped_and_the_same_box_of_another_class_is_kept() -> None:
    box = [0.1, 0.1, 0.2, 0.2]
    mended = _mend([[0, *box], [1, *box], [0, *box], [0, *box]])
    assert [(fault.what, fault.line) for fault in mended.faults] == [
        ("duplicate row", 3),
        ("duplicate row", 4),
    ]
    assert mended.labels[0][:, 0].tolist() == [0, 1]


def test_equal_rows_of_two_images_are_no_duplicates() -> None:
    row = np.array([[0, 0.1, 0.1, 0.2, 0.2]])
    images = tuple(RawImage("train", path, path, row, (1,)) for path in (A, B))
    mended = mend(RawSet(("a",), images, pixels=False), FACTS)
    assert mended.faults == ()
    assert [len(labels) for labels in mended.labels] == [1, 1]


def test_rows_in_px_are_divided_by_the_size_of_their_own_image() -> None:
    images = tuple(RawImage("train", path, path, np.array([[0.0, 10, 20, 30, 40]]), (1,)) for path in (A, B))
    mended = mend(RawSet(("a",), images, pixels=True), FACTS)
    np.testing.assert_allclose(mended.labels[0], [[0, 0.2, 0.6, 0.2, 0.4]], rtol=1e-6)
    np.testing.assert_allclose(mended.labels[1], [[0, 0.5, 0.375, 0.5, 0.25]], rtol=1e-6)


def test_an_image_without_rows_is_a_background() -> None:
    mended = _mend([])
    assert mended.labels[0].shape == (0, 5)
    assert mended.labels[0].dtype == np.float32
    assert [(fault.file, fault.what, fault.fatal) for fault in mended.faults] == [
        (A, "image without labels", False)
    ]


def test_a_set_without_images_mends_to_nothing() -> None:
    assert mend(RawSet((), (), pixels=False), {}).images == ()


def test_missing_and_unreadable_images_are_left_out() -> None:
    rows = np.array([[0, 0.1, 0.1, 0.2, 0.2]])
    images = tuple(RawImage("train", path, path, rows, (1,)) for path in (A, B, Path("/set/c.png")))
    mended = mend(RawSet(("a",), images, pixels=False), FACTS | {B: ImageFacts(1, 1, 0, 0, "")})
    assert [image.path for image in mended.images] == [A]
    assert [fault.what for fault in mended.faults] == ["unreadable image", "missing image"]


def test_a_size_that_the_labels_claim_wrongly_is_reported() -> None:
    image = RawImage("train", A, A, np.array([[0.0, 10, 10, 20, 20]]), (1,), said_wh=(50, 100))
    mended = mend(RawSet(("a",), (image,), pixels=True), FACTS)
    assert mended.faults[0].what == "said size differs from the image's: 50x100, but a.png is 100x50"
    np.testing.assert_allclose(mended.labels[0], [[0, 0.15, 0.3, 0.1, 0.2]], rtol=1e-6)


@given(
    npst.arrays(
        np.float64,
        st.tuples(st.integers(0, 12), st.just(5)),
        elements=st.one_of(st.floats(-2, 3), st.floats(width=64), st.sampled_from([0.0, 1.0, 0.5, 1e-8])),
    ),
    st.booleans(),
)
def test_whatever_comes_in_what_goes_out_lies_in_the_image_and_has_an_area(
    rows: np.ndarray, pixels: bool
) -> None:
    mended = _mend(rows, pixels=pixels)
    (labels,) = mended.labels
    assert labels.dtype == np.float32
    assert np.isfinite(labels).all()
    assert np.isin(labels[:, 0], [0, 1, 2]).all()
    assert (labels[:, 3:] > 0).all()
    assert (labels[:, 1:3] - labels[:, 3:] / 2 > -1e-6).all()
    assert (labels[:, 1:3] + labels[:, 3:] / 2 < 1 + 1e-6).all()
    assert len(np.unique(labels, axis=0)) == len(labels)
    dropped = sum(
        fault.action != "clipped" and fault.what != "image without labels" for fault in mended.faults
    )
    assert len(labels) + dropped == len(rows)


@given(
    npst.arrays(np.float64, (6, 2), elements=st.floats(0, 1)),
    npst.arrays(np.float64, (6, 2), elements=st.floats(0, 1)),
)
def test_a_clean_row_comes_out_as_it_went_in(one: np.ndarray, other: np.ndarray) -> None:
    low, high = np.minimum(one, other), np.maximum(one, other) + 0.01
    high = np.minimum(high, 1)
    low = np.minimum(low, high - 0.01)
    mended = _mend(np.column_stack([np.arange(6) % 6, low, high]), names=6)
    assert mended.faults == ()
    expected = np.column_stack([np.arange(6), (low + high) / 2, high - low])
    np.testing.assert_allclose(mended.labels[0], expected, atol=1e-6)


def test_the_same_content_in_two_splits_is_found_and_within_one_split_is_not() -> None:
    def image(name: str, split: str) -> RawImage:
        return RawImage(split, Path(f"/set/{name}.png"), A, np.zeros((0, 5)), ())

    images = [image("a", "train"), image("b", "train"), image("c", "val"), image("d", "val")]
    contents = {"a": "1", "b": "1", "c": "1", "d": "2"}
    facts = {Path(f"/set/{name}.png"): ImageFacts(1, 1, 1, 1, digest) for name, digest in contents.items()}
    (leak,) = find_leaks(images, facts)
    assert leak.file == Path("/set/c.png")
    assert leak.what == "same image in two splits: val, and train as a.png"
    assert find_leaks([], {}) == []


def test_a_summary_counts_each_kind_and_shows_the_first_places() -> None:
    faults = [Fault(Path(f"/set/{name}.txt"), 3, "zero-area box", "dropped") for name in "abcd"]
    faults.append(Fault(Path("/set/a.png"), None, "missing image", "left out"))
    assert summarise(faults, Path("/set")) == (
        "4 zero-area boxes, dropped: a.txt:3, b.txt:3, c.txt:3, …",
        "1 missing image, left out: a.png",
    )
    assert summarise([], Path("/set")) == ()
