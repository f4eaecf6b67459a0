import dataclasses
import multiprocessing
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from trainer import Hyperparameters, TrainConfig, TrainError, train
from trainer.checkpoint import load as load_checkpoint

SCRIPT = Path(__file__).with_name("two_ranks.py")


@pytest.fixture
def config(tiny_dataset, tmp_path):
    """A training of seconds on two devices."""
    settings = {"data": str(tiny_dataset), "model": "yolov5n", "out": tmp_path / "pair", "epochs": 2}
    settings |= {"batch_size": 8, "image_size": 64, "anchors": "keep", "optimizer": "sgd", "sync_bn": True}
    return TrainConfig(**settings, hyp=Hyperparameters(lr0=0.001), threads=1, device="cpu", devices=2)


def largest_difference(first, second):
    assert first.keys() == second.keys()
    return max(float((first[name].double() - second[name].double()).abs().max()) for name in first)


def test_two_devices_with_half_a_batch_each_take_the_steps_of_one_with_the_whole(tiny_dataset, tmp_path):
    environment = os.environ | {"GLOO_SOCKET_IFNAME": "lo"}
    places = [(0, 1), (0, 2), (1, 2)]
    processes = [
        subprocess.Popen(
            [sys.executable, SCRIPT, tiny_dataset, tmp_path, str(rank), str(world), tmp_path / "meeting"],
            env=environment,
        )
        for rank, world in places
    ]
    assert [process.wait() for process in processes] == [0, 0, 0]
    alone, *pair = (
        torch.load(tmp_path / f"{rank}-of-{world}.pt", weights_only=True) for rank, world in places
    )
    for half in pair:
        assert largest_difference(alone["weights"], half["weights"]) < 1e-5
        assert largest_difference(alone["ema"]["weights"], half["ema"]["weights"]) < 1e-5
        assert largest_difference(alone["loss"], half["loss"]) < 1e-5
        assert [list(row.values()) for row in half["losses"]] == [
            pytest.approx(list(row.values()), rel=1e-5) for row in alone["losses"]
        ]
    assert largest_difference(pair[0]["weights"], pair[1]["weights"]) == 0
    start = [row["box_loss"] for row in alone["losses"]]
    assert len(set(start)) == 5


def test_a_training_on_two_devices_writes_and_reports_as_one_on_one_does(config):
    reported, bars = [], []

    def report(epoch, row):
        assert len(load_checkpoint(config.out / "weights" / "last.pt")["history"]) == epoch + 1
        reported.append((epoch, row))

    result = train(config, report=report, progress=lambda *step: bars.append(step))
    assert reported == list(enumerate(result.history))
    assert (result.status, result.epochs) == ("finished", 2)
    assert bars[:3] == [("train", 1, 2), ("train", 2, 2), ("evaluate", 4, 8)]
    names = sorted(path.name for path in config.out.rglob("*.*"))
    assert names == ["best.pt", "config.json", "hyp.yaml", "last.pt", "results.csv"]
    alone = dataclasses.replace(
        config, devices=1, resume=True
    )  # how many devices is no part of what a training is
    assert train(alone).history == result.history


LAST_WORDS = """
import os, sys

class Last:
    def __del__(self, say=os.mkdir, word=__file__ + ".said"):  # of modules nothing is left to say it with
        say(word)

if "spawn_main" in " ".join(sys.orig_argv):
    sys.last = Last()  # goes when the interpreter does
"""


def test_no_process_takes_its_interpreter_apart_while_threads_of_gloo_live(config, tmp_path, monkeypatch):
    """A thread that lets go of a tensor then would abort it, now and then: here is what it would need."""
    (tmp_path / "sitecustomize.py").write_text(LAST_WORDS)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    assert train(dataclasses.replace(config, epochs=1)).status == "finished"
    assert not (tmp_path / "sitecustomize.py.said").exists()


@pytest.mark.slow
def test_what_a_process_refuses_is_said_where_it_was_launched(config):
    with pytest.raises(TrainError, match="freeze must name layers 0 to 23"):
        train(dataclasses.replace(config, freeze=[40]))


@pytest.mark.slow
def test_a_report_that_raises_ends_all_processes_and_the_training_can_be_resumed_exactly(config, tmp_path):
    class EnoughError(Exception):
        pass

    def report(*_):
        raise EnoughError

    with pytest.raises(EnoughError):
        train(config, report=report)
    assert multiprocessing.active_children() == []
    resumed = train(dataclasses.replace(config, resume=True))
    whole = train(dataclasses.replace(config, out=tmp_path / "whole"))
    first, second = (load_checkpoint(result.last) for result in (resumed, whole))
    assert largest_difference(first["weights"], second["weights"]) == 0
    assert largest_difference(first["ema"]["weights"], second["ema"]["weights"]) == 0
