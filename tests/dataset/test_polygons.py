"""Outlines: read with the labels they belong to, packed, remembered, and kept in step when labels are mended."""

import json
import shutil

import cv2
import numpy as np
import pytest

from dataset import load
from dataset.polygons import pack_polygons

SQUARE = "0.2 0.2 0.6 0.2 0.6 0.6 0.2 0.6"


@pytest.fixture
def images(tmp_path):
    """A folder with four images of 100 x 50 px for each split."""
    for split in ("train", "val"):
        folder = tmp_path / "images" / split
        folder.mkdir(parents=True)
        for number in range(4):
            cv2.imwrite(
                str(folder / f"{number}.png"), np.full((50, 100, 3), number * 20 + len(split), np.uint8)
            )
        (tmp_path / "labels" / split).mkdir(parents=True)
    return tmp_path


def yolo(root, *rows):
    for split in ("train", "val"):
        for number, text in enumerate(rows):
            (root / "labels" / split / f"{number}.txt").write_text(text)
    (root / "data.yaml").write_text("train: images/train\nval: images/val\nnames: [a, b]\n")
    return root / "data.yaml"


class TestYolo:
    def test_a_segment_is_an_outline_and_the_box_around_it(self, images):
        split = load(yolo(images, f"0 0.5 0.5 0.2 0.2\n1 {SQUARE}\n", "", f"0 {SQUARE}\n")).train
        assert split.labels[0].shape == (2, 5)
        np.testing.assert_allclose(split.labels[0][1], [1, 0.4, 0.4, 0.4, 0.4], atol=1e-6)
        assert split.polygons.of(0, 0) == []
        (ring,) = split.polygons.of(0, 1)
        np.testing.assert_allclose(ring, [[0.2, 0.2], [0.6, 0.2], [0.6, 0.6], [0.2, 0.6]], atol=1e-6)
        assert len(split.polygons.of(2, 0)) == 1

    def test_outlines_stay_with_their_labels_when_others_are_dropped(self, images):
        rows = f"0 0.5 0.5 0 0.2\n1 {SQUARE}\n1 0.5 0.5 2\n0 0.1 0.1 0.5 0.1 0.3 0.9\n"
        split = load(yolo(images, rows)).train
        assert split.labels[0][:, 0].tolist() == [1, 0]
        assert [len(split.polygons.of(0, row)[0]) for row in (0, 1)] == [4, 3]

    def test_points_outside_are_brought_to_the_border(self, images):
        split = load(yolo(images, "0 -0.5 0.2 0.5 0.2 0.5 1.5\n")).train
        (ring,) = split.polygons.of(0, 0)
        np.testing.assert_allclose(ring, [[0, 0.2], [0.5, 0.2], [0.5, 1]], atol=1e-6)

    def test_what_is_remembered_is_what_was_read(self, images):
        source = yolo(images, f"0 {SQUARE}\n", f"1 0.5 0.5 0.1 0.1\n0 {SQUARE}\n")
        read, remembered = load(source), load(source)
        for name in ("train", "val"):
            first, second = read.splits[name].polygons, remembered.splits[name].polygons
            for part in ("points", "rings", "labels", "images"):
                np.testing.assert_array_equal(getattr(first, part), getattr(second, part))

    def test_a_set_of_boxes_has_no_polygons(self, images):
        assert load(yolo(images, "0 0.5 0.5 0.1 0.1\n")).train.polygons is None


class TestCoco:
    @pytest.mark.parametrize(
        ("segmentation", "rings"),
        [
            ([[20, 10, 60, 10, 60, 30]], 1),
            ([[20, 10, 60, 10, 60, 30], [20, 10, 30, 10, 30, 20, 20, 20]], 2),
            ({"counts": [1, 2], "size": [50, 100]}, 0),
            ([[20, 10, 60, 10]], 0),
            ([[20, 10, 60, 10, 60]], 0),
            ([[20, 10, "x", 10, 60, 30]], 0),
            ([], 0),
            (None, 0),
        ],
    )
    def test_polygons_are_outlines_and_anything_else_leaves_the_box(self, images, segmentation, rings):
        square = [[20, 10, 60, 10, 60, 30, 20, 30]]
        notes = [
            {
                "id": 1,
                "image_id": 1,
                "category_id": 1,
                "bbox": [20, 10, 40, 20],
                "segmentation": segmentation,
            },
            {"id": 2, "image_id": 2, "category_id": 1, "bbox": [20, 10, 40, 20], "segmentation": square},
        ]
        for split in ("train", "val"):
            listed = [{"id": n + 1, "file_name": f"{n}.png", "width": 100, "height": 50} for n in range(4)]
            content = {"images": listed, "annotations": notes, "categories": [{"id": 1, "name": "a"}]}
            (images / "annotations").mkdir(exist_ok=True)
            (images / "annotations" / f"instances_{split}.json").write_text(json.dumps(content))
        shutil.rmtree(images / "labels")
        split = load(images, cache=False).train
        found = split.polygons.of([path.name for path in split.images].index("0.png"), 0)
        assert len(found) == rings
        if rings:
            np.testing.assert_allclose(found[0], [[0.2, 0.2], [0.6, 0.2], [0.6, 0.6]], atol=1e-6)


def test_no_outline_at_all_is_no_polygons():
    assert pack_polygons([]) is None
    assert pack_polygons([(), ((), ())]) is None


def test_images_and_labels_without_outlines_keep_their_places():
    ring = np.arange(6.0).reshape(3, 2)
    packed = pack_polygons([(), ((), (ring, ring + 1)), ((),), ((ring,),)])
    assert [len(packed.of(1, row)) for row in (0, 1)] == [0, 2]
    np.testing.assert_array_equal(packed.of(1, 1)[1], ring + 1)
    assert packed.of(2, 0) == []
    np.testing.assert_array_equal(packed.of(3, 0)[0], ring)
