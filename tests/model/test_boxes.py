"""Boxes: conversions invert each other, the IoU family has its known values."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from model.boxes import bbox_iou, box_iou, xywh_to_xyxy, xyxy_to_xywh
from model.spec import ModelError

KINDS = ("iou", "giou", "diou", "ciou")
UNIT = torch.tensor([[0.0, 0.0, 2.0, 2.0]])


def random_boxes(seed: int, n: int, side: float = 640.0, size: float = 100.0) -> Tensor:
    rng = np.random.default_rng(seed)
    centre, wh = rng.random((n, 2)) * side, rng.random((n, 2)) * size + 1
    return torch.tensor(np.hstack((centre - wh / 2, centre + wh / 2)), dtype=torch.float32)


# Conversions


def test_a_centre_and_a_size_become_corners() -> None:
    assert xywh_to_xyxy(torch.tensor([[10.0, 20.0, 4.0, 6.0]])).tolist() == [[8.0, 17.0, 12.0, 23.0]]


def test_corners_become_a_centre_and_a_size() -> None:
    assert xyxy_to_xywh(torch.tensor([[8.0, 17.0, 12.0, 23.0]])).tolist() == [[10.0, 20.0, 4.0, 6.0]]


@given(st.lists(st.tuples(*[st.integers(-1000, 1000)] * 4), max_size=20))
def test_the_conversions_invert_each_other_and_leave_their_input_alone(rows: list[tuple[int, ...]]) -> None:
    table = torch.tensor(rows, dtype=torch.float32).reshape(-1, 4)
    before = table.clone()
    assert torch.equal(xyxy_to_xywh(xywh_to_xyxy(table)), table)
    assert torch.equal(xywh_to_xyxy(xyxy_to_xywh(table)), table)
    assert torch.equal(table, before)


def test_conversions_keep_leading_dimensions_and_empty_tables() -> None:
    assert xywh_to_xyxy(torch.zeros(2, 0, 3, 4)).shape == (2, 0, 3, 4)
    assert xyxy_to_xywh(torch.zeros(0, 4)).shape == (0, 4)


# The IoU family


def test_pairwise_iou_puts_the_first_table_in_rows() -> None:
    second = torch.tensor([[0.0, 0.0, 2.0, 2.0], [1.0, 0.0, 3.0, 2.0], [5.0, 5.0, 6.0, 6.0]])
    assert box_iou(UNIT, second).tolist() == [[1.0, pytest.approx(1 / 3), 0.0]]


def test_pairwise_iou_of_an_empty_table_is_an_empty_matrix() -> None:
    assert box_iou(torch.zeros(0, 4), UNIT).shape == (0, 1)
    assert box_iou(UNIT, torch.zeros(0, 4)).shape == (1, 0)


def test_pairwise_iou_takes_whole_numbers_and_half_precision() -> None:
    for dtype in (torch.int64, torch.float16, torch.float64):
        assert box_iou(UNIT.to(dtype), UNIT.to(dtype)).tolist() == [[1.0]]


def test_boxes_without_area_overlap_nothing_and_give_no_nan() -> None:
    point = torch.tensor([[1.0, 1.0, 1.0, 1.0]])
    assert box_iou(point, torch.cat((point, UNIT))).tolist() == [[0.0, 0.0]]
    for kind in KINDS:
        assert torch.isfinite(bbox_iou(point, point, kind)).all()


def test_elementwise_iou_is_the_diagonal_of_the_pairwise_one() -> None:
    first, second = random_boxes(0, 50, side=80), random_boxes(1, 50, side=80)
    assert torch.allclose(bbox_iou(first, second), box_iou(first, second).diagonal(), atol=1e-6)


def test_giou_of_boxes_apart_is_minus_the_empty_share_of_their_hull() -> None:
    other = torch.tensor([[2.0, 0.0, 4.0, 2.0], [4.0, 0.0, 6.0, 2.0]])
    assert bbox_iou(UNIT.expand(2, 4), other, "giou").tolist() == pytest.approx([0.0, -1 / 3], abs=1e-6)


def test_diou_takes_off_the_squared_distance_over_the_squared_diagonal() -> None:
    other = torch.tensor([[4.0, 0.0, 6.0, 2.0]])
    assert bbox_iou(UNIT, other, "diou").item() == pytest.approx(-16 / 40)


def test_ciou_of_concentric_boxes_takes_off_their_difference_in_aspect() -> None:
    wide, tall = torch.tensor([[-2.0, -1.0, 2.0, 1.0]]), torch.tensor([[-1.0, -2.0, 1.0, 2.0]])
    v = 4 / math.pi**2 * (math.atan(2) - math.atan(0.5)) ** 2
    iou = 4 / 12
    assert bbox_iou(wide, tall, "ciou").item() == pytest.approx(iou - v * v / (1 - iou + v), abs=1e-6)


def test_the_gradient_of_ciou_takes_alpha_for_a_constant() -> None:
    tall = torch.tensor([-1.0, -2.0, 1.0, 2.0])
    half = torch.tensor([2.0, 1.0], requires_grad=True)
    bbox_iou(torch.cat((-half, half)), tall, "ciou").backward()
    assert half.grad is not None
    free = torch.tensor([2.0, 1.0], requires_grad=True)
    box = torch.cat((-free, free))
    v = 4 / math.pi**2 * (math.atan(0.5) - torch.atan(free[0] / free[1])) ** 2
    diou = bbox_iou(box, tall, "diou")
    alpha = (v / (1 - bbox_iou(box, tall) + v)).item()
    (diou - alpha * v).backward()
    assert torch.allclose(half.grad, free.grad, atol=1e-5)


@given(st.integers(0, 2**32 - 1), st.floats(0.5, 300))
def test_every_kind_is_in_its_range_and_1_for_equal_boxes(seed: int, side: float) -> None:
    first, second = random_boxes(seed, 20, side), random_boxes(seed + 1, 20, side)
    for kind in KINDS:
        value, low = bbox_iou(first, second, kind), {"iou": 0.0, "ciou": -2.0}.get(kind, -1.0)
        assert bool(((value >= low - 1e-5) & (value <= 1 + 1e-5)).all())
        assert torch.allclose(bbox_iou(first, first, kind), torch.ones(20), atol=1e-4)


@given(st.integers(0, 2**32 - 1))
def test_iou_does_not_change_with_place_size_or_order(seed: int) -> None:
    first, second = random_boxes(seed, 20, 100), random_boxes(seed + 1, 20, 100)
    for kind in KINDS:
        value = bbox_iou(first, second, kind)
        assert torch.allclose(bbox_iou(first * 4, second * 4, kind), value, atol=1e-4)
        assert torch.allclose(bbox_iou(first + 64, second + 64, kind), value, atol=1e-3)
        assert torch.allclose(bbox_iou(second, first, kind), value, atol=1e-4)


def test_elementwise_iou_of_empty_tables_is_empty() -> None:
    for kind in KINDS:
        assert bbox_iou(torch.zeros(0, 4), torch.zeros(0, 4), kind).shape == (0,)


def test_an_unknown_kind_is_an_error_that_names_the_known_ones() -> None:
    with pytest.raises(ModelError, match="kind must be one of iou, giou, diou, ciou, but got 'siou'"):
        bbox_iou(UNIT, UNIT, "siou")
