"""Trainings by way of each data setting: they run, are resumed bit for bit, and say what went wrong on the way."""

import dataclasses
import shutil

import pytest
import torch

from trainer import Hyperparameters, TrainConfig, train
from trainer.checkpoint import load as load_checkpoint

SETTINGS = [
    {"pipeline": "device"},
    {"multi_scale": True, "cache": "disk"},
    {"rect": True, "cache": "off", "multi_scale": True},
]


class StopError(Exception):
    """What a report raises to interrupt a training."""


def stop(*_):
    raise StopError


@pytest.fixture
def config(tiny_dataset, tmp_path, monkeypatch):
    monkeypatch.setenv("BEAGLE_CACHE", str(tmp_path / "cache"))
    hyp = Hyperparameters(mixup=0.2, cutmix=0.5, copy_paste=0.5, hide_and_seek=0.5)
    settings = {"data": str(tiny_dataset), "model": "yolov5n", "out": tmp_path / "out", "hyp": hyp}
    return TrainConfig(**settings, epochs=2, batch_size=8, image_size=64, anchors="keep", threads=1)


@pytest.mark.parametrize("settings", SETTINGS)
def test_a_resumed_training_equals_an_unbroken_one_bit_for_bit(config, tmp_path, settings):
    config = dataclasses.replace(config, **settings)
    whole = train(config)
    broken = dataclasses.replace(config, out=tmp_path / "broken")
    with pytest.raises(StopError):
        train(broken, report=stop)
    resumed = train(dataclasses.replace(broken, resume=True))
    first, second = (load_checkpoint(result.last)["weights"] for result in (whole, resumed))
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_an_image_that_is_deleted_while_a_training_runs_is_a_note_of_its_result(
    config, tiny_dataset, tmp_path
):
    root = shutil.copytree(tiny_dataset.parent, tmp_path / "own")
    (root / "data.yaml").write_text(tiny_dataset.read_text().replace(str(tiny_dataset.parent), str(root)))

    def delete(epoch, _):
        if epoch == 0:
            (root / "images" / "train" / "03.png").unlink()
            (root / "images" / "val" / "05.png").unlink()

    result = train(dataclasses.replace(config, data=str(root / "data.yaml"), cache="off"), report=delete)
    assert result.status == "finished"
    said = " / ".join(result.notes)
    assert "1 of 16 train images became unusable, other images took their places; such as" in said
    assert "1 of 8 val images became unusable, their objects count as missed; such as" in said
    assert load_checkpoint(result.last)["notes"] == list(result.notes)
