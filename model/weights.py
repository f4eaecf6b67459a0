"""Checkpoints, ours and those of other programs: read without running anything in them.

`read_checkpoint` tells by a file's content what it is, and gives its tensors by name, and what it says of its model.
`model.transfer` brings them into a detector.
"""

import json
import struct
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import safetensors
import torch
from torch import Tensor

from model.darknet import as_darknet, is_darknet, read_darknet
from model.families import guess_family
from model.notation import Anchors, read_rows
from model.recorded import Recorded, StoredTensor, plain, shown
from model.renames import load_renames, rename
from model.spec import KEYS, ModelError, ModelSpec, load_spec
from model.torch_file import ZIP_MAGIC, TorchFile, open_torch_file
from model.whole_models import WholeModel, is_module, read_names, read_whole_model

STATE_PLACES = ("ema", "model_ema", "model", "state_dict", "model_state_dict", "weights", "net", "params")
"""Where programs keep a model or its state dict in what they save; averaged weights before raw ones."""

MAX_IMAGE_SIZE = 100_000


@dataclass(frozen=True, eq=False, kw_only=True)
class Checkpoint:
    """What a file of weights holds.

    Attributes:
        path: the file.
        kind: "beagle", "pickled model", "state dict", "safetensors" or "darknet".
        state: tensors by name, floats as float32; without anchors.
        spec: the model, where the file says it.
        names: class names, where the file says them.
        anchors_px: px, levels in the order of Detect's inputs, where they are known in px.
        anchors_cells: the same in cells of their level, (levels, per level, 2), where only these are known.
        image_size: px, where the file says it.
        eps: of its batch norms, where it is known.
        notes: what was decided while reading, a line each.
    """

    path: Path
    kind: str
    state: Mapping[str, Tensor]
    spec: ModelSpec | None = None
    names: tuple[str, ...] | None = None
    anchors_px: Anchors | None = None
    anchors_cells: Tensor | None = None
    image_size: int | None = None
    eps: float | None = None
    notes: tuple[str, ...] = field(default=())

    @property
    def per_level(self) -> int | None:
        """How many anchors each level has, where that is known."""
        if self.anchors_cells is not None:
            return self.anchors_cells.shape[1]
        return len(self.anchors_px[0]) if self.anchors_px else None

    def anchors_for(self, strides: tuple[int, ...]) -> Anchors | None:
        """Anchors in px for a detector of these strides; None where the file has none for so many levels."""
        if self.anchors_px is not None:
            return self.anchors_px if len(self.anchors_px) == len(strides) else None
        if self.anchors_cells is None or len(self.anchors_cells) != len(strides):
            return None
        return _anchor_table(self.anchors_cells * torch.tensor(strides).view(-1, 1, 1))


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
        return _read_torch(path, file_)


def _read_darknet(path: Path, spec: ModelSpec) -> Checkpoint:
    state, classes = read_darknet(path, spec)
    checkpoint = Checkpoint(path=path, kind="darknet", state=state, eps=spec.options.about.eps)
    if classes is None:
        return replace(checkpoint, notes=(f"its numbers are those of the first rows of {spec.name} alone",))
    return replace(checkpoint, spec=load_spec(spec, classes=classes), anchors_px=spec.anchors)


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
    return _with_anchors(Checkpoint(path=path, kind="safetensors", state=_normal_names(state)))


def _read_torch(path: Path, file: TorchFile) -> Checkpoint:
    root = file.root
    if isinstance(root, dict) and {"version", "ema", "spec"} <= root.keys():
        average = root["ema"]
        if not isinstance(average, dict) or not isinstance(average.get("weights"), dict):
            raise ModelError("its averaged weights are missing")
        return _with_own_spec(path, "beagle", _tensors(average["weights"], file), root)
    found = root if is_module(root) else None
    if isinstance(root, dict):
        found = next((root[place] for place in STATE_PLACES if _is_state(root.get(place))), None)
        found = root if found is None and _is_state(root) else found
    if found is None:
        raise ModelError("there is no model and no state dict in it")
    if isinstance(found, Recorded):
        model = read_whole_model(found)
        return _of_whole_model(path, model, file, root if isinstance(root, dict) else {})
    checkpoint = Checkpoint(path=path, kind="state dict", state=_normal_names(_tensors(found, file)))
    return _with_anchors(replace(checkpoint, names=read_names(root.get("names"))))


def _is_state(value: Any) -> bool:
    if not isinstance(value, dict):
        return is_module(value)
    return any(isinstance(key, str) and isinstance(item, StoredTensor) for key, item in value.items())


def _tensors(stored: Mapping[Any, Any], file: TorchFile) -> dict[str, Tensor]:
    return {
        name: file.tensor(item)
        for name, item in stored.items()
        if isinstance(name, str) and isinstance(item, StoredTensor)
    }


def _of_whole_model(path: Path, model: WholeModel, file: TorchFile, root: Mapping[Any, Any]) -> Checkpoint:
    checkpoint = Checkpoint(
        path=path,
        kind="pickled model",
        state=_normal_names(_tensors(model.state, file)),
        names=model.names,
        image_size=_image_size(root),
    )
    strides = file.tensor(model.strides) if isinstance(model.strides, StoredTensor) else None
    checkpoint = _with_anchors(checkpoint)
    if strides is not None and strides.ndim == 1 and bool((strides > 0).all()):
        anchors = checkpoint.anchors_for(tuple(int(stride) for stride in strides.tolist()))
        checkpoint = replace(checkpoint, anchors_px=anchors)
    return _with_yaml(checkpoint, model)


def _with_yaml(checkpoint: Checkpoint, model: WholeModel) -> Checkpoint:
    """Read the description that YOLOv5 keeps in its model."""
    if model.yaml is None:
        return replace(checkpoint, notes=("it holds no description of its model",))
    raw = {key: value for key, value in model.yaml.items() if key in KEYS}
    raw |= {"name": checkpoint.path.stem, "nc": model.classes or raw.get("nc")}
    rows = raw.get("head")
    if isinstance(rows, list) and rows and isinstance(rows[-1], list) and len(rows[-1]) == 4:
        # Old versions put the values in place of the names.
        raw["head"] = [*rows[:-1], [*rows[-1][:3], ["nc", "anchors"]]]
    try:
        raw.setdefault("family", guess_family(read_rows([*raw["backbone"], *raw["head"]], 0, "rows")))
        spec = load_spec(raw, anchors=checkpoint.anchors_px)
        if model.activation not in (None, str(spec.activation or spec.options.about.head)):
            # The program's own says it, not the file.
            spec = load_spec({**raw, "activation": model.activation}, anchors=checkpoint.anchors_px)
    except KeyError as error:
        return replace(checkpoint, notes=(f"its model's description has no {error}",))
    except (ModelError, TypeError) as error:
        return replace(checkpoint, notes=(f"its model is none that can be built here: {error}",))
    return replace(checkpoint, spec=spec, anchors_px=spec.anchors, eps=spec.options.about.eps)


def _image_size(root: Mapping[Any, Any]) -> int | None:
    """The size that YOLOv5's options name, in one of the ways of its versions."""
    options = root.get("opt", root.get("train_args"))
    options = options.state if isinstance(options, Recorded) else options
    for key in ("imgsz", "img_size", "img"):
        size = options.get(key) if isinstance(options, dict) else None
        size = size[0] if isinstance(size, list) and size else size
        if isinstance(size, int) and not isinstance(size, bool) and 0 < size <= MAX_IMAGE_SIZE:
            return size
    return None


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
        state={name: _full(tensor) for name, tensor in state.items() if "anchor" not in name},
        spec=spec,
        names=names,
        anchors_px=spec.anchors,
        image_size=size if isinstance(size, int) and 0 < size <= MAX_IMAGE_SIZE else None,
    )


def _with_anchors(checkpoint: Checkpoint) -> Checkpoint:
    """Take the anchors out of a state of YOLOv5: `anchors` in cells, and in some versions `anchor_grid` in px."""
    state = {name: _full(tensor) for name, tensor in checkpoint.state.items() if "anchor" not in name}
    cells = pixels = None
    for name, tensor in checkpoint.state.items():
        if name.endswith(".anchors") and tensor.ndim == 3 and tensor.shape[2] == 2:
            cells = tensor.float()
        if name.endswith(".anchor_grid") and tensor.ndim == 6 and tensor.shape[5] == 2:
            pixels = _anchor_table(tensor.float().view(len(tensor), -1, 2))
    return replace(checkpoint, state=state, anchors_cells=cells, anchors_px=pixels)


def _anchor_table(anchors: Tensor) -> Anchors | None:
    # Rounded: half precision and the way by cells leave dust behind the digits that a file had.
    if not anchors.numel() or not bool((torch.isfinite(anchors) & (anchors >= 0.01)).all()):
        return None
    rows = anchors.double().round(decimals=4).tolist()
    return tuple(tuple((width, height) for width, height in level) for level in rows)


def _full(tensor: Tensor) -> Tensor:
    return tensor.float() if tensor.is_floating_point() else tensor


def _normal_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Undo what wrappers put before every name: `module.` of parallel training, `model.` of a program around it."""
    names = list(state)
    for prefix, kept in (("module.", ""), ("_orig_mod.", ""), ("model.model.", "model.")):
        if names and all(name.startswith(prefix) for name in names):
            names = [kept + name.removeprefix(prefix) for name in names]
    if names and all(name.split(".")[0].isdecimal() for name in names):  # the rows alone
        names = [f"model.{name}" for name in names]
    return dict(zip(names, state.values(), strict=True))
