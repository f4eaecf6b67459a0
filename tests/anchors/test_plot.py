from io import BytesIO
from itertools import combinations

import cv2
import numpy as np
import pytest

import anchors
from anchors import AnchorError
from anchors.plot import _overlap, _place_labels, plot_anchors


def pixels(data):
    return cv2.imdecode(np.frombuffer(data, dtype=np.uint8), cv2.IMREAD_COLOR)


def test_a_picture_is_written_to_a_file_and_to_memory(people, tmp_path):
    levels = np.array([[[10.0, 20.0], [30.0, 30.0]], [[100.0, 200.0], [300.0, 250.0]]])
    anchors.plot.plot_anchors(people, levels, tmp_path / "anchors.png", title="People")
    memory = BytesIO()
    plot_anchors(people, levels, memory, title="People")
    image = pixels(memory.getvalue())
    assert image.shape == (1050, 1200, 3)
    np.testing.assert_array_equal(pixels((tmp_path / "anchors.png").read_bytes()), image)


def test_every_level_has_its_colour(people):
    memory = BytesIO()
    plot_anchors(people, [[[10.0, 20.0]], [[100.0, 200.0]], [[300.0, 300.0]]], memory)
    image = pixels(memory.getvalue())[:, :, ::-1]
    for colour in ((0, 0x72, 0xB2), (0xD5, 0x5E, 0), (0, 0x9E, 0x73)):
        assert (np.abs(image.astype(int) - colour).max(axis=2) < 3).sum() > 100


@pytest.mark.parametrize("wh", [[[10, 10]], [[0.5, 1000], [2000, 3]]])
def test_one_box_and_boxes_far_apart_can_be_drawn(wh):
    memory = BytesIO()
    plot_anchors(wh, [[10, 10]], memory)
    assert pixels(memory.getvalue()) is not None


def test_nothing_to_draw_is_refused():
    with pytest.raises(AnchorError, match="there are no boxes to draw"):
        plot_anchors([], [[10, 10]], BytesIO())


def test_labels_of_crowded_markers_do_not_cover_each_other():
    points = np.array([[200.0 + 6 * i, 200.0 + 9 * (i % 3)] for i in range(9)])
    places = _place_labels(points, [45.0] * 9)
    boxes = [
        (x + dx, y + dy - 7, x + dx + 45, y + dy + 7) for (x, y), (dx, dy) in zip(points, places, strict=True)
    ]
    assert max(_overlap(one, other) for one, other in combinations(boxes, 2)) < 100


def test_an_unknown_name_of_the_room_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'plott'"):
        _ = anchors.plott
