"""The few names that the pickle of plain tensors refers to, and what a call of each makes.

Nothing of torch is called: a tensor is a description of which elements of which storage it consists of.

References
----------
torch 2.13, torch/_utils.py (`_rebuild_tensor_v2`, `_rebuild_tensor_v3`, `_rebuild_parameter`).
"""

from __future__ import annotations

import math
from collections import OrderedDict
from typing import TYPE_CHECKING, Any

from subspace.checkpoints.budget import ENCODED_BYTES, TENSOR_BYTES
from subspace.checkpoints.shapes import LARGEST, is_possible
from subspace.checkpoints.torch_tensor import Storage, TorchTensor, span_of
from subspace.checkpoints.widening import BITS
from subspace.text import shown

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from subspace.checkpoints.budget import Budget

__all__ = [
    "NAMES",
    "Call",
    "Device",
    "ElementType",
    "RefusedError",
    "Size",
    "StorageType",
    "natural",
    "plain_key",
]

_LARGEST_KEY = 2**60  # above it, integers can be chosen that all have one hash


class RefusedError(Exception):
    """What the pickle does and may not, as the rest of a sentence that begins with "its pickle"."""

    def __init__(self, fact: str, *, runs_code: bool = False) -> None:
        super().__init__(fact)
        self.runs_code = runs_code


class ElementType:
    """An element type of torch by its name, such as float16."""

    def __init__(self, dtype: str) -> None:
        self.dtype = dtype


class StorageType:
    """A class of storages by the type of its elements; None for one of bytes whose type the tensor says."""

    def __init__(self, dtype: str | None) -> None:
        self.dtype = dtype


class Call:
    """A callable: its name, and what makes the result of the arguments and the file's budget."""

    def __init__(self, name: str, make: Callable[..., Any]) -> None:
        self.name = name
        self.make = make


class Size(tuple[int, ...]):
    """What torch.Size holds."""

    __slots__ = ()


class Device(str):
    """A device of torch by its name, such as "cuda:1"."""

    __slots__ = ()


def natural(number: object) -> bool:
    """Whether this is a whole number from 0 to 2**63 - 1."""
    return type(number) is int and 0 <= number < LARGEST


def plain_key(key: object) -> Any:
    """The key of a dict, which must be cheap to hash; RefusedError for any other."""
    if not isinstance(key, str | int | float | None):
        raise RefusedError("has a key that is neither text nor a number")
    if type(key) is int and not -_LARGEST_KEY < key < _LARGEST_KEY:
        raise RefusedError(f"has a key that is a number of {key.bit_length()} bits")
    return key


def _naturals(found: object) -> tuple[int, ...]:
    if not isinstance(found, tuple) or not all(map(natural, found)):
        raise RefusedError("has a size, stride or offset that is negative or not an integer")
    return found


def _ordered_dict(budget: Budget, items: object = None) -> OrderedDict[Any, Any]:
    """An empty one, or one of a list of pairs, as Python 2 wrote it."""
    if items is not None and type(items) is not list:
        raise RefusedError("builds an OrderedDict from something that is not a list")
    made: OrderedDict[Any, Any] = OrderedDict()
    for pair in items or ():
        if type(pair) not in {list, tuple} or len(pair) != 2:
            raise RefusedError("builds an OrderedDict from something that is not a list of pairs")
        made[plain_key(pair[0])] = pair[1]
    return made


def _tensor(
    budget: Budget,
    storage: Any,
    offset: Any,
    size: Any,
    stride: Any,
    gradient: Any,
    hooks: Any,
    metadata: Any = None,
) -> TorchTensor:
    if not isinstance(storage, Storage) or storage.dtype is None:
        raise RefusedError("has a tensor without a storage and an offset")
    return _view(budget, storage, storage.dtype, (offset, size, stride), (gradient, hooks, metadata))


def _typed_tensor(
    budget: Budget,
    storage: Any,
    offset: Any,
    size: Any,
    stride: Any,
    gradient: Any,
    hooks: Any,
    dtype: Any,
    metadata: Any = None,
) -> TorchTensor:
    if not isinstance(dtype, ElementType) or not isinstance(storage, Storage) or storage.itemsize != 1:
        raise RefusedError("has a tensor of an unknown type")
    return _view(budget, storage, dtype.dtype, (offset, size, stride), (gradient, hooks, metadata))


def _view(
    budget: Budget,
    storage: Storage,
    dtype: str,
    place: tuple[Any, Any, Any],
    extras: tuple[Any, Any, Any],
) -> TorchTensor:
    gradient, hooks, metadata = extras
    if type(gradient) is not bool or type(hooks) is not OrderedDict or hooks or metadata:
        raise RefusedError("has a tensor with hooks or other state")
    if not natural(place[0]):
        raise RefusedError("has a tensor without a storage and an offset")
    tensor = TorchTensor(storage, dtype, place[0], _naturals(place[1]), _naturals(place[2]))
    _require_inside(tensor)
    budget.spend(TENSOR_BYTES, span_of(tensor.shape, tensor.stride) * BITS[dtype] // 8)
    return tensor


def _require_inside(tensor: TorchTensor) -> None:
    numel = tensor.storage.nbytes // (BITS[tensor.dtype] // 8)
    count = math.prod(tensor.shape)
    # a stride of 0 can make a matrix of terabytes of a few bytes
    if len(tensor.shape) != len(tensor.stride) or count > numel:
        raise RefusedError(f"has a tensor of {_short(count)} elements over a storage of {numel}")
    if not is_possible(tensor.shape):
        raise RefusedError(f"has a tensor of {len(tensor.shape)} dimensions that no array can have")
    if tensor.offset + span_of(tensor.shape, tensor.stride) > numel and count:
        raise RefusedError(f"has a tensor that reaches beyond its storage of {numel} elements")


def _short(count: int) -> str:
    return str(count) if count < 10**30 else "over 10**30"


def _parameter(budget: Budget, tensor: Any, gradient: Any, hooks: Any) -> TorchTensor:
    if not isinstance(tensor, TorchTensor) or type(hooks) is not OrderedDict or hooks:
        raise RefusedError("has a parameter that is not a tensor")
    return tensor


def _size(budget: Budget, dimensions: Sequence[int]) -> Size:
    return Size(_naturals(dimensions))


def _encoded(budget: Budget, text: object, codec: object) -> bytes:
    # other codecs can take minutes for a few kilobytes
    if not isinstance(text, str) or codec != "latin1":
        raise RefusedError(f"has text encoded as {shown(codec, longest=40)}")
    budget.spend(ENCODED_BYTES, len(text))
    return text.encode("latin1")


def _device(budget: Budget, kind: object, number: object = None) -> Device:
    if not isinstance(kind, str) or not (number is None or natural(number)):
        raise RefusedError("has a device without a name")
    return Device(kind if number is None else f"{kind}:{number}")


_STORAGES = {
    "DoubleStorage": "float64", "FloatStorage": "float32", "HalfStorage": "float16", "BFloat16Storage": "bfloat16",
    "LongStorage": "int64", "IntStorage": "int32", "ShortStorage": "int16", "CharStorage": "int8",
    "ByteStorage": "uint8", "BoolStorage": "bool", "ComplexFloatStorage": "complex64",
    "ComplexDoubleStorage": "complex128", "UntypedStorage": None,
}  # fmt: skip
_DTYPES = (
    "float64", "float32", "float16", "bfloat16", "int64", "int32", "int16", "int8",
    "uint8", "uint16", "uint32", "uint64", "bool", "complex64", "complex128",
    "float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz", "float8_e5m2fnuz",
)  # fmt: skip
_CALLS: dict[str, Callable[..., Any]] = {
    "collections.OrderedDict": _ordered_dict,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_tensor_v3": _typed_tensor,
    "torch._utils._rebuild_parameter": _parameter,
    "torch.Size": _size,
    "torch.device": _device,
    "_codecs.encode": _encoded,
}

# whatever a pickle may refer to, by module and name
NAMES: dict[tuple[str, str], Call | StorageType | ElementType] = {
    **{("torch", name): StorageType(dtype) for name, dtype in _STORAGES.items()},
    **{("torch.storage", name): StorageType(dtype) for name, dtype in _STORAGES.items()},
    **{("torch", dtype): ElementType(dtype) for dtype in _DTYPES},
    **{(name.rpartition(".")[0], name.rpartition(".")[2]): Call(name, make) for name, make in _CALLS.items()},
}
