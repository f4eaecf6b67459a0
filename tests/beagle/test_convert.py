"""`beagle model convert`, in one line of success or of error."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from model.weights import read_checkpoint


@pytest.fixture
def best(finished_run: Path) -> Path:
    return finished_run / "trials/0000/training/weights/best.pt"


def test_a_trained_checkpoint_is_converted_and_validated_as_before(
    beagle: Callable[..., Any], best: Path, tiny: Path
) -> None:
    said = beagle("model", "convert", best, "--to", "small.safetensors")
    assert said.code == 0, said
    assert said.out == "small.safetensors\n"
    assert "100.0 % of the parameters" in said.err
    assert read_checkpoint("small.safetensors").names == ("red", "green")
    before, after = (
        beagle("val", path, tiny, "--device", "cpu", "--json").out for path in (best, "small.safetensors")
    )
    assert before == after


def test_a_hostile_or_missing_checkpoint_is_refused_in_one_line(
    untouched: Callable[..., str], tmp_path: Path
) -> None:
    class Trap:
        def __reduce__(self) -> Any:
            return eval, ("1 + 1",)

    torch.save({"model": Trap()}, tmp_path / "bad.pt")
    line = untouched("model", "convert", tmp_path / "bad.pt", "--to", "out.pt")
    assert "asks for 'builtins.eval'" in line
    assert "no checkpoint at" in untouched("model", "convert", tmp_path / "none.pt", "--to", "out.pt")
    assert "the format must be one of" in untouched(
        "model", "convert", tmp_path / "bad.pt", "--to", "out.doc"
    )
