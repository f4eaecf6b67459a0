"""Whatever stands in a file: a reader reads it, reports it or refuses it with a DataError of one line."""

import contextlib
import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dataset import DataError, Dataset, load

_MANY = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
# Without / and . lest a folder entry names all of the file system.
_TEXT = st.text(st.characters(exclude_characters="/."), max_size=4)
_SCALARS = st.none() | st.booleans() | st.integers(-3, 5) | st.floats() | _TEXT
_VALUES = st.recursive(
    _SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner)
)
_ROWS = st.text(st.sampled_from("01 .-+e\t\n\r,naif_x\x0c\u2028"), max_size=60)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sound set of all three formats, whose files the tests write over."""
    folder = tmp_path_factory.mktemp("hostile")
    for kind in ("images", "labels", "Annotations"):
        (folder / kind).mkdir()
    for index, name in enumerate("abc"):
        cv2.imwrite(str(folder / f"images/{name}.png"), np.full((32, 32, 3), index, np.uint8))
        (folder / f"labels/{name}.txt").write_text("0 .5 .5 .1 .1")
        box = "<xmin>1</xmin><ymin>1</ymin><xmax>9</xmax><ymax>9</ymax>"
        text = f"<annotation><object><name>x</name><bndbox>{box}</bndbox></object></annotation>"
        (folder / f"Annotations/{name}.xml").write_text(text)
    return folder


def _load(source: Path) -> Dataset | None:
    with contextlib.suppress(DataError):
        return load(source, cache=False)
    with pytest.raises(DataError) as caught:
        load(source, cache=False)
    assert "\n" not in str(caught.value)
    return None


@_MANY
@given(st.binary(max_size=80) | _ROWS.map(str.encode))
def test_any_label_file_is_read_or_refused(folder: Path, content: bytes) -> None:
    (folder / "data.yaml").write_text("train: images\nnames: [x, y]\n")
    (folder / "labels/a.txt").write_bytes(content)
    data = _load(folder / "data.yaml")
    assert data is None or sum(split.boxes for split in data.splits.values()) >= 2


@_MANY
@given(
    st.binary(max_size=80)
    | st.text(st.sampled_from("train: images\n[]{}&*!-'\"#|>x0"), max_size=60).map(str.encode)
)
def test_any_yaml_is_read_or_refused(folder: Path, content: bytes) -> None:
    (folder / "any.yaml").write_bytes(b"train: images\n" + content)
    _load(folder / "any.yaml")


@_MANY
@given(st.dictionaries(st.sampled_from(["train", "val", "test", "path", "names", "nc"]), _VALUES))
def test_any_values_in_a_yaml_are_read_or_refused(folder: Path, content: dict[str, object]) -> None:
    (folder / "any.yaml").write_text(json.dumps({"train": "images"} | content))
    _load(folder / "any.yaml")


@_MANY
@given(
    st.binary(max_size=80)
    | st.text(st.sampled_from("<>/object name bndbox xmin&;!?[]'\""), max_size=80).map(str.encode)
)
def test_any_xml_is_read_or_refused(folder: Path, content: bytes) -> None:
    (folder / "data.yaml").unlink(missing_ok=True)
    (folder / "Annotations/a.xml").write_bytes(content)
    data = _load(folder)
    assert data is None or sum(split.boxes for split in data.splits.values()) >= 2


@_MANY
@given(
    st.lists(
        st.dictionaries(st.sampled_from(["image_id", "category_id", "bbox", "iscrowd"]), _VALUES), max_size=3
    ),
    st.lists(st.dictionaries(st.sampled_from(["id", "file_name", "width", "height"]), _VALUES), max_size=3),
    st.lists(st.dictionaries(st.sampled_from(["id", "name"]), _VALUES), max_size=2),
)
def test_any_values_in_a_coco_json_are_read_or_refused(
    folder: Path, annotations: list[object], images: list[object], categories: list[object]
) -> None:
    content = {
        "images": [{"id": 1, "file_name": "a.png"}, {"id": 2, "file_name": "b.png"}, *images],
        "annotations": [{"image_id": i, "category_id": 1, "bbox": [1, 1, 9, 9]} for i in (1, 2)]
        + annotations,
        "categories": [{"id": 1, "name": "x"}, *categories],
    }
    (folder / "any.json").write_text(json.dumps(content))
    _load(folder / "any.json")
