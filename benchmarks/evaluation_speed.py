"""How long it takes to judge the detections of 5,000 images, 80 classes and 300 detections an image.

Run as `python -m benchmarks.evaluation_speed`. The detections are drawn around true boxes, with misses. The rival is
faster_coco_eval, COCO's protocol in C++, given the same arrays and asked for the same figures (mAP over all areas).
"""

import time
from pathlib import Path

import numpy as np
from faster_coco_eval import COCO
from faster_coco_eval.core.faster_eval_api import COCOeval_faster

from dataset import Split
from trainer.average_precision import average_precision, match
from trainer.curves import best_f1
from trainer.evaluate import Found, GroundTruth

IMAGES, CLASSES, DETECTIONS, OBJECTS = 5000, 80, 300, 7


def draw(rng: np.random.Generator) -> tuple[Split, list[Found]]:
    """True boxes and detections of images of 640 x 640 px."""
    labels, found = [], []
    for _ in range(IMAGES):
        count = int(rng.poisson(OBJECTS)) + 1
        wh = rng.uniform(0.05, 0.4, (count, 2))
        centre = rng.uniform(wh / 2, 1 - wh / 2)
        classes = rng.integers(0, CLASSES, count)
        labels.append(np.column_stack((classes, centre, wh)).astype(np.float32))
        source = rng.integers(0, count, DETECTIONS)
        middle = (centre[source] + rng.normal(0, 0.1, (DETECTIONS, 2)) * wh[source]) * 640
        sides = wh[source] * np.exp(rng.normal(0, 0.15, (DETECTIONS, 2))) * 640
        guess = np.where(rng.random(DETECTIONS) < 0.7, classes[source], rng.integers(0, CLASSES, DETECTIONS))
        rows = np.column_stack((middle - sides / 2, middle + sides / 2, rng.random(DETECTIONS), guess))
        found.append(rows[np.argsort(-rows[:, 4])].astype(np.float32))
    sizes = np.full((IMAGES, 2), 640, np.int32)
    return Split("val", tuple(Path(f"{n}.png") for n in range(IMAGES)), sizes, tuple(labels)), found


def ours(truth: GroundTruth, found: list[Found], seconds: dict[str, float]) -> float:
    began = time.perf_counter()
    matches = match(truth.table, found)
    seconds["ours: matching"] = time.perf_counter() - began
    began = time.perf_counter()
    value = float(average_precision(matches, truth.table.counts).mean())
    seconds["ours: average precision"] = time.perf_counter() - began
    began = time.perf_counter()
    best_f1(matches, truth.table.counts)
    seconds["ours: best F1"] = time.perf_counter() - began
    return value


def rival(truth: GroundTruth, found: list[Found], seconds: dict[str, float]) -> float:
    began = time.perf_counter()
    rows = [(image + 1, *row) for image, table in enumerate(truth.boxes) for row in table.tolist()]
    annotations = [
        {
            "id": number + 1,
            "image_id": image,
            "category_id": int(label) + 1,
            "bbox": [left, top, right - left, bottom - top],
            "area": (right - left) * (bottom - top),
            "iscrowd": 0,
        }
        for number, (image, left, top, right, bottom, label) in enumerate(rows)
    ]
    coco = COCO(
        {
            "images": [{"id": index + 1, "width": 640, "height": 640} for index in range(IMAGES)],
            "categories": [{"id": index + 1, "name": str(index)} for index in range(CLASSES)],
            "annotations": annotations,
        },
        print_function=lambda *_: None,
    )
    seconds["faster_coco_eval: truth"] = time.perf_counter() - began
    began = time.perf_counter()
    table = np.concatenate(
        [
            np.column_stack((np.full(len(b), i + 1), b[:, :2], b[:, 2:4] - b[:, :2], b[:, 4:]))
            for i, b in enumerate(found)
        ]
    ).astype(np.float64)
    table[:, 6] += 1
    results = coco.loadRes(table)
    seconds["faster_coco_eval: detections"] = time.perf_counter() - began
    began = time.perf_counter()
    judge = COCOeval_faster(coco, results, "bbox", print_function=lambda *_: None)
    judge.params.areaRng, judge.params.areaRngLbl, judge.params.maxDets = [[0, 1e10]], ["all"], [100]
    judge.evaluate()
    judge.accumulate()
    seconds["faster_coco_eval: matching and figures"] = time.perf_counter() - began
    return float(np.asarray(judge.eval["precision"])[:, :, :, 0, -1].clip(0).mean())


def main() -> None:
    split, found = draw(np.random.default_rng(0))
    seconds: dict[str, float] = {}
    began = time.perf_counter()
    truth = GroundTruth(split, [str(label) for label in range(CLASSES)])
    seconds["ours: truth"] = time.perf_counter() - began
    first = ours(truth, found, seconds)
    second = rival(truth, found, seconds)
    print(f"{IMAGES} images, {CLASSES} classes, {DETECTIONS} detections an image")
    for name, value in seconds.items():
        print(f"{name:40} {value:7.2f} s")
    totals = {
        side: sum(value for name, value in seconds.items() if name.startswith(side))
        for side in ("ours", "faster_coco_eval")
    }
    print(f"{'ours, all':40} {totals['ours']:7.2f} s   mAP {first:.8f}")
    print(f"{'faster_coco_eval, all':40} {totals['faster_coco_eval']:7.2f} s   mAP {second:.8f}")
    print(f"ratio {totals['faster_coco_eval'] / totals['ours']:.2f}")


if __name__ == "__main__":
    main()
