import cv2
import numpy as np
import pytest

from dataset import load
from model.suppression import Suppression
from trainer import Hyperparameters, TrainConfig, TrainError, train
from trainer.checkpoint import load as load_checkpoint
from trainer.checkpoint import save
from trainer.predict import Measuring, class_colour, draw, load_detector, predict, validate
from trainer.prepare import cpu_threads

ALL = Suppression(confidence=0.0)
BOX = np.array([[20, 30, 60, 80, 0.87, 1]], np.float32)


@pytest.fixture(scope="module")
def trained(tiny_dataset, tmp_path_factory):
    out = tmp_path_factory.mktemp("predict") / "out"
    settings = {"data": str(tiny_dataset), "model": "yolov5n", "out": out, "anchors": "keep", "threads": 1}
    hyp = Hyperparameters(mosaic=0)
    return train(TrainConfig(**settings, epochs=2, batch_size=8, image_size=96, optimizer="adamw", hyp=hyp))


def test_a_checkpoint_is_read_as_detector_names_and_size(trained):
    detector, names, image_size = load_detector(trained.best)
    assert (names, image_size) == (("red", "green", "blue"), 96)
    assert not detector.training
    np.testing.assert_array_equal(detector.anchors.numpy(), np.float32(trained.anchors))


def test_a_checkpoint_that_lacks_a_part_is_refused_in_one_line(trained, tmp_path):
    state = load_checkpoint(trained.best)
    del state["ema"]["weights"]["model.0.conv.weight"]
    save(tmp_path / "part.pt", state)
    with pytest.raises(TrainError, match=r"part\.pt is not a whole checkpoint") as caught:
        load_detector(tmp_path / "part.pt")
    assert "\n" not in str(caught.value)


def test_validation_repeats_the_figures_of_the_training(trained, tiny_dataset):
    steps = []
    # As in the training: sums in another order move the last digits of a detector that has hardly learnt.
    with cpu_threads(1):
        measured = validate(
            trained.best, tiny_dataset, how=Measuring(batch_size=8), progress=lambda *step: steps.append(step)
        )
    for key in ("fitness", "map50", "map50_95", "precision", "recall"):
        assert measured[key] == pytest.approx(trained.metrics[key], abs=1e-9), key
    assert [row["name"] for row in measured["classes"]] == ["red", "green", "blue"]
    assert (measured["split"], measured["images"], measured["image_size"]) == ("val", 8, 96)
    assert steps == [("evaluate", 8, 8)]


def test_validation_on_a_split_or_classes_that_are_not_there_is_refused(trained, tiny_dataset):
    with pytest.raises(TrainError, match="split must be one of train, val, but got 'test'"):
        validate(trained.best, tiny_dataset, "test")
    with pytest.raises(TrainError, match="knows the classes red, green, blue, but digits has zero, one"):
        validate(trained.best, "digits")


def test_predictions_lie_in_their_images_by_falling_confidence(trained, tiny_dataset):
    images = load(tiny_dataset).val.images
    found = list(predict(trained.best, images, suppression=ALL))
    assert len(found) == len(images)
    for path, boxes in zip(images, found, strict=True):
        height, width = cv2.imread(str(path)).shape[:2]
        assert boxes.shape[1] == 6
        assert len(boxes)
        assert boxes[:, :4].min() >= 0
        assert (boxes[:, [0, 2]] <= width).all()
        assert (boxes[:, [1, 3]] <= height).all()
        assert (np.diff(boxes[:, 4]) <= 0).all()


def test_an_array_is_predicted_as_its_file_is(trained, tiny_dataset):
    loaded = load_detector(trained.best)
    path = load(tiny_dataset).val.images[0]
    (from_file,) = predict(loaded, [path], suppression=ALL)
    (from_array,) = predict(loaded, [cv2.imread(str(path))], suppression=ALL)
    np.testing.assert_array_equal(from_file, from_array)


def test_no_images_give_no_predictions_and_a_high_bar_no_boxes(trained, tiny_dataset):
    assert list(predict(trained.best, [])) == []
    (boxes,) = predict(
        trained.best, load(tiny_dataset).val.images[:1], suppression=Suppression(confidence=1.0)
    )
    assert boxes.shape == (0, 6)


@pytest.mark.parametrize(
    "image", [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3)), np.zeros((0, 4, 3), np.uint8)]
)
def test_what_is_no_image_is_refused(trained, image):
    with pytest.raises(TrainError, match="an image must be uint8"):
        next(predict(trained.best, [image]))


def test_an_image_file_that_is_none_is_named(trained, tmp_path):
    (tmp_path / "note.png").write_text("no picture")
    with pytest.raises(TrainError, match=r"note\.png"):
        next(predict(trained.best, [tmp_path / "note.png"]))


def test_a_box_is_drawn_around_its_object_in_the_colour_of_its_class():
    image = np.full((100, 100, 3), 128, np.uint8)
    drawn = draw(image, BOX, ("cat", "dog"))
    assert (image == 128).all(), "the given image must not be edited"
    assert drawn.shape == image.shape
    for x, y in ((20, 60), (60, 60), (40, 80)):
        assert tuple(int(v) for v in drawn[y, x]) == class_colour(1)
    assert (drawn[60, 40] == 128).all()


def test_a_label_is_drawn_inside_the_picture_wherever_the_box_is():
    image = np.full((100, 200, 3), 128, np.uint8)
    for left, top in ((0, 0), (150, 0), (190, 50), (-20, -20)):
        box = np.array([[left, top, left + 30, top + 40, 0.5, 0]], np.float32)
        plain = draw(image, box, ("",))
        assert (draw(image, box, ("a long class name",)) != plain).any()


def test_drawing_nothing_changes_nothing():
    image = np.full((10, 10, 3), 7, np.uint8)
    np.testing.assert_array_equal(draw(image, np.zeros((0, 6), np.float32), ()), image)


def test_eighty_classes_have_eighty_colours():
    assert len({class_colour(label) for label in range(80)}) == 80
