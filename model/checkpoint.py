"""What a file of weights holds, whichever program wrote it."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor

from model.model_spec import ModelSpec
from model.notation import Anchors


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
        return anchor_table(self.anchors_cells * torch.tensor(strides).view(-1, 1, 1))


def with_anchors(checkpoint: Checkpoint) -> Checkpoint:
    """Take the anchors out of a state of YOLOv5: `anchors` in cells, and in some versions `anchor_grid` in px."""
    state = {
        name: full_precision(tensor) for name, tensor in checkpoint.state.items() if "anchor" not in name
    }
    cells = pixels = None
    for name, tensor in checkpoint.state.items():
        if name.endswith(".anchors") and tensor.ndim == 3 and tensor.shape[2] == 2:
            cells = tensor.float()
        if name.endswith(".anchor_grid") and tensor.ndim == 6 and tensor.shape[5] == 2:
            pixels = anchor_table(tensor.float().view(len(tensor), -1, 2))
    return replace(checkpoint, state=state, anchors_cells=cells, anchors_px=pixels)


def anchor_table(anchors: Tensor) -> Anchors | None:
    """Anchors (levels, per level, 2) px as plain numbers; None where they can be none."""
    # Rounded: half precision and the way by cells leave dust behind the digits that a file had.
    if not anchors.numel() or not bool((torch.isfinite(anchors) & (anchors >= 0.01)).all()):
        return None
    rows = anchors.double().round(decimals=4).tolist()
    return tuple(tuple((width, height) for width, height in level) for level in rows)


def full_precision(tensor: Tensor) -> Tensor:
    """A tensor, as float32 where it has floats."""
    return tensor.float() if tensor.is_floating_point() else tensor


def normal_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Undo what wrappers put before every name: `module.` of parallel training, `model.` of a program around it."""
    names = list(state)
    for prefix, kept in (("module.", ""), ("_orig_mod.", ""), ("model.model.", "model.")):
        if names and all(name.startswith(prefix) for name in names):
            names = [kept + name.removeprefix(prefix) for name in names]
    if names and all(name.split(".")[0].isdecimal() for name in names):  # the rows alone
        names = [f"model.{name}" for name in names]
    return dict(zip(names, state.values(), strict=True))
