"""The pickle of a torch file, checked without running it.

Every opcode is carried out on stand-ins: a call only notes what would be called with what. The few opcodes and
callables that plain tensors need are known here and all others are refused, so a pickle that passes can build
dictionaries, lists, numbers, text and tensors, and nothing else. torch's own restricted loader then does the work; it
allows more (`bytearray(n)`, any text codec, uninitialised tensors), which is why this check comes first.

References
----------
CPython, Lib/pickletools.py (the opcodes); torch 2.13, torch/_weights_only_unpickler.py.
"""

from __future__ import annotations

import itertools
import pickletools
from typing import TYPE_CHECKING, Any, Protocol

from subspace.checkpoints.pickle_calls import (
    CALLS,
    STORAGES,
    Global,
    RefusedError,
    StandIn,
    Storage,
    deepened,
    is_storage,
    is_type,
    natural,
)
from subspace.errors import FileError, UnsafeFileError
from subspace.text import shown

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Storage", "checked_pickle"]

_MOST_OPCODES = 4_000_000
_HIGHEST_STACK = 50_000
_NOT_OPENED = (
    "it was not opened; if you trust its source, save only its state dict again, best as safetensors"
)


class _Readable(Protocol):
    def read(self, n: int, /) -> bytes: ...

    def readline(self) -> bytes: ...


_MARK = StandIn("mark")


def checked_pickle(pickle: _Readable, *, where: str) -> tuple[object, dict[str, Storage]]:
    """Value that one pickle would give, and the storages it refers to, by key; the reader is left after its end.

    Plain numbers, text and lists of text are returned as such, everything else as an opaque stand-in.

    Parameters
    ----------
    pickle : reader
        Positioned at the first opcode; no more than its length is read.
    where : str
        The name of the file in errors.

    Raises
    ------
    UnsafeFileError
        If it asks for anything but plain tensors in plain containers.
    FileError
        If it is damaged.
    """
    machine = _Machine()
    try:
        for opcode, argument, _ in itertools.islice(pickletools.genops(pickle), _MOST_OPCODES):  # type: ignore[arg-type]
            if opcode.name == "STOP":
                return _plain(machine.pop()), machine.storages
            machine.step(opcode.name, argument)
    except RefusedError as error:
        what = "could run code when it is loaded" if error.runs_code else "holds more than plain tensors"
        raise UnsafeFileError(f"The file {where} {what}: its pickle {error}; {_NOT_OPENED}") from None
    except (ValueError, IndexError, KeyError, TypeError, OverflowError, AttributeError):
        raise FileError(f"Damaged pickle in the torch file {where}; download it again") from None
    raise UnsafeFileError(
        f"The file {where} holds more than plain tensors: its pickle has over {_MOST_OPCODES} opcodes; {_NOT_OPENED}"
    )


def _plain(value: object) -> object:
    if isinstance(value, StandIn) and value.kind == "list":
        return [item for item in value.held if isinstance(item, str)]
    return value


class _Machine:
    """The stack, the memo and the storages seen so far."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}
        self.storages: dict[str, Storage] = {}

    def step(self, name: str, argument: Any) -> None:
        if name in _CONSTANTS:
            self.stack.append(_CONSTANTS[name])
        elif name in _LITERALS:
            self.stack.append(argument)
        elif name in _PUTS:
            self.memo[argument] = self.top()
        elif name in _GETS:
            self.stack.append(self.memo[argument])
        elif name in _EMPTY:
            kind = _EMPTY[name]
            self.stack.append(StandIn(kind, () if kind == "tuple" else [], depth=1))
        elif name in _STEPS:
            _STEPS[name](self, argument)
        else:
            raise RefusedError(f"uses the opcode {name}", runs_code=True)
        if len(self.stack) > _HIGHEST_STACK:
            raise RefusedError(f"holds more than {_HIGHEST_STACK} objects at once")

    def pop(self) -> Any:
        value = self.top()
        del self.stack[-1]
        return value

    def top(self) -> Any:
        if self.stack[-1] is _MARK:
            raise ValueError("a mark where a value belongs")
        return self.stack[-1]

    def pop_to_mark(self) -> list[Any]:
        start = next((i for i in range(len(self.stack) - 1, -1, -1) if self.stack[i] is _MARK), None)
        if start is None:
            raise ValueError("no mark below the values")
        values = self.stack[start + 1 :]
        del self.stack[start:]
        return values

    def container(self, kind: str) -> StandIn:
        built = self.top()
        if not isinstance(built, StandIn) or built.kind.removeprefix("Ordered").lower() != kind:
            raise RefusedError(f"puts items into something that is not a {kind}", runs_code=True)
        return built

    def tuple_of(self, values: list[Any]) -> None:
        self.stack.append(deepened(StandIn("tuple", tuple(values)), values))

    def setitems(self, values: list[Any]) -> None:
        built = self.container("dict")
        if len(values) % 2:
            raise ValueError("a key without a value")
        for key in values[::2]:
            if not isinstance(key, str | int | float | None):
                raise RefusedError("has a key that is neither text nor a number")
        built.held.extend(values[::2])
        deepened(built, values[1::2])

    def appends(self, values: list[Any]) -> None:
        built = self.container("list")
        built.held.extend(values)
        deepened(built, values)

    def global_(self, argument: str) -> None:
        asked = Global(*argument.split(" ", 1))
        if asked not in CALLS and not is_type(asked):
            raise RefusedError(
                f"refers to {shown(asked, longest=80)}, which plain tensors do not need", runs_code=True
            )
        self.stack.append(asked)

    def persistent(self) -> None:
        described = self.pop().held
        if len(described) == 6 and described[5] is not None:
            raise RefusedError("has a storage that is a view of another")
        tag, asked, key, location, numel = described[:5]
        if tag != "storage" or not isinstance(asked, Global) or not is_storage(asked):
            raise RefusedError("has a persistent object that is not a storage")
        if not isinstance(key, str) or not isinstance(location, str) or not natural(numel):
            raise RefusedError("has a storage without a key, a location and a length")
        storage = Storage(key, STORAGES[asked.name], numel)
        if self.storages.setdefault(key, storage) != storage:
            raise RefusedError(f"describes the storage {shown(key, longest=40)} twice")
        self.stack.append(StandIn("storage", storage))

    def reduce(self) -> None:
        arguments = self.pop()
        asked = self.pop()
        if not isinstance(asked, Global) or asked not in CALLS or arguments.kind != "tuple":
            named = isinstance(asked, Global)
            called = shown(asked, longest=80) if named else "something that is not a name"
            raise RefusedError(f"calls {called}", runs_code=True)
        self.stack.append(CALLS[asked](*arguments.held))

    def build(self) -> None:
        state = self.pop()
        built = self.top()
        # Module.state_dict() keeps its version in an attribute; any other attribute could replace a method
        if built.kind != "OrderedDict" or state.kind != "dict" or set(state.held) - {"_metadata"}:
            raise RefusedError(f"sets attributes of an object ({shown(built.kind)})", runs_code=True)


_CONSTANTS: dict[str, Any] = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "MARK": _MARK}
_LITERALS = frozenset({"BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINUNICODE", "SHORT_BINSTRING"})
_PUTS = frozenset({"BINPUT", "LONG_BINPUT"})
_GETS = frozenset({"BINGET", "LONG_BINGET"})
_EMPTY = {"EMPTY_DICT": "dict", "EMPTY_LIST": "list", "EMPTY_TUPLE": "tuple"}

_STEPS: dict[str, Callable[[_Machine, Any], None]] = {
    "PROTO": lambda machine, version: None,
    "GLOBAL": _Machine.global_,
    "REDUCE": lambda machine, _: machine.reduce(),
    "BUILD": lambda machine, _: machine.build(),
    "BINPERSID": lambda machine, _: machine.persistent(),
    "TUPLE": lambda machine, _: machine.tuple_of(machine.pop_to_mark()),
    "TUPLE1": lambda machine, _: machine.tuple_of([machine.pop()]),
    "TUPLE2": lambda machine, _: machine.tuple_of([machine.pop(), machine.pop()][::-1]),
    "TUPLE3": lambda machine, _: machine.tuple_of([machine.pop(), machine.pop(), machine.pop()][::-1]),
    "SETITEM": lambda machine, _: machine.setitems([machine.pop(), machine.pop()][::-1]),
    "SETITEMS": lambda machine, _: machine.setitems(machine.pop_to_mark()),
    "APPEND": lambda machine, _: machine.appends([machine.pop()]),
    "APPENDS": lambda machine, _: machine.appends(machine.pop_to_mark()),
}
