"""Assignment: the reference's matches, and the rule itself checked cell by cell."""

import json
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from model.assign import Matches, assign
from model.spec import ModelError

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "loss_yolov5.npz"
CASES = ("default", "single_class", "focal", "smooth", "weights", "tight_anchors", "p6", "no_targets")
STRIDES = (8, 16, 32)
ANCHORS = torch.tensor(
    [[[10.0, 13.0], [16.0, 30.0]], [[30.0, 61.0], [62.0, 45.0]], [[116.0, 90.0], [156.0, 198.0]]]
)


@pytest.fixture(scope="module")
def golden() -> dict[str, Any]:
    with np.load(GOLDEN) as file:
        return {
            "meta": json.loads(str(file["meta"])),
            **{key: file[key] for key in file.files if key != "meta"},
        }


def shapes_of(height: int, width: int, strides: tuple[int, ...] = STRIDES) -> list[tuple[int, int]]:
    return [(height // stride, width // stride) for stride in strides]


def target_px(x: float, y: float, w: float, h: float, height: int = 128, width: int = 128) -> Tensor:
    return torch.tensor([[0.0, 1.0, x / width, y / height, w / width, h / height]])


def cells(matches: Matches) -> list[tuple[int, int, int]]:
    """Anchor, row and column of each match, sorted."""
    return sorted(zip(matches.anchor.tolist(), matches.row.tolist(), matches.column.tolist(), strict=True))


def rows_of(matches: Matches) -> dict[tuple[int, ...], list[float]]:
    """Image, anchor, row, column, class of each match, with its box."""
    keys = torch.stack((matches.image, matches.anchor, matches.row, matches.column, matches.classes), dim=1)
    return {tuple(key): box for key, box in zip(keys.tolist(), matches.box.tolist(), strict=True)}


@pytest.mark.parametrize("case", CASES)
def test_matches_are_the_references(golden: dict[str, Any], case: str) -> None:
    meta = golden["meta"][case]
    ours = assign(
        torch.tensor(golden[f"{case}/targets"]),
        [golden[f"{case}/pred{i}"].shape[2:4] for i in range(len(meta["strides"]))],
        torch.tensor(meta["anchors_px"]),
        meta["strides"],
        meta["hyp"]["anchor_t"],
    )
    assert [len(level) for level in ours] == meta["matched_per_level"]
    for i, level in enumerate(ours):
        indices, classes = golden[f"{case}/match{i}"], golden[f"{case}/class{i}"]
        wanted = {
            (*indices[:, k].tolist(), int(classes[k])): golden[f"{case}/box{i}"][k]
            for k in range(len(classes))
        }
        found = rows_of(level)
        assert found.keys() == wanted.keys()
        for key, box in found.items():
            assert box == pytest.approx(wanted[key].tolist(), rel=1e-5, abs=1e-6)


def test_every_case_of_the_golden_file_is_tested(golden: dict[str, Any]) -> None:
    assert set(golden["meta"]) == set(CASES)


def test_the_cell_and_its_two_nearest_neighbours_claim_a_target() -> None:
    level = assign(target_px(66.0, 62.0, 10.0, 13.0), shapes_of(128, 128), ANCHORS, STRIDES)[0]
    # In cells of 8 px the centre is (8.25, 7.75): home row 7, column 8; left of it and below it are nearest.
    assert cells(level) == sorted((anchor, *cell) for anchor in (0, 1) for cell in ((7, 8), (7, 7), (8, 8)))
    assert rows_of(level)[(0, 0, 7, 7, 1)] == pytest.approx([1.25, 0.75, 1.25, 1.625])


def test_a_neighbour_outside_the_image_is_left_out() -> None:
    level = assign(target_px(2.0, 126.0, 10.0, 13.0), shapes_of(128, 128), ANCHORS[:, :1], STRIDES)[0]
    assert cells(level) == [(0, 15, 0)]


def test_a_centre_on_the_far_border_belongs_to_the_last_cell() -> None:
    level = assign(target_px(128.0, 128.0, 10.0, 13.0), shapes_of(128, 128), ANCHORS[:, :1], STRIDES)[0]
    assert cells(level) == [(0, 15, 15)]
    assert level.box[0, :2].tolist() == [1.0, 1.0]


def test_a_centre_in_the_very_middle_of_a_cell_has_no_neighbour() -> None:
    level = assign(target_px(68.0, 68.0, 10.0, 13.0), shapes_of(128, 128), ANCHORS[:, :1], STRIDES)[0]
    assert cells(level) == [(0, 8, 8)]


def test_an_anchor_at_exactly_the_threshold_does_not_claim() -> None:
    anchors = torch.tensor([[[10.0, 10.0]]])
    for side, count in ((40.0, 0), (39.9, 3), (2.5, 0), (2.6, 3)):
        level = assign(target_px(66.0, 62.0, side, 10.0), [(16, 16)], anchors, (8,), threshold=4.0)[0]
        assert len(level) == count


def test_rows_and_columns_of_an_image_that_is_not_square_are_not_swapped() -> None:
    target = target_px(100.0, 20.0, 10.0, 13.0, height=64, width=128)
    level = assign(target, shapes_of(64, 128), ANCHORS[:, :1], STRIDES)[0]
    assert (0, 2, 12) in cells(level)


def test_no_targets_give_empty_matches_of_every_level() -> None:
    for level in assign(torch.zeros(0, 6), shapes_of(64, 64), ANCHORS, STRIDES):
        assert len(level) == 0
        assert level.box.shape == (0, 4)
        assert level.image.dtype == torch.int64


def test_a_target_without_area_is_never_matched() -> None:
    targets = torch.cat((target_px(66.0, 62.0, 0.0, 0.0), target_px(66.0, 62.0, 10.0, 0.0)))
    assert sum(len(level) for level in assign(targets, shapes_of(128, 128), ANCHORS, STRIDES)) == 0


def test_two_targets_in_one_cell_are_both_reported() -> None:
    targets = torch.cat((target_px(66.0, 62.0, 10.0, 13.0), target_px(66.5, 62.0, 12.0, 12.0)))
    level = assign(targets, shapes_of(128, 128), ANCHORS[:, :1], STRIDES)[0]
    assert len(level) == 6
    assert len(set(cells(level))) == 3


@st.composite
def scenes(draw: st.DrawFn) -> tuple[Tensor, int, int, tuple[int, ...], Tensor, float]:
    strides = (8, 16, 32, 64, 128)[: draw(st.integers(2, 5))]
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    n, height, width = draw(st.integers(0, 12)), 128 * draw(st.integers(1, 3)), 128 * draw(st.integers(1, 3))
    targets = np.hstack((rng.integers(0, 3, (n, 1)), rng.integers(0, 5, (n, 1)), rng.random((n, 4))))
    anchors = rng.uniform(8, 200, (len(strides), draw(st.integers(1, 4)), 2))
    return (
        torch.tensor(targets, dtype=torch.float32),
        height,
        width,
        strides,
        torch.tensor(anchors, dtype=torch.float32),
        draw(st.floats(1.5, 8.0)),
    )


@given(scenes())
@settings(max_examples=60, deadline=None)
def test_the_matches_are_what_a_walk_over_all_cells_finds(
    scene: tuple[Tensor, int, int, tuple[int, ...], Tensor, float],
) -> None:
    targets, height, width, strides, anchors, threshold = scene
    found = assign(targets, shapes_of(height, width, strides), anchors, strides, threshold)
    for level, stride in enumerate(strides):
        wanted = []
        for image, name, *xywh in targets.tolist():
            grid = np.array((width, height, width, height)) / stride
            x, y, w, h = np.array(xywh, np.float32) * grid.astype(np.float32)
            column, row = int(x), int(y)
            beside = column + (1 if x % 1 > 0.5 else -1)
            below = row + (1 if y % 1 > 0.5 else -1)
            for r, c in ((row, column), (row, beside), (below, column)):
                if not (0 <= r < height // stride and 0 <= c < width // stride):
                    continue
                for anchor, sides in enumerate((anchors[level] / stride).numpy()):
                    ratio = np.array((w, h)) / sides
                    if max(*ratio, *(1 / ratio)) < np.float32(threshold):
                        wanted.append((int(image), anchor, r, c, int(name)))
        keys = [
            getattr(found[level], key).tolist() for key in ("image", "anchor", "row", "column", "classes")
        ]
        assert sorted(zip(*keys, strict=True)) == sorted(wanted)
        assert set(found[level].level.tolist()) <= {level}
        centre = found[level].box[:, :2]
        assert bool(((centre >= -0.5) & (centre <= 1.5)).all())


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=20, deadline=None)
def test_the_order_of_the_targets_changes_nothing_but_the_order_of_the_matches(seed: int) -> None:
    rng = np.random.default_rng(seed)
    targets = torch.tensor(rng.random((20, 6)), dtype=torch.float32)
    targets[:, :2] = torch.arange(40.0).reshape(20, 2)  # so that every match names its target
    shuffled = targets[torch.tensor(rng.permutation(20))]
    for a, b in zip(
        assign(targets, shapes_of(128, 128), ANCHORS, STRIDES),
        assign(shuffled, shapes_of(128, 128), ANCHORS, STRIDES),
        strict=True,
    ):
        assert rows_of(a) == rows_of(b)


def test_every_field_has_one_row_a_match() -> None:
    for level in assign(
        torch.rand(9, 6, generator=torch.Generator().manual_seed(0)), shapes_of(128, 128), ANCHORS, STRIDES
    ):
        assert {len(getattr(level, field.name)) for field in fields(level)} == {len(level)}


def test_targets_of_another_shape_are_an_error() -> None:
    with pytest.raises(ModelError, match=r"targets must be \(n, 6\).* but got \(3, 5\)"):
        assign(torch.zeros(3, 5), shapes_of(64, 64), ANCHORS, STRIDES)


def test_anchors_of_another_shape_are_an_error() -> None:
    with pytest.raises(ModelError, match=r"anchors must be .* but got \(6, 2\)"):
        assign(torch.zeros(3, 6), shapes_of(64, 64), ANCHORS.reshape(6, 2), STRIDES)


def test_levels_that_disagree_are_an_error() -> None:
    with pytest.raises(ModelError, match="2 grid shapes, 3 strides and anchors for 3 levels"):
        assign(torch.zeros(3, 6), shapes_of(64, 64)[:2], ANCHORS, STRIDES)


@given(scenes(), st.floats(0.0, 1.0))
@settings(max_examples=60, deadline=None)
def test_anchors_chosen_by_iou_are_what_a_walk_over_all_finds(
    scene: tuple[Tensor, int, int, tuple[int, ...], Tensor, float], iou_t: float
) -> None:
    targets, height, width, strides, anchors, _ = scene
    shapes = shapes_of(height, width, strides)
    found = assign(targets, shapes, anchors, strides, iou_t=iou_t, neighbours=False)
    wanted: list[list[tuple[int, ...]]] = [[] for _ in strides]
    for image, name, x, y, w, h in targets.tolist():
        sizes = np.array((w * width, h * height))
        both = np.minimum(sizes, anchors.numpy()).prod(-1)
        iou = both / (sizes.prod() + anchors.numpy().prod(-1) - both)
        for level, anchor in np.ndindex(*iou.shape):
            near = abs(iou[level, anchor] - iou_t) < 1e-5  # either is right there: sums are rounded
            if iou[level, anchor] > iou_t + 1e-5 or iou[level, anchor] == iou.max():
                row, column = int(y * height / strides[level]), int(x * width / strides[level])
                wanted[level].append((int(image), anchor, row, column, int(name)))
            elif near:
                return
    for level, expected in zip(found, wanted, strict=True):
        keys = [getattr(level, key).tolist() for key in ("image", "anchor", "row", "column", "classes")]
        assert sorted(zip(*keys, strict=True)) == sorted(expected)


def test_by_iou_every_target_has_its_best_anchor_and_one_without_area_has_none() -> None:
    targets = torch.tensor([[0, 0, 0.5, 0.5, 0.9, 0.001], [0, 1, 0.5, 0.5, 0.0, 0.5]])
    matches = assign(targets, shapes_of(128, 128), ANCHORS, STRIDES, iou_t=1.0, neighbours=False)
    assert [name for level in matches for name in level.classes.tolist()] == [0]
    assert all(
        not len(level) for level in assign(targets[:0], shapes_of(128, 128), ANCHORS, STRIDES, iou_t=0.2)
    )


def test_without_neighbours_only_the_cell_of_the_centre_claims() -> None:
    target = target_px(66.0, 62.0, 10.0, 13.0)
    alone = assign(target, shapes_of(128, 128), ANCHORS[:, :1], STRIDES, neighbours=False)
    assert cells(alone[0]) == [(0, 62 // STRIDES[0], 66 // STRIDES[0])]
