import os
import pickle
from pathlib import Path

import pytest
import torch

from trainer import TrainError
from trainer.checkpoint import load, save, write_text

STATE = {
    "ema": {"weights": {"a": torch.arange(3.0)}, "updates": 7},
    "history": [{"map50": 0.5}],
    "best": None,
}


def test_a_checkpoint_is_read_as_it_was_written(tmp_path):
    save(tmp_path / "last.pt", STATE)
    state = load(tmp_path / "last.pt")
    assert torch.equal(state["ema"]["weights"]["a"], torch.arange(3.0))
    assert (state["ema"]["updates"], state["history"], state["best"]) == (7, [{"map50": 0.5}], None)
    assert [path.name for path in tmp_path.iterdir()] == ["last.pt"]


def test_a_missing_checkpoint_is_named(tmp_path):
    with pytest.raises(TrainError, match=r"no checkpoint at .*last\.pt"):
        load(tmp_path / "last.pt")


def test_a_truncated_checkpoint_is_refused_in_one_line(tmp_path):
    save(tmp_path / "last.pt", STATE)
    whole = (tmp_path / "last.pt").read_bytes()
    for length in (0, 10, len(whole) // 2, len(whole) - 30):
        (tmp_path / "cut.pt").write_bytes(whole[:length])
        with pytest.raises(TrainError, match=r"cut\.pt cannot be read as a checkpoint") as caught:
            load(tmp_path / "cut.pt")
        assert "\n" not in str(caught.value)


def test_a_checkpoint_that_would_run_code_is_refused(tmp_path):
    class Trap:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.mkdir, (str(tmp_path / "sprung"),)

    for name, write in (("torch.pt", torch.save), ("plain.pt", lambda o, p: p.write_bytes(pickle.dumps(o)))):
        write({"version": 1, "ema": Trap()}, tmp_path / name)
        with pytest.raises(TrainError, match="cannot be read as a checkpoint"):
            load(tmp_path / name)
    assert not (tmp_path / "sprung").exists()


def test_a_foreign_file_and_a_newer_version_are_refused(tmp_path):
    torch.save({"model": torch.zeros(1)}, tmp_path / "foreign.pt")
    with pytest.raises(TrainError, match="is no checkpoint of beagle train"):
        load(tmp_path / "foreign.pt")
    torch.save({**STATE, "version": 99}, tmp_path / "newer.pt")
    with pytest.raises(TrainError, match="has version 99, but this program reads version 1"):
        load(tmp_path / "newer.pt")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full, a disk that is always full")
def test_a_full_disk_is_one_line_and_leaves_the_old_file_whole(tmp_path):
    target = tmp_path / "last.pt"
    save(target, STATE)
    before = target.read_bytes()
    (tmp_path / "last.pt.part").symlink_to("/dev/full")
    with pytest.raises(TrainError, match=r"the disk is full: .*last\.pt could not be written"):
        save(target, {**STATE, "history": []})
    assert target.read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["last.pt"]


def test_a_folder_that_is_not_there_is_one_line(tmp_path):
    with pytest.raises(TrainError, match="could not be written: No such file or directory"):
        write_text(tmp_path / "nowhere" / "results.csv", "epoch\n")
