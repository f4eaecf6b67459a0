import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer import Hyperparameters, TrainConfig, TrainError
from trainer.config import RANGES, anchor_table


def config(**changes):
    return TrainConfig(**{"data": "digits", "model": "yolov5n", "out": Path("somewhere"), **changes})


def test_the_defaults_are_the_published_ones():
    published = {
        "lr0": 0.01,
        "lrf": 0.01,
        "momentum": 0.937,
        "box": 0.05,
        "cls": 0.5,
        "obj": 1.0,
        "mosaic": 1.0,
    }
    defaults = Hyperparameters().to_dict()
    assert {name: defaults[name] for name in published} == published


def test_every_hyperparameter_has_a_range_and_a_default_inside_it():
    defaults = Hyperparameters().to_dict()
    assert set(defaults) == set(RANGES)
    assert all(low <= defaults[name] <= high for name, (low, high) in RANGES.items())


@given(st.data())
def test_hyperparameters_survive_a_round_trip_through_json(data):
    values = {
        name: data.draw(st.integers(low, high) if name == "anchors" else st.floats(low, high), label=name)
        for name, (low, high) in RANGES.items()
    }
    hyp = Hyperparameters.from_dict(values)
    assert Hyperparameters.from_dict(json.loads(json.dumps(hyp.to_dict()))) == hyp


@pytest.mark.parametrize(
    ("wrong", "meant"), [("momentun", "momentum"), ("mossaic", "mosaic"), ("giou", "box"), ("hsvh", "hsv_h")]
)
def test_an_unknown_hyperparameter_is_refused_with_the_nearest_name(wrong, meant):
    with pytest.raises(TrainError, match=f"unknown hyperparameter '{wrong}': did you mean '{meant}'"):
        Hyperparameters.from_dict({wrong: 0.1})


def test_a_name_like_no_other_is_refused_with_all_that_are_known():
    with pytest.raises(TrainError, match="known are lr0, lrf"):
        Hyperparameters.from_dict({"zzzz": 1})


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"lr0": -0.1}, "0 <= lr0 <= 1e\\+06 must hold, but got -0.1"),
        ({"mosaic": 1.5}, "mosaic <= 1"),
        ({"lr0": float("nan")}, "lr0 must be a finite number, but got nan"),
        ({"lr0": "quick"}, "lr0 must be a finite number, but got 'quick'"),
        ({"fliplr": True}, "fliplr must be a finite number, but got True"),
        ({"anchors": 2.5}, "whole number"),
    ],
)
def test_a_hyperparameter_that_means_nothing_is_refused(values, message):
    with pytest.raises(TrainError, match=message):
        Hyperparameters.from_dict(values)


def test_text_that_yaml_did_not_take_for_a_number_is_read_as_one():
    hyp = Hyperparameters.from_dict({"weight_decay": "5e-4", "anchors": 4.0})
    assert (hyp.weight_decay, hyp.anchors) == (0.0005, 4)
    assert isinstance(hyp.anchors, int)


def test_a_configuration_survives_a_round_trip_through_json():
    first = config(
        anchors=np.arange(1.0, 13.0).reshape(2, 3, 2), hyp=Hyperparameters(lr0=0.02), nominal_batch=64
    )
    again = TrainConfig.from_dict(json.loads(json.dumps(first.to_dict())))
    assert again == first
    assert isinstance(again.hyp, Hyperparameters)
    assert again.out == Path("somewhere")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"epochs": 0}, "epochs must be a whole number of at least 1, but got 0"),
        ({"batch_size": 2.0}, "batch_size must be a whole number"),
        ({"seed": -1}, "seed must be a whole number of at least 0"),
        ({"threads": 0}, "threads must be"),
        ({"optimizer": "lion"}, "optimizer must be one of auto, sgd, adamw, adam, rmsprop, but got 'lion'"),
        ({"schedule": "step"}, "schedule must be one of linear, cosine"),
        ({"device": "tpu"}, 'device must be "auto"'),
        ({"anchors": "fit"}, "anchors must be one of auto, keep"),
        ({"anchors": [[1, 2]]}, "anchors must be \\(levels, per level, 2\\)"),
        ({"anchors": [[[1, 2]], [[1, 2], [3, 4]]]}, "same number of anchors, but got \\[1, 2\\]"),
        ({"anchors": [[[1, -2]]]}, "positive px"),
        ({"amp": "yes"}, "amp must be one of auto, off, bf16, fp16, but got 'yes'"),
    ],
)
def test_a_setting_that_cannot_be_is_refused(changes, message):
    with pytest.raises(TrainError, match=message):
        config(**changes)


def test_an_unknown_setting_is_refused_with_the_nearest_name():
    with pytest.raises(TrainError, match="unknown setting 'epoch': did you mean 'epochs'"):
        TrainConfig.from_dict({"data": "digits", "model": "yolov5n", "out": "x", "epoch": 3})


def test_a_missing_setting_is_named():
    with pytest.raises(TrainError, match="needs data, model and out, but model, out is not given"):
        TrainConfig.from_dict({"data": "digits"})


def test_an_empty_anchor_table_is_refused():
    with pytest.raises(TrainError, match="same number of anchors"):
        anchor_table(np.zeros((0, 3, 2)))
