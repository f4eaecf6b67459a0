"""From a pickled model of another program to a checkpoint: its weights, and its description as a `ModelSpec`."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from model.checkpoint import Checkpoint, normal_names, with_anchors
from model.darknet import is_numbered
from model.families import guess_family
from model.notation import read_rows
from model.recorded import Recorded, StoredTensor
from model.spec import KEYS, ModelError, ModelSpec, load_spec
from model.torch_file import TorchFile
from model.whole_models import Activated, WholeModel

MAX_IMAGE_SIZE = 100_000


def as_checkpoint(path: Path, model: WholeModel, file: TorchFile, root: Mapping[Any, Any]) -> Checkpoint:
    """Read the tensors of a pickled model and what it says of itself.

    Args:
        path: the file.
        model: what was found in it.
        file: where its tensors lie.
        root: what was saved beside the model.

    Raises:
        ModelError: a tensor is missing or damaged.
    """
    checkpoint = Checkpoint(
        path=path,
        kind="pickled model",
        state=normal_names(file.tensors(model.state)),
        names=model.names,
        image_size=_image_size(root),
        eps=model.eps[0] if model.eps else None,
    )
    if len(model.eps) > 1:
        note = f"its batch norms have several epsilons, of which {model.eps[0]} is taken for all"
        checkpoint = replace(checkpoint, notes=(note,))
    strides = file.tensor(model.strides) if isinstance(model.strides, StoredTensor) else None
    checkpoint = with_anchors(checkpoint)
    if strides is not None and strides.ndim == 1 and bool((strides > 0).all()):
        anchors = checkpoint.anchors_for(tuple(int(stride) for stride in strides.tolist()))
        checkpoint = replace(checkpoint, anchors_px=anchors)
    return checkpoint if is_numbered(checkpoint.state) else _with_yaml(checkpoint, model)


def _with_yaml(checkpoint: Checkpoint, model: WholeModel) -> Checkpoint:
    """Read the description that YOLOv5 keeps in its model."""
    if model.yaml is None:
        return _noted(checkpoint, "it holds no description of its model")
    raw = {key: value for key, value in model.yaml.items() if key in KEYS}
    raw |= {"name": checkpoint.path.stem, "nc": model.classes or raw.get("nc")}
    rows = raw.get("head")
    if isinstance(rows, list) and rows and isinstance(rows[-1], list) and len(rows[-1]) == 4:
        # Old versions put the values in place of the names.
        raw["head"] = [*rows[:-1], [*rows[-1][:3], ["nc", "anchors"]]]
    try:
        raw.setdefault("family", guess_family(read_rows([*raw["backbone"], *raw["head"]], 0, "rows")))
        spec = _fitting(raw, checkpoint, model.activations)
    except KeyError as error:
        return _noted(checkpoint, f"its model's description has no {error}")
    except (ModelError, TypeError) as error:
        return _noted(checkpoint, f"its model is none that can be built here: {error}")
    return replace(checkpoint, spec=spec, anchors_px=spec.anchors)


def _fitting(raw: Mapping[str, Any], checkpoint: Checkpoint, found: Iterable[Activated]) -> ModelSpec:
    """The description with the activations that the program really had, which files of YOLOv5 up to v6 don't say.

    Raises:
        ModelError: something in the description can't be, or no family has such activations.
    """
    spec = load_spec(raw, anchors=checkpoint.anchors_px)
    wanted = _by_part(found, len(spec.backbone))
    if _has(spec, wanted):
        return spec
    names = sorted({name for part in wanted for name in part})
    if len(names) == 1 and names[0].startswith("nn."):
        spec = load_spec({**raw, "activation": names[0]}, anchors=checkpoint.anchors_px)
        if _has(spec, wanted):
            return spec
    raise ModelError(f"no family has its activations, {', '.join(names)}, where it has them")


def _by_part(found: Iterable[Activated], first: int) -> tuple[set[str], set[str], set[str]]:
    """Names of the activations of backbone, head and joints; `first` is the first row of the head."""
    parts: tuple[set[str], set[str], set[str]] = (set(), set(), set())
    for each in found:
        parts[2 if each.joint else int(each.row >= first)].add(each.name)
    return parts


def _has(spec: ModelSpec, wanted: tuple[set[str], set[str], set[str]]) -> bool:
    about = spec.options.about
    own = (spec.activation or part for part in (about.backbone, about.head, about.joint))
    return all(names <= {str(each)} for names, each in zip(wanted, own, strict=True))


def _noted(checkpoint: Checkpoint, note: str) -> Checkpoint:
    return replace(checkpoint, notes=(*checkpoint.notes, note))


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
