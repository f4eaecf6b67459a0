"""What a pickled model of another program holds: its weights by name, its description and its settings.

YOLOv5 and Scaled-YOLOv4 save objects of their own classes. Of those only the fields are read that torch's modules
have (parameters, buffers, children), and the settings beside them.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from model.recorded import Recorded, RefusedError, StoredTensor, plain, shown
from model.rows import ModelError

MAX_MODULES = 50_000
MAX_MODULE_DEPTH = 32
ACTIVATIONS = {
    "SiLU": "nn.SiLU",
    "Swish": "nn.SiLU",
    "MemoryEfficientSwish": "nn.SiLU",
    "Hardswish": "nn.Hardswish",
    "Mish": "nn.Mish",
    "MishCuda": "nn.Mish",
    "MemoryEfficientMish": "nn.Mish",
    "ReLU": "nn.ReLU",
    "LeakyReLU": "nn.LeakyReLU",
    "Identity": "nn.Identity",
}
"""Classes of activations, ours and those of other programs, by our name."""

WRAPPERS = {
    "DataParallel": "module",
    "DistributedDataParallel": "module",
    "autoShape": "model",
    "AutoShape": "model",
    "DetectMultiBackend": "model",
}
"""Classes around a model, and under which name they hold it."""
MAX_WRAPPERS = 8
COUNTERS = ("total_ops", "total_params")  # which thop leaves in the modules that it has measured

ReadTensor = Callable[[StoredTensor], Tensor]


@dataclass(frozen=True)
class Activated:
    """An activation in a pickled model.

    Attributes:
        row: the row of the model that it is in; -1 where it is in none.
        joint: whether it follows the batch norm over two branches, not a convolution.
        name: such as "nn.SiLU()"; of an unknown class, the class.
    """

    row: int
    joint: bool
    name: str


@dataclass(frozen=True, eq=False)
class WholeModel:
    """What was found in a pickled model.

    Attributes:
        state: weights and buffers by name, as its `state_dict` would give them; not read yet.
        yaml: its description, plain data, or None.
        names: class names, or None.
        classes: number of classes, or None.
        strides: of Detect, a stored tensor or a list, or None.
        activations: of each convolution and of each joint of two branches, as a model file says it.
        eps: of its batch norms, each once; the most common first.
    """

    state: Mapping[str, StoredTensor]
    yaml: dict[str, Any] | None
    names: tuple[str, ...] | None
    classes: int | None
    strides: Any
    activations: tuple["Activated", ...]
    eps: tuple[float, ...]


def is_module(value: Any) -> bool:
    """Whether a record is one of a torch module."""
    return isinstance(value, Recorded) and isinstance(value.state.get("_modules"), dict)


def read_whole_model(module: Recorded) -> WholeModel:
    """Read a recorded module.

    Raises:
        ModelError: its fields are not those of a module.
    """
    module = _unwrapped(module)
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
        activations=tuple(_activations(modules)),
        eps=_eps(modules),
    )


def _unwrapped(module: Recorded) -> Recorded:
    for _ in range(MAX_WRAPPERS):
        place = WRAPPERS.get(module.name.rpartition(".")[2])
        if place is None:
            return module
        inner = module.state["_modules"].get(place)
        if not is_module(inner):
            break
        module = inner
    raise ModelError("its model is wrapped in an unknown way")


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
            left_out = name in COUNTERS or (isinstance(passing, set) and name in passing)
            if isinstance(value, StoredTensor) and not left_out:
                yield f"{prefix}{name}", value


def _activations(modules: list[tuple[str, Recorded]]) -> Iterator[Activated]:
    """Find the activations: YAML files of YOLOv5 up to v6 don't say them, their program does."""
    for prefix, module in modules:
        children = module.state.get("_modules")
        act = children.get("act") if isinstance(children, dict) else None
        if not isinstance(act, Recorded) or not isinstance(children, dict):
            continue
        kind = act.name.rpartition(".")[2]
        slope = act.state.get("negative_slope") if kind == "LeakyReLU" else ""
        name = f"{ACTIVATIONS[kind]}({slope})" if kind in ACTIVATIONS else shown(act.name)
        row = prefix.split(".")[1] if prefix.startswith("model.") else ""
        if name != "nn.Identity()":
            yield Activated(int(row) if row.isdecimal() else -1, "conv" not in children, name)


def _eps(modules: list[tuple[str, Recorded]]) -> tuple[float, ...]:
    found = (module.state.get("eps") for _, module in modules if module.name.endswith("BatchNorm2d"))
    counted = Counter(eps for eps in found if isinstance(eps, float) and 0 <= eps < 1)
    return tuple(eps for eps, _ in counted.most_common())


def _plain_or_none(value: Any, kind: type) -> Any:
    try:
        copied = plain(value)
    except ModelError:
        return None
    return copied if isinstance(copied, kind) else None
