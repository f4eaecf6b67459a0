"""A model's options and the choice of the loss, in a training."""

from pathlib import Path

import pytest
import torch

from model import build
from model.dropblock import DropBlock
from trainer import TrainConfig, train
from trainer.config import TrainError
from trainer.prepare import build_loss

OPTIONS = "attention=se&dropblock=0.2&norm=cmbn&activation=mish&anchors=yolov4-csp"


def config_of(data: Path, out: Path, **changes: object) -> TrainConfig:
    plain = {"epochs": 2, "batch_size": 8, "nominal_batch": 16, "image_size": 64, "anchors": "keep"}
    model = f"yolov5n?{OPTIONS}"
    return TrainConfig.from_dict({"data": data, "model": model, "out": out, **plain, **changes})


def test_a_model_with_every_option_is_trained_and_resumed_to_the_same_bits(
    tiny_dataset: Path, tmp_path: Path
) -> None:
    choices = {"loss": "scaled-yolov4", "box_loss": "giou", "assignment": "iou", "threads": 1}
    whole = train(config_of(tiny_dataset, tmp_path / "whole", **choices))
    assert whole.status == "finished"

    class StopError(Exception):
        pass

    def stop(epoch: int, metrics: dict[str, float]) -> None:
        raise StopError

    broken = config_of(tiny_dataset, tmp_path / "broken", **choices)
    with pytest.raises(StopError):
        train(broken, report=stop)
    resumed = train(config_of(tiny_dataset, tmp_path / "broken", resume=True, **choices))
    assert [row["box_loss"] for row in resumed.history] == [row["box_loss"] for row in whole.history]
    state = torch.load(whole.last, weights_only=True)
    detector = build(state["spec"])
    detector.load_state_dict(state["weights"])
    assert (detector.spec.options.attention, detector.spec.options.norm) == ("se", "cmbn")
    assert any(isinstance(module, DropBlock) for module in detector.modules())


@pytest.mark.parametrize(
    ("model", "asked", "scheme"),
    [
        ("yolov5n", "auto", "yolov5"),
        ("yolov5n", "scaled-yolov4", "scaled-yolov4"),
        ("yolov4-csp", "auto", "scaled-yolov4"),
        ("yolov4-csp", "yolov5", "yolov5"),
        ("yolov5n?loss=scaled-yolov4", "auto", "scaled-yolov4"),
    ],
)
def test_the_loss_is_the_familys_unless_one_is_asked_for(
    tmp_path: Path, model: str, asked: str, scheme: str
) -> None:
    config = TrainConfig(data="digits", model=model, out=tmp_path, loss=asked, box_loss="diou")
    with torch.device("meta"):
        detector = build(model, classes=2)
    detector.head.anchors = torch.tensor(detector.spec.anchors)
    gains = build_loss(detector, config, 640).gains
    assert (gains.scheme, gains.box_loss, gains.assignment) == (scheme, "diou", "ratio")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"loss": "yolov4"}, "loss must be one of auto, yolov5, scaled-yolov4, but got 'yolov4'"),
        ({"box_loss": "siou"}, "box_loss must be one of ciou, diou, giou, iou, but got 'siou'"),
        ({"assignment": "atss"}, "assignment must be one of ratio, iou, but got 'atss'"),
    ],
)
def test_unknown_choices_are_refused(tmp_path: Path, changes: dict[str, str], message: str) -> None:
    with pytest.raises(TrainError, match=message):
        TrainConfig(data="digits", model="yolov5n", out=tmp_path, **changes)
