"""The few names that the pickle of plain tensors refers to, and what a call of each would return.

Nothing is called: each function here takes stand-ins for the arguments and returns one for the result, or refuses.

References
----------
torch 2.13, torch/_utils.py (`_rebuild_tensor_v2`, `_rebuild_tensor_v3`, `_rebuild_parameter`).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

from subspace.text import shown

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = [
    "CALLS",
    "STORAGES",
    "Global",
    "RefusedError",
    "StandIn",
    "Storage",
    "deepened",
    "is_storage",
    "is_type",
    "natural",
]

_DEEPEST = 100
_LARGEST = 2**63

# element sizes in bytes of the storages that torch.save names
STORAGES = {
    "DoubleStorage": 8, "FloatStorage": 4, "HalfStorage": 2, "BFloat16Storage": 2, "LongStorage": 8,
    "IntStorage": 4, "ShortStorage": 2, "CharStorage": 1, "ByteStorage": 1, "BoolStorage": 1,
    "ComplexFloatStorage": 8, "ComplexDoubleStorage": 16, "UntypedStorage": 1,
}  # fmt: skip

_DTYPES = {
    "float64": 8, "float32": 4, "float16": 2, "bfloat16": 2, "int64": 8, "int32": 4, "int16": 2, "int8": 1,
    "uint8": 1, "uint16": 2, "uint32": 4, "uint64": 8, "bool": 1, "complex64": 8, "complex128": 16,
    "float8_e4m3fn": 1, "float8_e5m2": 1, "float8_e4m3fnuz": 1, "float8_e5m2fnuz": 1,
}  # fmt: skip


class Storage(NamedTuple):
    """Memory that tensors are views of: its key in the file, element size in bytes, and number of elements."""

    key: str
    itemsize: int
    numel: int


class Global(NamedTuple):
    """A name that the pickle refers to."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


class StandIn:
    """Stand-in for an object: its kind, how deep it is nested, and what it holds where that matters."""

    __slots__ = ("depth", "held", "kind")

    def __init__(self, kind: str, held: Any = None, *, depth: int = 0) -> None:
        self.kind = kind
        self.held = held
        self.depth = depth


class RefusedError(Exception):
    """What the pickle does and may not, as the rest of a sentence that begins with "its pickle"."""

    def __init__(self, fact: str, *, runs_code: bool = False) -> None:
        super().__init__(fact)
        self.runs_code = runs_code


def deepened(built: StandIn, values: list[Any]) -> StandIn:
    """The container, now one level deeper than the deepest of the values put into it; refused beyond 100 levels."""
    deepest = max((value.depth for value in values if isinstance(value, StandIn)), default=0)
    built.depth = max(built.depth, 1 + deepest)
    if built.depth > _DEEPEST:
        raise RefusedError(f"nests containers more than {_DEEPEST} deep")
    return built


def natural(number: object) -> bool:
    """Whether this is a whole number from 0 to 2**63 - 1."""
    return type(number) is int and 0 <= number < _LARGEST


def _naturals(built: object) -> list[int]:
    if (
        not isinstance(built, StandIn)
        or built.kind not in {"tuple", "size"}
        or not all(map(natural, built.held))
    ):
        raise RefusedError("has a size, stride or offset that is negative or not an integer")
    return list(built.held)


def _ordered_dict(items: object = None) -> StandIn:
    if items is not None and (not isinstance(items, StandIn) or items.kind != "list"):
        raise RefusedError("builds an OrderedDict from something that is not a list")
    return StandIn("OrderedDict", [], depth=1 if items is None else items.depth)


def _tensor(
    storage: Any, offset: Any, size: Any, stride: Any, gradient: Any, hooks: Any, metadata: Any = None
) -> StandIn:
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
) -> StandIn:
    if not isinstance(dtype, Global) or dtype.name not in _DTYPES or storage.held.itemsize != 1:
        raise RefusedError("has a tensor of an unknown type")
    return _view(storage, (offset, size, stride), (gradient, hooks), metadata, itemsize=_DTYPES[dtype.name])


def _view(
    storage: Any, place: tuple[Any, Any, Any], extras: tuple[Any, Any], metadata: Any, *, itemsize: int = 1
) -> StandIn:
    if not isinstance(storage, StandIn) or storage.kind != "storage" or not natural(place[0]):
        raise RefusedError("has a tensor without a storage and an offset")
    size, stride = _naturals(place[1]), _naturals(place[2])
    hooks, numel = extras[1], storage.held.numel // itemsize
    if (
        extras[0] not in (True, False)
        or getattr(hooks, "kind", "") != "OrderedDict"
        or hooks.held
        or metadata
    ):
        raise RefusedError("has a tensor with hooks or other state")
    count = math.prod(size)
    # a stride of 0 can make a matrix of terabytes of a few bytes
    if len(size) != len(stride) or count > numel:
        raise RefusedError(f"has a tensor of {count} elements over a storage of {numel}")
    if count and place[0] + sum((n - 1) * step for n, step in zip(size, stride, strict=True)) >= numel:
        raise RefusedError(f"has a tensor that reaches beyond its storage of {numel} elements")
    return StandIn("tensor")


def _parameter(tensor: Any, gradient: Any, hooks: Any) -> StandIn:
    if getattr(tensor, "kind", "") != "tensor" or getattr(hooks, "kind", "") != "OrderedDict" or hooks.held:
        raise RefusedError("has a parameter that is not a tensor")
    return StandIn("tensor")


def _size(dimensions: Any) -> StandIn:
    return StandIn("size", tuple(_naturals(dimensions)))


def _encoded(text: object, codec: object) -> bytes:
    # other codecs can take minutes for a few kilobytes
    if not isinstance(text, str) or codec != "latin1":
        raise RefusedError(f"has text encoded as {shown(codec, longest=40)}")
    return text.encode("latin1")


def _device(kind: object, number: object = 0) -> StandIn:
    if not isinstance(kind, str) or not natural(number):
        raise RefusedError("has a device without a name")
    return StandIn("device")


CALLS: dict[Global, Callable[..., Any]] = {
    Global("collections", "OrderedDict"): _ordered_dict,
    Global("torch._utils", "_rebuild_tensor_v2"): _tensor,
    Global("torch._utils", "_rebuild_tensor_v3"): _typed_tensor,
    Global("torch._utils", "_rebuild_parameter"): _parameter,
    Global("torch", "Size"): _size,
    Global("torch", "device"): _device,
    Global("_codecs", "encode"): _encoded,
}


def is_storage(asked: Global) -> bool:
    """Whether the name is a class of storages."""
    return asked.module in {"torch", "torch.storage"} and asked.name in STORAGES


def is_type(asked: Global) -> bool:
    """Whether the name is a class of storages or an element type, which may be referred to but not called."""
    return is_storage(asked) or (asked.module == "torch" and asked.name in _DTYPES)
