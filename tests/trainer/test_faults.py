"""What befalls a training from outside: it is killed, told to stop, short of memory, short of disk."""

import dataclasses
import json
import shutil
import signal
import subprocess
import sys

import pytest

from trainer import Hyperparameters, TrainConfig, TrainError, train
from trainer.checkpoint import load as load_checkpoint
from trainer.memory import is_exhausted

RUN = """
import json, os, sys
import torch
import trainer.loop
from model import Detector
from trainer import TrainConfig, train

config, kill_at = TrainConfig.from_dict(json.loads(sys.argv[1])), json.loads(sys.argv[2])
seen = []
forward, most = Detector.forward, json.loads(sys.argv[3])

def short_of_memory(detector, images):
    if detector.training and len(seen) >= 5 and len(images) > most:
        torch.empty(1 << 50)  # more than any machine has: the allocator's own error
    return forward(detector, images)

if most:
    Detector.forward = short_of_memory

def progress(what, done, total):
    if what == "train":
        seen.append(done)
        print("batch", flush=True)
        if len(seen) == kill_at:
            os.kill(os.getpid(), 9)

result = train(config, progress=progress)
print(json.dumps(list(result.notes)))
"""


@pytest.fixture
def config(tiny_dataset, tmp_path):
    """Three epochs of four batches."""
    settings = {"data": str(tiny_dataset), "model": "yolov5n", "out": tmp_path / "out", "epochs": 3}
    settings |= {"batch_size": 4, "image_size": 64, "anchors": "keep", "optimizer": "sgd", "threads": 1}
    return TrainConfig(**settings, hyp=Hyperparameters(mixup=0.2), device="cpu")


def arguments(config, *, kill_at=None, most=None):
    """A training in a process of its own, whose memory holds `most` images at once from the second epoch on."""
    return [sys.executable, "-c", RUN, json.dumps(config.to_dict()), json.dumps(kill_at), json.dumps(most)]


def weights(folder):
    state = load_checkpoint(folder / "weights" / "last.pt")
    return {**state["weights"], **{f"ema {key}": value for key, value in state["ema"]["weights"].items()}}


def same(first, second):
    return first.keys() == second.keys() and all(first[key].equal(second[key]) for key in first)


def test_a_training_killed_in_the_middle_of_an_epoch_ends_as_an_unbroken_one(config, tmp_path):
    killed = subprocess.run(arguments(config, kill_at=6), check=False, capture_output=True)
    assert killed.returncode == -signal.SIGKILL
    assert len(load_checkpoint(config.out / "weights" / "last.pt")["history"]) == 1
    resumed = train(dataclasses.replace(config, resume=True))  # by another process: this one
    whole = train(dataclasses.replace(config, out=tmp_path / "whole"))
    assert resumed.epochs == whole.epochs == 3
    assert same(weights(config.out), weights(tmp_path / "whole"))


def test_one_told_to_stop_leaves_a_whole_checkpoint_and_says_how_to_go_on(config):
    stopping = subprocess.Popen(
        arguments(dataclasses.replace(config, epochs=200)),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    for _ in range(6):
        assert stopping.stdout.readline() == "batch\n"
    stopping.send_signal(signal.SIGTERM)
    _, said = stopping.communicate(timeout=60)
    assert stopping.returncode == 1
    assert "StoppedError: asked to stop in epoch" in said.splitlines()[-1]
    assert "a resume begins that epoch again" in said
    assert load_checkpoint(config.out / "weights" / "last.pt")["history"]


@pytest.mark.slow
def test_a_batch_that_does_not_fit_is_processed_in_parts_and_the_epoch_begun_again(config, tmp_path):
    whole = subprocess.run(arguments(config, most=2), check=False, capture_output=True, text=True)
    assert whole.returncode == 0, whole.stderr[-2000:]
    (note,) = (line for line in json.loads(whole.stdout.splitlines()[-1]) if "memory" in line)
    assert "a batch of 4 images did not fit into memory: it is processed in 2 parts of 2" in note
    assert note in whole.stderr
    assert whole.stdout.count("batch\n") == 4 + 1 + 4 + 4  # one batch of the second epoch was in vain
    killed = dataclasses.replace(config, out=tmp_path / "killed")
    words = arguments(killed, most=2, kill_at=11)
    assert subprocess.run(words, check=False, capture_output=True).returncode == -signal.SIGKILL
    assert len(load_checkpoint(killed.out / "weights" / "last.pt")["history"]) == 2
    resumed = train(dataclasses.replace(killed, resume=True))  # with memory enough, and yet in the same parts
    assert note in resumed.notes
    assert same(weights(config.out), weights(killed.out))


@pytest.mark.slow
def test_parts_too_large_are_halved_until_nothing_is_left_to_halve(config):
    four = subprocess.run(arguments(config, most=1), check=True, capture_output=True, text=True)
    said = [line for line in json.loads(four.stdout.splitlines()[-1]) if "memory" in line]
    assert [line.split("processed in ")[1][:12] for line in said] == ["2 parts of 2", "4 parts of 1"]
    none = dataclasses.replace(config, out=config.out.with_name("none"))
    words = arguments(none, most=0.5)
    refused = subprocess.run(words, check=False, capture_output=True, text=True)
    assert refused.returncode == 1
    assert "not even one image of 64 px fits into memory" in refused.stderr.splitlines()[-1]


def test_labels_that_change_meanwhile_change_nothing_but_are_not_resumed_with(config, tiny_dataset, tmp_path):
    root = tmp_path / "data"
    shutil.copytree(tiny_dataset.parent, root)
    data = root / "data.yaml"
    data.write_text(tiny_dataset.read_text().replace(str(tiny_dataset.parent), str(root)))
    config = dataclasses.replace(config, data=str(data))

    def edit(epoch, _):
        (root / "labels" / "train" / "00.txt").write_text(f"0 0.5 0.5 0.{epoch + 1} 0.2\n")

    train(config, report=edit)
    untouched = dataclasses.replace(config, data=str(tiny_dataset), out=tmp_path / "untouched")
    train(untouched)
    assert same(weights(config.out), weights(tmp_path / "untouched"))
    with pytest.raises(TrainError, match="its data has other contents"):
        train(dataclasses.replace(config, resume=True))


def test_a_disk_that_fills_up_stops_the_training_and_leaves_the_last_checkpoint_whole(config, tmp_path):
    with_limit = "import resource, signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n" + RUN.replace(
        "seen = []", "seen = []\ncut = None"
    ).replace(
        '        print("batch", flush=True)',
        "        if len(seen) == 5:\n            resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, -1))",
    )
    words = arguments(config)
    words[2] = with_limit
    full = subprocess.run(words, check=False, capture_output=True, text=True)
    assert full.returncode == 1
    assert "could not be written" in full.stderr.splitlines()[-1]
    assert len(load_checkpoint(config.out / "weights" / "last.pt")["history"]) == 1
    resumed = train(dataclasses.replace(config, resume=True))
    whole = train(dataclasses.replace(config, out=tmp_path / "whole"))
    assert resumed.epochs == whole.epochs
    assert same(weights(config.out), weights(tmp_path / "whole"))


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (MemoryError(), True),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to"), True),
        (RuntimeError("could not create a primitive"), True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
        (ValueError("DefaultCPUAllocator"), False),
    ],
)
def test_memory_that_runs_out_is_told_from_other_faults(error, expected):
    assert is_exhausted(error) is expected
