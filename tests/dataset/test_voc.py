from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from dataset import DataError, load
from dataset.check import check

Writer = Callable[..., Path]


def test_lists_divide_the_images_and_names_are_in_alphabetical_order(write_voc: Writer) -> None:
    boxes = {"a": [("dog", 0, 0, 32, 24)], "b": [("cat", 16, 12, 48, 36)], "c": [("cat", 1, 1, 9, 9)]}
    data = load(write_voc(boxes, {"train": ["a"], "val": ["b"], "test": ["c"], "trainval": ["a", "b"]}))
    assert data.names == ("cat", "dog")
    assert {name: [path.stem for path in split.images] for name, split in data.splits.items()} == {
        "train": ["a"],
        "val": ["b"],
        "test": ["c"],
    }
    np.testing.assert_allclose(data.train.labels[0], [[1, 0.25, 0.25, 0.5, 0.5]])
    np.testing.assert_allclose(data.val.labels[0], [[0, 0.5, 0.5, 0.5, 0.5]])


def test_a_list_of_one_class_ends_its_lines_in_a_flag(write_voc: Writer) -> None:
    boxes = {"1": [("cat", 1, 1, 9, 9)], "2 b": [("cat", 2, 2, 9, 9)], "c": [("cat", 1, 1, 9, 9)]}
    data = load(write_voc(boxes, {"train": ["1", "2 b  1"], "val": ["c -1"]}))
    assert [path.stem for path in data.train.images] == ["1", "2 b"]


def test_trainval_serves_where_there_is_no_train_list(write_voc: Writer) -> None:
    boxes = {name: [("cat", 1, 1, 9, 9)] for name in "abc"}
    data = load(write_voc(boxes, {"trainval": ["a", "b", "c"], "val": ["b"]}))
    assert [path.stem for path in data.train.images] == ["a", "c"]
    assert [path.stem for path in data.val.images] == ["b"]


def test_without_lists_a_fifth_is_held_out(write_voc: Writer) -> None:
    data = load(write_voc({f"i{number}": [("cat", 1, 1, 9, 9)] for number in range(10)}))
    assert (len(data.train), len(data.val)) == (8, 2)
    assert "no val and no test split: 2 of 10 images are held out as val" in data.notes


def test_difficult_objects_are_learnt_or_regions_by_choice(write_voc: Writer) -> None:
    boxes = {"a": [("cat", 0, 0, 32, 24), ("dog", 16, 12, 48, 36)], "b": [("cat", 1, 1, 9, 9)]}
    folder = write_voc(boxes, {"train": ["a"], "val": ["b"]})
    page = folder / "Annotations/a.xml"
    page.write_text(page.read_text().replace("<name>dog</name>", "<name>dog</name><difficult>1</difficult>"))
    learnt, ignored = load(folder), load(folder, difficult="ignore")
    assert (learnt.train.boxes, learnt.train.crowds) == (2, None)
    assert ignored.train.boxes == 1
    assert ignored.train.crowds is not None
    np.testing.assert_allclose(ignored.train.crowds[0], [[1, 0.5, 0.5, 0.5, 0.5]])
    assert ignored.names == learnt.names == ("cat", "dog")
    note = "1 difficult object is not learnt; in an evaluation detections of them do not count"
    assert note in ignored.notes
    assert note not in learnt.notes
    assert load(folder, difficult="ignore").fingerprint == ignored.fingerprint != learnt.fingerprint
    with pytest.raises(DataError, match="difficult must be learn or ignore, but got 'drop'"):
        load(folder, difficult="drop")


def test_zero_area_boxes_are_dropped_and_reported_with_their_line(write_voc: Writer) -> None:
    folder = write_voc(
        {"a": [("cat", 1, 1, 9, 9), ("cat", 5, 5, 5, 5)], "b": [("cat", 1, 1, 9, 9)]},
        {"train": ["a"], "val": ["b"]},
    )
    (fault,) = check(folder).faults
    assert (fault.file.name, fault.what, fault.action) == ("a.xml", "zero-area box", "dropped")
    assert fault.line is not None
    lines = (folder / "Annotations/a.xml").read_text().splitlines()
    assert lines[fault.line - 1] == "<object>"
    assert "<xmin>5</xmin>" in lines[fault.line]
    assert load(folder).notes[-1] == f"1 zero-area box, dropped: Annotations/a.xml:{fault.line}"


def test_a_class_file_sets_the_order_and_refuses_other_names(write_voc: Writer) -> None:
    folder = write_voc(
        {"a": [("dog", 1, 1, 9, 9)], "b": [("cat", 1, 1, 9, 9)]}, {"train": ["a"], "val": ["b"]}
    )
    (folder / "classes.txt").write_text("dog\ncat\n")
    assert load(folder).names == ("dog", "cat")
    (folder / "classes.txt").write_text("dog\nbird\n")
    with pytest.raises(
        DataError, match=r"b\.xml:\d+: class out of range: cat is not among the 2 class names"
    ):
        load(folder)


def test_an_object_without_name_or_corner_is_a_bad_row(write_voc: Writer) -> None:
    folder = write_voc(
        {"a": [("cat", 1, 1, 9, 9), ("", 1, 1, 9, 9)], "b": [("cat", 1, 1, 9, 9)]},
        {"train": ["a"], "val": ["b"]},
    )
    path = folder / "Annotations/b.xml"
    path.write_text(
        path.read_text().replace("</annotation>", "<object><name>cat</name></object></annotation>")
    )
    whats = [(fault.file.name, fault.what) for fault in check(folder).faults]
    assert whats == [
        (name, "bad row: a name or number is missing or impossible") for name in ("a.xml", "b.xml")
    ]


@pytest.mark.parametrize("text", ["", "<annotation>", "no xml", "\x00\x01", "<a>&undefined;</a>"])
def test_an_image_whose_xml_is_broken_is_left_out(write_voc: Writer, text: str) -> None:
    folder = write_voc({name: [("cat", 1, 1, 9, 9)] for name in "abc"}, {"train": ["a", "b"], "val": ["c"]})
    (folder / "Annotations/b.xml").write_text(text)
    (fault,) = check(folder).faults
    assert fault.what.startswith("unreadable label file")
    assert "\n" not in fault.what
    assert [path.stem for path in load(folder).train.images] == ["a"]


def test_an_xml_bomb_is_refused(write_voc: Writer) -> None:
    folder = write_voc({"a": [("cat", 1, 1, 9, 9)], "b": [("cat", 1, 1, 9, 9)]})
    entities = '<!ENTITY a "aaaaaaaaaa">' + "".join(
        f'<!ENTITY {new} "{f"&{old};" * 10}">' for old, new in zip("abcdefgh", "bcdefghi", strict=True)
    )
    (folder / "Annotations/b.xml").write_text(
        f"<?xml version='1.0'?><!DOCTYPE x [{entities}]><annotation>&i;</annotation>"
    )
    with pytest.raises(DataError, match=r"b\.xml declares a document type or entities and is refused"):
        load(folder)


def test_a_listed_image_without_xml_is_a_background_and_without_a_picture_is_missing(
    write_voc: Writer, write_image: Writer
) -> None:
    folder = write_voc(
        {"a": [("cat", 1, 1, 9, 9)], "b": [("cat", 1, 1, 9, 9)]}, {"train": ["a", "c", "d"], "val": ["b"]}
    )
    write_image(folder / "JPEGImages/c.jpg")
    whats = {fault.file.name: fault.what for fault in check(folder).faults}
    assert whats == {"c.jpg": "image without labels", "d.jpg": "missing image"}


def test_fractions_and_blanks_are_read_and_files_in_other_encodings_too(write_voc: Writer) -> None:
    folder = write_voc(
        {"a": [("chat", 1.5, 2.5, 33.5, 26.5)], "b": [("chat", 1, 1, 9, 9)]}, {"train": ["a"], "val": ["b"]}
    )
    path = folder / "Annotations/a.xml"
    text = path.read_text().replace("<xmin>1.5<", "<xmin> 1.5\n<").replace("chat", "zèbre")
    path.write_bytes(b"<?xml version='1.0' encoding='latin-1'?>" + text.encode("latin-1"))
    data = load(folder)
    assert data.names == ("chat", "zèbre")
    np.testing.assert_allclose(data.train.labels[0], [[1, 17.5 / 64, 14.5 / 48, 0.5, 0.5]])
