"""The loader: the same samples for the same seed, batches that map back to their images, errors that name a file."""

import pickle
import re
import shutil
import sys
import time

import cv2
import numpy as np
import pytest
import torch

from dataset import Split, load
from trainer.config import Hyperparameters, TrainError
from trainer.loader import build_loader, collate
from trainer.plan import Draw
from trainer.samples import DetectionSet

SIZE = 64
PLAIN_COLOURS = Hyperparameters(hsv_h=0, hsv_s=0, hsv_v=0, mosaic=0.7)
linux = pytest.mark.skipif(
    sys.platform != "linux", reason="workers are forked, and share the cache, on Linux only"
)


@pytest.fixture(scope="module")
def data(tiny_dataset):
    return load(tiny_dataset, cache=False)


@pytest.fixture
def own_split(data, tmp_path):
    """The training split with image files of its own, to be spoilt."""
    files = []
    for path in data.train.images:
        files.append(tmp_path / path.name)
        shutil.copy(path, files[-1])
    return Split("train", tuple(files), data.train.sizes, data.train.labels)


def training(split, **changes):
    return DetectionSet(split, SIZE, Hyperparameters(mixup=0.5, degrees=5), True, 3, **changes)


def evaluation(split, **changes):
    return DetectionSet(split, SIZE, Hyperparameters(), False, **changes)


def passes(samples, epochs, **how):
    loader = build_loader(samples, 4, shuffle=True, seed=5, **how)
    batches = []
    for epoch in epochs:
        loader.set_epoch(epoch)
        batches += list(loader)
    return batches


def same(first, second):
    return all(torch.equal(first[key], second[key]) for key in ("images", "targets", "indices", "sizes"))


def error_of(loader):
    """The text of the TrainError of a pass. pytest.raises would keep frames, and so the workers, alive."""
    try:
        list(loader)
    except TrainError as error:
        return str(error)
    pytest.fail("no TrainError was raised")


class TestReproducibility:
    @linux
    @pytest.mark.parametrize("workers", [1, 2])
    def test_samples_are_the_same_whatever_the_number_of_workers(self, data, workers):
        here = passes(training(data.train), (0, 1), workers=0)
        there = passes(training(data.train), (0, 1), workers=workers)
        assert len(here) == len(there) == 8
        assert all(same(*pair) for pair in zip(here, there, strict=True))

    def test_a_resumed_training_sees_what_an_unbroken_one_sees(self, data):
        unbroken = passes(training(data.train), (0, 1, 2), workers=0)
        resumed = passes(training(data.train), (2,), workers=0)
        assert all(same(*pair) for pair in zip(unbroken[8:], resumed, strict=True))

    def test_each_epoch_has_its_own_order_and_augmentation(self, data):
        first, second = (passes(training(data.train), (epoch,), workers=0) for epoch in (0, 1))
        assert not torch.equal(
            torch.cat([batch["indices"] for batch in first]),
            torch.cat([batch["indices"] for batch in second]),
        )
        samples = training(data.train)
        before = samples[4].image
        samples.epoch = 1
        assert not np.array_equal(before, samples[4].image)
        samples.epoch = 0
        assert np.array_equal(before, samples[4].image)

    def test_another_seed_gives_another_sample(self, data):
        hyp = Hyperparameters()
        one, two = (DetectionSet(data.train, SIZE, hyp, True, seed)[0] for seed in (1, 2))
        assert not np.array_equal(one.image, two.image)

    @linux
    def test_no_global_generator_is_touched(self, data):
        torch_state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002 (this is it)
        for workers in (0, 1):
            passes(training(data.train), (0,), workers=workers)
        assert torch.equal(torch_state, torch.get_rng_state())
        assert np.array_equal(numpy_state, np.random.get_state()[1])  # noqa: NPY002

    @pytest.mark.parametrize("workers", [0, pytest.param(1, marks=linux)])
    def test_a_pass_that_is_left_early_leaves_the_next_one_whole(self, data, workers):
        loader = build_loader(training(data.train), 4, shuffle=True, workers=workers, seed=5)
        for _ in loader:
            break
        loader.set_epoch(1)
        whole = passes(training(data.train), (1,), workers=0)
        assert all(same(*pair) for pair in zip(loader, whole, strict=True))


class TestSamples:
    def test_a_letterboxed_batch_leads_back_to_the_labels(self, data):
        for batch in build_loader(evaluation(data.val), 3, shuffle=False, workers=0, seed=0):
            height, width = batch["images"].shape[2:]
            for place, index in enumerate(batch["indices"].tolist()):
                rows = batch["targets"][batch["targets"][:, 0] == place].double()
                centre = (rows[:, 2:4] * torch.tensor([width, height]) - batch["pad"][place]) / batch[
                    "ratio"
                ][place]
                wh = rows[:, 4:6] * torch.tensor([width, height]) / batch["ratio"][place]
                original = batch["sizes"][place].flip(0)
                assert original.tolist() == data.val.sizes[index].tolist()
                back = torch.cat([rows[:, 1:2], centre / original, wh / original], dim=1)
                np.testing.assert_allclose(back, data.val.labels[index], atol=1e-5)

    def test_the_longer_side_fills_the_letterbox_and_the_rest_is_grey(self, data):
        samples = evaluation(data.val)
        for index in range(len(samples)):
            sample = samples[index]
            width, height = (int(side) for side in data.val.sizes[index])
            left, top = (int(side) for side in sample.pad)
            assert sample.image.shape == (3, SIZE, SIZE)
            assert round(max(sample.ratio[0] * width, sample.ratio[1] * height)) == SIZE
            assert (sample.image[:, :top] == 114).all()
            assert (sample.image[:, :, :left] == 114).all()
            assert not (sample.image[:, top : SIZE - top, left : SIZE - left] == 114).all()

    def test_colours_come_as_rgb_and_boxes_sit_on_their_rectangles(self, data):
        samples = DetectionSet(data.train, 96, PLAIN_COLOURS, True, 1)
        checked = 0
        for epoch in range(5):
            samples.epoch = epoch
            for index in range(len(samples)):
                sample = samples[index]
                for label, x, y, _, _ in sample.labels.tolist():
                    pixel = sample.image[:, int(y * 96), int(x * 96)]
                    assert pixel.argmax() == label
                    checked += 1
        assert checked > 100

    def test_letterboxed_boxes_hold_only_their_colour(self, data):
        samples = evaluation(data.val)
        for index in range(len(samples)):
            sample = samples[index]
            for label, x, y, w, h in sample.labels:
                x1, y1, x2, y2 = (
                    (np.array([x - w / 2, y - h / 2, x + w / 2, y + h / 2]) * SIZE).round().astype(int)
                )
                inside = sample.image[:, y1 + 1 : y2 - 1, x1 + 1 : x2 - 1].reshape(3, -1)
                assert (inside.argmax(axis=0) == label).all()

    def test_targets_are_shares_of_the_picture(self, data):
        for batch in passes(training(data.train), range(3), workers=0):
            targets = batch["targets"]
            assert targets.shape[1] == 6
            assert targets.dtype == torch.float32
            low, high = targets[:, 2:4] - targets[:, 4:6] / 2, targets[:, 2:4] + targets[:, 4:6] / 2
            assert low.min() >= -1e-6
            assert high.max() <= 1 + 1e-6
            assert set(targets[:, 0].tolist()) <= {0, 1, 2, 3}
            assert torch.isnan(batch["ratio"]).all()
            assert batch["images"].dtype == torch.uint8
            assert batch["images"].is_contiguous()

    def test_without_mosaic_an_image_is_letterboxed(self, data):
        hyp = Hyperparameters(mosaic=0, translate=0, scale=0, fliplr=0, hsv_h=0, hsv_s=0, hsv_v=0)
        plain = DetectionSet(data.train, 96, hyp, True)
        letterboxed = DetectionSet(data.train, 96, hyp, False)
        for index in range(4):  # of the sizes of the data set only 96 x 72 and 64 x 96 are not resized
            if max(data.train.sizes[index]) == 96:
                assert np.array_equal(plain[index].image, letterboxed[index].image)
            np.testing.assert_allclose(plain[index].labels, letterboxed[index].labels, atol=1e-6)

    def test_a_split_without_any_box_trains(self, data):
        nothing = tuple(np.zeros((0, 5), np.float32) for _ in data.train.labels)
        bare = Split("train", data.train.images, data.train.sizes, nothing)
        for batch in passes(training(bare), (0,), workers=0):
            assert batch["targets"].shape == (0, 6)

    def test_a_split_of_one_image_trains(self, data):
        one = Split("train", data.train.images[:1], data.train.sizes[:1], data.train.labels[:1])
        (batch,) = passes(training(one), (0,), workers=0)
        assert batch["images"].shape == (1, 3, SIZE, SIZE)


class TestOrder:
    @pytest.mark.parametrize(("drop_last", "counts"), [(False, [5, 5, 5, 1]), (True, [5, 5, 5])])
    def test_every_image_comes_once_unless_the_rest_is_dropped(self, data, drop_last, counts):
        loader = build_loader(evaluation(data.train), 5, shuffle=True, workers=0, seed=1, drop_last=drop_last)
        batches = [batch["indices"].tolist() for batch in loader]
        assert [len(batch) for batch in batches] == counts
        assert len(loader) == len(counts)
        seen = [index for batch in batches for index in batch]
        assert len(set(seen)) == len(seen)
        assert seen != sorted(seen)

    def test_unshuffled_is_the_order_of_the_split(self, data):
        loader = build_loader(evaluation(data.val), 3, shuffle=False, workers=0, seed=1)
        assert torch.cat([batch["indices"] for batch in loader]).tolist() == list(range(8))


class TestRectangles:
    def test_batches_are_sorted_by_aspect_and_have_their_least_shape(self, data):
        loader = build_loader(evaluation(data.val), 2, shuffle=False, workers=0, seed=0, rect=True)
        shapes, indices = [], []
        for batch in loader:
            shapes.append(tuple(batch["images"].shape[2:]))
            indices += batch["indices"].tolist()
        aspects = data.val.sizes[indices, 1] / data.val.sizes[indices, 0]
        assert (np.diff(aspects) >= 0).all()
        assert sorted(indices) == list(range(8))
        # 128x64, 96x72, 80x80 and 64x96, with half a stride added before rounding up
        assert shapes == [(64, 96), (64, 96), (96, 96), (96, 64)]

    def test_rectangles_are_refused_together_with_mosaics(self, data):
        with pytest.raises(TrainError, match="exclude mosaics: mosaic must be 0, but is 1"):
            build_loader(training(data.train), 4, shuffle=True, workers=0, seed=0, rect=True)

    def test_training_shuffles_rectangular_batches_and_keeps_what_is_in_them(self, data):
        samples = DetectionSet(data.train, SIZE, Hyperparameters(mosaic=0), True)
        loader = build_loader(samples, 4, shuffle=True, workers=0, seed=2, rect=True)
        epochs = []
        for epoch in range(3):
            loader.set_epoch(epoch)
            epochs.append([(tuple(b["images"].shape[2:]), tuple(b["indices"].tolist())) for b in loader])
        assert epochs[0] != epochs[1]
        assert sorted(epochs[0]) == sorted(epochs[1]) == sorted(epochs[2])
        assert {shape for shape, _ in epochs[0]} == {(32, 64), (64, 64)}  # of 128x64, and of all others

    def test_boxes_of_rectangular_training_sit_on_their_colours(self, data):
        hyp = Hyperparameters(mosaic=0, hsv_h=0, hsv_s=0, hsv_v=0, scale=0.2)
        samples = DetectionSet(data.train, 96, hyp, True)
        checked = 0
        for batch in build_loader(samples, 4, shuffle=True, workers=0, seed=2, rect=True):
            height, width = batch["images"].shape[2:]
            for place, label, x, y, _, _ in batch["targets"].tolist():
                pixel = batch["images"][int(place), :, int(y * height), int(x * width)]
                assert pixel.argmax() == label
                checked += 1
        assert checked > 15


@pytest.fixture(params=["remove", "truncate", "garbage", "resize"])
def spoil(request):
    """What may happen to an image file while a training runs."""

    def damage(path):
        if request.param == "remove":
            path.unlink()
        elif request.param == "truncate":
            path.write_bytes(path.read_bytes()[:200])
        elif request.param == "garbage":
            path.write_bytes(b"no image at all")
        else:
            cv2.imwrite(str(path), np.zeros((7, 9, 3), np.uint8))

    return damage


class TestFaults:
    @pytest.mark.parametrize("workers", [0, pytest.param(2, marks=linux)])
    def test_another_image_stands_in_for_one_that_went_bad(self, own_split, workers, spoil, caplog):
        spoil(own_split.images[6])
        samples = DetectionSet(own_split, SIZE, PLAIN_COLOURS, True, 3, cache="off")
        loader = build_loader(samples, 4, shuffle=True, workers=workers, seed=0)
        for epoch in range(2):
            loader.set_epoch(epoch)
            assert sum(len(batch["indices"]) for batch in loader) == 16
        (note,) = loader.notes()
        assert re.search(
            r"1 of 16 train images became unusable, other images took their places.*06\.png: ", note
        )
        assert "\n" not in note
        assert [r.message for r in caplog.records if "06.png" in r.message] == [
            r.message for r in caplog.records
        ]
        assert len(caplog.records) == 1  # once, not once an epoch or a worker

    @linux
    def test_samples_with_a_stand_in_are_the_same_whatever_the_number_of_workers(self, own_split):
        own_split.images[3].unlink()
        passed = []
        for workers in (0, 2):
            samples = DetectionSet(own_split, SIZE, PLAIN_COLOURS, True, 3, cache="off")
            passed.append(passes(samples, (0, 1), workers=workers))
        assert all(same(*pair) for pair in zip(*passed, strict=True))
        whole = [batch["indices"].tolist() for batch in passed[0]]
        assert sorted(index for batch in whole[:4] for index in batch) == list(range(16))

    @pytest.mark.parametrize("workers", [0, pytest.param(1, marks=linux)])
    def test_a_bad_image_is_grey_in_an_evaluation_and_its_objects_count_as_missed(
        self, own_split, workers, spoil
    ):
        spoil(own_split.images[6])
        loader = build_loader(evaluation(own_split, cache="off"), 4, shuffle=False, workers=workers, seed=0)
        batch = list(loader)[1]
        assert (batch["images"][2] == 114).all()
        assert not (batch["targets"][:, 0] == 2).any()
        assert not (batch["images"][1] == 114).all()
        assert "its objects count as missed" not in loader.notes()[0]
        assert "their objects count as missed; such as" in loader.notes()[0]

    @pytest.mark.parametrize("augment", [True, False])
    @pytest.mark.parametrize("workers", [0, pytest.param(1, marks=linux)])
    def test_a_disk_that_is_gone_ends_the_run_in_one_line(self, own_split, workers, augment):
        for path in own_split.images[:4]:
            path.unlink()
        samples = DetectionSet(own_split, SIZE, PLAIN_COLOURS, augment, cache="off")
        message = error_of(build_loader(samples, 4, shuffle=False, workers=workers, seed=0))
        assert re.search(r"of 16 images can't be used any more .*0\d\.png: the image can't be read", message)
        assert "\n" not in message

    def test_the_only_image_of_a_split_has_no_stand_in(self, own_split):
        one = Split("train", own_split.images[:1], own_split.sizes[:1], own_split.labels[:1])
        one.images[0].unlink()
        with pytest.raises(TrainError, match="1 of 1 images can't be used any more"):
            training(one, cache="off")[0]

    def test_labels_that_change_under_a_training_are_those_of_the_next_run(self, tiny_dataset, tmp_path):
        root = shutil.copytree(tiny_dataset.parent, tmp_path / "own")
        (root / "data.yaml").write_text(tiny_dataset.read_text().replace(str(tiny_dataset.parent), str(root)))
        samples = training(load(root / "data.yaml", cache=False).train, cache="off")
        before = [samples[index] for index in range(4)]
        for path in (root / "labels" / "train").iterdir():
            path.write_text("0 0.5 0.5 1 1\n")
        assert all(np.array_equal(samples[index].labels, before[index].labels) for index in range(4))
        after = load(root / "data.yaml", cache=False).train.labels
        assert all(rows.tolist() == [[0, 0.5, 0.5, 1, 1]] for rows in after)

    @linux
    def test_workers_end_at_once_after_an_error(self, own_split):
        for path in own_split.images:
            path.unlink()
        loader = build_loader(evaluation(own_split), 4, shuffle=False, workers=1, seed=0)
        assert "can't be used" in error_of(loader)
        start = time.monotonic()
        del loader
        assert time.monotonic() - start < 4

    def test_a_split_without_images_is_refused(self):
        nothing = Split("train", (), np.zeros((0, 2), np.int32), ())
        with pytest.raises(TrainError, match="must have images"):
            evaluation(nothing)

    @pytest.mark.parametrize("size", [0, 16, 65])
    def test_a_size_that_is_no_multiple_of_the_stride_is_refused(self, data, size):
        with pytest.raises(TrainError, match=f"multiple of 32, but got {size}"):
            DetectionSet(data.train, size, Hyperparameters(), True)

    def test_a_negative_seed_is_refused(self, data):
        with pytest.raises(TrainError, match="at least 0, but got -1"):
            DetectionSet(data.train, SIZE, Hyperparameters(), True, -1)

    @pytest.mark.parametrize("how", [{"batch_size": 0}, {"workers": -1}, {"seed": -1}])
    def test_numbers_that_are_too_small_are_refused(self, data, how):
        settings = {"batch_size": 4, "workers": 0, "seed": 0} | how
        with pytest.raises(TrainError, match="must hold, but got"):
            build_loader(evaluation(data.train), settings.pop("batch_size"), shuffle=False, **settings)


class TestCache:
    @linux
    def test_what_a_worker_has_read_every_process_has(self, own_split):
        loader = build_loader(evaluation(own_split), 4, shuffle=False, workers=2, seed=0)
        first = list(loader)
        for path in own_split.images:
            path.unlink()
        assert all(same(*pair) for pair in zip(first, loader, strict=True))
        assert loader.samples[3].image.shape == (3, SIZE, SIZE)  # in this process too

    def test_a_pickled_set_is_the_same_set_with_the_same_cache(self, own_split):
        samples = training(own_split)
        before = samples[2].image
        copy = pickle.loads(pickle.dumps(samples))  # noqa: S301 (our own bytes)
        assert copy.images.cache.get(2) is not None  # the same file, mapped again
        assert np.array_equal(before, copy[2].image)


def test_collate_numbers_the_targets_by_image(data):
    samples = evaluation(data.val)
    batch = collate([samples.sample(Draw(index, 0, (SIZE, SIZE))) for index in (6, 2)])
    assert batch["indices"].tolist() == [6, 2]
    counts = [int((batch["targets"][:, 0] == place).sum()) for place in (0, 1)]
    assert counts == [len(data.val.labels[6]), len(data.val.labels[2])]
    assert batch["sizes"].tolist() == data.val.sizes[[6, 2], ::-1].tolist()
