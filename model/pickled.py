"""Pickles read without running anything in them.

A pickle is a program for a small machine. This machine knows the instructions that checkpoints need, and makes
numbers, text, containers, and records of what it will not make: an object of a class is a `Recorded` that holds
the class's name and the object's fields. Nothing is imported, called or constructed. Whatever is not on the lists
of `model.recorded` is refused by its name.

A pickle can also be a bomb. What its instructions cost is counted, keys of dictionaries and sets must be plain
(hashing a deeply nested tuple takes the stack, or for ever), and what was read is copied with a budget (`plain`).

Source: the instructions are those of Python's `pickletools`; which names a checkpoint holds was seen in what
`torch.save` writes.
"""

import pickletools
import re
from collections.abc import Callable, Iterable, Sized
from typing import IO, Any, cast

from model.byte_stream import Stream
from model.recorded import (
    DTYPES,
    Name,
    Recorded,
    RefusedError,
    Storage,
    StoredTensor,
    as_count,
    as_text,
    as_tuple,
    call,
    check_key,
    find_name,
    shown,
)
from model.rows import ModelError

MAX_COST = 2_000_000
"""Instructions, and elements that they copy. The largest detector with its optimiser takes under a million."""


def read_pickle(stream: Stream, storages: dict[str, Storage] | None = None) -> Any:
    """Read one pickle, up to its STOP.

    Args:
        stream: where it begins.
        storages: those that it names are added.

    Returns:
        Numbers, text, None, lists, tuples, dicts and sets of them, `Recorded`, `StoredTensor` and `Name`.

    Raises:
        RefusedError: it names something that is on no list, or asks for too much.
        ModelError: it is damaged.
    """
    machine = _Machine({} if storages is None else storages)
    try:
        # genops reads, reads lines and tells; its type asks for a whole file.
        for instruction, argument, _ in pickletools.genops(cast(IO[bytes], stream)):
            machine.spend(1)
            machine.step(instruction.name, argument)
        return machine.result()
    except RefusedError:
        raise
    except (ValueError, IndexError, KeyError, TypeError, AttributeError, OverflowError) as error:
        # What damaged or made-up instructions come to: too few values, values of other kinds, no such memo.
        reason = " ".join(str(error).split())[:120]
        raise ModelError(f"its pickle is damaged ({reason or type(error).__name__})") from error


class _Machine:
    """The stack, the memo, and a method for each kind of instruction."""

    def __init__(self, storages: dict[str, Storage]) -> None:
        self._storages = storages
        self._stack: list[Any] = []
        self._below: list[list[Any]] = []  # the stacks under each open mark
        self._memo: dict[int, Any] = {}
        self._spent = 0

    def spend(self, cost: int) -> None:
        """Count towards the limit: one value named a million times must not be copied a million times."""
        self._spent += cost
        if self._spent > MAX_COST:
            raise RefusedError(f"reading its pickle takes more than {MAX_COST:,} steps")

    def _spend_on(self, values: Iterable[Any]) -> None:
        self.spend(sum(len(value) for value in values if isinstance(value, Sized)))

    def result(self) -> Any:
        return self._stack[-1]

    def step(self, name: str, argument: Any) -> None:
        if name in _PLAIN:
            self._stack.append(argument)
        elif name in _CONSTANTS:
            self._stack.append(_CONSTANTS[name]())
        elif name in _ACTIONS:
            _ACTIONS[name](self, argument)
        elif name not in ("PROTO", "FRAME", "STOP"):
            raise RefusedError(f"its pickle has the instruction {name}, which no checkpoint needs")

    def mark(self, _: Any) -> None:
        self._below.append(self._stack)
        self._stack = []

    def _since_mark(self) -> list[Any]:
        items, self._stack = self._stack, self._below.pop()
        return items

    def pop(self, _: Any) -> None:
        if self._stack:
            self._stack.pop()
        else:
            self._since_mark()

    def pop_mark(self, _: Any) -> None:
        self._since_mark()

    def duplicate(self, _: Any) -> None:
        self._stack.append(self._stack[-1])

    def put(self, index: Any) -> None:
        self._memo[len(self._memo) if index is None else index] = self._stack[-1]

    def get(self, index: Any) -> None:
        self._stack.append(self._memo[index])

    def pack(self, count: int | None) -> None:
        if count is None:
            items = self._since_mark()
        else:
            items = self._stack[-count:]
            if len(items) < count:
                raise ValueError("a tuple lacks values")
            del self._stack[-count:]
        self._stack.append(tuple(items))

    def list_of(self, _: Any) -> None:
        items = self._since_mark()
        self._stack.append(items)

    def dict_of(self, _: Any) -> None:
        items = self._since_mark()
        self._stack.append({})
        self._set(items)

    def append(self, many: bool) -> None:
        items = self._since_mark() if many else [self._stack.pop()]
        target = self._stack[-1]
        if isinstance(target, list):
            target.extend(items)
        elif not isinstance(target, Recorded):  # items of an unknown sequence are no settings of ours
            raise ValueError("items are added to what is no list")

    def set_items(self, many: bool) -> None:
        if many:
            items = self._since_mark()
        else:
            value = self._stack.pop()
            items = [self._stack.pop(), value]
        self._set(items)

    def _set(self, items: list[Any]) -> None:
        target = self._stack[-1]
        if isinstance(target, dict):
            target.update(zip(map(check_key, items[::2]), items[1::2], strict=True))
        elif not isinstance(target, Recorded):
            raise ValueError("entries are added to what is no dictionary")

    def add_items(self, _: Any) -> None:
        items = self._since_mark()
        target = self._stack[-1]
        if not isinstance(target, set):
            raise ValueError("items are added to what is no set")
        target.update(map(check_key, items))

    def frozen_set(self, _: Any) -> None:
        items = self._since_mark()
        self._stack.append(frozenset(map(check_key, items)))

    def name(self, argument: Any) -> None:
        if argument is None:
            last, module = self._stack.pop(), self._stack.pop()
            argument = f"{module} {last}"
        self._stack.append(find_name(argument.replace(" ", ".", 1)))

    def make(self, extra: bool) -> None:
        """NEWOBJ, NEWOBJ_EX: an object without its fields."""
        if extra:
            self._stack.pop()  # keyword arguments are no fields
        arguments, cls = self._stack.pop(), self._stack.pop()
        self._stack.append(call(cls, as_tuple(arguments)))

    def reduce(self, _: Any) -> None:
        arguments, function = self._stack.pop(), self._stack.pop()
        self._spend_on(as_tuple(arguments))
        self._stack.append(call(function, as_tuple(arguments)))

    def build(self, _: Any) -> None:
        state = self._stack.pop()
        target = self._stack[-1]
        if isinstance(target, Recorded):
            parts = state if isinstance(state, tuple) and len(state) == 2 else (state,)
            self._spend_on(parts)
            for part in parts:  # (fields, slots) or fields alone
                if isinstance(part, dict):
                    target.state.update(part)
            if isinstance(state, tuple):
                target.state.setdefault("", state)  # numpy's types keep theirs in a tuple
        elif not isinstance(target, dict | list | set | StoredTensor):
            raise ValueError("fields are given to what is no object")

    def stored(self, _: Any) -> None:
        """BINPERSID: torch says where a storage lies, or in old files, of what source code a class was."""
        values = as_tuple(self._stack.pop())
        if values[0] == "module" and isinstance(values[1], Name):
            self._stack.append(values[1])
            return
        kind, cls, key, _, count, *view = values
        if kind != "storage" or not isinstance(cls, Name) or any(part is not None for part in view):
            raise ValueError("a storage is named in an unknown way")
        match = re.fullmatch(r"torch\.(?:cuda\.)?(\w+)Storage", cls.name)
        if match is None or match[1] not in DTYPES:
            raise RefusedError(f"it holds {shown(cls.name)}, which no detector has")
        storage = Storage(as_text(key), DTYPES[match[1]], as_count(count))
        self._storages[storage.key] = storage
        self._stack.append(storage)


_PLAIN = frozenset(
    {
        *("BININT", "BININT1", "BININT2", "INT", "LONG", "LONG1", "LONG4", "BINFLOAT", "FLOAT"),
        *(
            "BINUNICODE",
            "SHORT_BINUNICODE",
            "BINUNICODE8",
            "UNICODE",
            "BINSTRING",
            "SHORT_BINSTRING",
            "STRING",
        ),
        *("BINBYTES", "SHORT_BINBYTES", "BINBYTES8"),
    }
)
_CONSTANTS: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_LIST": list,
    "EMPTY_DICT": dict,
    "EMPTY_TUPLE": tuple,
    "EMPTY_SET": set,
}
_ACTIONS: dict[str, Callable[[_Machine, Any], None]] = {
    "MARK": _Machine.mark,
    "POP": _Machine.pop,
    "POP_MARK": _Machine.pop_mark,
    "DUP": _Machine.duplicate,
    "MEMOIZE": _Machine.put,
    **dict.fromkeys(("PUT", "BINPUT", "LONG_BINPUT"), _Machine.put),
    **dict.fromkeys(("GET", "BINGET", "LONG_BINGET"), _Machine.get),
    "TUPLE": lambda machine, _: machine.pack(None),
    "TUPLE1": lambda machine, _: machine.pack(1),
    "TUPLE2": lambda machine, _: machine.pack(2),
    "TUPLE3": lambda machine, _: machine.pack(3),
    "LIST": _Machine.list_of,
    "DICT": _Machine.dict_of,
    "APPEND": lambda machine, _: machine.append(False),
    "APPENDS": lambda machine, _: machine.append(True),
    "SETITEM": lambda machine, _: machine.set_items(False),
    "SETITEMS": lambda machine, _: machine.set_items(True),
    "ADDITEMS": _Machine.add_items,
    "FROZENSET": _Machine.frozen_set,
    "GLOBAL": _Machine.name,
    "STACK_GLOBAL": _Machine.name,
    "NEWOBJ": lambda machine, _: machine.make(False),
    "NEWOBJ_EX": lambda machine, _: machine.make(True),
    "REDUCE": _Machine.reduce,
    "BUILD": _Machine.build,
    "BINPERSID": _Machine.stored,
}
