from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from dataset import DataError, load
from dataset.check import check
from dataset.sources import split_of

Writer = Callable[..., Path]
ROW = "0 0.5 0.5 0.2 0.4\n"


def test_a_set_is_found_one_folder_down(write_voc: Writer) -> None:
    folder = write_voc(
        {"a": [("cat", 1, 1, 9, 9)], "b": [("cat", 1, 1, 9, 9)]}, {"train": ["a"], "val": ["b"]}
    )
    data = load(folder.parent)
    assert data.source == folder.parent
    assert data.name == "voc"


def test_two_sets_one_folder_down_are_not_guessed_between(write_voc: Writer, write_yolo: Writer) -> None:
    folder = write_voc({"a": [("cat", 1, 1, 9, 9)]})
    write_yolo({"a": ROW})
    with pytest.raises(DataError, match=r"holds 2 \(set, voc\): name one of them"):
        load(folder.parent)


@pytest.mark.parametrize(
    ("name", "match"),
    [
        ("nowhere", "there is no such file"),
        ("empty", "none of them is there"),
        ("notes.md", r"is a \.md file"),
        ("plain", "is a plain file"),
    ],
)
def test_what_is_no_data_set_is_refused(tmp_path: Path, name: str, match: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes.md").touch()
    (tmp_path / "plain").touch()
    with pytest.raises(DataError, match=match):
        load(tmp_path / name)


def test_a_source_may_be_text_and_relative(write_yolo: Writer, monkeypatch: pytest.MonkeyPatch) -> None:
    source = write_yolo({"a": ROW}, {"b": ROW})
    monkeypatch.chdir(source.parent)
    assert load("data.yaml").fingerprint == load(source.parent).fingerprint == load(str(source)).fingerprint


def test_a_fifth_is_held_out_by_name_whatever_else_differs(write_yolo: Writer) -> None:
    source = write_yolo({f"i{number}": ROW for number in range(20)})
    data = load(source)
    held_out = [path.name for path in data.val.images]
    assert len(held_out) == 4
    assert data.notes == ("no val and no test split: 4 of 20 images are held out as val",)
    assert not {*held_out} & {path.name for path in data.train.images}
    for path in (source.parent / "labels/train").iterdir():
        path.write_text("1 .5 .5 .3 .3")
    again = load(source.parent, cache=False)
    assert [path.name for path in again.val.images] == held_out


def test_one_image_alone_is_train_and_val(write_yolo: Writer) -> None:
    data = load(write_yolo({"a": ROW}))
    assert data.train.images == data.val.images
    assert data.notes[0] == "no val split, and one image alone: it is used as train and as val"


def test_the_same_image_in_two_splits_is_noted_and_kept(write_yolo: Writer) -> None:
    source = write_yolo({"a": ROW, "b": ROW}, {"c": ROW})
    (source.parent / "images/val/c.png").write_bytes((source.parent / "images/train/a.png").read_bytes())
    data = load(source)
    assert (len(data.train), len(data.val)) == (2, 1)
    (note,) = data.notes
    assert note == "1 same image in two splits, kept; leave it out of one: images/val/c.png"


def test_an_image_turned_by_its_exif_has_the_size_that_cv2_gives(write_yolo: Writer) -> None:
    source = write_yolo({"a": ROW}, {"b": ROW})
    (source.parent / "images/train/a.png").unlink()
    raw = cv2.imencode(".jpg", np.zeros((48, 64, 3), np.uint8))[1].tobytes()
    tiff = b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0"
    exif = b"\xff\xe1" + (len(tiff) + 8).to_bytes(2, "big") + b"Exif\0\0" + tiff
    path = source.parent / "images/train/a.jpg"
    path.write_bytes(raw[:2] + exif + raw[2:])
    data = load(source)
    height, width = cv2.imread(str(path)).shape[:2]
    assert data.train.sizes.tolist() == [[width, height]] == [[48, 64]]


def test_the_fingerprint_follows_the_data_and_not_the_place(write_yolo: Writer, tmp_path: Path) -> None:
    source = write_yolo({"a": ROW, "b": ROW}, {"c": ROW})
    first = load(source).fingerprint
    moved = source.parent.rename(tmp_path / "elsewhere")
    for path in moved.rglob("*.png"):
        path.touch()
    assert load(moved).fingerprint == first
    assert len(first) == 64
    prints = {first}
    (moved / "labels/train/a.txt").write_text("0 0.5 0.5 0.2 0.3")
    prints.add(load(moved).fingerprint)
    (moved / "images/train/a.png").write_bytes((moved / "images/train/b.png").read_bytes())
    prints.add(load(moved).fingerprint)
    text = (moved / "data.yaml").read_text()
    (moved / "data.yaml").write_text(text.replace("dog", "wolf"))
    prints.add(load(moved).fingerprint)
    assert len(prints) == 4


def test_a_report_counts_images_backgrounds_boxes_and_classes(write_yolo: Writer) -> None:
    source = write_yolo({"a": ROW + "1 .5 .5 .1 .1", "b": "1 .5 .5 .1 .1\n1 .2 .2 0 .1", "c": ""}, {"d": ROW})
    report = check(source)
    assert report.counts["train"].images == 3
    assert report.counts["train"].backgrounds == 1
    assert report.counts["train"].classes == {"cat": 1, "dog": 2}
    assert report.counts["val"].classes == {"cat": 1, "dog": 0}
    assert [fault.what for fault in report.faults] == ["zero-area box", "image without labels"]
    assert report.fatal == ()
    plain = report.to_dict()
    assert plain["faults"][0]["line"] == 2
    assert plain["faults"][0]["file"].endswith("b.txt")
    assert plain["counts"]["train"]["boxes"] == 3


def test_check_and_load_tell_the_same(write_yolo: Writer) -> None:
    source = write_yolo({"a": ROW + ROW + "0 .9 .9 .4 .4\nx", "b": "0 .5 .5 0 0"}, {"c": ROW})
    report, data = check(source), load(source)
    assert report.notes == data.notes
    assert report.fingerprint == data.fingerprint
    assert sum(count.boxes for count in report.counts.values()) == sum(
        split.boxes for split in data.splits.values()
    )


def test_classes_of_the_same_name_are_counted_apart(write_yolo: Writer) -> None:
    report = check(write_yolo({"a": ROW}, {"b": "1 .5 .5 .1 .1"}, names=["cat", "cat"]))
    assert report.counts["val"].classes == {"cat (0)": 0, "cat (1)": 1}


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("train", "train"),
        ("instances_val2017", "val"),
        ("my-validation-set", "val"),
        ("Test", "test"),
        ("contest", ""),
    ],
)
def test_the_split_is_a_word_of_its_own_in_a_name(name: str, split: str) -> None:
    assert split_of(name) == split


def test_a_message_is_one_line_whatever_a_file_is_called(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="two lines must be") as caught:
        load(tmp_path / "two\nlines")
    assert "\n" not in str(caught.value)
