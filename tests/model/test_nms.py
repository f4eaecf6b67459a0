"""Suppression is the plain loop, whatever the kind, the batch and the block."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from model import candidates, greedy_nms
from model.boxes import box_iou, xyxy_to_xywh
from model.nms import nms, non_max_suppression
from model.spec import ModelError
from model.suppression import NmsKind, Suppression

BOUNDS = st.sampled_from([(1,), (3, 9), greedy_nms.SMALL_GROUPS])  # of groups that are decided side by side
UNIT = torch.tensor([[0.0, 0.0, 2.0, 2.0]])


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


class CountOperations(TorchDispatchMode):
    """Counts what torch is asked to do."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += 1
        return func(*args, **(kwargs or {}))


def suppressed(decoded: Tensor, confidence: float = 0.25, iou: float = 0.45, **settings: Any) -> list[Tensor]:
    return non_max_suppression(decoded, Suppression(confidence=confidence, iou=iou, **settings))


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


@given(crowds(), st.sampled_from([0.0, 0.25, 0.45, 0.5, 0.6, 1.0]), st.sampled_from([1, 3, 7, 128]), BOUNDS)
@settings(max_examples=150, deadline=None)
def test_nms_is_the_greedy_loop_whatever_the_block(
    crowd: tuple[Tensor, Tensor, Tensor], iou: float, rows: int, small: tuple[int, ...]
) -> None:
    xyxy, scores, _ = crowd
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(greedy_nms, "ROWS_PER_BLOCK", rows)
        patch.setattr(greedy_nms, "SMALL_GROUPS", small)
        assert nms(xyxy, scores, iou).tolist() == greedy(xyxy, scores, iou)


@pytest.mark.parametrize(("side", "size"), [(640.0, 100.0), (200.0, 100.0), (40.0, 100.0)])
def test_nms_of_many_boxes_is_the_greedy_loop(side: float, size: float) -> None:
    xyxy, scores = random_boxes(3, 700, side, size), random_scores(3, 700)
    assert nms(xyxy, scores, 0.45).tolist() == greedy(xyxy, scores, 0.45)


def test_the_steps_of_suppression_do_not_grow_with_the_boxes() -> None:
    counts = []
    for n in (500, 2000):
        with CountOperations() as counter:
            nms(random_boxes(4, n), random_scores(4, n), 0.45)
        counts.append(counter.count)
    assert counts[1] < 2000  # a loop over the boxes has several steps for each of the 1,500 that stay
    assert counts[1] < 8 * counts[0]


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
        found = suppressed(torch.zeros(2, 0, 8), multi_label=multi_label)
        assert [table.shape for table in found] == [(0, 6), (0, 6)]


def test_predictions_under_the_confidence_give_an_empty_table() -> None:
    found = suppressed(torch.full((1, 50, 8), 0.4), confidence=0.2)  # 0.4 * 0.4 is less
    assert found[0].shape == (0, 6)


def test_a_batch_without_images_gives_no_tables() -> None:
    assert suppressed(torch.zeros(0, 10, 8)) == []


def test_a_detection_is_corners_then_objectness_times_probability_then_class() -> None:
    decoded = torch.tensor([[[10.0, 20.0, 4.0, 6.0, 0.8, 0.1, 0.5]]])
    assert suppressed(decoded)[0].tolist() == [pytest.approx([8.0, 17.0, 12.0, 23.0, 0.4, 1.0])]


def test_with_one_class_the_objectness_alone_is_the_confidence() -> None:
    decoded = torch.tensor([[[10.0, 20.0, 4.0, 6.0, 0.8, 0.1]]])
    for multi_label in (False, True):
        found = suppressed(decoded, multi_label=multi_label)[0]
        assert found[:, 4:].tolist() == [pytest.approx([0.8, 0.0])]


def test_multi_label_makes_a_detection_of_every_class_above_the_confidence() -> None:
    decoded = torch.tensor([[[10.0, 20.0, 4.0, 6.0, 1.0, 0.3, 0.1, 0.9]]])
    assert suppressed(decoded)[0][:, 5].tolist() == [2.0]
    assert suppressed(decoded, multi_label=True)[0][:, 5].tolist() == [2.0, 0.0]


def test_classes_suppress_each_other_only_when_agnostic() -> None:
    decoded = decoded_from(UNIT.repeat(2, 1), torch.ones(2), torch.tensor([[0.9, 0.0], [0.0, 0.8]]))
    assert len(suppressed(decoded)[0]) == 2
    assert len(suppressed(decoded, agnostic=True)[0]) == 1


def test_diou_spares_a_neighbour_that_iou_would_drop() -> None:
    pair = torch.tensor([[0.0, 0.0, 10.0, 10.0], [4.0, 0.0, 14.0, 10.0]])  # IoU 0.43, DIoU 0.37
    decoded = decoded_from(pair, torch.tensor([0.9, 0.8]), torch.ones(2, 1))
    assert len(suppressed(decoded, iou=0.4)[0]) == 1
    assert len(suppressed(decoded, iou=0.4, kind="diou")[0]) == 2


@given(crowds(), st.booleans(), st.integers(1, 12), st.sampled_from([2, 128]), BOUNDS)
@settings(max_examples=100, deadline=None)
def test_detections_are_the_best_of_the_greedy_loop_over_each_class(
    crowd: tuple[Tensor, Tensor, Tensor], agnostic: bool, most: int, rows: int, small: tuple[int, ...]
) -> None:
    xyxy, scores, groups = crowd
    probabilities = torch.nn.functional.one_hot(groups, 4).float()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(greedy_nms, "ROWS_PER_BLOCK", rows)
        patch.setattr(greedy_nms, "SMALL_GROUPS", small)
        found = suppressed(
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
    found = suppressed(decoded, 0.1, 0.45, multi_label=multi_label)[0]
    assert bool((found[:, 4] > 0.1).all())
    assert bool((found[:, 4].diff() <= 0).all())
    same = found[:, 5, None] == found[:, 5]
    assert float((box_iou(found[:, :4], found[:, :4]) * same).triu(1).max()) <= 0.45 + 1e-5


def test_only_the_best_candidates_go_into_suppression(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(candidates, "CANDIDATES_PER_IMAGE", 3)
    apart = torch.tensor([[10.0 * i, 0.0, 10.0 * i + 5, 5.0] for i in range(6)])
    scores = torch.tensor([0.3, 0.9, 0.5, 0.8, 0.4, 0.7])
    found = suppressed(decoded_from(apart, scores, torch.ones(6, 1)))[0]
    assert found[:, 4].tolist() == pytest.approx([0.9, 0.8, 0.7])


def test_nan_predictions_of_a_diverged_model_give_no_detections() -> None:
    assert len(suppressed(torch.full((1, 20, 8), math.nan), multi_label=True)[0]) == 0


def test_half_precision_predictions_give_float32_detections() -> None:
    decoded = torch.tensor([[[10.0, 20.0, 4.0, 6.0, 0.8, 0.1, 0.5]]], dtype=torch.float16)
    found = suppressed(decoded)[0]
    assert found.dtype == torch.float32
    assert len(nms(found[:, :4].half(), found[:, 4].half(), 0.5)) == 1


@pytest.mark.parametrize(
    ("confidence", "iou", "message"), [(1.5, 0.5, "<= confidence <="), (0.5, -1.0, "<= iou <=")]
)
def test_a_threshold_outside_0_to_1_is_an_error(confidence: float, iou: float, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        suppressed(torch.zeros(1, 1, 7), confidence, iou)


def test_decoded_output_of_another_shape_is_an_error() -> None:
    with pytest.raises(ModelError, match=r"decoded must be \(batch, predictions, 5 \+ classes\), but got"):
        suppressed(torch.zeros(10, 7))


# A batch in one pass, and the soft kinds


def random_batch(seed: int, images: int, predictions: int, classes: int) -> Tensor:
    rng = np.random.default_rng(seed)
    xywh = rng.random((images, predictions, 4)) * [150, 150, 60, 60] + [0, 0, 2, 2]
    rest = rng.random((images, predictions, 1 + classes)).round(1)  # equal confidences are common
    return torch.tensor(np.concatenate((xywh, rest), axis=2), dtype=torch.float32)


@pytest.mark.parametrize("kind", ["greedy", "diou", "soft", "soft-linear"])
@pytest.mark.parametrize("multi_label", [False, True])
@pytest.mark.parametrize("scores_per_pass", [1, 5_000, 10**9])
def test_a_batch_gives_what_its_images_give_alone(
    kind: NmsKind, multi_label: bool, scores_per_pass: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded = random_batch(5, 5, 120, 4)
    decoded[1, :, 4] = 0  # an image without detections between others
    options = {"multi_label": multi_label, "max_detections": 40, "kind": kind}
    alone = [suppressed(image[None], 0.2, 0.4, **options)[0] for image in decoded]
    monkeypatch.setattr(candidates, "SCORES_PER_PASS", scores_per_pass)
    together = suppressed(decoded, 0.2, 0.4, **options)
    assert [len(table) for table in alone] == [len(table) for table in together]
    assert len(alone[0]) == 40
    assert all(torch.equal(one, other) for one, other in zip(alone, together, strict=True))


def soft_loop(
    xyxy: Tensor, scores: Tensor, groups: Tensor, confidence: float, iou: float | None
) -> list[tuple[int, float]]:
    """The textbook loop of Soft-NMS in each group: (box, its lowered score), by falling score."""
    found = []
    for name in sorted(set(groups.tolist())):
        left = {i: float(scores[i]) for i in range(len(scores)) if groups[i] == name}
        while left:
            best = max(left, key=lambda i: (left[i], -i))
            if left[best] <= confidence:
                break
            found.append((best, left.pop(best)))
            for i in left:
                overlap = float(overlap_of_two(xyxy[best].numpy(), xyxy[i].numpy()))
                if iou is None:
                    left[i] *= math.exp(-(overlap**2) / 0.5)
                elif overlap > iou:
                    left[i] *= 1 - overlap
    return sorted(found, key=lambda row: -row[1])


@given(st.integers(0, 2**32 - 1), st.integers(1, 60), st.sampled_from(["soft", "soft-linear"]), st.booleans())
@settings(max_examples=60, deadline=None)
def test_soft_suppression_is_the_plain_loop(seed: int, n: int, kind: NmsKind, agnostic: bool) -> None:
    xyxy, scores = random_boxes(seed, n, side=120), random_scores(seed, n)
    groups = torch.from_numpy(np.random.default_rng([seed, 2]).integers(0, 3, n))
    decoded = decoded_from(xyxy, scores, torch.nn.functional.one_hot(groups, 3).float())
    found = suppressed(decoded, 0.1, 0.3, kind=kind, agnostic=agnostic)[0]
    above = (scores > 0.1).nonzero()[:, 0]
    names = torch.zeros_like(groups) if agnostic else groups
    wanted = soft_loop(xyxy[above], scores[above], names[above], 0.1, None if kind == "soft" else 0.3)
    assert len(found) == len(wanted)
    np.testing.assert_allclose(found[:, 4].numpy(), [score for _, score in wanted], atol=1e-5)
    boxes = xyxy[above][torch.tensor([i for i, _ in wanted], dtype=torch.int64)].reshape(-1, 4)
    np.testing.assert_allclose(found[:, :4].numpy(), boxes.numpy(), atol=1e-3)


@pytest.mark.parametrize("kind", ["soft", "soft-linear"])
def test_soft_suppression_keeps_at_most_the_best_and_takes_empty_tables(kind: NmsKind) -> None:
    decoded = random_batch(1, 2, 200, 3)
    every = suppressed(decoded, 0.1, 0.4, kind=kind)
    few = suppressed(decoded, 0.1, 0.4, kind=kind, max_detections=7)
    assert all(torch.equal(one[:7], other) for one, other in zip(every, few, strict=True))
    assert suppressed(torch.zeros(1, 0, 8), kind=kind)[0].shape == (0, 6)


def test_an_unknown_kind_is_an_error() -> None:
    with pytest.raises(
        ModelError, match="unknown kind of suppression 'fast'; known: greedy, diou, soft, soft-linear"
    ):
        suppressed(torch.zeros(1, 1, 7), kind="fast")


@pytest.mark.parametrize("scene", ["one class", "many classes"])
def test_thousands_of_boxes_in_blocks_give_the_greedy_loop(scene: str) -> None:
    n = 600
    xyxy, scores = random_boxes(8, n, side=400), random_scores(8, n)
    groups = torch.arange(n) % (1 if scene == "one class" else 50)
    decoded = decoded_from(xyxy, scores, torch.nn.functional.one_hot(groups, 50).float())
    found = suppressed(decoded, 0.01, 0.5, max_detections=n)[0]
    above = (scores > 0.01).nonzero()[:, 0]
    kept = above[torch.tensor(greedy(xyxy[above], scores[above], 0.5, groups[above]))]
    assert torch.equal(found[:, 4:], torch.stack((scores[kept], groups[kept].float()), 1))
