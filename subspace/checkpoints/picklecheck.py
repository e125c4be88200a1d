"""Judging the pickle of a torch file without running it.

Every opcode is carried out on stand-ins: a call becomes a note of what would be called with what. Only the
handful of opcodes and callables that saving plain tensors takes are known here, and all others are refused,
so what passes can build dictionaries, lists, numbers, text and tensors, and nothing else. torch's own
restricted reader then does the work; its list is longer (`bytearray(n)`, any text codec, uninitialised
tensors), which is why this pass stands before it.

References
----------
CPython, Lib/pickletools.py (the opcodes); torch 2.13, torch/_weights_only_unpickler.py.
"""

from __future__ import annotations

import itertools
import math
import pickletools
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from subspace.errors import FileError, UnsafeFileError, shown

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Storage", "checked_pickle"]

_MOST_OPCODES = 4_000_000
_HIGHEST_STACK = 50_000
_DEEPEST = 100
_LARGEST = 2**63

# element sizes of the storages that torch.save names
_STORAGES = {
    "DoubleStorage": 8, "FloatStorage": 4, "HalfStorage": 2, "BFloat16Storage": 2, "LongStorage": 8,
    "IntStorage": 4, "ShortStorage": 2, "CharStorage": 1, "ByteStorage": 1, "BoolStorage": 1,
    "ComplexFloatStorage": 8, "ComplexDoubleStorage": 16, "UntypedStorage": 1,
}  # fmt: skip

_DTYPES = {
    "float64": 8, "float32": 4, "float16": 2, "bfloat16": 2, "int64": 8, "int32": 4, "int16": 2, "int8": 1,
    "uint8": 1, "uint16": 2, "uint32": 4, "uint64": 8, "bool": 1, "complex64": 8, "complex128": 16,
    "float8_e4m3fn": 1, "float8_e5m2": 1, "float8_e4m3fnuz": 1, "float8_e5m2fnuz": 1,
}  # fmt: skip


class _Readable(Protocol):
    def read(self, n: int, /) -> bytes: ...

    def readline(self) -> bytes: ...


class Storage(NamedTuple):
    """A run of bytes that tensors are views of: its key in the file, element size, and number of elements."""

    key: str
    itemsize: int
    numel: int


class _Global(NamedTuple):
    """A name that the pickle asks for."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


class _Made:
    """Stand-in for an object: what it would be, how deep it nests, and what it holds where that matters."""

    __slots__ = ("depth", "held", "kind")

    def __init__(self, kind: str, held: Any = None, *, depth: int = 0) -> None:
        self.kind = kind
        self.held = held
        self.depth = depth


_MARK = _Made("mark")


def checked_pickle(pickle: _Readable, *, where: str) -> tuple[object, dict[str, Storage]]:
    """What one pickle would give, and the storages it refers to by key; the reader is left after its end.

    Plain numbers, text and lists of text come back as themselves, everything else as an opaque stand-in.

    Parameters
    ----------
    pickle : reader
        Positioned at the first opcode; its length bounds what is read.
    where : str
        How errors call the file.

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
    except _RefusedError as error:
        raise UnsafeFileError(
            f"a torch file must hold plain tensors: got {error}, in {where}; "
            "save the state dict alone, best as safetensors, where the file is trusted"
        ) from None
    except (ValueError, IndexError, KeyError, TypeError, OverflowError, AttributeError):
        raise FileError(
            f"a pickle must be well formed: got a damaged one, in {where}; download it again"
        ) from None
    raise UnsafeFileError(f"a pickle must be short: got more than {_MOST_OPCODES} opcodes, in {where}")


class _RefusedError(Exception):
    """What the pickle asks for and may not have."""


def _plain(value: object) -> object:
    if isinstance(value, _Made) and value.kind == "list":
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
            self.memo[argument] = self.stack[-1]
        elif name in _GETS:
            self.stack.append(self.memo[argument])
        elif name in _EMPTY:
            kind = _EMPTY[name]
            self.stack.append(_Made(kind, () if kind == "tuple" else [], depth=1))
        elif name in _STEPS:
            _STEPS[name](self, argument)
        else:
            raise _RefusedError(f"the pickle opcode {name}")
        if len(self.stack) > _HIGHEST_STACK:
            raise _RefusedError(f"a pickle that holds more than {_HIGHEST_STACK} objects at once")

    def pop(self) -> Any:
        value = self.stack.pop()
        if value is _MARK:
            raise ValueError("a mark where a value belongs")
        return value

    def pop_to_mark(self) -> list[Any]:
        start = next(i for i in range(len(self.stack) - 1, -1, -1) if self.stack[i] is _MARK)
        values = self.stack[start + 1 :]
        del self.stack[start:]
        return values

    def container(self, kind: str) -> _Made:
        made = self.stack[-1]
        if not isinstance(made, _Made) or made.kind not in {kind, "OrderedDict" if kind == "dict" else kind}:
            raise _RefusedError(f"items put into something that is no {kind}")
        return made

    def tuple_of(self, values: list[Any]) -> None:
        self.stack.append(_deepened(_Made("tuple", tuple(values)), values))

    def setitems(self, values: list[Any]) -> None:
        made = self.container("dict")
        if len(values) % 2:
            raise ValueError("a key without a value")
        for key in values[::2]:
            if not isinstance(key, str | int | float | None):
                raise _RefusedError("a key that is neither text nor number")
        made.held.extend(values[::2])
        _deepened(made, values[1::2])

    def appends(self, values: list[Any]) -> None:
        made = self.container("list")
        made.held.extend(values)
        _deepened(made, values)

    def global_(self, argument: str) -> None:
        asked = _Global(*argument.split(" ", 1))
        if asked not in _CALLS and not _is_type(asked):
            raise _RefusedError(f"the name {shown(asked, longest=80)}, which may run code")
        self.stack.append(asked)

    def persistent(self) -> None:
        described = self.pop().held
        if len(described) == 6 and described[5] is not None:
            raise _RefusedError("a storage that is a view of another")
        tag, asked, key, location, numel = described[:5]
        if tag != "storage" or not isinstance(asked, _Global) or not _is_storage(asked):
            raise _RefusedError("a persistent object that is no storage")
        if not isinstance(key, str) or not isinstance(location, str) or not _natural(numel):
            raise _RefusedError("a storage that is not described by key, place and length")
        storage = Storage(key, _STORAGES[asked.name], numel)
        if self.storages.setdefault(key, storage) != storage:
            raise _RefusedError(f"two descriptions of the storage {shown(key, longest=40)}")
        self.stack.append(_Made("storage", storage))

    def reduce(self) -> None:
        arguments = self.pop()
        asked = self.pop()
        if not isinstance(asked, _Global) or asked not in _CALLS or arguments.kind != "tuple":
            raise _RefusedError(f"a call of {shown(asked, longest=80)}")
        self.stack.append(_CALLS[asked](*arguments.held))

    def build(self) -> None:
        state = self.pop()
        made = self.stack[-1]
        # Module.state_dict() notes its version as an attribute; any other attribute could hide a method
        if made.kind != "OrderedDict" or state.kind != "dict" or set(state.held) - {"_metadata"}:
            raise _RefusedError(f"attributes set on an object ({shown(made.kind)})")


def _deepened(made: _Made, values: list[Any]) -> _Made:
    deepest = max((value.depth for value in values if isinstance(value, _Made)), default=0)
    made.depth = max(made.depth, 1 + deepest)
    if made.depth > _DEEPEST:
        raise _RefusedError(f"containers nested more than {_DEEPEST} deep")
    return made


def _natural(number: object) -> bool:
    return type(number) is int and 0 <= number < _LARGEST


def _naturals(made: object) -> list[int]:
    if not isinstance(made, _Made) or made.kind not in {"tuple", "size"} or not all(map(_natural, made.held)):
        raise _RefusedError("a size, stride or offset that is negative or no integer")
    return list(made.held)


def _ordered_dict(items: object = None) -> _Made:
    if items is not None and (not isinstance(items, _Made) or items.kind != "list"):
        raise _RefusedError("an OrderedDict made of something that is no list")
    return _Made("OrderedDict", [], depth=1 if items is None else items.depth)


def _tensor(
    storage: Any, offset: Any, size: Any, stride: Any, gradient: Any, hooks: Any, metadata: Any = None
) -> _Made:
    return _view(storage, (offset, size, stride), (gradient, hooks), metadata)


def _typed_tensor(
    storage: Any,
    offset: Any,
    size: Any,
    stride: Any,
    gradient: Any,
    hooks: Any,
    dtype: Any,
    metadata: Any = None,
) -> _Made:
    if not isinstance(dtype, _Global) or dtype.name not in _DTYPES or storage.held.itemsize != 1:
        raise _RefusedError("a tensor of an unknown type")
    return _view(storage, (offset, size, stride), (gradient, hooks), metadata, itemsize=_DTYPES[dtype.name])


def _view(
    storage: Any, place: tuple[Any, Any, Any], extras: tuple[Any, Any], metadata: Any, *, itemsize: int = 1
) -> _Made:
    if not isinstance(storage, _Made) or storage.kind != "storage" or not _natural(place[0]):
        raise _RefusedError("a tensor without a storage and an offset in it")
    size, stride = _naturals(place[1]), _naturals(place[2])
    hooks, numel = extras[1], storage.held.numel // itemsize
    if (
        extras[0] not in (True, False)
        or getattr(hooks, "kind", "") != "OrderedDict"
        or hooks.held
        or metadata
    ):
        raise _RefusedError("a tensor with hooks or further state")
    count = math.prod(size)
    # a stride of 0 can show a few bytes as a matrix of terabytes
    if len(size) != len(stride) or count > numel:
        raise _RefusedError(f"a tensor of {count} elements over a storage of {numel}")
    if count and place[0] + sum((n - 1) * step for n, step in zip(size, stride, strict=True)) >= numel:
        raise _RefusedError(f"a tensor that reaches beyond its storage of {numel} elements")
    return _Made("tensor")


def _parameter(tensor: Any, gradient: Any, hooks: Any) -> _Made:
    if getattr(tensor, "kind", "") != "tensor" or getattr(hooks, "kind", "") != "OrderedDict" or hooks.held:
        raise _RefusedError("a parameter of something that is no tensor")
    return _Made("tensor")


def _size(dimensions: Any) -> _Made:
    return _Made("size", tuple(_naturals(dimensions)))


def _encoded(text: object, codec: object) -> bytes:
    # other codecs can take minutes for a few kilobytes
    if not isinstance(text, str) or codec != "latin1":
        raise _RefusedError(f"text encoded as {shown(codec, longest=40)}")
    return text.encode("latin1")


def _device(kind: object, number: object = 0) -> _Made:
    if not isinstance(kind, str) or not _natural(number):
        raise _RefusedError("a device that is not named")
    return _Made("device")


_CALLS: dict[_Global, Callable[..., Any]] = {
    _Global("collections", "OrderedDict"): _ordered_dict,
    _Global("torch._utils", "_rebuild_tensor_v2"): _tensor,
    _Global("torch._utils", "_rebuild_tensor_v3"): _typed_tensor,
    _Global("torch._utils", "_rebuild_parameter"): _parameter,
    _Global("torch", "Size"): _size,
    _Global("torch", "device"): _device,
    _Global("_codecs", "encode"): _encoded,
}


def _is_storage(asked: _Global) -> bool:
    return asked.module in {"torch", "torch.storage"} and asked.name in _STORAGES


def _is_type(asked: _Global) -> bool:
    return _is_storage(asked) or (asked.module == "torch" and asked.name in _DTYPES)


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
