"""Boxes: conversions invert each other, the IoU family has its known values, NMS is the plain greedy loop."""

import math
import time
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor

from model import boxes
from model.boxes import bbox_iou, box_iou, nms, non_max_suppression, xywh_to_xyxy, xyxy_to_xywh
from model.spec import ModelError

KINDS = ("iou", "giou", "diou", "ciou")
UNIT = torch.tensor([[0.0, 0.0, 2.0, 2.0]])


@pytest.fixture
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def random_boxes(seed: int, n: int, side: float = 640.0, size: float = 100.0) -> Tensor:
    rng = np.random.default_rng(seed)
    centre, wh = rng.random((n, 2)) * side, rng.random((n, 2)) * size + 1
    return torch.tensor(np.hstack((centre - wh / 2, centre + wh / 2)), dtype=torch.float32)


def random_scores(seed: int, n: int) -> Tensor:
    return torch.tensor(np.random.default_rng([seed, 1]).random(n), dtype=torch.float32)


def overlap_of_two(a: NDArray[np.float32], b: NDArray[np.float32]) -> np.float32:
    """IoU of two float32 boxes, written out plainly."""
    zero = np.float32(0)
    width = max(min(a[2], b[2]) - max(a[0], b[0]), zero)
    height = max(min(a[3], b[3]) - max(a[1], b[1]), zero)
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - width * height
    return np.float32(width * height / union) if union > 0 else zero


def greedy(xyxy: Tensor, scores: Tensor, iou: float, groups: Tensor | None = None) -> list[int]:
    """The textbook loop: the next best box stays unless one that stayed overlaps it too much."""
    table, threshold = xyxy.numpy(), np.float32(iou)
    names = np.zeros(len(table)) if groups is None else groups.numpy()
    kept: list[int] = []
    for i in sorted(range(len(table)), key=lambda i: (-float(scores[i]), i)):
        rivals = (k for k in kept if names[k] == names[i])
        if not any(overlap_of_two(table[k], table[i]) > threshold for k in rivals):
            kept.append(i)
    return kept


@st.composite
def crowds(draw: st.DrawFn) -> tuple[Tensor, Tensor, Tensor]:
    """Boxes on a small integer grid (so that equal boxes, equal scores and empty boxes are common)."""
    n = draw(st.integers(0, 40))
    corner = st.tuples(st.integers(0, 12), st.integers(0, 12), st.integers(0, 8), st.integers(0, 8))
    rows = draw(st.lists(corner, min_size=n, max_size=n))
    xyxy = torch.tensor([(x, y, x + w, y + h) for x, y, w, h in rows], dtype=torch.float32).reshape(n, 4)
    scores = draw(st.lists(st.integers(1, 9), min_size=n, max_size=n))
    groups = draw(st.lists(st.integers(0, 3), min_size=n, max_size=n))
    return xyxy, torch.tensor(scores, dtype=torch.float32) / 10, torch.tensor(groups, dtype=torch.int64)


def decoded_from(xyxy: Tensor, objectness: Tensor, probabilities: Tensor) -> Tensor:
    return torch.cat((xyxy_to_xywh(xyxy), objectness[:, None], probabilities), dim=1)[None]


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


# Non-maximum suppression


def test_nms_of_no_boxes_keeps_none() -> None:
    assert nms(torch.zeros(0, 4), torch.zeros(0), 0.5).tolist() == []


def test_of_equal_boxes_with_equal_scores_the_first_stays() -> None:
    assert nms(UNIT.repeat(5, 1), torch.full((5,), 0.5), 0.5).tolist() == [0]


def test_a_box_suppressed_by_a_suppressed_box_stays() -> None:
    chain = torch.tensor([[0.0, 0.0, 10.0, 1.0], [4.0, 0.0, 14.0, 1.0], [8.0, 0.0, 18.0, 1.0]])
    assert nms(chain, torch.tensor([0.9, 0.8, 0.7]), 0.4).tolist() == [0, 2]


def test_a_long_chain_of_suppression_across_blocks_is_resolved() -> None:
    left = torch.arange(1000.0) * 4
    chain = torch.stack((left, torch.zeros(1000), left + 10, torch.ones(1000)), dim=1)
    kept = nms(chain, torch.linspace(1, 0.1, 1000), 0.4)
    assert kept.tolist() == list(range(0, 1000, 2))


def test_an_iou_equal_to_the_threshold_suppresses_nothing() -> None:
    half = torch.tensor([[0.0, 0.0, 2.0, 2.0], [0.0, 0.0, 2.0, 1.0]])
    assert nms(half, torch.tensor([0.9, 0.8]), 0.5).tolist() == [0, 1]


@given(crowds(), st.sampled_from([0.0, 0.25, 0.45, 0.5, 0.6, 1.0]), st.sampled_from([1, 3, 7, 128]))
@settings(max_examples=150, deadline=None)
def test_nms_is_the_greedy_loop_whatever_the_block(
    crowd: tuple[Tensor, Tensor, Tensor], iou: float, rows: int
) -> None:
    xyxy, scores, _ = crowd
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(boxes, "ROWS_PER_BLOCK", rows)
        assert nms(xyxy, scores, iou).tolist() == greedy(xyxy, scores, iou)


@pytest.mark.parametrize(("side", "size"), [(640.0, 100.0), (200.0, 100.0), (40.0, 100.0)])
def test_nms_of_many_boxes_is_the_greedy_loop(side: float, size: float) -> None:
    xyxy, scores = random_boxes(3, 700, side, size), random_scores(3, 700)
    assert nms(xyxy, scores, 0.45).tolist() == greedy(xyxy, scores, 0.45)


def test_nms_of_two_thousand_boxes_takes_a_small_part_of_a_second(one_thread: None) -> None:
    xyxy, scores = random_boxes(4, 2000), random_scores(4, 2000)
    seconds = []
    for _ in range(5):
        begin = time.process_time()  # so that busy neighbours don't count
        nms(xyxy, scores, 0.45)
        seconds.append(time.process_time() - begin)
    assert min(seconds) < 0.1  # about 0.007 on a quiet core; a loop over the boxes takes 0.3


@pytest.mark.parametrize("iou", [-0.1, 1.1, math.nan])
def test_an_iou_threshold_outside_0_to_1_is_an_error(iou: float) -> None:
    with pytest.raises(ModelError, match="0 <= iou <= 1 must hold, but got"):
        nms(UNIT, torch.ones(1), iou)


def test_boxes_and_scores_that_do_not_belong_together_are_an_error() -> None:
    with pytest.raises(ModelError, match=r"must belong together, but got \(1, 4\) and \(2,\)"):
        nms(UNIT, torch.ones(2), 0.5)


# From decoded output to detections


def test_an_image_without_predictions_gives_an_empty_table() -> None:
    for multi_label in (False, True):
        found = non_max_suppression(torch.zeros(2, 0, 8), multi_label=multi_label)
        assert [table.shape for table in found] == [(0, 6), (0, 6)]


def test_predictions_under_the_confidence_give_an_empty_table() -> None:
    found = non_max_suppression(torch.full((1, 50, 8), 0.4), confidence=0.2)  # 0.4 * 0.4 is less
    assert found[0].shape == (0, 6)


def test_a_batch_without_images_gives_no_tables() -> None:
    assert non_max_suppression(torch.zeros(0, 10, 8)) == []


def test_a_detection_is_corners_then_objectness_times_probability_then_class() -> None:
    decoded = torch.tensor([[[10.0, 20.0, 4.0, 6.0, 0.8, 0.1, 0.5]]])
    assert non_max_suppression(decoded)[0].tolist() == [pytest.approx([8.0, 17.0, 12.0, 23.0, 0.4, 1.0])]


def test_with_one_class_the_objectness_alone_is_the_confidence() -> None:
    decoded = torch.tensor([[[10.0, 20.0, 4.0, 6.0, 0.8, 0.1]]])
    for multi_label in (False, True):
        found = non_max_suppression(decoded, multi_label=multi_label)[0]
        assert found[:, 4:].tolist() == [pytest.approx([0.8, 0.0])]


def test_multi_label_makes_a_detection_of_every_class_above_the_confidence() -> None:
    decoded = torch.tensor([[[10.0, 20.0, 4.0, 6.0, 1.0, 0.3, 0.1, 0.9]]])
    assert non_max_suppression(decoded)[0][:, 5].tolist() == [2.0]
    assert non_max_suppression(decoded, multi_label=True)[0][:, 5].tolist() == [2.0, 0.0]


def test_classes_suppress_each_other_only_when_agnostic() -> None:
    decoded = decoded_from(UNIT.repeat(2, 1), torch.ones(2), torch.tensor([[0.9, 0.0], [0.0, 0.8]]))
    assert len(non_max_suppression(decoded)[0]) == 2
    assert len(non_max_suppression(decoded, agnostic=True)[0]) == 1


def test_diou_spares_a_neighbour_that_iou_would_drop() -> None:
    pair = torch.tensor([[0.0, 0.0, 10.0, 10.0], [4.0, 0.0, 14.0, 10.0]])  # IoU 0.43, DIoU 0.37
    decoded = decoded_from(pair, torch.tensor([0.9, 0.8]), torch.ones(2, 1))
    assert len(non_max_suppression(decoded, iou=0.4)[0]) == 1
    assert len(non_max_suppression(decoded, iou=0.4, distance=True)[0]) == 2


@given(crowds(), st.booleans(), st.integers(1, 12), st.sampled_from([2, 128]))
@settings(max_examples=100, deadline=None)
def test_detections_are_the_best_of_the_greedy_loop_over_each_class(
    crowd: tuple[Tensor, Tensor, Tensor], agnostic: bool, most: int, rows: int
) -> None:
    xyxy, scores, groups = crowd
    probabilities = torch.nn.functional.one_hot(groups, 4).float()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(boxes, "ROWS_PER_BLOCK", rows)
        found = non_max_suppression(
            decoded_from(xyxy, scores, probabilities), 0.15, 0.5, agnostic=agnostic, max_detections=most
        )[0]
    above = (scores > 0.15).nonzero()[:, 0]
    kept = greedy(xyxy[above], scores[above], 0.5, torch.zeros(len(above)) if agnostic else groups[above])
    rows_wanted = above[torch.tensor(kept[:most], dtype=torch.int64)]
    wanted = torch.cat((xyxy, scores[:, None], groups[:, None].float()), dim=1)[rows_wanted]
    assert torch.equal(found, wanted)


@given(st.integers(0, 2**32 - 1), st.booleans())
@settings(max_examples=30, deadline=None)
def test_detections_of_one_class_never_overlap_more_than_asked_and_fall_in_confidence(
    seed: int, multi_label: bool
) -> None:
    rng = np.random.default_rng(seed)
    probabilities = torch.tensor(rng.random((300, 3)), dtype=torch.float32)
    decoded = decoded_from(random_boxes(seed, 300, side=150), random_scores(seed, 300), probabilities)
    found = non_max_suppression(decoded, 0.1, 0.45, multi_label=multi_label)[0]
    assert bool((found[:, 4] > 0.1).all())
    assert bool((found[:, 4].diff() <= 0).all())
    same = found[:, 5, None] == found[:, 5]
    assert float((box_iou(found[:, :4], found[:, :4]) * same).triu(1).max()) <= 0.45 + 1e-5


def test_only_the_best_candidates_go_into_suppression(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(boxes, "CANDIDATES_PER_IMAGE", 3)
    apart = torch.tensor([[10.0 * i, 0.0, 10.0 * i + 5, 5.0] for i in range(6)])
    scores = torch.tensor([0.3, 0.9, 0.5, 0.8, 0.4, 0.7])
    found = non_max_suppression(decoded_from(apart, scores, torch.ones(6, 1)))[0]
    assert found[:, 4].tolist() == pytest.approx([0.9, 0.8, 0.7])


def test_nan_predictions_of_a_diverged_model_give_no_detections() -> None:
    assert len(non_max_suppression(torch.full((1, 20, 8), math.nan), multi_label=True)[0]) == 0


def test_half_precision_predictions_give_float32_detections() -> None:
    decoded = torch.tensor([[[10.0, 20.0, 4.0, 6.0, 0.8, 0.1, 0.5]]], dtype=torch.float16)
    found = non_max_suppression(decoded)[0]
    assert found.dtype == torch.float32
    assert len(nms(found[:, :4].half(), found[:, 4].half(), 0.5)) == 1


@pytest.mark.parametrize(
    ("confidence", "iou", "message"), [(1.5, 0.5, "<= confidence <="), (0.5, -1.0, "<= iou <=")]
)
def test_a_threshold_outside_0_to_1_is_an_error(confidence: float, iou: float, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        non_max_suppression(torch.zeros(1, 1, 7), confidence, iou)


def test_decoded_output_of_another_shape_is_an_error() -> None:
    with pytest.raises(ModelError, match=r"decoded must be \(batch, predictions, 5 \+ classes\), but got"):
        non_max_suppression(torch.zeros(10, 7))
