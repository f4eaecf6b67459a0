"""The device pipeline, on CPU tensors: the same boxes as the CPU pipeline's, the same px but for rounding."""

import dataclasses
import re

import cv2
import numpy as np
import pytest
import torch

from dataset import Split, load
from trainer import device_pipeline, prepare
from trainer.augment import shift_colour
from trainer.config import Hyperparameters, TrainConfig, TrainError
from trainer.cook_on_device import shift_colour as shift_on_device
from trainer.device_pipeline import DeviceLoader, choose_pipeline
from trainer.loader import Loader, build_plan
from trainer.samples import DetectionSet

SIZE = 64
CPU = torch.device("cpu")
EVERYTHING = Hyperparameters(
    mosaic=0.7,
    mixup=0.4,
    cutmix=0.3,
    copy_paste=0.5,
    erasing=0.3,
    gridmask=0.2,
    degrees=5,
    perspective=0.0005,
    flipud=0.5,
)


@pytest.fixture(scope="module")
def data(tiny_dataset):
    return load(tiny_dataset, cache=False)


def both(split, hyp, *, workers=0, batch=4, **how):
    """A loader of each pipeline."""
    sets = [DetectionSet(split, SIZE, hyp, True, 3) for _ in range(2)]
    plans = [build_plan(samples, batch, shuffle=True, seed=5, **how) for samples in sets]
    return Loader(sets[0], plans[0], 0), DeviceLoader(sets[1], plans[1], workers, CPU)


def batches(loader, epochs):
    found = []
    for epoch in epochs:
        loader.set_epoch(epoch)
        found += list(loader)
    return found


@pytest.mark.parametrize("how", [{}, {"multi_scale": True}, {"rect": True}])
def test_batches_are_those_of_the_cpu_pipeline(data, how):
    hyp = dataclasses.replace(EVERYTHING, mosaic=0.0) if "rect" in how else EVERYTHING
    off = []
    for ours, theirs in zip(
        *(batches(loader, range(3)) for loader in both(data.train, hyp, **how)), strict=True
    ):
        for name in ("targets", "indices", "sizes"):
            assert torch.equal(ours[name], theirs[name])
            assert ours[name].dtype == theirs[name].dtype
        assert ours["images"].shape == theirs["images"].shape
        assert theirs["images"].dtype == torch.uint8
        assert torch.isnan(theirs["ratio"]).all()
        off.append((ours["images"].float() - theirs["images"].float()).abs().flatten())
    off = torch.cat(off)
    assert off.mean() < 3  # OpenCV rounds hue to 2 degrees and places to 1/32 px, on noise
    assert (off > 40).float().mean() < 0.01  # seams


def test_boxes_and_px_have_the_same_distribution_over_many_pictures(data):
    found = []
    for loader in both(data.train, Hyperparameters(), batch=8):
        passes = batches(loader, range(20))
        targets = torch.cat([batch["targets"] for batch in passes])
        images = torch.cat([batch["images"].float() for batch in passes])
        area = targets[:, 4] * targets[:, 5]
        shape = [
            len(targets) / len(images),
            area.mean(),
            area.std(),
            *targets[:, 2:4].mean(0),
            *targets[:, 2:4].std(0),
        ]
        found.append((torch.tensor(shape), images.mean((0, 2, 3)), images.std((0, 2, 3))))
    (boxes, mean, spread), (other_boxes, other_mean, other_spread) = found
    torch.testing.assert_close(boxes, other_boxes)
    torch.testing.assert_close(mean, other_mean, atol=1.0, rtol=0)
    torch.testing.assert_close(spread, other_spread, atol=1.5, rtol=0)


def test_batches_are_the_same_whatever_the_workers_and_after_a_resume(data):
    _, here = both(data.train, EVERYTHING)
    _, there = both(data.train, EVERYTHING, workers=2)
    _, resumed = both(data.train, EVERYTHING)
    first, second, last = batches(here, (0, 1)), batches(there, (0, 1)), batches(resumed, (1,))
    for one, other in [*zip(first, second, strict=True), *zip(first[4:], last, strict=True)]:
        assert torch.equal(one["images"], other["images"])
        assert torch.equal(one["targets"], other["targets"])


def test_large_batches_are_made_in_pieces_that_change_nothing(data, monkeypatch):
    _, loader = both(data.train, EVERYTHING, batch=16)
    whole = batches(loader, (0,))[0]
    monkeypatch.setattr(device_pipeline, "CHUNK", 5)
    _, loader = both(data.train, EVERYTHING, batch=16)
    pieces = batches(loader, (0,))[0]
    assert torch.equal(whole["images"], pieces["images"])


@pytest.mark.parametrize("factors", [(1.0, 1.0, 1.0), (1.015, 0.4, 1.3), (0.9, 1.7, 0.6), (1.0, 0.0, 1.0)])
def test_colours_shift_as_on_the_cpu(factors):
    rng = np.random.default_rng(1)
    image = rng.integers(0, 256, (40, 40, 3), dtype=np.uint8)
    expected = shift_colour(image, factors)[:, :, ::-1].astype(float)
    rgb = torch.from_numpy(image[:, :, ::-1].copy()).permute(2, 0, 1).float()[None]
    found = shift_on_device(rgb, torch.tensor([factors]))[0].permute(1, 2, 0).numpy()
    off = np.abs(found - expected)
    assert off.mean() < 3
    assert np.quantile(off, 0.99) < 12  # hue in steps of 2 degrees


def test_black_grey_and_white_have_no_hue_to_shift():
    greys = torch.tensor([0.0, 114.0, 255.0]).repeat(3, 1)[None, :, :, None]
    shifted = shift_on_device(greys, torch.tensor([[1.1, 1.5, 1.0]]))
    torch.testing.assert_close(shifted, greys)


class TestFaults:
    def test_another_image_stands_in_for_one_that_went_bad_before_the_start(self, data, tmp_path):
        gone = (tmp_path / "gone.png", *data.train.images[1:])
        split = Split("train", gone, data.train.sizes, data.train.labels)
        ours, theirs = both(split, EVERYTHING)
        for one, other in zip(batches(ours, (0,)), batches(theirs, (0,)), strict=True):
            assert torch.equal(one["targets"], other["targets"])
        assert re.search(r"1 of 16 train images became unusable, other.*gone\.png", theirs.notes()[0])

    def test_a_disk_that_is_gone_is_one_line(self, data, tmp_path):
        gone = tuple(tmp_path / path.name for path in data.train.images)
        split = Split("train", gone, data.train.sizes, data.train.labels)
        with pytest.raises(TrainError, match="of 16 images can't be used any more"):
            both(split, EVERYTHING)

    def test_images_that_go_bad_later_are_not_missed(self, data, tmp_path):
        files = []
        for path in data.train.images:
            files.append(tmp_path / path.name)
            cv2.imwrite(str(files[-1]), cv2.imread(str(path)))
        split = Split("train", tuple(files), data.train.sizes, data.train.labels)
        _, loader = both(split, EVERYTHING)
        for path in files:
            path.unlink()
        assert len(batches(loader, (0,))) == 4
        assert loader.notes() == []


class TestChoice:
    def test_auto_is_the_cpu_without_a_gpu(self, data):
        samples = DetectionSet(data.train, SIZE, Hyperparameters(), True)
        assert not choose_pipeline("auto", samples, CPU).on_device
        assert not choose_pipeline("cpu", samples, CPU).on_device
        chosen = choose_pipeline("device", samples, CPU)
        assert chosen.on_device
        assert "images are augmented on cpu: 0.0 GiB" in chosen.notes[0]

    def test_a_set_that_has_no_room_is_refused(self, data, monkeypatch):
        monkeypatch.setattr(device_pipeline, "free_memory", lambda: 4 * 16 * 3 * SIZE**2 - 1)
        samples = DetectionSet(data.train, SIZE, Hyperparameters(), True)
        with pytest.raises(TrainError, match=r"the device pipeline needs .*choose --pipeline cpu"):
            choose_pipeline("device", samples, CPU)

    def test_nothing_to_augment_is_left_to_the_cpu(self, data):
        samples = DetectionSet(data.train, SIZE, Hyperparameters(), False)
        assert not choose_pipeline("device", samples, CPU).on_device

    def test_a_training_gets_the_loader_that_it_asks_for(self, data, tmp_path):
        config = TrainConfig(data="digits", model="yolov5n", out=tmp_path, batch_size=4, pipeline="device")
        loader, _ = prepare.build_train_loader(config, data.train, SIZE, 32, CPU)
        assert isinstance(loader, DeviceLoader)
        config = dataclasses.replace(config, pipeline="auto", rect=True, multi_scale=True)
        loader, notes = prepare.build_train_loader(config, data.train, SIZE, 32, CPU)
        assert isinstance(loader, Loader)
        assert notes == ["rectangular batches exclude mosaics: trained without"]
        assert {tuple(batch["images"].shape[2:]) for batch in loader} - {(SIZE, SIZE)}
