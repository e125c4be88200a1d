"""Tensors of a torch file as descriptions: which elements of which storage, read on demand."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from subspace.checkpoints.widening import BITS, STORAGE, widen

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Content", "Storage", "TorchTensor", "span_of"]


class Content(Protocol):
    """Where the bytes of a storage are."""

    def array(self, start: int, count: int, dtype: np.dtype[Any]) -> NDArray[Any]:
        """`count` numbers from byte `start` of the storage on."""


class Storage:
    """Memory that tensors are views of.

    Attributes
    ----------
    key : str
        Its name in the file.
    dtype : str or None
        Type of its elements; None where they are bytes whose type each tensor says.
    numel : int
        How many elements it has.
    content : Content
        Its bytes, once they are found.
    """

    __slots__ = ("content", "dtype", "key", "numel")

    def __init__(self, key: str, dtype: str | None, numel: int) -> None:
        self.key = key
        self.dtype = dtype
        self.numel = numel
        self.content: Content | None = None

    @property
    def itemsize(self) -> int:
        """Bytes of an element."""
        return BITS[self.dtype] // 8 if self.dtype else 1

    @property
    def nbytes(self) -> int:
        """Bytes of all elements."""
        return self.numel * self.itemsize


class TorchTensor:
    """A view of a storage: element type, first element, size and stride of every dimension, in elements."""

    __slots__ = ("dtype", "offset", "shape", "storage", "stride")

    def __init__(
        self, storage: Storage, dtype: str, offset: int, shape: tuple[int, ...], stride: tuple[int, ...]
    ) -> None:
        self.storage = storage
        self.dtype = dtype
        self.offset = offset
        self.shape = shape
        self.stride = stride

    def array(self) -> NDArray[Any]:
        """The elements as the file stores them, bfloat16 as uint16, 8-bit floats as uint8; a read-only copy."""
        held = STORAGE[self.dtype]
        span = span_of(self.shape, self.stride)
        if not span or self.storage.content is None:
            return np.empty(self.shape, held)
        flat = self.storage.content.array(self.offset * held.itemsize, span, held)
        if span == math.prod(self.shape) and _is_in_order(self.shape, self.stride):
            numbers = flat.reshape(self.shape)
        else:
            steps = tuple(held.itemsize * step for step in self.stride)
            numbers = np.lib.stride_tricks.as_strided(flat, self.shape, steps, writeable=False).copy()
        numbers.flags.writeable = False
        return numbers

    def item(self) -> float | int | bool | complex:
        """The number in a tensor of one element."""
        only = self.array().reshape(1)
        number: float | int | bool | complex
        number = (widen(only, self.dtype) if "float" in self.dtype else only)[0].item()
        return number


def span_of(shape: tuple[int, ...], stride: tuple[int, ...]) -> int:
    """Elements of the storage from the first of a view to its last, 0 if it has none.

    Examples
    --------
    >>> span_of((2, 3), (1, 2)), span_of((2, 3), (10, 1)), span_of((0, 3), (3, 1))
    (6, 13, 0)
    """
    if 0 in shape:
        return 0
    return 1 + sum((n - 1) * step for n, step in zip(shape, stride, strict=False))


def _is_in_order(shape: tuple[int, ...], stride: tuple[int, ...]) -> bool:
    expected = 1
    for n, step in zip(reversed(shape), reversed(stride), strict=True):
        if n != 1 and step != expected:
            return False
        expected *= n
    return True
