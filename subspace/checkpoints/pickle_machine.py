"""The pickle of a torch file, read by a machine that knows the few opcodes and names that plain tensors need.

All other opcodes and names are refused, so that a pickle can build dictionaries, lists, tuples, numbers, text and
descriptions of tensors, and nothing else. What is judged is what is built: no second reader, such as torch's own, ever
sees the bytes, so none can read them in another way, from a file that has changed since, or with the faults of its
version, and torch is not needed to read a torch file. The machine is smaller than the check that a second reader would
need in front of it, and its result is the same as torch's wherever torch wrote the file, which tests hold bit for bit.

References
----------
CPython, Lib/pickletools.py (the opcodes); torch 2.13, torch/_weights_only_unpickler.py.
"""

from __future__ import annotations

import struct
from collections import OrderedDict
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

from subspace.checkpoints.budget import OBJECTS, OPCODES
from subspace.checkpoints.pickle_calls import NAMES, Call, RefusedError, StorageType, natural, plain_key
from subspace.checkpoints.pickle_nesting import require_bounded
from subspace.checkpoints.torch_tensor import Storage
from subspace.errors import FileError, UnsafeFileError
from subspace.text import shown

if TYPE_CHECKING:
    from collections.abc import Callable

    from subspace.checkpoints.budget import Budget

__all__ = ["Unpickled", "unpickled"]

_AT_ONCE = 10_000  # opcodes between two looks at the budget
_HIGHEST_STACK = 50_000
_STOP = ord(".")
_NOT_OPENED = (
    "it was not opened; if you trust its source, save only its state dict again, best as safetensors"
)
_MARK = object()
_INT, _SHORT, _FLOAT, _LENGTH = (struct.Struct(code) for code in ("<i", "<H", ">d", "<I"))


class Unpickled(NamedTuple):
    """What a pickle holds, the storages it refers to by key, and where the bytes after it begin."""

    root: object
    storages: dict[str, Storage]
    stop: int


def unpickled(content: bytes, budget: Budget, *, where: str, start: int = 0) -> Unpickled:
    """What the pickle that begins at byte `start` holds.

    Parameters
    ----------
    content : bytes
        May go on after the pickle.
    budget : Budget
        Of the file.
    where : str
        The name of the file in errors.

    Raises
    ------
    UnsafeFileError
        If it asks for anything but plain tensors in plain containers, or for more than a file of its size can need.
    FileError
        If it is damaged.
    """
    machine = _Machine(content, start, budget)
    try:
        root = machine.run()
        require_bounded(root, budget)
    except RefusedError as error:
        what = "could run code when it is loaded" if error.runs_code else "holds more than plain tensors"
        raise UnsafeFileError(f"The file {where} {what}: its pickle {error}; {_NOT_OPENED}") from None
    except FileError:
        raise
    # all that a wrong byte can lead to, in the steps below
    except (ValueError, IndexError, KeyError, TypeError, OverflowError, AttributeError, struct.error):
        raise FileError(f"Damaged pickle in the torch file {where}; download it again") from None
    return Unpickled(root, machine.storages, machine.position)


class _Machine:
    """The bytes and the place in them, the stack, the memo and the storages seen so far."""

    def __init__(self, content: bytes, start: int, budget: Budget) -> None:
        self.content = content
        self.position = start
        self.budget = budget
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}
        self.storages: dict[str, Storage] = {}
        self.objects = 0

    def run(self) -> object:
        """The value on the stack at the end."""
        while not self._stopped():
            pass
        return self.pop()

    def _stopped(self) -> bool:
        """Whether the pickle ended within the next thousands of opcodes."""
        content, stack, steps = self.content, self.stack, _STEPS
        before = self.objects
        for done in range(_AT_ONCE):
            code = content[self.position]
            self.position += 1
            if code == _STOP:
                self.budget.spend(OPCODES, done)
                self.budget.spend(OBJECTS, self.objects - before)
                return True
            step = steps.get(code)
            if step is None:
                _refuse(code)
            step(self)
            if len(stack) > _HIGHEST_STACK:
                raise RefusedError(f"holds more than {_HIGHEST_STACK} objects at once")
        self.budget.spend(OPCODES, _AT_ONCE)
        self.budget.spend(OBJECTS, self.objects - before)
        return False

    def take(self, count: int) -> bytes:
        """The next bytes, which are the argument of an opcode."""
        start, self.position = self.position, self.position + count
        if self.position > len(self.content):
            raise ValueError("cut short")
        return self.content[start : self.position]

    def number(self, layout: struct.Struct) -> Any:
        """The next number."""
        (number,) = layout.unpack_from(self.content, self.position)
        self.position += layout.size
        return number

    def line(self) -> str:
        """The text up to the end of the line."""
        start, end = self.position, self.content.index(b"\n", self.position)
        self.position = end + 1
        return self.content[start:end].decode("utf-8", "replace")

    def text(self) -> None:
        self.stack.append(self.take(self.number(_LENGTH)).decode("utf-8", "surrogatepass"))

    def short_text(self) -> None:
        self.stack.append(self.take(self.take(1)[0]).decode("utf-8"))

    def long(self) -> None:
        self.stack.append(int.from_bytes(self.take(self.take(1)[0]), "little", signed=True))

    def put(self) -> None:
        self.memo[self.content[self.position]] = self.top()
        self.position += 1

    def get(self) -> None:
        self.stack.append(self.memo[self.content[self.position]])
        self.position += 1

    def put_far(self) -> None:
        self.memo[self.number(_LENGTH)] = self.top()

    def get_far(self) -> None:
        self.stack.append(self.memo[self.number(_LENGTH)])

    def small(self) -> None:
        self.stack.append(self.content[self.position])
        self.position += 1

    def pop(self) -> Any:
        value = self.stack.pop()
        if value is _MARK:
            raise ValueError("a mark where a value belongs")
        return value

    def top(self) -> Any:
        value = self.stack[-1]
        if value is _MARK:
            raise ValueError("a mark where a value belongs")
        return value

    def pop_to_mark(self) -> list[Any]:
        stack = self.stack
        start = len(stack) - 1
        while start >= 0 and stack[start] is not _MARK:
            start -= 1
        if start < 0:
            raise ValueError("no mark below the values")
        values = stack[start + 1 :]
        del stack[start:]
        return values

    def make(self, value: Any) -> None:
        """Push a new object, which takes memory."""
        self.objects += 1
        self.stack.append(value)

    def tuple_of(self, count: int) -> None:
        values = [self.pop() for _ in range(count)]
        self.make(tuple(values[::-1]))

    def set_items(self, values: list[Any]) -> None:
        built = self.top()
        if type(built) not in {dict, OrderedDict}:
            raise RefusedError("puts items into something that is not a dict", runs_code=True)
        if len(values) % 2:
            raise ValueError("a key without a value")
        for key, value in zip(values[::2], values[1::2], strict=True):
            built[plain_key(key)] = value

    def append(self, values: list[Any]) -> None:
        built = self.top()
        if type(built) is not list:
            raise RefusedError("puts items into something that is not a list", runs_code=True)
        built.extend(values)

    def refer(self) -> None:
        module, name = self.line(), self.line()
        known = NAMES.get((module, name))
        if known is None:
            asked = shown(f"{module}.{name}", longest=80)
            raise RefusedError(f"refers to {asked}, which plain tensors do not need", runs_code=True)
        self.stack.append(known)

    def persistent(self) -> None:
        described = self.pop()
        if type(described) is not tuple or len(described) not in {5, 6}:
            raise RefusedError("has a persistent object that is not a storage")
        if len(described) == 6 and described[5] is not None:
            raise RefusedError("has a storage that is a view of another")
        tag, asked, key, location, numel = described[:5]
        if tag != "storage" or not isinstance(asked, StorageType):
            raise RefusedError("has a persistent object that is not a storage")
        if not isinstance(key, str) or not isinstance(location, str) or not natural(numel):
            raise RefusedError("has a storage without a key, a location and a length")
        storage = self.storages.get(key)
        if storage is None:
            storage = self.storages[key] = Storage(key, asked.dtype, numel)
        if (storage.dtype, storage.numel) != (asked.dtype, numel):
            raise RefusedError(f"describes the storage {shown(key, longest=40)} twice")
        self.make(storage)

    def call(self) -> None:
        arguments = self.pop()
        asked = self.pop()
        if not isinstance(asked, Call) or type(arguments) is not tuple:
            named = next((".".join(name) for name, known in NAMES.items() if known is asked), None)
            raise RefusedError(f"calls {named or 'something that is not a name'}", runs_code=True)
        self.make(asked.make(self.budget, *arguments))

    def build(self) -> None:
        state = self.pop()
        built = self.top()
        # Module.state_dict() keeps its version in an attribute; any other attribute could replace a method
        if type(built) is not OrderedDict or type(state) is not dict or set(state) - {"_metadata"}:
            kind = shown(type(built).__name__)
            raise RefusedError(f"sets attributes of an object ({kind})", runs_code=True)


def _refuse(code: int) -> NoReturn:
    import pickletools

    known = next((opcode.name for opcode in pickletools.opcodes if ord(opcode.code) == code), None)
    if known is None:
        raise ValueError("no opcode")
    raise RefusedError(f"uses the opcode {known}", runs_code=True)


_STEPS: dict[int, Callable[[_Machine], None]] = {
    ord(code): step
    for code, step in {
        "\x80": lambda machine: machine.take(1),
        "N": lambda machine: machine.stack.append(None),
        "\x88": lambda machine: machine.stack.append(True),
        "\x89": lambda machine: machine.stack.append(False),
        "(": lambda machine: machine.stack.append(_MARK),
        "J": lambda machine: machine.stack.append(machine.number(_INT)),
        "K": _Machine.small,
        "M": lambda machine: machine.stack.append(machine.number(_SHORT)),
        "G": lambda machine: machine.stack.append(machine.number(_FLOAT)),
        "\x8a": _Machine.long,
        "X": _Machine.text,
        "U": _Machine.short_text,
        "q": _Machine.put,
        "r": _Machine.put_far,
        "h": _Machine.get,
        "j": _Machine.get_far,
        "}": lambda machine: machine.make({}),
        "]": lambda machine: machine.make([]),
        ")": lambda machine: machine.stack.append(()),
        "t": lambda machine: machine.make(tuple(machine.pop_to_mark())),
        "\x85": lambda machine: machine.tuple_of(1),
        "\x86": lambda machine: machine.tuple_of(2),
        "\x87": lambda machine: machine.tuple_of(3),
        "s": lambda machine: machine.set_items([machine.pop(), machine.pop()][::-1]),
        "u": lambda machine: machine.set_items(machine.pop_to_mark()),
        "a": lambda machine: machine.append([machine.pop()]),
        "e": lambda machine: machine.append(machine.pop_to_mark()),
        "c": _Machine.refer,
        "Q": _Machine.persistent,
        "R": _Machine.call,
        "b": _Machine.build,
    }.items()
}
