import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from dataset import DataError, load
from dataset.check import check

Writer = Callable[..., Path]


def _box(image: int, *bbox: float, category: int = 1, **more: object) -> dict[str, object]:
    return {"image_id": image, "category_id": category, "bbox": list(bbox), **more}


def _whats(source: Path) -> list[tuple[str, str]]:
    return [(fault.what, fault.action) for fault in check(source).faults]


def test_boxes_in_px_become_shares_of_the_image(write_coco: Writer) -> None:
    write_coco("train.json", [_box(1, 16, 12, 32, 24), _box(2, 0, 0, 64, 48)])
    write_coco("val.json", [_box(1, 1, 1, 2, 2)], files=["c.png"])
    data = load(write_coco("val.json", [_box(1, 1, 1, 2, 2)], files=["c.png"]).parent)
    assert [path.name for path in data.train.images] == ["a.png", "b.png"]
    np.testing.assert_allclose(
        np.concatenate(data.train.labels), [[0, 0.5, 0.5, 0.5, 0.5], [0, 0.5, 0.5, 1, 1]]
    )
    assert data.val.boxes == 1
    assert data.notes == ()


def test_category_ids_with_gaps_are_renumbered_in_their_order(write_coco: Writer) -> None:
    categories = [{"id": 90, "name": "z"}, {"id": 3, "name": "c"}, {"id": 17, "name": "m"}]
    boxes = [
        _box(1, 1, 1, 9, 9, category=90),
        _box(2, 1, 1, 9, 9, category=3),
        _box(1, 1, 1, 9, 9, category=17),
    ]
    data = load(write_coco("all.json", boxes, categories))
    assert data.names == ("c", "m", "z")
    found = {
        path.name: rows[:, 0].tolist()
        for split in data.splits.values()
        for path, rows in zip(split.images, split.labels, strict=True)
    }
    assert found == {"a.png": [2, 1], "b.png": [0]}
    assert "category ids 3..90 are renumbered 0..2 in their order" in data.notes


def test_crowd_boxes_are_no_labels_but_regions_from_the_cache_too(write_coco: Writer) -> None:
    boxes = [_box(1, 1, 1, 9, 9), _box(2, 1, 1, 9, 9, iscrowd=0)]
    crowds = [
        _box(2, 16, 12, 32, 24, iscrowd=1),
        _box(2, 32, 24, 64, 48, iscrowd=1),
        _box(2, 5, 5, 0, 3, iscrowd=1),
    ]
    write_coco("val.json", [_box(1, 1, 1, 9, 9)], files=("c.png",))
    source = write_coco("train.json", boxes + crowds).parent
    first, again = load(source), load(source)
    for data in (first, again):
        assert data.train.boxes == 2
        assert data.train.crowds is not None
        assert data.val.crowds is None
        assert [len(rows) for rows in data.train.crowds] == [0, 2]
        np.testing.assert_allclose(data.train.crowds[1], [[0, 0.5, 0.5, 0.5, 0.5], [0, 0.75, 0.75, 0.5, 0.5]])
        assert "3 crowd boxes are not learnt; in an evaluation detections in them do not count" in data.notes
    assert first.fingerprint == again.fingerprint


def test_the_fingerprint_tells_crowds_apart(write_coco: Writer) -> None:
    boxes = [_box(1, 1, 1, 9, 9), _box(2, 1, 1, 9, 9)]
    marks = [[], [_box(1, 16, 12, 32, 24, iscrowd=1)], [_box(2, 16, 12, 32, 24, iscrowd=1)]]
    found = {load(write_coco("all.json", boxes + crowds)).fingerprint for crowds in marks}
    assert len(found) == 3


def test_an_image_with_nothing_but_a_crowd_is_no_image_without_labels(write_coco: Writer) -> None:
    assert _whats(write_coco("all.json", [_box(1, 1, 1, 9, 9), _box(2, 1, 1, 30, 30, iscrowd=1)])) == []


@pytest.mark.parametrize(
    ("annotation", "what", "action"),
    [
        (_box(1, 5, 5, 0, 9), "zero-area box: annotations[1]", "dropped"),
        (_box(1, 5, 5, -4, 9), "zero-area box: annotations[1]", "dropped"),
        (_box(1, 60, 5, 10, 9), "box outside the image: annotations[1]", "clipped"),
        (_box(1, 70, 5, 10, 9), "box outside the image: nothing of it lies inside annotations[1]", "dropped"),
        (_box(1, 1, 1, 9, 9), "duplicate row: annotations[1]", "dropped"),
        (_box(1, 5, 5, 9), "bad row: no bbox of 4 numbers in annotations[1]", "dropped"),
        (
            _box(1, 5, 5, 9, float("nan")),
            "bad row: a name or number is missing or impossible annotations[1]",
            "dropped",
        ),
        (
            {"image_id": 1, "category_id": 1, "bbox": ["x", None, {}, True]},
            "bad row: a name or number is missing or impossible annotations[1]",
            "dropped",
        ),
        (
            {"image_id": 1, "category_id": 1, "bbox": [10**400, 1, 1, 1]},
            "bad row: a name or number is missing or impossible annotations[1]",
            "dropped",
        ),
        ({"category_id": 1, "bbox": [5, 5, 9, 9]}, "bad row: unknown image_id in annotations[1]", "dropped"),
        (_box(9, 5, 5, 9, 9), "bad row: unknown image_id in annotations[1]", "dropped"),
        (
            {"image_id": [], "bbox": [1, 2, 3, 4], "iscrowd": []},
            "bad row: unknown image_id in annotations[1]",
            "dropped",
        ),
        ("text", "bad row: no mapping in annotations[1]", "dropped"),
        (
            _box(1, 5, 5, 9, 9, category=4),
            "class out of range: category_id 4 is not among the categories in annotations[1]",
            "refused",
        ),
        (
            {"image_id": 1, "bbox": [1, 1, 1, 1], "category_id": {}},
            "class out of range: category_id {} is not among the categories in annotations[1]",
            "refused",
        ),
    ],
)
def test_each_fault_of_an_annotation_is_reported_with_its_place(
    write_coco: Writer, annotation: object, what: str, action: str
) -> None:
    source = write_coco("all.json", [_box(1, 1, 1, 9, 9), annotation, _box(2, 1, 1, 9, 9)])
    assert _whats(source) == [(what, action)]
    if action == "refused":
        with pytest.raises(DataError, match=r"all\.json: class out of range: category_id"):
            load(source)


def test_text_ids_and_files_in_folders_are_understood(write_coco: Writer) -> None:
    path = write_coco("all.json", [], files=["deep/a.png", "deep/b.png"])
    content = json.loads(path.read_text())
    for image, name in zip(content["images"], "xy", strict=True):
        image["id"] = name
    content["annotations"] = [_box(1, 1, 1, 9, 9) | {"image_id": name} for name in "xy"]
    path.write_text(json.dumps(content))
    assert sum(split.boxes for split in load(path).splits.values()) == 2


@pytest.mark.parametrize("images", ["train2017", "images/train2017", "images", "img", "annotations", "."])
def test_images_are_found_where_sets_keep_them(tmp_path: Path, write_image: Writer, images: str) -> None:
    (tmp_path / "annotations").mkdir()
    for split in ("train2017", "val2017"):
        write_image(tmp_path / images.replace("train2017", split) / f"{split}.jpg")
        content = {
            "images": [{"id": 5, "file_name": f"{split}.jpg"}],
            "annotations": [_box(5, 1, 1, 9, 9)],
            "categories": [{"id": 1, "name": "cat"}],
        }
        (tmp_path / "annotations" / f"instances_{split}.json").write_text(json.dumps(content))
        (tmp_path / "annotations" / f"captions_{split}.json").write_text("{}")
    data = load(tmp_path)
    assert (data.train.boxes, data.val.boxes) == (1, 1)
    assert data.train.images[0].name == "train2017.jpg"


def test_a_file_in_each_splits_folder_is_read(tmp_path: Path, write_image: Writer) -> None:
    for split in ("train", "valid"):
        write_image(tmp_path / split / f"{split}.jpg")
        content = {
            "images": [{"id": 0, "file_name": f"{split}.jpg"}],
            "annotations": [_box(0, 1, 1, 9, 9, category=0)],
            "categories": [{"id": 0, "name": "cat"}],
        }
        (tmp_path / split / "_annotations.coco.json").write_text(json.dumps(content))
    data = load(tmp_path)
    assert (data.train.boxes, data.val.boxes) == (1, 1)
    assert data.notes == ()


def test_files_that_disagree_on_a_category_are_refused(write_coco: Writer) -> None:
    write_coco("train.json", [_box(1, 1, 1, 9, 9)])
    path = write_coco("val.json", [_box(1, 1, 1, 9, 9)], [{"id": 1, "name": "dog"}])
    with pytest.raises(DataError, match="category 1 must mean cat as in the other files, but means dog"):
        load(path.parent)


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("{", r"all\.json:1 is not JSON"),
        ("[" * 100_000, "is not JSON that can be read: RecursionError"),
        ("9" * 10_000, "is not JSON that can be read: ValueError"),
        ("[]", "must be a COCO json with the lists"),
        ('{"images": [], "annotations": {}, "categories": []}', "must be a COCO json with the lists"),
        ('{"images": [], "annotations": [], "categories": []}', "must name at least one category"),
        (
            '{"images": [], "annotations": [], "categories": ["cat"]}',
            r"categories\[0\] must have a whole-number id",
        ),
        ('{"images": [], "annotations": [], "categories": [{"id": 1}]}', "no training image can be read"),
        (
            '{"images": [3, {"id": 1}], "annotations": [], "categories": [{"id": 1}]}',
            "no training image can be read",
        ),
    ],
)
def test_a_file_that_is_no_coco_json_is_refused(tmp_path: Path, text: str, match: str) -> None:
    path = tmp_path / "all.json"
    path.write_text(text)
    with pytest.raises(DataError, match=match):
        load(path)


def test_a_missing_image_is_left_out_with_its_boxes(write_coco: Writer) -> None:
    path = write_coco(
        "all.json",
        [_box(1, 1, 1, 9, 9), _box(2, 1, 1, 9, 9), _box(3, 1, 1, 9, 9)],
        files=["a.png", "b.png", "c.png"],
    )
    (path.parent / "images/b.png").unlink()
    assert _whats(path) == [("missing image", "left out")]
    assert sum(split.boxes for split in load(path).splits.values()) == 2


def test_an_image_without_a_name_or_id_is_left_out(write_coco: Writer) -> None:
    path = write_coco("all.json", [_box(1, 1, 1, 9, 9), _box(2, 1, 1, 9, 9)])
    content = json.loads(path.read_text())
    content["images"] += [{"id": 7}, {"file_name": "a.png"}, {}]
    path.write_text(json.dumps(content))
    whats = [what for what, _ in _whats(path)]
    assert whats == [f"bad row: images[{index}] has no file_name or no id" for index in (2, 3, 4)]
