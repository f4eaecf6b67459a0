"""Loss: the reference's numbers and gradients, and what must hold for any batch."""

import json
import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from model import build
from model.assign import assign
from model.boxes import bbox_iou, xywh_to_xyxy
from model.loss import DetectionLoss, LossGains
from model.spec import ModelError

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "loss_yolov5.npz"
CASES = ("default", "single_class", "focal", "smooth", "weights", "tight_anchors", "p6", "no_targets")
PARTS = ("box", "obj", "cls")


@dataclass(frozen=True)
class FakeDetector:
    strides: tuple[int, ...]
    anchors: Tensor
    classes: int


def detector_of(levels: int = 3, classes: int = 3) -> FakeDetector:
    strides = (8, 16, 32, 64, 128)[:levels]
    anchors = torch.tensor([[[1.5, 2.0], [3.0, 2.5], [4.0, 6.0]]]) * torch.tensor(strides)[:, None, None]
    return FakeDetector(strides, anchors, classes)


def raw_of(
    detector: FakeDetector, seed: int = 0, batch: int = 2, size: tuple[int, int] = (128, 128)
) -> list[Tensor]:
    rng = np.random.default_rng(seed)
    return [
        torch.tensor(
            rng.normal(size=(batch, 3, size[0] // stride, size[1] // stride, 5 + detector.classes)),
            dtype=torch.float32,
            requires_grad=True,
        )
        for stride in detector.strides
    ]


def targets_of(detector: FakeDetector, seed: int = 0, n: int = 12, batch: int = 2) -> Tensor:
    rng = np.random.default_rng([seed, 1])
    head = np.stack((rng.integers(0, batch, n), rng.integers(0, detector.classes, n)), axis=1)
    return torch.tensor(
        np.hstack((head, rng.random((n, 2)), rng.uniform(0.05, 0.6, (n, 2)))), dtype=torch.float32
    )


def one_cell(x: float, y: float, w: float, h: float) -> Tensor:
    """A target on a grid of 4 × 4 cells of 8 px, in px."""
    return torch.tensor([0.0, 0.0, x / 32, y / 32, w / 32, h / 32])


@pytest.fixture(scope="module")
def golden() -> dict[str, Any]:
    with np.load(GOLDEN) as file:
        return {
            "meta": json.loads(str(file["meta"])),
            **{key: file[key] for key in file.files if key != "meta"},
        }


# The reference


@pytest.mark.parametrize("case", CASES)
def test_parts_total_and_gradients_are_the_references(golden: dict[str, Any], case: str) -> None:
    meta = golden["meta"][case]
    detector = FakeDetector(tuple(meta["strides"]), torch.tensor(meta["anchors_px"]), meta["nc"])
    raw = [torch.tensor(golden[f"{case}/pred{i}"], requires_grad=True) for i in range(len(meta["strides"]))]
    total, parts = DetectionLoss(detector, LossGains(**meta["hyp"]))(
        raw, torch.tensor(golden[f"{case}/targets"])
    )
    total.backward()
    assert [parts[name].item() for name in PARTS] == pytest.approx(meta["box_obj_cls"], rel=1e-5)
    assert total.item() == pytest.approx(meta["total_times_batch"], rel=1e-5)
    gradients = [level.grad.abs().sum().item() for level in raw if level.grad is not None]
    assert gradients == pytest.approx(meta["grad_abs_sum"], rel=1e-5)


def test_every_case_of_the_golden_file_is_tested(golden: dict[str, Any]) -> None:
    assert set(golden["meta"]) == set(CASES)


# Two targets for one cell


def objectness_by_hand(logits: Tensor, goals: dict[tuple[int, int], float]) -> float:
    wanted = torch.zeros_like(logits)
    for cell, goal in goals.items():
        wanted[cell] = goal
    return float(binary_cross_entropy_with_logits(logits, wanted)) * 4.0


def test_where_two_targets_claim_one_cell_the_higher_iou_is_the_objectness_goal() -> None:
    detector = FakeDetector((8,), torch.tensor([[[8.0, 8.0]]]), 1)
    raw = [torch.zeros(1, 1, 4, 4, 6)]  # every prediction: the middle of its cell, as large as the anchor
    targets = torch.stack((one_cell(12, 12, 8, 8), one_cell(12, 12, 8, 16)))  # in the middle: no neighbours
    low = float(
        bbox_iou(xywh_to_xyxy(torch.tensor([12.0, 12, 8, 8])), xywh_to_xyxy(targets[1, 2:] * 32), "ciou")
    )
    assert 0.3 < low < 0.6
    loss = DetectionLoss(detector, LossGains())
    for order in ([0, 1], [1, 0]):
        _, parts = loss(raw, targets[order])
        assert parts["obj"].item() == pytest.approx(
            objectness_by_hand(raw[0][0, 0, :, :, 4], {(1, 1): 1.0}), rel=1e-6
        )
        assert parts["box"].item() == pytest.approx(
            0.05 * (1 - low) / 2, rel=1e-5
        )  # both targets are still taught


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=25, deadline=None)
def test_the_order_of_the_targets_cannot_matter(seed: int) -> None:
    detector = detector_of()
    targets = targets_of(detector, seed, n=40)
    raw = raw_of(detector, seed)
    loss = DetectionLoss(detector, LossGains())
    total, parts = loss(raw, targets)
    shuffled_total, shuffled = loss(raw, targets[torch.tensor(np.random.default_rng(seed).permutation(40))])
    assert torch.equal(parts["obj"], shuffled["obj"])
    assert torch.allclose(total, shuffled_total, rtol=1e-5)


# Options


def test_gr_blends_the_objectness_goal_between_1_and_the_iou() -> None:
    detector = FakeDetector((8,), torch.tensor([[[8.0, 8.0]]]), 1)
    raw = [torch.zeros(1, 1, 4, 4, 6)]
    target = one_cell(12, 12, 8, 16)
    iou = float(bbox_iou(xywh_to_xyxy(torch.tensor([12.0, 12, 8, 8])), xywh_to_xyxy(target[2:] * 32), "ciou"))
    for gr in (0.0, 0.5, 1.0):
        _, parts = DetectionLoss(detector, LossGains(gr=gr))(raw, target[None])
        wanted = objectness_by_hand(raw[0][0, 0, :, :, 4], {(1, 1): 1 - gr + gr * iou})
        assert parts["obj"].item() == pytest.approx(wanted, rel=1e-5)


def test_each_gain_multiplies_its_own_part() -> None:
    detector = detector_of()
    raw, targets = raw_of(detector), targets_of(detector)
    _, plain = DetectionLoss(detector, LossGains())(raw, targets)
    _, more = DetectionLoss(detector, LossGains(box=0.1, cls=1.5, obj=4.0))(raw, targets)
    assert [float(more[name] / plain[name]) for name in PARTS] == pytest.approx([2.0, 4.0, 3.0])


def test_the_total_is_the_sum_of_the_parts_times_the_batch() -> None:
    detector = detector_of()
    raw = raw_of(detector, batch=4)
    total, parts = DetectionLoss(detector, LossGains())(raw, targets_of(detector, batch=4))
    assert total.item() == pytest.approx(4 * sum(part.item() for part in parts.values()))
    assert total.requires_grad
    assert not any(part.requires_grad for part in parts.values())


def test_one_class_has_no_class_loss_and_its_logit_no_gradient() -> None:
    detector = detector_of(classes=1)
    raw = raw_of(detector)
    total, parts = DetectionLoss(detector, LossGains())(raw, targets_of(detector))
    total.backward()
    assert parts["cls"].item() == 0
    assert all(level.grad is not None and not level.grad[..., 5].any() for level in raw)


def test_a_positive_weight_makes_missed_positives_dearer() -> None:
    detector = detector_of()
    raw, targets = raw_of(detector), targets_of(detector)
    _, plain = DetectionLoss(detector, LossGains())(raw, targets)
    _, heavy = DetectionLoss(detector, LossGains(cls_pw=2.0, obj_pw=2.0))(raw, targets)
    assert heavy["cls"] > plain["cls"]
    assert heavy["obj"] > plain["obj"]
    assert torch.equal(heavy["box"], plain["box"])


@pytest.mark.parametrize("gamma", [0.3, 1.0, 2.0])
def test_focal_loss_of_saturated_logits_has_finite_gradients(gamma: float) -> None:
    detector = detector_of()
    raw = [level.detach().mul(200).requires_grad_() for level in raw_of(detector)]
    total, _ = DetectionLoss(detector, LossGains(fl_gamma=gamma))(raw, targets_of(detector))
    total.backward()
    assert math.isfinite(total.item())
    assert all(level.grad is not None and bool(level.grad.isfinite().all()) for level in raw)


def test_explicit_balance_weighs_the_levels() -> None:
    detector = detector_of()
    raw, none = raw_of(detector), torch.zeros(0, 6)
    each = [
        float(DetectionLoss(detector, LossGains(balance=w))(raw, none)[1]["obj"])
        for w in ((2, 1, 1), (1, 1, 1))
    ]
    only_first = binary_cross_entropy_with_logits(raw[0][..., 4], torch.zeros(raw[0].shape[:4]))
    assert each[0] - each[1] == pytest.approx(only_first.item(), rel=1e-4)


# Auto-balance


def test_autobalance_moves_towards_equal_levels_and_keeps_stride_16_at_1() -> None:
    detector = detector_of()
    loss = DetectionLoss(detector, LossGains(autobalance=True))
    before = loss.balance.clone()
    raw = raw_of(detector)
    total, _ = loss(raw, targets_of(detector))
    total.backward()
    assert not torch.equal(loss.balance, before)
    assert loss.balance[1].item() == 1.0
    assert torch.allclose(loss.balance, before, rtol=1e-2)  # a step is a ten-thousandth of the way


def test_autobalance_uses_the_weights_from_before_the_step() -> None:
    detector = detector_of()
    raw, targets = raw_of(detector), targets_of(detector)
    fixed, _ = DetectionLoss(detector, LossGains())(raw, targets)
    moving, _ = DetectionLoss(detector, LossGains(autobalance=True))(raw, targets)
    assert torch.equal(fixed, moving)


def test_autobalance_rests_in_evaluation_and_without_gradients() -> None:
    detector = detector_of()
    loss = DetectionLoss(detector, LossGains(autobalance=True))
    before = loss.balance.clone()
    with torch.no_grad():
        loss(raw_of(detector), targets_of(detector))
    loss.eval()
    loss(raw_of(detector), targets_of(detector))
    assert torch.equal(loss.balance, before)


def test_a_restored_autobalance_goes_on_exactly() -> None:
    detector = detector_of()
    first = DetectionLoss(detector, LossGains(autobalance=True))
    for seed in range(5):
        first(raw_of(detector, seed), targets_of(detector, seed))
    second = DetectionLoss(detector, LossGains(autobalance=True))
    second.load_state_dict(first.state_dict())
    assert list(first.state_dict()) == ["balance"]
    for seed in range(5, 8):
        raw, targets = raw_of(detector, seed), targets_of(detector, seed)
        assert torch.equal(first(raw, targets)[0], second(raw, targets)[0])
    assert torch.equal(first.balance, second.balance)


# Any batch


@pytest.mark.parametrize("levels", [2, 3, 4, 5])
@pytest.mark.parametrize("size", [(128, 256), (256, 128)])
def test_two_to_five_levels_and_images_that_are_not_square(levels: int, size: tuple[int, int]) -> None:
    detector = detector_of(levels)
    raw = raw_of(detector, size=size)
    total, parts = DetectionLoss(detector, LossGains())(raw, targets_of(detector))
    total.backward()
    assert all(part.item() > 0 for part in parts.values())
    assert all(level.grad is not None and bool(level.grad.isfinite().all()) for level in raw)


def test_without_targets_every_objectness_still_gets_a_gradient() -> None:
    detector = detector_of()
    raw = raw_of(detector)
    total, parts = DetectionLoss(detector, LossGains())(raw, torch.zeros(0, 6))
    total.backward()
    assert parts["box"].item() == parts["cls"].item() == 0
    assert all(level.grad is not None and bool((level.grad[..., 4] > 0).all()) for level in raw)


def test_targets_that_no_anchor_claims_count_as_none() -> None:
    detector = detector_of()
    raw = raw_of(detector)
    loss = DetectionLoss(detector, LossGains())
    total, _ = loss(raw, torch.tensor([[0.0, 0.0, 0.5, 0.5, 1e-4, 1e-4]]))
    assert torch.equal(total, loss(raw, torch.zeros(0, 6))[0])


def test_under_autocast_half_precision_predictions_are_judged_in_float32() -> None:
    detector = detector_of()
    raw, targets = [level.detach().bfloat16() for level in raw_of(detector)], targets_of(detector)
    loss = DetectionLoss(detector, LossGains())
    plain, _ = loss([level.float() for level in raw], targets)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        total, parts = loss([level.requires_grad_() for level in raw], targets)
    total.backward()
    assert total.dtype == torch.float32
    assert torch.equal(total, plain)
    assert all(part.dtype == torch.float32 for part in parts.values())
    assert all(level.grad is not None and bool(level.grad.any()) for level in raw)


def test_predictions_that_are_a_permuted_view_give_the_same_loss() -> None:
    detector = detector_of()
    raw, targets = raw_of(detector), targets_of(detector)
    views = [level.detach().permute(0, 1, 4, 2, 3).contiguous().permute(0, 1, 3, 4, 2) for level in raw]
    loss = DetectionLoss(detector, LossGains())
    assert torch.equal(loss(raw, targets)[0], loss(views, targets)[0])


def test_inputs_are_left_as_they_were() -> None:
    detector = detector_of()
    raw, targets = raw_of(detector), targets_of(detector)
    before = [level.detach().clone() for level in raw], targets.clone(), detector.anchors.clone()
    DetectionLoss(detector, LossGains())(raw, targets)
    assert all(torch.equal(a, b) for a, b in zip(raw, before[0], strict=True))
    assert torch.equal(targets, before[1])
    assert torch.equal(detector.anchors, before[2])


def test_descending_the_loss_makes_the_predictions_fit_the_targets() -> None:
    detector = detector_of()
    raw = raw_of(detector)
    targets = targets_of(detector, n=4)
    loss = DetectionLoss(detector, LossGains(box=1.0, cls=1.0))
    optimiser = torch.optim.Adam(raw, lr=0.1)
    losses = []
    for _ in range(60):
        total, _ = loss(raw, targets)
        optimiser.zero_grad()
        total.backward()
        optimiser.step()
        losses.append(total.item())
    assert losses[-1] < losses[0] / 3


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_the_loss_moves_to_the_device_of_the_predictions() -> None:
    detector = detector_of()
    raw, targets = raw_of(detector), targets_of(detector)
    loss = DetectionLoss(detector, LossGains())
    plain, _ = loss(raw, targets)
    moved, _ = loss([level.cuda() for level in raw], targets)
    assert moved.device.type == "cuda"
    assert moved.item() == pytest.approx(plain.item(), rel=1e-5)


# Gains


def test_scaled_gains_follow_classes_image_size_and_levels() -> None:
    gains = LossGains(box=0.05, cls=0.5, obj=1.0, cls_pw=1.3)
    scaled = gains.scaled(classes=20, image_size=1280, levels=4)
    assert (scaled.box, scaled.cls, scaled.obj) == pytest.approx((0.0375, 0.09375, 3.0))
    assert replace(scaled, box=0.05, cls=0.5, obj=1.0) == gains


def test_gains_at_80_classes_640_px_and_three_levels_stay_as_they_are() -> None:
    assert LossGains().scaled(80, 640, 3) == LossGains()


@given(st.integers(1, 500), st.integers(32, 2048), st.integers(1, 5))
def test_scaling_leaves_the_ratio_of_parts_to_their_rule(classes: int, size: int, levels: int) -> None:
    scaled = LossGains().scaled(classes, size, levels)
    assert scaled.cls / scaled.box == pytest.approx(10 * classes / 80)
    assert scaled.obj / scaled.box == pytest.approx(20 * (size / 640) ** 2)


def test_scaling_for_nothing_is_an_error() -> None:
    with pytest.raises(ModelError, match="must be positive, but got 0, 640 and 3"):
        LossGains().scaled(0, 640, 3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"box": -0.1}, "box must be a finite number >= 0, but got -0.1"),
        ({"obj": math.nan}, "obj must be a finite number >= 0, but got nan"),
        ({"cls_pw": math.inf}, "cls_pw must be a finite number"),
        ({"label_smoothing": 1.5}, "0 <= label_smoothing <= 1 must hold, but got 1.5"),
        ({"gr": 2.0}, "0 <= gr <= 1 must hold"),
        ({"anchor_t": 1.0}, "anchor_t > 1 must hold, but got 1.0"),
        ({"balance": (1.0, 0.0)}, "balance must be finite numbers > 0"),
    ],
)
def test_gains_out_of_range_are_refused_at_birth(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        LossGains(**change)


# Mistakes


def test_a_balance_of_another_length_is_an_error() -> None:
    with pytest.raises(ModelError, match="3 strides, 2 balance weights and anchors for 3 levels"):
        DetectionLoss(detector_of(), LossGains(balance=(1.0, 1.0)))


def test_a_missing_level_is_an_error() -> None:
    detector = detector_of()
    with pytest.raises(ModelError, match="raw must have 3 levels, but got 2"):
        DetectionLoss(detector, LossGains())(raw_of(detector)[:2], torch.zeros(0, 6))


def test_predictions_for_other_classes_are_an_error() -> None:
    with pytest.raises(
        ModelError, match=r"raw\[0\] must be \(2, 3, rows, columns, 8\), but got \(2, 3, 16, 16, 9\)"
    ):
        DetectionLoss(detector_of(), LossGains())(raw_of(detector_of(classes=4)), torch.zeros(0, 6))


@pytest.mark.parametrize(
    ("image", "name"), [(2.0, 0.0), (-1.0, 0.0), (0.0, 3.0), (0.0, -1.0), (0.0, math.nan)]
)
def test_a_target_of_an_unknown_image_or_class_is_an_error(image: float, name: float) -> None:
    detector = detector_of()
    target = torch.tensor([[image, name, 0.5, 0.5, 0.2, 0.2]])
    with pytest.raises(ModelError, match=r"targets must name images 0\.\.1 and classes 0\.\.2, but got"):
        DetectionLoss(detector, LossGains())(raw_of(detector), target)


def test_targets_without_a_column_for_the_image_are_an_error() -> None:
    detector = detector_of()
    with pytest.raises(ModelError, match=r"targets must be \(n, 6\)"):
        DetectionLoss(detector, LossGains())(raw_of(detector), torch.zeros(3, 5))


# ---- choices


@pytest.mark.parametrize(
    ("levels", "balance"),
    [(3, (4.0, 1.0, 0.4)), (4, (4.0, 1.0, 0.4, 0.1)), (5, (4.0, 1.0, 0.5, 0.4, 0.1)), (2, (4.0, 1.0))],
)
def test_scaled_yolov4_has_its_own_balance(levels: int, balance: tuple[float, ...]) -> None:
    gains = LossGains(scheme="scaled-yolov4")
    loss = DetectionLoss(detector_of(levels), gains)
    assert loss.balance.tolist() == pytest.approx(balance)
    assert gains.balance_of(levels) == balance


@pytest.mark.parametrize(("levels", "more"), [(3, 1.0), (4, 1.4), (5, 1.4)])
def test_scaled_yolov4_has_its_own_scaling(levels: int, more: float) -> None:
    gains = LossGains(box=0.05, cls=0.5, obj=1.0, scheme="scaled-yolov4").scaled(40, 1280, levels)
    share = 3 / levels
    assert (gains.box, gains.cls, gains.obj) == pytest.approx((0.05 * share, 0.25 * share, more * share))


@pytest.mark.parametrize("levels", [3, 4, 5])
def test_scaled_yolov4s_loss_is_yolov5s_with_other_weights(levels: int) -> None:
    detector = detector_of(levels)
    raw, targets = raw_of(detector), targets_of(detector)
    scaled = DetectionLoss(detector, LossGains(scheme="scaled-yolov4"))
    plain = DetectionLoss(detector, LossGains(balance=LossGains(scheme="scaled-yolov4").balance_of(levels)))
    assert scaled(raw, targets)[0].item() == plain(raw, targets)[0].item()


@pytest.mark.parametrize("kind", ["iou", "giou", "diou", "ciou"])
def test_the_box_part_is_1_minus_the_iou_that_was_chosen(kind: str) -> None:
    detector = detector_of(3)
    raw, targets = raw_of(detector, batch=1), targets_of(detector, batch=1, n=3)
    gains = LossGains(box=1.0, box_loss=kind)
    _, parts = DetectionLoss(detector, gains)(raw, targets)
    total = 0.0
    shapes = [(level.shape[2], level.shape[3]) for level in raw]
    for level, matches in enumerate(assign(targets, shapes, detector.anchors, detector.strides)):
        values = []
        for row in range(len(matches)):
            place = (matches.image[row], matches.anchor[row], matches.row[row], matches.column[row])
            sigma = raw[level][place][:4].detach().sigmoid() * 2
            side = detector.anchors[level][matches.anchor[row]] / detector.strides[level]
            box = torch.cat((sigma[:2] - 0.5, sigma[2:] ** 2 * side))
            iou = bbox_iou(xywh_to_xyxy(box[None]), xywh_to_xyxy(matches.box[row][None]), kind=kind)
            values.append(1 - iou.item())
        total += float(np.mean(values)) if values else 0.0
    assert parts["box"].item() == pytest.approx(total, rel=1e-4)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"scheme": "yolov9"}, "scheme must be one of yolov5, scaled-yolov4, but got 'yolov9'"),
        ({"box_loss": "siou"}, "box_loss must be one of iou, giou, diou, ciou, but got 'siou'"),
        ({"assignment": "atss"}, "assignment must be one of ratio, iou, but got 'atss'"),
        ({"iou_t": 1.5}, "0 <= iou_t <= 1 must hold, but got 1.5"),
    ],
)
def test_unknown_choices_are_refused_at_birth(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        LossGains(**change)


def test_anchors_chosen_by_iou_reach_the_loss() -> None:
    detector = detector_of(3)
    raw, targets = raw_of(detector), targets_of(detector)
    _, ratio = DetectionLoss(detector, LossGains())(raw, targets)
    _, none = DetectionLoss(detector, LossGains(assignment="iou", iou_t=1.0))(raw, targets)
    _, some = DetectionLoss(detector, LossGains(assignment="iou", iou_t=0.2))(raw, targets)
    assert len({part["box"].item() for part in (ratio, none, some)}) == 3


def test_darknets_decoding_is_learnt_as_it_is_decoded() -> None:
    detector = build("yolov4-tiny", classes=2)
    raw = [torch.zeros(1, 3, 64 // s, 64 // s, 7, requires_grad=True) for s in detector.strides]
    targets = torch.tensor([[0, 1, 0.3, 0.6, 0.5, 0.9]])
    loss = DetectionLoss(detector, LossGains(assignment="iou", iou_t=0.3))
    optimizer = torch.optim.Adam(raw, lr=0.1)
    for _ in range(200):
        optimizer.zero_grad()
        loss(raw, targets)[0].backward()
        optimizer.step()
    decoded = detector.head.decode([level.detach() for level in raw])[0]
    best = decoded[decoded[:, 4].argmax()]
    assert best[:4].tolist() == pytest.approx([0.3 * 64, 0.6 * 64, 0.5 * 64, 0.9 * 64], abs=1.0)
    assert best[6] > best[5]
