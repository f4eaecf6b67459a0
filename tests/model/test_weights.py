"""Checkpoints of other programs are read whole: weights, names, anchors, description."""

import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from model import Detector, build
from model.spec import ModelError, load_spec
from model.transfer import build_from
from model.weights import read_checkpoint

SCRIPT = Path(__file__).with_name("other_programs.py")
ROOT = SCRIPT.parents[2]
ANCHORS = (((5.0, 6.0), (7.0, 9.0)), ((20.0, 25.0), (30.0, 36.0)), ((80.0, 90.0), (99.0, 150.0)))


@pytest.fixture(scope="session")
def others(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of checkpoints that a process with other programs' classes has written."""
    folder = tmp_path_factory.mktemp("others")
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    subprocess.run(
        [sys.executable, "-W", "ignore", str(SCRIPT), str(folder)],
        env={**os.environ, "PYTHONPATH": path},
        check=True,
    )
    return folder


@pytest.fixture(scope="session")
def truth(others: Path) -> dict[str, dict[str, Tensor]]:
    return torch.load(others / "truth.pt", weights_only=True)


def same_function(one: Detector, state: dict[str, Tensor]) -> None:
    """The detector gives what one of that state gives."""
    other = build(one.spec)
    other.load_state_dict(state)
    images = torch.rand(1, 3, 64, 96, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.equal(one(images)[0], other.eval()(images)[0])


def test_no_class_of_the_other_programs_is_known_here(others: Path) -> None:
    assert not [name for name in sys.modules if name.split(".")[0] in ("models", "ultralytics")]
    with pytest.raises(Exception, match="models"):
        torch.load(others / "v6.pt", weights_only=False)


def test_a_yolov5_checkpoint_gives_its_averaged_weights_in_full_precision(
    others: Path, truth: dict[str, dict[str, Tensor]]
) -> None:
    checkpoint = read_checkpoint(others / "v6.pt")
    assert checkpoint.kind == "pickled model"
    assert checkpoint.names == ("cat", "dog", "bird")
    assert checkpoint.image_size == 320
    assert checkpoint.spec == load_spec({**load_spec("yolov5n", classes=3).to_dict(), "name": "v6"})
    half = {k: t.half().float() if t.is_floating_point() else t for k, t in truth["v6"].items()}
    assert {t.dtype for t in checkpoint.state.values()} == {torch.float32, torch.int64}
    assert checkpoint.state.keys() == half.keys() - {"model.24.anchors"}
    assert all(torch.equal(tensor, half[name]) for name, tensor in checkpoint.state.items())
    detector, report = build_from(checkpoint)
    assert report.complete
    same_function(detector, half)


@pytest.mark.parametrize(("name", "size"), [("old.pt", 416), ("alone.pt", None)])
def test_old_files_and_bare_or_wrapped_models_are_read(
    name: str, size: int | None, others: Path, truth: dict[str, dict[str, Tensor]]
) -> None:
    checkpoint = read_checkpoint(others / name)
    assert checkpoint.image_size == size
    assert checkpoint.anchors_px == load_spec("yolov5n").anchors
    same_function(build_from(checkpoint)[0], truth["v6"])


def test_anchors_and_their_number_come_along(others: Path) -> None:
    checkpoint = read_checkpoint(others / "two_anchors.pt")
    assert checkpoint.anchors_px == ANCHORS
    same_function(build_from(checkpoint)[0], torch.load(others / "two_anchors_truth.pt", weights_only=True))


def test_an_activation_that_only_the_program_knew_is_found(others: Path) -> None:
    spec = read_checkpoint(others / "mish.pt").spec
    assert spec is not None
    assert str(spec.activation) == "nn.Mish()"


def test_a_state_dict_with_the_prefix_of_parallel_training_needs_a_model(
    others: Path, truth: dict[str, dict[str, Tensor]]
) -> None:
    checkpoint = read_checkpoint(others / "state.pt")
    assert (checkpoint.kind, checkpoint.spec, checkpoint.names) == ("state dict", None, None)
    with pytest.raises(ModelError, match=r"state\.pt does not say which model it is of: say it"):
        build_from(checkpoint)
    detector, _ = build_from(checkpoint, load_spec("yolov5n", classes=80))
    assert detector.classes == 3
    same_function(detector, truth["v6"])
    with pytest.raises(
        ModelError, match=r"not a whole checkpoint of yolov5s: left as they were, of shape 16"
    ):
        build_from(checkpoint, load_spec("yolov5s"))


def test_anchors_of_a_bare_state_dict_are_worked_out_from_cells(others: Path) -> None:
    checkpoint = read_checkpoint(others / "two_anchors_truth.pt")
    assert checkpoint.anchors_px is None
    assert checkpoint.anchors_for((8, 16, 32)) == ANCHORS
    assert checkpoint.anchors_for((8, 16)) is None
    assert build_from(checkpoint, load_spec("yolov5n"))[0].spec.anchors == ANCHORS


def test_safetensors_are_read_with_and_without_our_description(
    truth: dict[str, dict[str, Tensor]], tmp_path: Path
) -> None:
    save_file(truth["v6"], tmp_path / "bare.safetensors")
    same_function(
        build_from(read_checkpoint(tmp_path / "bare.safetensors"), load_spec("yolov5n"))[0], truth["v6"]
    )
    said = {"spec": load_spec("yolov5n", classes=3).to_dict(), "names": ["a", "b", "c"], "image_size": 320}
    save_file(truth["v6"], tmp_path / "ours.safetensors", {"beagle": json.dumps(said)})
    checkpoint = read_checkpoint(tmp_path / "ours.safetensors")
    assert (checkpoint.names, checkpoint.image_size) == (("a", "b", "c"), 320)
    same_function(build_from(checkpoint)[0], truth["v6"])


def test_a_description_that_cannot_be_built_is_noted(tmp_path: Path) -> None:
    fields = b"X\x08\x00\x00\x00_modules}sX\x04\x00\x00\x00yaml}X\x02\x00\x00\x00ncK\x03ss"
    with zipfile.ZipFile(tmp_path / "model.pt", "w") as archive:
        archive.writestr("model/data.pkl", b"\x80\x02cmodels.yolo\nModel\n)\x81}" + fields + b"b.")
    (note,) = read_checkpoint(tmp_path / "model.pt").notes
    assert note == "its model's description has no 'backbone'"


def test_the_activations_of_a_generation_are_those_of_its_program(others: Path) -> None:
    spec = read_checkpoint(others / "v31.pt").spec
    assert spec is not None
    assert (spec.options.family, spec.activation) == ("yolov5-v3.1", None)
    same_function(
        build_from(read_checkpoint(others / "v31.pt"))[0],
        torch.load(others / "v31_truth.pt", weights_only=True),
    )


# Renamed state dicts


@pytest.fixture
def mapping(tmp_path: Path) -> Callable[[str], Path]:
    def write(text: str) -> Path:
        path = tmp_path / "names.yaml"
        path.write_text(text)
        return path

    return write


def test_renamed_parts_and_tensors_find_their_places(
    truth: dict[str, dict[str, Tensor]], tmp_path: Path, mapping: Callable[[str], Path]
) -> None:
    renamed = {}
    for name, tensor in truth["v6"].items():
        theirs = name.replace("model.0.conv.weight", "first").replace("model.0.", "stem.")
        renamed[theirs.replace("model.1", "second.1")] = tensor
    torch.save(renamed, tmp_path / "theirs.pt")
    names = mapping("model.0.conv.weight: first\nmodel.0.: stem.\n")
    with pytest.raises(ModelError, match="not a whole checkpoint"):
        build_from(read_checkpoint(tmp_path / "theirs.pt", renames=names), load_spec("yolov5n"))
    text = "model.0.conv.weight: first\nmodel.0.: stem.\nmodel.1.: second.1.\n"
    text += "".join(f"model.1{digit}.: second.1{digit}.\n" for digit in (0, 3, 4, 7, 8))
    with pytest.raises(ModelError, match="there is no tensor 'nowhere'"):
        read_checkpoint(tmp_path / "theirs.pt", renames=mapping(text + "model.99.bias: nowhere\n"))
    checkpoint = read_checkpoint(tmp_path / "theirs.pt", renames=mapping(text))
    same_function(build_from(checkpoint, load_spec("yolov5n"))[0], truth["v6"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- a\n", "must be a mapping of ours: theirs"),
        ("a: [b]\n", "must both be names, but got 'a'"),
        ("a.: b\n", "must end in a dot, or neither"),
        ("a: c\nb: c\n", "both 'a' and 'b' are to be 'c'"),
        ("a: {\n", "not valid YAML"),
    ],
)
def test_a_mapping_that_makes_no_sense_is_refused(
    text: str, message: str, mapping: Callable[[str], Path], tmp_path: Path
) -> None:
    torch.save({"c": torch.zeros(1)}, tmp_path / "theirs.pt")
    with pytest.raises(ModelError, match=message):
        read_checkpoint(tmp_path / "theirs.pt", renames=mapping(text))


def test_two_tensors_of_one_name_and_a_missing_mapping_are_refused(
    mapping: Callable[[str], Path], tmp_path: Path
) -> None:
    torch.save({"a": torch.zeros(1), "b": torch.zeros(1)}, tmp_path / "theirs.pt")
    with pytest.raises(ModelError, match="two tensors are called 'a' after renaming"):
        read_checkpoint(tmp_path / "theirs.pt", renames=mapping("a: b\n"))
    with pytest.raises(ModelError, match=r"there is no mapping file .*none\.yaml"):
        read_checkpoint(tmp_path / "theirs.pt", renames=tmp_path / "none.yaml")
