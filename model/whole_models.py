"""What a pickled model of another program holds: its weights by name, its description and its settings.

YOLOv5 and Scaled-YOLOv4 save objects of their own classes. Of those only the fields are read that torch's modules
have (parameters, buffers, children), and the settings beside them.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from model.recorded import Recorded, RefusedError, StoredTensor, plain
from model.rows import ModelError

MAX_MODULES = 50_000
MAX_MODULE_DEPTH = 32
ACTIVATIONS = {
    "SiLU": "nn.SiLU",
    "Hardswish": "nn.Hardswish",
    "Mish": "nn.Mish",
    "MishCuda": "nn.Mish",
    "MemoryEfficientMish": "nn.Mish",
    "ReLU": "nn.ReLU",
    "LeakyReLU": "nn.LeakyReLU",
}
"""Classes of activations, ours and those of other programs, by our name."""

ReadTensor = Callable[[StoredTensor], Tensor]


@dataclass(frozen=True, eq=False)
class WholeModel:
    """What was found in a pickled model.

    Attributes:
        state: weights and buffers by name, as its `state_dict` would give them; not read yet.
        yaml: its description, plain data, or None.
        names: class names, or None.
        classes: number of classes, or None.
        strides: of Detect, a stored tensor or a list, or None.
        activation: that of most of its convolutions, as a model file says it.
    """

    state: Mapping[str, StoredTensor]
    yaml: dict[str, Any] | None
    names: tuple[str, ...] | None
    classes: int | None
    strides: Any
    activation: str | None


def is_module(value: Any) -> bool:
    """Whether a record is one of a torch module."""
    return isinstance(value, Recorded) and isinstance(value.state.get("_modules"), dict)


def read_whole_model(module: Recorded) -> WholeModel:
    """Read a recorded module.

    Raises:
        ModelError: its fields are not those of a module.
    """
    while module.name.endswith("DataParallel"):  # DistributedDataParallel too
        inner = module.state["_modules"].get("module")
        if not is_module(inner) or inner is module:
            raise ModelError("its model is wrapped in an unknown way")
        module = inner
    modules = list(_modules(module))
    state: dict[str, StoredTensor] = {}
    for prefix, each in modules:
        state.update(_own_tensors(prefix, each))
    head = next((each for _, each in modules if each.name.rpartition(".")[2].endswith("Detect")), None)
    fields = module.state
    return WholeModel(
        state=state,
        yaml=_plain_or_none(fields.get("yaml"), dict),
        names=read_names(fields.get("names")),
        classes=_plain_or_none(head.state.get("nc") if head else fields.get("nc"), int),
        strides=head.state.get("stride") if head else None,
        activation=_activation(modules),
    )


def read_names(raw: Any) -> tuple[str, ...] | None:
    """Class names of a list, or of a dict by number; None where there are none."""
    try:
        value = plain(raw)
    except ModelError:
        return None
    if isinstance(value, dict):
        value = [value.get(number) for number in range(len(value))]
    if not isinstance(value, list) or not value or not all(isinstance(name, str) for name in value):
        return None
    return tuple(value)


def _modules(root: Recorded) -> Iterator[tuple[str, Recorded]]:
    """Walk all modules in their order, parents first, with the prefix of their names."""
    waiting: list[tuple[str, Recorded, int]] = [("", root, 0)]
    count = 0
    while waiting:
        prefix, module, depth = waiting.pop()
        count += 1
        if count > MAX_MODULES or depth > MAX_MODULE_DEPTH:
            raise RefusedError("its modules are nested too deeply, or too many")
        yield prefix, module
        children = module.state.get("_modules")
        if isinstance(children, dict):
            found = [
                (f"{prefix}{name}.", child, depth + 1)
                for name, child in children.items()
                if isinstance(child, Recorded)
            ]
            waiting += reversed(found)


def _own_tensors(prefix: str, module: Recorded) -> Iterator[tuple[str, StoredTensor]]:
    passing = module.state.get("_non_persistent_buffers_set")
    for kind in ("_parameters", "_buffers"):
        table = module.state.get(kind)
        for name, value in table.items() if isinstance(table, dict) else ():
            if isinstance(value, StoredTensor) and not (isinstance(passing, set) and name in passing):
                yield f"{prefix}{name}", value


def _activation(modules: list[tuple[str, Recorded]]) -> str | None:
    """The activation that most convolutions use: YAML files of YOLOv5 up to v6 don't say it, their program does."""
    found: Counter[str] = Counter()
    for _, module in modules:
        children = module.state.get("_modules")
        act = children.get("act") if isinstance(children, dict) and "conv" in children else None
        kind = act.name.rpartition(".")[2] if isinstance(act, Recorded) else ""
        if isinstance(act, Recorded) and kind in ACTIVATIONS:
            slope = act.state.get("negative_slope")
            name = ACTIVATIONS[kind]
            found[f"{name}({slope if kind == 'LeakyReLU' else ''})"] += 1
    return found.most_common(1)[0][0] if found else None


def _plain_or_none(value: Any, kind: type) -> Any:
    try:
        copied = plain(value)
    except ModelError:
        return None
    return copied if isinstance(copied, kind) else None
