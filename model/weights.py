"""Checkpoints, ours and those of other programs: read without running anything in them.

`read_checkpoint` tells by a file's content what it is, and gives its tensors by name, and what it says of its model.
`model.transfer` brings them into a detector.
"""

import json
import struct
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import safetensors
import torch
from torch import Tensor

from model.checkpoint import Checkpoint, full_precision, normal_names, with_anchors
from model.darknet import NUMBERED_EPS, as_darknet, is_darknet, is_numbered, name_numbered, read_darknet
from model.recorded import Recorded, StoredTensor, plain, shown
from model.renames import load_renames, rename
from model.spec import ModelError, ModelSpec, load_spec
from model.torch_file import ZIP_MAGIC, TorchFile, open_torch_file
from model.whole_models import is_module, read_names, read_whole_model
from model.whole_spec import MAX_IMAGE_SIZE, as_checkpoint

__all__ = ["Checkpoint", "read_checkpoint"]

STATE_PLACES = ("ema", "model_ema", "model", "state_dict", "model_state_dict", "weights", "net", "params")
"""Where programs keep a model or its state dict in what they save; averaged weights before raw ones."""


def read_checkpoint(
    path: str | Path, *, spec: ModelSpec | None = None, renames: str | Path | None = None
) -> Checkpoint:
    """Read a file of weights.

    Args:
        path: a checkpoint of ours; a `.pt` of YOLOv5 or Scaled-YOLOv4, or any state dict that `torch.save` wrote;
            `.safetensors`; darknet's `.weights`.
        spec: the model that the weights are for. Darknet's files name nothing, so they need it.
        renames: a YAML file of `ours: theirs`, names of tensors, or of whole parts where both end in a dot.

    Raises:
        ModelError: no such file, cut short, hostile (then the message names what it asked for), or of no such kind.
    """
    path = Path(path)
    with _naming(path):
        checkpoint = _read(path, spec)
    if renames is not None:
        state = rename(checkpoint.state, load_renames(renames), f"{path} with {renames}")
        checkpoint = replace(checkpoint, state=state)
    for name, tensor in checkpoint.state.items():
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            raise ModelError(
                f"{path}: {shown(name)} holds numbers that are not finite: its training diverged"
            )
    return checkpoint


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Let every error name the file."""
    try:
        yield
    except FileNotFoundError:
        raise ModelError(f"no checkpoint at {path}") from None
    except OSError as error:
        raise ModelError(f"{path} cannot be read as a checkpoint: {error.strerror}") from error
    except ModelError as error:
        raise ModelError(f"{path} cannot be read as a checkpoint: {error}") from error


def _read(path: Path, spec: ModelSpec | None) -> Checkpoint:
    with path.open("rb") as file:
        start = file.read(16)
    if not start:
        raise ModelError("it is empty")
    if is_darknet(path):
        if spec is None:
            raise ModelError("darknet's files don't say what they are of: say the model")
        return _read_darknet(path, as_darknet(spec))
    if path.suffix == ".safetensors" or _is_safetensors(start):
        return _read_safetensors(path)
    if not start.startswith((ZIP_MAGIC, b"\x80")):
        raise ModelError("it is of no kind that is known (torch.save, safetensors, darknet's .weights)")
    with open_torch_file(path) as file_:
        checkpoint = _read_torch(path, file_)
    return _named(checkpoint, spec) if is_numbered(checkpoint.state) else checkpoint


def _read_darknet(path: Path, spec: ModelSpec) -> Checkpoint:
    state, classes = read_darknet(path, spec)
    checkpoint = Checkpoint(path=path, kind="darknet", state=state, eps=spec.options.about.eps)
    if classes is None:
        return replace(checkpoint, notes=(f"its numbers are those of the first rows of {spec.name} alone",))
    return replace(checkpoint, spec=load_spec(spec, classes=classes), anchors_px=spec.anchors)


def _named(checkpoint: Checkpoint, spec: ModelSpec | None) -> Checkpoint:
    """Give our names to the tensors of a program that numbers the layers of a darknet configuration."""
    if spec is None:
        raise ModelError("its tensors are numbered as in a darknet configuration: say the model")
    theirs = as_darknet(spec)
    state, classes = name_numbered(checkpoint.state, theirs)
    note = "it does not say how its boxes are decoded: as darknet does it, unless the model says otherwise"
    return replace(
        checkpoint,
        state=state,
        spec=load_spec(theirs, classes=classes),
        anchors_px=theirs.anchors,
        eps=checkpoint.eps or NUMBERED_EPS,
        notes=(*checkpoint.notes, note),
    )


def _is_safetensors(start: bytes) -> bool:
    return len(start) > 9 and struct.unpack("<Q", start[:8])[0] < 2**27 and start[8:9] == b"{"


def _read_safetensors(path: Path) -> Checkpoint:
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            names = file.keys()  # the file itself can't be walked
            state = {name: file.get_tensor(name) for name in names}
            said = json.loads((file.metadata() or {}).get("beagle", "{}"))
    except (safetensors.SafetensorError, ValueError, RecursionError) as error:
        raise ModelError(f"it is cut short or damaged ({str(error)[:120]})") from error
    said = said if isinstance(said, dict) else {}
    if "spec" in said:
        return _with_own_spec(path, "safetensors", state, said)
    return with_anchors(Checkpoint(path=path, kind="safetensors", state=normal_names(state)))


def _read_torch(path: Path, file: TorchFile) -> Checkpoint:
    root = file.root
    if isinstance(root, dict) and {"version", "ema", "spec"} <= root.keys():
        average = root["ema"]
        if not isinstance(average, dict) or not isinstance(average.get("weights"), dict):
            raise ModelError("its averaged weights are missing")
        return _with_own_spec(path, "beagle", file.tensors(average["weights"]), root)
    found = root if is_module(root) else None
    if isinstance(root, dict):
        places = (_first(root.get(place)) for place in STATE_PLACES)
        found = next((place for place in places if _is_state(place)), None)
        found = root if found is None and _is_state(root) else found
    if found is None:
        raise ModelError("there is no model and no state dict in it")
    if isinstance(found, Recorded):
        model = read_whole_model(found)
        return as_checkpoint(path, model, file, root if isinstance(root, dict) else {})
    checkpoint = Checkpoint(path=path, kind="state dict", state=normal_names(file.tensors(found)))
    return with_anchors(replace(checkpoint, names=read_names(root.get("names"))))


def _first(value: Any) -> Any:
    """What stands in a place: v5.0 of YOLOv5 kept (averaged model, number of updates) together for a while."""
    return value[0] if isinstance(value, tuple) and value else value


def _is_state(value: Any) -> bool:
    if not isinstance(value, dict):
        return is_module(value)
    return any(isinstance(key, str) and isinstance(item, StoredTensor) for key, item in value.items())


def _with_own_spec(path: Path, kind: str, state: Mapping[str, Tensor], said: Mapping[Any, Any]) -> Checkpoint:
    """What beagle wrote: the model's description stands beside its weights."""
    raw = plain(said["spec"])
    if not isinstance(raw, dict):
        raise ModelError("its model's description is damaged")
    spec = load_spec(raw)
    names, size = read_names(said.get("names")), said.get("image_size")
    return Checkpoint(
        path=path,
        kind=kind,
        eps=spec.options.about.eps,
        state={name: full_precision(tensor) for name, tensor in state.items() if "anchor" not in name},
        spec=spec,
        names=names,
        anchors_px=spec.anchors,
        image_size=size if isinstance(size, int) and 0 < size <= MAX_IMAGE_SIZE else None,
    )
