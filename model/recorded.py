"""What the names in a pickle stand for: a few builders of our own, and records of everything else.

Also the limits that keep what was read from being a bomb.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from model.rows import ModelError

MAX_NODES = 200_000  # plain values in settings
MAX_DEPTH = 24
MAX_TEXT = 1_000_000
INERT_ROOMS = ("__main__", "models", "utils", "yolov5", "ultralytics", "mish_cuda", "pathlib", "torch.nn")
"""Where the classes live that are recorded: those of the detectors' programs, and torch's layers."""

OLD_ROOMS = {"__builtin__": "builtins", "copy_reg": "copyreg", "commands": "subprocess"}
"""What torch.save calls some modules: their names in Python 2."""

DTYPES: dict[str, torch.dtype] = {
    "Double": torch.float64,
    "Float": torch.float32,
    "Half": torch.float16,
    "BFloat16": torch.bfloat16,
    "Long": torch.int64,
    "Int": torch.int32,
    "Short": torch.int16,
    "Char": torch.int8,
    "Byte": torch.uint8,
    "Bool": torch.bool,
}
NUMPY_CODES = ("b1", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8")


class RefusedError(ModelError):
    """The pickle asks for something that reading a checkpoint doesn't need."""


@dataclass(frozen=True)
class Name:
    """A class or function that the pickle names; it is never looked up."""

    name: str


@dataclass(eq=False, slots=True)
class Recorded:
    """An object of a class that was not made.

    Attributes:
        name: module and name of the class.
        arguments: what it would have been constructed from.
        state: its fields.
    """

    name: str
    arguments: tuple[Any, ...] = ()
    state: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, eq=False, slots=True)
class StoredTensor:
    """Where a tensor lies: in elements of the storage `key`, not read yet."""

    key: str
    dtype: torch.dtype
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]


@dataclass(frozen=True, eq=False, slots=True)
class Storage:
    """A stretch of `count` elements that the file holds under `key`."""

    key: str
    dtype: torch.dtype
    count: int


def as_tuple(value: Any) -> tuple[Any, ...]:
    """Return the values of a list or tuple. Raises ValueError."""
    if not isinstance(value, list | tuple):
        raise ValueError("a list of values is missing")
    return tuple(value)


def as_text(value: Any) -> str:
    """Return a text. Raises ValueError."""
    if not isinstance(value, str):
        raise ValueError("a text is missing")
    return value


def as_count(value: Any) -> int:
    """Return a whole number from 0. Raises ValueError."""
    if not isinstance(value, int) or not 0 <= value < 2**48:
        raise ValueError("a size is no whole number from 0")
    return value


def find_name(name: str) -> Name:
    """Let a name pass that checkpoints need.

    Raises:
        RefusedError: it is on no list.
    """
    first, dot, rest = name.partition(".")
    name = OLD_ROOMS.get(first, first) + dot + rest
    room = name.rpartition(".")[0]
    inert = any(room == known or room.startswith(known + ".") for known in INERT_ROOMS)
    if inert or name in _BUILDERS or name in _RECORDED or re.fullmatch(r"torch\.(cuda\.)?\w+Storage", name):
        return Name(name)
    raise RefusedError(f"it asks for {shown(name)}, which no checkpoint needs: nothing of it was run")


def call(target: Any, arguments: tuple[Any, ...]) -> Any:
    """What a call of a name stands for: a value for those of `_BUILDERS`, a record for all others."""
    if not isinstance(target, Name):
        raise ValueError("something is called that is no name")
    builder = _BUILDERS.get(target.name)
    return Recorded(target.name, arguments) if builder is None else builder(*arguments)


def _tensor(
    storage: Any, offset: Any, size: Any, stride: Any, *_: Any
) -> StoredTensor:  # requires_grad, hooks, metadata
    if not isinstance(storage, Storage):
        raise ValueError("a tensor has no storage")
    size, stride = (tuple(map(as_count, as_tuple(each))) for each in (size, stride))
    if len(size) != len(stride):
        raise ValueError("a tensor has not as many strides as sizes")
    return StoredTensor(storage.key, storage.dtype, as_count(offset), size, stride)


def _parameter(data: Any, *_: Any) -> Any:
    return data


def _typed_tensor(function: Any, _: Any, arguments: Any, *__: Any) -> Any:
    """A tensor with fields of its own: the fields are left."""
    if not isinstance(function, Name) or _BUILDERS.get(function.name) not in (_tensor, _parameter):
        raise ValueError("a tensor is rebuilt by what rebuilds none")
    return call(function, as_tuple(arguments))


def _ordered(*arguments: Any) -> dict[Any, Any]:
    pairs = arguments[0] if arguments else []
    items = pairs.items() if isinstance(pairs, dict) else pairs
    return {check_key(key): value for key, value in items}


def _set_of(items: Any = ()) -> set[Any]:
    if not isinstance(items, list | tuple):
        raise ValueError("a set is made of what is no list")
    return set(map(check_key, items))


def _encoded(text: Any, encoding: Any = "latin1") -> bytes:
    if encoding != "latin1":
        raise ValueError("bytes are written in an unknown way")
    return as_text(text).encode("latin1")


def _numpy_scalar(dtype: Any, data: Any = b"") -> Any:
    code = dtype.arguments[0] if isinstance(dtype, Recorded) and dtype.arguments else None
    if code not in NUMPY_CODES or not isinstance(data, bytes):
        raise ValueError("a numpy number is written in an unknown way")
    return np.frombuffer(data, np.dtype(f"<{code}"), count=1)[0].item()


def _reconstructed(cls: Any, *_: Any) -> Recorded:
    """The way of protocols 0 and 1 to say NEWOBJ, and numpy's."""
    if not isinstance(cls, Name):
        raise ValueError("something is made that has no name")
    return Recorded(cls.name)


def _bound_method(target: Any, name: Any) -> Recorded:
    """A method of a recorded object: YOLOv5 puts one in place of `forward` in layers that it has fused."""
    if not isinstance(target, Recorded):
        raise RefusedError("it asks for 'builtins.getattr' of what is no layer: nothing of it was run")
    return Recorded(f"{target.name}.{as_text(name)}")


_BUILDERS: dict[str, Callable[..., Any]] = {
    "builtins.getattr": _bound_method,
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_parameter": _parameter,
    "torch._utils._rebuild_parameter_with_state": _parameter,
    "torch._tensor._rebuild_from_type_v2": _typed_tensor,
    "collections.OrderedDict": _ordered,
    "_codecs.encode": _encoded,
    "copyreg._reconstructor": _reconstructed,
    "torch.Size": as_tuple,
    "builtins.set": _set_of,
    "builtins.frozenset": _set_of,
    **{f"numpy.{core}.multiarray.scalar": _numpy_scalar for core in ("core", "_core")},
    **{f"numpy.{core}.multiarray._reconstruct": _reconstructed for core in ("core", "_core")},
}
_RECORDED = frozenset(
    {
        "argparse.Namespace",
        "builtins.object",
        "collections.Counter",
        "collections.defaultdict",
        "datetime.datetime",
        "numpy.dtype",
        "numpy.ndarray",
        "torch.Tensor",
        "torch.device",
        *(
            f"torch.{name}"
            for name in ("float64", "float32", "float16", "bfloat16", "int64", "int32", "uint8")
        ),
    }
)
"""Names that may stand in settings; they are recorded and not read."""


def plain(value: Any) -> Any:
    """Copy settings as plain data: dicts with text or whole numbers for keys, lists, text, numbers, None.

    Raises:
        ModelError: something else is in there, or it is nested too deeply, or too large (also by naming one part
            over and over).
    """
    budget = [MAX_NODES]
    return _plain(value, budget, 0)


def _plain(value: Any, budget: list[int], depth: int) -> Any:
    budget[0] -= 1
    if budget[0] < 0 or depth > MAX_DEPTH:
        raise ModelError("its settings are nested too deeply, or too large")
    if isinstance(value, dict):
        return {_plain_key(key): _plain(item, budget, depth + 1) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item, budget, depth + 1) for item in value]
    if value is None or isinstance(value, bool | float):
        return value
    if isinstance(value, int) and abs(value) < 2**63:
        return value
    if isinstance(value, str) and len(value) <= MAX_TEXT:
        return value
    raise ModelError(f"its settings hold {shown(type(value).__name__)}, which is no plain value")


def _plain_key(key: Any) -> str | int:
    if isinstance(key, str | int):
        return key
    raise ModelError("its settings have keys that are no text")


def shown(name: str) -> str:
    """Show text from a file in a message: quoted, on one line, not too long."""
    return repr(name[:100])


def check_key(key: Any) -> Any:
    """Let plain keys pass: hashes of nested tuples may never end, and those of large numbers can be made to clash."""
    if key is None or isinstance(key, str | bytes | bool) or (isinstance(key, int) and abs(key) < 2**31):
        return key
    raise RefusedError(
        f"it has a dictionary with keys of type {type(key).__name__}, which no checkpoint needs"
    )
