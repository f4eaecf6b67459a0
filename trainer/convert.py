"""From one kind of checkpoint to another: read whole, then written at once or not at all."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from model.export import (
    Described,
    check_images,
    check_onnx,
    onnx_bytes,
    rounding,
    safetensors_bytes,
    state_dict_bytes,
    torch_export_bytes,
)
from model.spec import ModelError, load_spec, spec_to_yaml
from model.spec import round_image_size as next_size
from model.transfer import build_from
from model.weights import read_checkpoint
from trainer import checkpoint
from trainer.config import TrainError

SUFFIXES = {
    ".pt": "beagle",
    ".safetensors": "safetensors",
    ".onnx": "onnx",
    ".pt2": "torch-export",
    ".yaml": "yaml",
    ".yml": "yaml",
}
FORMATS = ("beagle", "safetensors", "yolov5", "onnx", "torch-export", "yaml")
TOLERANCE = 1e-3  # what an ONNX file may differ from PyTorch, see `check_onnx`
ROUNDING = 4  # how many times PyTorch's own rounding it may be instead: that of two float32 programs adds up


@dataclass(frozen=True, kw_only=True)
class Conversion:
    """What is to be converted into what.

    Attributes:
        source: a checkpoint that `model.weights` reads.
        target: the file to write; must not exist.
        format: one of `FORMATS`; None goes by the target's suffix.
        model: zoo name or YAML file, where the source does not say its model.
        renames: mapping file `ours: theirs`.
        image_size: px of ONNX and torch.export; None is that of the training, or of the model.
        thresholds: confidence and IoU of a suppression in the ONNX graph; None leaves it out.

    Raises:
        TrainError: no such format, or the target exists.
    """

    source: Path
    target: Path
    format: str | None = None
    model: str | None = None
    renames: Path | None = None
    image_size: int | None = None
    thresholds: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        kind = self.format or SUFFIXES.get(self.target.suffix)
        if kind not in FORMATS:
            given = self.format or self.target.name
            raise TrainError(
                f"the format must be one of {', '.join(FORMATS)}, or told by a suffix ({', '.join(SUFFIXES)}), "
                f"but got {given!r}"
            )
        if self.thresholds is not None and kind != "onnx":
            raise TrainError(f"only ONNX has suppression inside, but the format is {kind}")
        if self.target.exists():
            raise TrainError(f"{self.target} exists already: choose another file, or remove that one")
        object.__setattr__(self, "format", kind)


def convert(wanted: Conversion) -> list[str]:
    """Read a checkpoint and write another.

    Returns:
        Notes: what was read, and for ONNX how well it agrees with PyTorch.

    Raises:
        TrainError: the source can't be read or is not whole, or the target can't be written.
        ModelError: the packages for the format are missing.
    """
    try:
        given = load_spec(wanted.model) if wanted.model else None
        read = read_checkpoint(wanted.source, spec=given, renames=wanted.renames)
        detector, report = build_from(read, given)
    except ModelError as error:
        raise TrainError(str(error)) from error
    names = read.names or tuple(map(str, range(detector.classes)))
    size = next_size(wanted.image_size or read.image_size or detector.spec.image_size, detector.spec.grid)
    described = Described(detector=detector, names=names, image_size=read.image_size or size)
    notes = report.lines()
    if wanted.format == "onnx":
        notes += _write_onnx(wanted, described, size)
        return notes
    writers: dict[str, Callable[[], bytes]] = {
        "safetensors": lambda: safetensors_bytes(described),
        "yolov5": lambda: state_dict_bytes(described),
        "torch-export": lambda: torch_export_bytes(described, (size, size)),
        "yaml": lambda: spec_to_yaml(detector.spec).encode(),
    }
    if wanted.format == "beagle":
        checkpoint.save(wanted.target, _as_training(described, notes))
    else:
        checkpoint.write_bytes(wanted.target, writers[str(wanted.format)]())
    return notes


def _as_training(described: Described, notes: list[str]) -> dict[str, object]:
    """What `beagle val` and `predict`, and `--weights`, want of a checkpoint."""
    state = described.detector.state_dict()
    return {**described.said(), "notes": notes, "history": [], "ema": {"weights": state, "updates": 0}}


def _write_onnx(wanted: Conversion, described: Described, size: int) -> list[str]:
    content = onnx_bytes(described, (size, size), wanted.thresholds)
    notes = [f"input images (batch, {described.detector.spec.channels}, {size}, {size}), RGB from 0 to 1"]
    if wanted.thresholds is None:
        images = check_images(described.detector, (size, size))
        worst = check_onnx(content, described.detector, images)
        note = f"on images of noise it agrees with PyTorch to {worst:.2g}"
        if not worst <= TOLERANCE:
            own = rounding(described.detector, images)
            if not worst <= ROUNDING * own:
                raise TrainError(
                    f"{wanted.target} is not written: it differs from PyTorch by {worst:.3g}, "
                    f"and the rounding of float32 explains {own:.2g}"
                )
            note += f" (this detector multiplies the rounding of float32 to {own:.2g})"
        notes.append(note)
    checkpoint.write_bytes(wanted.target, content)
    return notes
