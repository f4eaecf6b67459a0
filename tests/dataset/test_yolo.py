from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from dataset import DataError, load
from dataset.check import check

Writer = Callable[..., Path]
ROW = "0 0.5 0.5 0.2 0.4\n"


def _whats(source: Path) -> list[tuple[str, int | None, str]]:
    return [(fault.what, fault.line, fault.action) for fault in check(source).faults]


def test_rows_are_read_as_they_stand(write_yolo: Writer) -> None:
    data = load(write_yolo({"a": ROW + "1 0.25 0.25 0.5 0.5", "b": "1 .5 .5 1 1"}, {"c": ROW}))
    assert data.names == ("cat", "dog")
    assert list(data.splits) == ["train", "val"]
    assert [path.name for path in data.train.images] == ["a.png", "b.png"]
    assert all(path.is_absolute() for path in data.train.images)
    assert data.train.sizes.tolist() == [[64, 48], [64, 48]]
    assert data.train.sizes.dtype == np.int32
    np.testing.assert_allclose(
        data.train.labels[0], [[0, 0.5, 0.5, 0.2, 0.4], [1, 0.25, 0.25, 0.5, 0.5]], rtol=1e-6
    )
    assert data.notes == ()


@pytest.mark.parametrize(
    "raw",
    [
        b"\xef\xbb\xbf" + ROW.encode(),
        ROW.replace("\n", "\r\n").encode(),
        ROW.replace("\n", "\r").encode(),
        b"\n\n  " + ROW.replace(" ", "\t").encode() + b"\n \n",
        ROW.encode("utf-16"),
        ROW.strip().encode(),
        b"0.0 5e-1 +.5 0.2 0.4",
    ],
)
def test_byte_order_marks_line_endings_and_blanks_change_nothing(write_yolo: Writer, raw: bytes) -> None:
    data = load(write_yolo({"a": raw}, {"b": ROW}))
    np.testing.assert_allclose(data.train.labels[0], [[0, 0.5, 0.5, 0.2, 0.4]], rtol=1e-6)


@pytest.mark.parametrize(
    ("row", "what"),
    [
        ("0 0.5 0.5 0.2", "bad row: 5 numbers are expected, but got 4"),
        ("0 0.5 0.5 0.2 0.2 0.9", "bad row: 5 numbers are expected, but got 6"),
        ("0 0.5 0.5 0.2 nan", "bad row: it holds NaN or infinity"),
        ("0 0.5 0.5 -inf 0.2", "bad row: it holds NaN or infinity"),
        ("cat 0.5 0.5 0.2 0.2", "bad row: it holds something that is not a number"),
        ("0,0.5,0.5,0.2,0.2", "bad row: it holds something that is not a number"),
        ("0 0.5 0.5 1e308 1e308 1e308 1e308 1e308", "bad row: 5 numbers are expected, but got 8"),
    ],
)
def test_a_bad_row_is_dropped_and_reported_with_its_line(write_yolo: Writer, row: str, what: str) -> None:
    source = write_yolo({"a": f"{ROW}\n{row}\n"}, {"b": ROW})
    assert _whats(source) == [(what, 3, "dropped")]
    assert len(load(source).train.labels[0]) == 1


def test_bytes_that_are_no_text_do_not_crash(write_yolo: Writer) -> None:
    source = write_yolo({"a": bytes(range(256)) * 3, "b": ROW}, {"c": ROW})
    report = check(source)
    assert {fault.what.partition(":")[0] for fault in report.faults} == {"bad row", "image without labels"}
    assert report.fatal == ()


def test_numbers_beyond_all_bounds_do_not_crash(write_yolo: Writer) -> None:
    source = write_yolo({"a": f"{ROW}0 1e308 1e308 1.7e308 1.7e308\n0 0.5 0.5 1.7e308 1.7e308"}, {"c": ROW})
    assert len(check(source).faults) >= 1


def test_a_segment_becomes_its_bounding_box(write_yolo: Writer) -> None:
    data = load(write_yolo({"a": "1 0.1 0.2 0.5 0.2 0.3 0.6"}, {"b": ROW}))
    np.testing.assert_allclose(data.train.labels[0], [[1, 0.3, 0.4, 0.4, 0.4]], rtol=1e-6)


def test_a_class_out_of_range_is_refused_with_file_and_line(write_yolo: Writer) -> None:
    source = write_yolo({"a": f"{ROW}\n2 .5 .5 .1 .1", "b": "7 .5 .5 .1 .1"}, {"c": ROW})
    with pytest.raises(DataError, match=r"a\.txt:3: class out of range: 2 is not in 0\.\.1 \(and 1 more"):
        load(source)
    assert [(fault.file.name, fault.line) for fault in check(source).fatal] == [("a.txt", 3), ("b.txt", 1)]


def test_an_empty_and_a_missing_label_file_make_backgrounds(write_yolo: Writer) -> None:
    source = write_yolo({"a": ROW, "b": "", "c": ROW}, {"d": ROW})
    (source.parent / "labels/train/c.txt").unlink()
    report = check(source)
    assert [fault.file.name for fault in report.faults] == ["b.png", "c.png"]
    assert {fault.what for fault in report.faults} == {"image without labels"}
    assert report.counts["train"].backgrounds == 2
    assert load(source).notes == (
        "2 images without labels, kept as background: images/train/b.png, images/train/c.png",
    )


def test_a_set_without_boxes_is_refused(write_yolo: Writer) -> None:
    with pytest.raises(DataError, match="no training image has a usable box"):
        load(write_yolo({"a": ""}, {"b": ROW}))


def test_a_set_without_images_is_refused(write_yolo: Writer) -> None:
    source = write_yolo({"a": ROW}, {"b": ROW})
    (source.parent / "images/train/a.png").write_bytes(b"no image")
    assert next(fault.what for fault in check(source).faults) == "unreadable image"
    with pytest.raises(DataError, match="no training image can be read"):
        load(source)


@pytest.mark.parametrize(
    "names", ["[cat, dog]", "{0: cat, 1: dog}", "{'1': dog, '0': cat}", "\n- cat\n- dog", "classes.txt"]
)
def test_names_may_be_a_list_a_map_or_a_file(write_yolo: Writer, names: str) -> None:
    source = write_yolo({"a": ROW}, {"b": ROW})
    (source.parent / "classes.txt").write_text("cat\ndog\n")
    source.write_text(f"train: images/train\nval: images/val\nnames: {names}\n")
    assert load(source).names == ("cat", "dog")


def test_names_that_yaml_takes_for_other_things_stay_text(write_yolo: Writer) -> None:
    source = write_yolo({"a": ROW}, {"b": ROW})
    source.write_text("train: images/train\nval: images/val\nnames: [7, 1.5, word]\nnc: 3\n")
    assert load(source).names == ("7", "1.5", "word")


def test_a_number_of_classes_alone_names_them_by_their_ids(write_yolo: Writer) -> None:
    source = write_yolo({"a": ROW}, {"b": ROW})
    source.write_text("train: images/train\nval: images/val\nnc: 3\n")
    assert load(source).names == ("0", "1", "2")


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("names: [a]\n", "must say where the training images are"),
        ("train: images/train\nnames: []\n", "names must be a list or a map"),
        ("train: images/train\nnames: {0: a, 2: b}\n", r"names must have the ids 0\.\.1, but has 0, 2"),
        ("train: images/train\nnames: [a, b]\nnc: 3\n", r"nc must be the number of names \(2\), but got 3"),
        (
            "train: images/train\nnames: [a, b]\nnc: two\n",
            "nc must be a positive whole number, but got 'two'",
        ),
        ("train: images/train\nnames: 5\n", "names must be a list or a map"),
        ("train: images/nowhere\nnames: [a]\n", "train names images/nowhere, but there is no such folder"),
        ("train: images/train\nval: images/nowhere\nnames: [a]\n", "val names images/nowhere"),
        ("train: {a: b}\nnames: [a]\n", "train must be a folder or a list file, but got"),
        ("train: images/train\nnames: [a\n", r"data\.yaml:3 is not YAML"),
        ("train: \x07\n", r"data\.yaml is not YAML"),
        ("- a\n- b\n", "must hold a YAML mapping"),
        ("", "must hold a YAML mapping"),
        ("train: !!python/object/apply:os.system [ls]\n", "is not YAML"),
        ("train: 2024-13-45\n", "is not YAML"),
    ],
)
def test_a_data_yaml_that_says_something_impossible_is_refused(
    write_yolo: Writer, text: str, match: str
) -> None:
    source = write_yolo({"a": ROW})
    source.write_text(text)
    with pytest.raises(DataError, match=match) as caught:
        load(source)
    assert "\n" not in str(caught.value)


def test_a_yaml_bomb_is_refused(write_yolo: Writer) -> None:
    lines = ["a: &a [x, x, x, x, x, x, x, x, x]"]
    lines += [
        f"{new}: &{new} [{', '.join([f'*{old}'] * 9)}]"
        for old, new in zip("abcdefgh", "bcdefghi", strict=True)
    ]
    source = write_yolo({"a": ROW})
    source.write_text("\n".join([*lines, "train: images/train", "names: *i"]))
    with pytest.raises(DataError, match=r"data\.yaml:2 holds an alias"):
        load(source)


def test_yaml_that_nests_without_end_or_is_huge_is_refused(write_yolo: Writer) -> None:
    source = write_yolo({"a": ROW})
    source.write_text("train: " + "[" * 5000)
    with pytest.raises(DataError, match="nests over 16 deep"):
        load(source)
    source.write_text("train: " + "x" * (1 << 20))
    with pytest.raises(DataError, match="under 1 MiB"):
        load(source)


def test_splits_may_be_lists_of_folders_and_list_files(write_yolo: Writer) -> None:
    source = write_yolo({"a": ROW, "b": ROW}, {"c": ROW, "d": ROW})
    folder = source.parent
    (folder / "one.txt").write_text("./images/val/c.png\r\n\r\n")
    (folder / "two.txt").write_text(f"{folder}/images/val/d.png\n")
    source.write_text("train: [images/train, one.txt]\nval: two.txt\nnames: [cat, dog]\n")
    data = load(source)
    assert [path.name for path in data.train.images] == ["a.png", "b.png", "c.png"]
    assert [path.name for path in data.val.images] == ["d.png"]
    assert data.train.boxes == 3


def test_an_image_that_a_list_names_twice_is_read_once(write_yolo: Writer) -> None:
    source = write_yolo({"a": ROW}, {"b": ROW})
    (source.parent / "list.txt").write_text("images/train/a.png\nimages/train/a.png\n")
    source.write_text("train: list.txt\nval: images/val\nnames: [cat]\n")
    assert _whats(source) == [("image listed twice: a.png", 2, "read once")]
    assert len(load(source).train) == 1


def test_an_image_that_is_listed_but_missing_is_left_out(write_yolo: Writer) -> None:
    source = write_yolo({"a": ROW}, {"b": ROW})
    (source.parent / "list.txt").write_text("images/train/a.png\nimages/train/z.png\n")
    source.write_text("train: list.txt\nval: images/val\nnames: [cat]\n")
    assert _whats(source) == [("missing image", None, "left out")]
    assert len(load(source).train) == 1


def test_path_moves_the_root(write_yolo: Writer, tmp_path: Path) -> None:
    source = write_yolo({"a": ROW}, {"b": ROW})
    for name, path in {
        "far.yaml": "set",
        "absolute.yaml": str(source.parent),
        "moved.yaml": "set/../set",
    }.items():
        (tmp_path / name).write_text(f"path: {path}\ntrain: images/train\nval: images/val\nnames: [cat]\n")
        data = load(tmp_path / name)
        assert data.train.boxes == 1
        assert data.name == name.removesuffix(".yaml")


def test_the_relative_entries_of_labelling_services_are_found(write_yolo: Writer) -> None:
    source = write_yolo({"a": ROW}, {"b": ROW})
    source.write_text("train: ../images/train\nval: ../images/val\nnc: 1\nnames: ['cat']\n")
    assert load(source).train.boxes == 1


def test_a_test_entry_that_does_not_exist_is_noted(write_yolo: Writer) -> None:
    source = write_yolo({"a": ROW}, {"b": ROW})
    source.write_text(
        "train: images/train\nval: images/val\ntest: images/none\nnames: [cat]\ndownload: rm -rf /\n"
    )
    assert load(source).notes == ("test: images/none does not exist and is left out",)


def test_labels_are_found_beside_images_and_in_a_sibling_folder(tmp_path: Path, write_image: Writer) -> None:
    for folder, labels in (("beside", "beside/x"), ("sibling", "sibling/labels")):
        for name in "ab":
            write_image(tmp_path / folder / "x" / f"{name}.jpg")
            (tmp_path / labels).mkdir(exist_ok=True)
            (tmp_path / labels / f"{name}.txt").write_text(ROW)
        (tmp_path / folder / "data.yaml").write_text("train: x\nnames: [cat]\n")
        data = load(tmp_path / folder)
        assert data.train.boxes + data.val.boxes == 2


def _fill(folder: Path, write_image: Writer, places: dict[str, str], row: str = ROW) -> None:
    for image, label in places.items():
        write_image(folder / image)
        (folder / label).parent.mkdir(parents=True, exist_ok=True)
        (folder / label).write_text(row)


def test_a_folder_with_lists_of_bare_names_is_read_and_test_serves_as_val(
    tmp_path: Path, write_image: Writer
) -> None:
    _fill(tmp_path, write_image, {f"images/{name}.jpg": f"labels/{name}.txt" for name in "abc"})
    (tmp_path / "train.txt").write_text("a.jpg\nb.jpg\n")
    (tmp_path / "test.txt").write_text("c.jpg")
    (tmp_path / "labels/classes.txt").write_text("one\ntwo\n")
    data = load(tmp_path)
    assert data.names == ("one", "two")
    assert {name: [path.name for path in split.images] for name, split in data.splits.items()} == {
        "train": ["a.jpg", "b.jpg"],
        "val": ["c.jpg"],
    }
    assert data.notes == ("no val split: test is used as val",)


def test_split_folders_within_images_or_around_it_are_read(tmp_path: Path, write_image: Writer) -> None:
    _fill(
        tmp_path / "in",
        write_image,
        {f"images/{s}/{s}.jpg": f"labels/{s}/{s}.txt" for s in ("train", "val", "test")},
    )
    _fill(
        tmp_path / "out",
        write_image,
        {f"{s}/images/{s}.jpg": f"{s}/labels/{s}.txt" for s in ("train", "valid", "test")},
    )
    for folder in ("in", "out"):
        data = load(tmp_path / folder)
        assert {name: split.boxes for name, split in data.splits.items()} == {"train": 1, "val": 1, "test": 1}
        assert data.names == ("0",)
        assert data.notes == ("no class names: 1 classes are called by their ids",)


def test_an_absurd_class_id_without_names_is_refused_and_fills_no_memory(
    tmp_path: Path, write_image: Writer
) -> None:
    _fill(
        tmp_path,
        write_image,
        {f"images/{name}.jpg": f"labels/{name}.txt" for name in "ab"},
        "4000000000 .5 .5 .1 .1",
    )
    with pytest.raises(DataError, match="class out of range: 4e"):
        load(tmp_path)


def test_hidden_files_are_no_images(write_yolo: Writer) -> None:
    source = write_yolo({"a": ROW}, {"b": ROW})
    (source.parent / "images/train/._a.png").write_bytes(b"resource fork")
    (source.parent / "images/train/notes.md").write_bytes(b"notes")
    assert _whats(source) == []


def test_image_folders_are_read_in_depth_and_in_order(write_yolo: Writer, write_image: Writer) -> None:
    source = write_yolo({"b": ROW}, {"c": ROW})
    _fill(source.parent, write_image, {"images/train/deep/er/a.png": "labels/train/deep/er/a.txt"})
    data = load(source)
    assert [path.name for path in data.train.images] == ["b.png", "a.png"]
    assert data.train.boxes == 2
