"""`beagle val` on COCO files with crowds: the figures of pycocotools, which reads the same file."""

import contextlib
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from dataset import load
from trainer.evaluate import detect_split
from trainer.predict import load_detector
from trainer.prepare import build_val_loader

Beagle = Callable[..., Any]


@pytest.fixture
def best(finished_run: Path) -> Path:
    return finished_run / "trials/0000/training/weights/best.pt"


def detections(best: Path, source: Path) -> list[np.ndarray]:
    detector, _, image_size = load_detector(best)
    split = load(source).val
    return detect_split(detector, build_val_loader(split, image_size, 32, batch_size=16), len(split))


def write_files(folder: Path, tiny: Path, val: list[dict[str, Any]]) -> Path:
    """The tiny set as COCO files; `val` are the annotations of its val split."""
    annotations = [
        {"image_id": 1, "category_id": 1, "bbox": [4, 4, 20, 20], "area": 400, "iscrowd": 0, "id": 1}
    ]
    for split, boxes in (("train", annotations), ("val", val)):
        files = sorted((tiny.parent / "images" / split).iterdir())
        images = [
            {"id": number, "file_name": str(path), "width": 80, "height": 64}
            for number, path in enumerate(files)
        ]
        categories = [{"id": 1, "name": "red"}, {"id": 2, "name": "green"}]
        content = {"images": images, "annotations": boxes, "categories": categories}
        (folder / f"{split}.json").write_text(json.dumps(content))
    return folder


def invent_truth(found: list[np.ndarray], rng: np.random.Generator) -> list[dict[str, Any]]:
    """Boxes near some of the detections, and crowds around others: figures then are neither 0 nor 1."""
    annotations = list[dict[str, Any]]()
    for image, rows in enumerate(found):
        for row in rows[rng.permutation(len(rows))[:12]]:
            crowd = int(rng.random() < 0.4)
            grow = 8 if crowd else 0
            # Hundredths of a px, as in COCO's files: an overlap of exactly a threshold would hang on rounding.
            low = (row[:2] - grow + rng.uniform(-1, 1, 2)).clip(0.07, 60).round(2)
            high = (row[2:4] + grow + rng.uniform(-1, 1, 2)).clip(low + 2.03, (79.93, 63.89)).round(2)
            box = [*low.tolist(), *(high - low).tolist()]
            if any((each["image_id"], each["bbox"]) == (image, box) for each in annotations):
                continue  # twice the same is a fault, and would be dropped
            more = {"bbox": box, "area": box[2] * box[3], "iscrowd": crowd, "id": len(annotations) + 1}
            annotations.append({"image_id": image, "category_id": int(row[5]) + 1, **more})
    return annotations


def judged_by_pycocotools(path: Path, found: list[np.ndarray]) -> tuple[float, float]:
    """mAP@0.5:0.95 and mAP@0.5."""
    results = [
        {
            "image_id": image,
            "category_id": int(row[5]) + 1,
            "bbox": [row[0], row[1], row[2] - row[0], row[3] - row[1]],
            "score": row[4],
        }
        for image, rows in enumerate(found)
        for row in rows.astype(np.float64).tolist()
    ]
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO(str(path))
        judge = COCOeval(coco, coco.loadRes(results), "bbox")
        judge.evaluate()
        judge.accumulate()
        judge.summarize()
    return float(judge.stats[0]), float(judge.stats[1])


def test_figures_are_those_of_pycocotools_on_the_same_file(
    beagle: Beagle, best: Path, tiny: Path, tmp_path: Path
) -> None:
    found = detections(
        best, write_files(tmp_path, tiny, [{"image_id": 0, "category_id": 1, "bbox": [1, 1, 9, 9]}])
    )
    truth = invent_truth(found, np.random.default_rng(4))
    source = write_files(tmp_path, tiny, truth)
    assert sum(each["iscrowd"] for each in truth) > 5
    said = beagle("val", best, source, "--device", "cpu", "--json")
    assert said.code == 0, said
    ours = json.loads(said.out)
    expected = judged_by_pycocotools(source / "val.json", found)
    assert (ours["map50_95"], ours["map50"]) == pytest.approx(expected, abs=1e-6)
    without = write_files(tmp_path, tiny, [each for each in truth if not each["iscrowd"]])
    other = json.loads(beagle("val", best, without, "--device", "cpu", "--json").out)
    assert other["map50_95"] < ours["map50_95"]  # what lies in crowds would count as wrong
