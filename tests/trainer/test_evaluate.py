from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from dataset import Split, load
from model import build
from trainer import Hyperparameters
from trainer.average_precision import build_truth, match
from trainer.evaluate import GroundTruth, detect, evaluate, fitness, measure, to_original
from trainer.loader import build_loader
from trainer.samples import DetectionSet

NAMES = ("cat", "dog")
NOTHING = np.zeros((0, 6), np.float32)


def split_of(*labels: list[list[float]]) -> Split:
    """Images of 200 x 100 px with these rows of class, cx, cy, w, h."""
    return Split(
        name="val",
        images=tuple(Path(f"{index}.png") for index in range(len(labels))),
        sizes=np.tile(np.array([[200, 100]], np.int32), (len(labels), 1)),
        labels=tuple(np.array(rows, np.float32).reshape(-1, 5) for rows in labels),
    )


TWO_IMAGES = split_of([[0, 0.25, 0.5, 0.2, 0.4], [1, 0.7, 0.5, 0.4, 0.6]], [[1, 0.5, 0.5, 0.5, 0.5]])
PERFECT = [
    np.array([[30, 30, 70, 70, 0.9, 0], [100, 20, 180, 80, 0.8, 1]], np.float32),
    np.array([[50, 25, 150, 75, 0.7, 1]], np.float32),
]


def test_perfect_boxes_are_worth_one():
    result = measure(GroundTruth(TWO_IMAGES, NAMES), PERFECT)
    for key in ("fitness", "map50", "map50_95", "precision", "recall"):
        assert result[key] == pytest.approx(1.0, abs=1e-6), key
    assert result["confidence"] == pytest.approx(0.7)
    assert [(row["name"], row["images"], row["boxes"]) for row in result["classes"]] == [
        ("cat", 1, 1),
        ("dog", 2, 2),
    ]


def test_no_detections_are_worth_nothing():
    result = measure(GroundTruth(TWO_IMAGES, NAMES), [NOTHING, NOTHING])
    assert [result[key] for key in ("fitness", "map50", "map50_95", "precision", "recall")] == [0] * 5


@pytest.mark.parametrize("found", [[NOTHING], [PERFECT[0]]], ids=["nothing found", "something found"])
def test_a_split_without_boxes_is_worth_nothing_and_breaks_nothing(found):
    result = measure(GroundTruth(split_of([]), NAMES), found)
    assert (result["fitness"], result["precision"], result["recall"]) == (0, 0, 0)
    assert all(row["map50"] is None for row in result["classes"])


def test_a_class_that_does_not_occur_does_not_lower_the_mean():
    result = measure(GroundTruth(split_of([[0, 0.25, 0.5, 0.2, 0.4]]), NAMES), [PERFECT[0]])
    assert result["map50"] == pytest.approx(1.0)
    assert result["classes"][1]["map50"] is None


def test_boxes_of_the_wrong_class_are_worth_nothing():
    wrong = [boxes.copy() for boxes in PERFECT]
    for boxes in wrong:
        boxes[:, 5] = 1 - boxes[:, 5]
    assert measure(GroundTruth(TWO_IMAGES, NAMES), wrong)["map50"] == 0


def test_a_case_small_enough_to_reckon_by_hand():
    # One class, two true boxes. By confidence: a hit at IoU 0.825, a miss, a hit at IoU 1.
    # Precision at recalls 1/2 and 1 is 1 and 2/3; of 101 recall points 51 lie up to 0.5.
    split = split_of([[0, 0.25, 0.5, 0.2, 0.4], [0, 0.7, 0.5, 0.4, 0.6]])
    found = np.array([[30, 30, 63, 70, 0.9, 0], [0, 0, 9, 9, 0.8, 0], [100, 20, 180, 80, 0.7, 0]], np.float32)
    result = measure(GroundTruth(split, ("cell",)), [found])
    at_half = (51 * 1 + 50 * 2 / 3) / 101
    # From IoU 0.85 on the first is a miss too: precision at recall 1/2 is 1/3, recall 1 is not reached.
    assert result["map50"] == pytest.approx(at_half, abs=1e-6)
    assert result["map50_95"] == pytest.approx((7 * at_half + 3 * 51 / 3 / 101) / 10, abs=1e-6)
    assert (result["precision"], result["recall"]) == (pytest.approx(2 / 3), 1.0)
    assert result["confidence"] == pytest.approx(0.7)


def test_precision_and_recall_are_those_of_the_best_f1():
    split = split_of([[0, 0.25, 0.5, 0.2, 0.4]])
    misses = [[150 + i, 0, 160 + i, 9, 0.5 - i / 100, 0] for i in range(5)]
    found = np.array([[30, 30, 70, 70, 0.9, 0], *misses], np.float32)
    result = measure(GroundTruth(split, ("cell",)), [found])
    assert (result["precision"], result["recall"], result["confidence"]) == (1, 1, pytest.approx(0.9))


def hits(found: np.ndarray, truth: np.ndarray) -> list[bool]:
    """Which detections of one image are right at IoU 0.5, in the order given."""
    matches = match(build_truth([truth], classes=2), [found])
    return matches.hit[0, np.argsort(matches.source)].tolist()


def test_a_true_box_is_found_once_and_by_the_most_confident():
    truth = np.array([[0, 0, 10, 10, 0]], np.float64)
    found = np.array([[0, 0, 10, 10, 0.5, 0], [0, 0, 10, 9, 0.6, 0]], np.float32)
    assert hits(found, truth) == [False, True]


def test_a_detection_takes_its_best_free_box():
    truth = np.array([[0, 0, 10, 10, 0], [0, 0, 10, 12, 0]], np.float64)
    found = np.array([[0, 0, 10, 12, 0.9, 0], [0, 0, 10, 12, 0.8, 0]], np.float32)
    assert hits(found, truth) == [True, True]


@pytest.mark.parametrize(("n", "m"), [(0, 0), (0, 2), (2, 0)])
def test_nothing_to_match_gives_no_hits(n, m):
    assert hits(np.ones((n, 6), np.float32), np.ones((m, 5))) == [False] * n


def test_fitness_is_the_published_mix():
    assert fitness(0.5, 0.3) == pytest.approx(0.32)


@given(
    arrays(np.float32, (5, 4), elements=st.floats(0, 100, width=32)),
    st.floats(0.1, 4),
    st.tuples(st.integers(0, 50), st.integers(0, 50)),
)
def test_mapping_back_undoes_the_letterbox(xyxy, ratio, pad):
    found = np.concatenate([xyxy, np.ones((5, 2), np.float32)], axis=1)
    boxed = found.copy()
    boxed[:, :4] = found[:, :4] * ratio + np.tile(pad, 2)
    back = to_original(boxed, (ratio, ratio), pad, (100, 100))
    np.testing.assert_allclose(back, found, atol=1e-2)


def test_mapping_back_clips_to_the_image_and_takes_no_boxes():
    found = np.array([[-5, -5, 500, 500, 1, 0]], np.float32)
    assert to_original(found, (1, 1), (0, 0), (100, 200))[0, :4].tolist() == [0, 0, 200, 100]
    assert to_original(NOTHING, (1, 1), (0, 0), (100, 200)).shape == (0, 6)


def test_an_evaluated_detector_stays_in_its_mode_and_its_boxes_lie_in_their_images(tiny_dataset):
    data = load(tiny_dataset)
    detector = build("yolov5n", classes=3).train()
    samples = DetectionSet(data.val, 96, Hyperparameters(), augment=False)
    loader = build_loader(samples, 3, shuffle=False, workers=0, seed=0, rect=True)
    seen = []
    result = evaluate(
        detector, loader, GroundTruth(data.val, data.names), progress=lambda *step: seen.append(step)
    )
    assert detector.training
    assert 0 <= result["fitness"] <= 1
    assert seen == [("evaluate", 3, 8), ("evaluate", 6, 8), ("evaluate", 8, 8)]
    for batch in loader:
        for (height, width), boxes in zip(
            batch["sizes"].tolist(), detect(detector.eval(), batch), strict=True
        ):
            assert len(boxes)
            assert boxes[:, :4].min() >= 0
            assert (boxes[:, [0, 2]].max(), boxes[:, [1, 3]].max()) <= (width, height)


def test_predictions_that_are_no_numbers_are_left_out(tiny_dataset):
    data = load(tiny_dataset)
    detector = build("yolov5n", classes=3).eval()
    with torch.no_grad():
        for parameter in detector.parameters():
            parameter.fill_(torch.inf)
    samples = DetectionSet(data.val, 96, Hyperparameters(), augment=False)
    loader = build_loader(samples, 8, shuffle=False, workers=0, seed=0)
    assert evaluate(detector, loader, GroundTruth(data.val, data.names))["fitness"] == 0
