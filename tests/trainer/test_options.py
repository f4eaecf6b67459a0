"""Settings of a training beyond the plain one, each in a training of seconds."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from dataset import load
from model import build
from model.spec import load_spec
from trainer import Hyperparameters, TrainConfig, TrainError, checkpoint, memory, train
from trainer.adversary import attack, is_attacked
from trainer.checkpoint import load as load_checkpoint
from trainer.prepare import build_detector, build_loss, choose_precision, freeze, image_chances, take_fraction
from trainer.run_folder import identity
from trainer.session import early_stop


def rows(*fitness):
    return [{"fitness": value, "seconds": 1.0} for value in fitness]


def test_patience_runs_out_when_no_epoch_was_better_for_so_long():
    assert early_stop(rows(0.1, 0.2, 0.2, 0.1), patience=3) is None
    assert "stopped after epoch 5: none was better than epoch 2 for 3 epochs" in early_stop(
        rows(0.1, 0.2, 0.2, 0.1, 0.2), patience=3
    )
    assert early_stop(rows(0.3, 0.1, 0.1), patience=None) is None
    assert early_stop([], patience=1) is None


def test_a_training_stops_early_says_so_and_is_then_complete(config):
    still = Hyperparameters(lr0=0, warmup_bias_lr=0)
    config = dataclasses.replace(config, epochs=9, patience=1, hyp=still, optimizer="sgd")
    result = train(config)
    assert result.status == "finished"
    assert result.epochs < 9
    assert result.epochs - 1 - result.best_epoch == 1
    assert any("stopped after epoch" in note for note in result.notes)
    assert train(dataclasses.replace(config, resume=True)) == result


def test_the_share_of_the_average_changes_what_is_measured_and_not_the_training(config, tmp_path):
    found = [
        train(dataclasses.replace(config, epochs=2, ema_share=share, out=tmp_path / str(share)))
        for share in (0.0, 0.5)
    ]
    losses = [[row["box_loss"] for row in result.history] for result in found]
    assert losses[0] == losses[1]
    states = [checkpoint.load(result.last)["ema"]["weights"] for result in found]
    assert any(not torch.equal(value, states[1][name]) for name, value in states[0].items())


def test_between_evaluations_the_last_figures_stand(config):
    seen = []
    result = train(
        dataclasses.replace(config, epochs=4, val_every=2, val_fraction=0.5),
        progress=lambda what, done, total: seen.append((what, total)) if done == total else None,
    )
    assert [what for what, _ in seen] == [
        "train",
        "evaluate",
        "train",
        "train",
        "evaluate",
        "train",
        "evaluate",
    ]
    assert {total for what, total in seen if what == "evaluate"} == {4}
    fitness = [row["fitness"] for row in result.history]
    assert fitness[1] == fitness[0]
    assert result.history[1]["box_loss"] != result.history[0]["box_loss"]


def test_a_fraction_of_a_split_is_spread_over_it_and_keeps_what_belongs_together(tiny_dataset):
    split = load(tiny_dataset).train
    part = take_fraction(split, 0.25)
    assert len(part.images) == len(part.labels) == len(part.sizes) == 4
    places = [split.images.index(path) for path in part.images]
    assert places == [0, 5, 10, 15]
    for place, labels, size in zip(places, part.labels, part.sizes, strict=True):
        assert (labels == split.labels[place]).all()
        assert (size == split.sizes[place]).all()
    assert take_fraction(split, 1.0) is split


def test_frozen_layers_keep_weights_and_statistics_and_others_do_not(config):
    result = train(dataclasses.replace(config, freeze=3, epochs=2, optimizer="sgd"))
    first = build_detector(load_spec("yolov5n", classes=3), config.seed).state_dict()
    after = load_checkpoint(result.last)["weights"]
    changed = {name.split(".")[1] for name in first if not torch.equal(first[name], after[name])}
    assert changed.isdisjoint({"0", "1", "2"})
    assert "3" in changed
    assert "3 of 25 layers are frozen" in result.notes


def test_the_predicting_layer_cannot_be_frozen():
    with pytest.raises(TrainError, match="freeze must name layers 0 to 23 of yolov5n, but got 24"):
        freeze(build("yolov5n", classes=3), [24])


def test_images_of_badly_found_and_rare_classes_are_drawn_more_often(tiny_dataset):
    split = load(tiny_dataset).train
    chances = image_chances(split, [1.0, 1.0, 0.0])
    assert chances.sum() == pytest.approx(1)
    has = np.array([(labels[:, 0] == 2).any() for labels in split.labels])
    assert (chances[has] > 0).all()
    assert (chances[~has] == 0).all()
    assert image_chances(split, [1.0, 1.0, 1.0]) is None


@pytest.mark.parametrize(
    "changes",
    [
        {"image_weights": True, "epochs": 2},
        {
            "hyp": Hyperparameters(sat=0.5, fl_gamma=1.5, label_smoothing=0.1),
            "autobalance": True,
            "epochs": 2,
        },
        {"amp": "bf16", "optimizer": "rmsprop"},
    ],
    ids=["image weights", "self-adversarial", "bf16 and RMSprop"],
)
def test_a_training_with_it_is_the_same_each_time(config, tmp_path, changes):
    first, second = (
        load_checkpoint(train(dataclasses.replace(config, out=tmp_path / name, **changes)).last)
        for name in ("first", "second")
    )
    assert all(torch.equal(first["weights"][name], second["weights"][name]) for name in first["weights"])
    assert all(map(torch.isfinite, torch.tensor(list(first["history"][-1].values()))))
    assert torch.equal(first["loss"]["balance"], second["loss"]["balance"])


def test_an_attack_hides_objects_within_its_bound_and_leaves_the_detector_alone():
    detector = build_detector(load_spec("yolov5n", classes=3), 0).train()
    loss = build_loss(
        detector, TrainConfig(data="digits", model="yolov5n", out=Path("out"), autobalance=True), 64
    )
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    for module in detector.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = 1.0
    detector(images)  # statistics as those of a trained detector are: of what it sees
    before = {name: tensor.clone() for name, tensor in detector.state_dict().items()}
    hidden = attack(detector, loss, images, 0.001)
    assert (hidden - images).abs().max() <= 0.001 + 1e-6
    assert hidden.min() >= 0
    assert hidden.max() <= 1
    assert all(torch.equal(before[name], tensor) for name, tensor in detector.state_dict().items())
    assert detector.training
    assert all(parameter.grad is None for parameter in detector.parameters())
    with torch.no_grad():
        detector.eval()
        plain, attacked = (loss(detector(x)[1], torch.zeros(0, 6))[0] for x in (images, hidden))
    assert attacked < plain


def test_batches_are_attacked_by_chance_that_follows_from_the_seed():
    drawn = [is_attacked(0.5, 3, 1, batch) for batch in range(200)]
    assert drawn == [is_attacked(0.5, 3, 1, batch) for batch in range(200)]
    assert 70 < sum(drawn) < 130
    assert not any(is_attacked(0.0, 3, 1, batch) for batch in range(50))


def test_precision_on_a_cpu_is_full_unless_asked_otherwise():
    cpu = torch.device("cpu")
    assert choose_precision("auto", cpu) is choose_precision("off", cpu) is None
    assert choose_precision("bf16", cpu) is torch.bfloat16
    with pytest.raises(TrainError, match="amp fp16 needs a CUDA device"):
        choose_precision("fp16", cpu)


def test_an_automatic_batch_is_a_number_afterwards_and_stays_so_on_a_resume(config):
    chosen = train(dataclasses.replace(config, batch_size="auto"))
    assert any(
        note == "batch size 16: the largest power of two that fits, at most 16" for note in chosen.notes
    )
    assert json.loads((config.out / "config.json").read_text())["batch_size"] == 16
    resumed, note = memory.resolve_batch(
        dataclasses.replace(config, batch_size="auto", resume=True), load(config.data)
    )
    assert (resumed.batch_size, note) == (16, None)


def test_a_checkpoint_from_before_a_setting_existed_is_resumed(config):
    older = dataclasses.replace(config, epochs=2, precise_bn=0, ema_share=0.0)

    def stop(*_):
        raise InterruptedError

    with pytest.raises(InterruptedError):
        train(older, report=stop)
    state = checkpoint.load(config.out / "weights" / "last.pt")
    later = ("sync_bn", "freeze", "image_weights", "autobalance", "val_every", "val_fraction")
    for name in (*later, "precise_bn", "ema_share"):
        del state["identity"][name]
    for name in ("sat", "sat_eps"):
        del state["identity"]["hyp"][name]
    del state["pieces"], state["class_map"]
    checkpoint.save(config.out / "weights" / "last.pt", state)
    base = load_spec("yolov5n", classes=3)
    assert "val_every" in identity(older, base, load(older.data))
    assert train(dataclasses.replace(older, resume=True)).epochs == 2
    with pytest.raises(TrainError, match="cannot be resumed: val_every is 1 there, 2 here"):
        train(dataclasses.replace(older, resume=True, val_every=2))
    with pytest.raises(
        TrainError, match=r"precise_bn is 0 there, 8 here; ema_share is 0\.0 there, 0\.08 here"
    ):
        train(dataclasses.replace(config, epochs=2, resume=True))


def test_old_switches_and_numbers_are_read_as_what_they_became(config):
    old = config.to_dict() | {"amp": False, "freeze": 2}
    read = TrainConfig.from_dict(old)
    assert (read.amp, read.freeze) == ("off", (0, 1))
    assert TrainConfig.from_dict(old | {"amp": True}).amp == "auto"
    assert TrainConfig.from_dict(read.to_dict()) == read


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"devices": 3}, "batch_size must be a multiple of devices, but got 8 for 3"),
        ({"freeze": [-1]}, "freeze must be a whole number of at least 0, but got -1"),
        ({"freeze": "all"}, "freeze must be a number of layers or a list of them"),
        ({"val_fraction": 0}, "0 < val_fraction <= 1 must hold, but got 0"),
        ({"ema_share": 1}, "0 <= ema_share < 1 must hold, but got 1"),
        ({"ema_share": "all"}, "ema_share must be a finite number, but got 'all'"),
        ({"patience": 0}, "patience must be a whole number of at least 1, but got 0"),
        ({"batch_size": "many"}, "batch_size must be a whole number of at least 1, but got 'many'"),
        ({"hyp": {"sat": 2}}, "0 <= sat <= 1 must hold"),
    ],
)
def test_what_cannot_be_is_refused(config, changes, message):
    with pytest.raises(TrainError, match=message):
        TrainConfig.from_dict(config.to_dict() | changes)
