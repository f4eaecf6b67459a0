"""Small data sets made on the spot, and a cache of the test's own."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest

Writer = Callable[..., Path]


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BEAGLE_CACHE", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture
def write_image() -> Writer:
    """``write_image(path, width, height)``: a picture that no other path has."""

    def write(path: Path, width: int = 64, height: int = 48, seed: int | None = None) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        own = sum(path.as_posix().encode()) * 31 + len(path.name) if seed is None else seed
        pixels = np.random.default_rng(own).integers(0, 256, (height, width, 3), dtype=np.uint8)
        assert cv2.imwrite(str(path), pixels)
        return path

    return write


@pytest.fixture
def write_yolo(tmp_path: Path, write_image: Writer) -> Writer:
    """``write_yolo({"a": "0 .5 .5 .2 .2"}, {"b": ""})``: train and val, text by image name; the data.yaml."""

    def write(
        train: Mapping[str, str | bytes],
        val: Mapping[str, str | bytes] | None = None,
        names: Sequence[str] = ("cat", "dog"),
    ) -> Path:
        folder = tmp_path / "set"
        lines = [f"names: {json.dumps(list(names))}", "train: images/train"]
        lines += ["val: images/val"] if val is not None else []
        for number, (split, labels) in enumerate({"train": train, "val": val or {}}.items()):
            (folder / "labels" / split).mkdir(parents=True)
            for index, (name, text) in enumerate(labels.items()):
                write_image(folder / "images" / split / f"{name}.png", seed=1000 * number + index)
                raw = text.encode() if isinstance(text, str) else text
                (folder / "labels" / split / f"{name}.txt").write_bytes(raw)
        (folder / "data.yaml").write_text("\n".join(lines))
        return folder / "data.yaml"

    return write


@pytest.fixture
def write_coco(tmp_path: Path, write_image: Writer) -> Writer:
    """``write_coco("train.json", images, annotations, categories)`` with pictures of 64 x 48 px under ``images``."""

    def write(
        name: str,
        annotations: Sequence[Mapping[str, object]],
        categories: Sequence[Mapping[str, object]] = ({"id": 1, "name": "cat"},),
        files: Sequence[str] = ("a.png", "b.png"),
    ) -> Path:
        path = tmp_path / "coco" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        images = []
        for index, file in enumerate(files, start=1):
            write_image(tmp_path / "coco" / "images" / file)
            images.append({"id": index, "file_name": file, "width": 64, "height": 48})
        content = {"images": images, "annotations": list(annotations), "categories": list(categories)}
        path.write_text(json.dumps(content))
        return path

    return write


@pytest.fixture
def write_voc(tmp_path: Path, write_image: Writer) -> Writer:
    """``write_voc({"a": [("cat", 1, 2, 30, 40)]})``: the folder; ``split`` lists go under ImageSets/Main."""

    def write(
        boxes: Mapping[str, Sequence[tuple[str, float, float, float, float]]],
        lists: Mapping[str, Sequence[str]] | None = None,
    ) -> Path:
        folder = tmp_path / "voc"
        (folder / "Annotations").mkdir(parents=True)
        for stem, rows in boxes.items():
            write_image(folder / "JPEGImages" / f"{stem}.jpg")
            objects = "".join(
                f"<object>\n<name>{name}</name><bndbox><xmin>{x1}</xmin><ymin>{y1}</ymin>"
                f"<xmax>{x2}</xmax><ymax>{y2}</ymax></bndbox></object>\n"
                for name, x1, y1, x2, y2 in rows
            )
            size = "<size><width>64</width><height>48</height></size>"
            (folder / "Annotations" / f"{stem}.xml").write_text(
                f"<annotation>\n{size}\n{objects}</annotation>"
            )
        for split, stems in (lists or {}).items():
            (folder / "ImageSets" / "Main").mkdir(parents=True, exist_ok=True)
            (folder / "ImageSets" / "Main" / f"{split}.txt").write_text("\n".join(stems))
        return folder

    return write
