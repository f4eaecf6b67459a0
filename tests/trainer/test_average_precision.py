import contextlib
import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from trainer.average_precision import average_precision, build_truth, match

CLASSES = 4  # the last never occurs among the true boxes


def boxes_of(rng: np.random.Generator, count: int) -> np.ndarray:
    """(count, 4) xyxy px on a coarse grid, so that overlaps tie and touch thresholds."""
    corner, sides = rng.integers(0, 12, (count, 2)), rng.integers(1, 9, (count, 2))
    return np.concatenate([corner, corner + sides], axis=1) * 5.0


def scene(rng: np.random.Generator, images: int, most: int) -> tuple[list, list, list]:
    """True boxes, crowds and detections, some images without; confidences are of few values, so they tie."""
    truth, crowds, found = [], [], []
    for _ in range(images):
        boxes = boxes_of(rng, int(rng.integers(0, most)))
        truth.append(np.column_stack((boxes, rng.integers(0, CLASSES - 1, len(boxes)))))
        regions = boxes_of(rng, int(rng.integers(0, 3)))
        crowds.append(np.column_stack((regions, rng.integers(0, CLASSES - 1, len(regions)))))
        near = boxes[rng.integers(0, len(boxes), int(rng.integers(0, 2 * most)))] if len(boxes) else boxes
        rows = np.concatenate([boxes_of(rng, int(rng.integers(0, most))), near])
        rows[:, 2:] += rng.integers(0, 3, (len(rows), 2)) * 2.5
        scores = rng.integers(1, 6, len(rows)) / 8
        found.append(np.column_stack((rows, scores, rng.integers(0, CLASSES, len(rows)))).astype(np.float32))
    return truth, crowds, found


def as_coco(rows: np.ndarray) -> list[float]:
    return [rows[0], rows[1], rows[2] - rows[0], rows[3] - rows[1]]


def judged_by_pycocotools(truth: list, crowds: list, found: list) -> np.ndarray:
    """(classes, 10) average precision, -1 for a class without true boxes."""
    annotations = [
        {"image_id": image, "category_id": int(row[4]), "bbox": as_coco(row), "iscrowd": crowd}
        for crowd, tables in enumerate((truth, crowds))
        for image, table in enumerate(tables)
        for row in table.tolist()
    ]
    annotations = [
        each | {"id": number + 1, "area": each["bbox"][2] * each["bbox"][3]}
        for number, each in enumerate(annotations)
    ]
    results = [
        {"image_id": image, "category_id": int(row[5]), "bbox": as_coco(row), "score": row[4]}
        for image, table in enumerate(found)
        for row in table.astype(np.float64).tolist()
    ]
    coco = COCO()
    coco.dataset = {
        "images": [{"id": image, "width": 100, "height": 100} for image in range(len(truth))],
        "categories": [{"id": label, "name": str(label)} for label in range(CLASSES)],
        "annotations": annotations,
        "info": {},
    }
    with contextlib.redirect_stdout(io.StringIO()):
        coco.createIndex()
        judge = COCOeval(coco, coco.loadRes(results), "bbox")
        judge.evaluate()
        judge.accumulate()
    precision = judge.eval["precision"][:, :, :, 0, -1]  # IoU, recall, class
    return precision.mean(axis=1).T


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 6), st.integers(1, 9))
def test_average_precision_is_that_of_pycocotools(seed, images, most):
    truth, crowds, found = scene(np.random.default_rng(seed), images, most)
    if not any(map(len, found)):  # pycocotools takes no empty results
        return
    expected = judged_by_pycocotools(truth, crowds, found)
    table = build_truth(truth, CLASSES, crowds)
    ours = average_precision(match(table, found), table.counts)
    occurs = table.counts > 0
    assert (expected[~occurs] == -1).all()
    np.testing.assert_allclose(ours[occurs], expected[occurs], atol=1e-6)
    assert (ours[~occurs] == 0).all()


def test_it_is_also_where_an_image_has_more_detections_than_count():
    truth, crowds, found = scene(np.random.default_rng(5), 3, 130)
    assert max(np.bincount(table[:, 5].astype(int)).max() for table in found) <= 100
    found = [np.repeat(table, 3, axis=0) for table in found]
    assert max(np.bincount(table[:, 5].astype(int)).max() for table in found) > 100
    table = build_truth(truth, CLASSES, crowds)
    ours = average_precision(match(table, found), table.counts)
    np.testing.assert_allclose(ours[:-1], judged_by_pycocotools(truth, crowds, found)[:-1], atol=1e-6)


def test_a_detection_in_a_crowd_is_neither_right_nor_wrong():
    crowd = np.array([[0, 0, 100, 100, 0.0]])
    inside = np.array([[10, 10, 20, 20, 0.9, 0], [50, 50, 60, 60, 0.4, 0]], np.float32)
    table = build_truth([np.array([[50, 50, 60, 60, 0.0]])], 1, [crowd])
    matches = match(table, [inside])
    assert matches.ignored[0].tolist() == [True, False]
    assert average_precision(matches, table.counts) == pytest.approx(np.ones((1, 10)))


@pytest.mark.parametrize("images", [0, 3])
def test_nothing_at_all_is_worth_nothing(images):
    table = build_truth([np.zeros((0, 5))] * images, 2)
    matches = match(table, [np.zeros((0, 6), np.float32)] * images)
    assert average_precision(matches, table.counts).tolist() == [[0] * 10] * 2
