"""Many label files at once."""

import multiprocessing
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pytest

from dataset import DataError, load
from dataset.parallel import map_parts


def double(items):
    return [2 * item for item in items]


def test_parts_come_back_in_order_from_processes_and_from_a_mapper_of_ones_own():
    items = list(range(9000))
    wanted = [2 * item for item in items]
    assert [x for part in map_parts(double, items) for x in part] == wanted
    assert [
        x for part in map_parts(double, items, lambda f, parts: [f(part) for part in parts]) for x in part
    ] == wanted
    assert map_parts(double, []) == []


def test_a_data_set_read_by_a_mapper_is_the_one_read_here(tmp_path: Path):
    for folder in ("images", "labels"):
        (tmp_path / folder).mkdir()
    for number in range(6):
        cv2.imwrite(str(tmp_path / "images" / f"{number}.png"), np.zeros((20, 30 + number, 3), np.uint8))
        (tmp_path / "labels" / f"{number}.txt").write_text("0 0.5 0.5 0.2 0.3\n0 bad\n")
    calls = []

    def mapper(function, parts):
        calls.append(len(parts))
        return [function(part) for part in parts]

    here, there = load(tmp_path, cache=False), load(tmp_path, cache=False, map_files=mapper)
    assert calls == [1, 1]  # label files, and headers of images
    assert there.fingerprint == here.fingerprint
    assert there.notes == here.notes


def test_voc_files_read_by_a_mapper_are_those_read_here(write_voc: Callable[..., Path]) -> None:
    boxes = {name: [("cat", 1, 1, 9, 9), ("dog", 2, 3, 20, 30)] for name in "abcde"}
    folder = write_voc(boxes, {"train": ["a", "b", "c", "d"], "val": ["e"]})
    (folder / "Annotations" / "b.xml").write_text("<annotation><object>")

    def mapper(function, parts):
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("fork")) as pool:
            return list(pool.map(function, parts))

    here, there = load(folder, cache=False), load(folder, cache=False, map_files=mapper)
    assert there.fingerprint == here.fingerprint
    assert there.notes == here.notes
    assert any("unreadable label file" in note for note in here.notes)
    (folder / "Annotations" / "c.xml").write_text("<!DOCTYPE a><annotation/>")
    with pytest.raises(DataError, match="document type"):
        load(folder, cache=False, map_files=mapper)
