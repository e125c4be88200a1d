"""What all containers of tensors have in common: names, types, shapes, and reading on demand."""

from __future__ import annotations

import abc
import math
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from subspace.checkpoints.held_file import HeldFile, Stamp, held
from subspace.checkpoints.widening import BITS, FLOATS, widen, widened_dtype, without_signals
from subspace.errors import FormatError, ShapeError, ValueRangeError
from subspace.text import counted, listed, shown

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import DTypeLike, NDArray

__all__ = ["StoredMatrix", "TensorFile", "TensorInfo", "place"]


def place(path: str, key: str) -> str:
    """A tensor of a file in the words of an error: "q.lora_A of a.safetensors", or the file if the key is empty."""
    return f"{shown(key)} of {shown(path)}" if key else shown(path)


class TensorInfo(NamedTuple):
    """Type and shape of a stored tensor.

    Examples
    --------
    >>> TensorInfo("bfloat16", (4, 32)).nbytes
    256
    """

    dtype: str
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        """Bytes that the tensor takes in its file; 0 for a type of unknown size."""
        return -(-math.prod(self.shape) * BITS.get(self.dtype, 0) // 8)


class StoredMatrix:
    """A matrix that is widened only when its rows are read.

    Attributes
    ----------
    shape : tuple of int
        (rows, columns).
    dtype : str
        Type in the file.
    identity : tuple of object, optional
        What tells it from any other: the stamp of its file, and its place there; None for one in memory.

    Examples
    --------
    >>> W = StoredMatrix(np.array([[0x3F80, 0x4000], [0, 0xC000]], np.uint16), "bfloat16")
    >>> W.rows(1, 2)
    array([[ 0., -2.]], dtype=float32)
    """

    identity: tuple[object, ...] | None = None

    def __init__(self, stored: NDArray[Any], dtype: str) -> None:
        self._stored = stored
        self.shape: tuple[int, int] = (stored.shape[0], stored.shape[1])
        self.dtype = dtype

    def rows(self, start: int, stop: int, out: NDArray[Any] | None = None) -> NDArray[Any]:
        """Rows start..stop-1, widened, shape (stop - start, columns).

        Parameters
        ----------
        start, stop : int
            As in a slice.
        out : ndarray of float32 or float64, optional
            A buffer of at least stop - start rows; its first rows are written and returned.

        Notes
        -----
        With a float32 `out` nothing is allocated; bfloat16 goes to float64 by way of float32.
        Without `out` float32 and float64 rows are what `raw` returns.
        """
        stored = self._rows(start, stop)
        if out is None:
            return without_signals(widen(stored, self.dtype))
        return widen(stored, self.dtype, out=out[: len(stored)])

    def full(self, dtype: DTypeLike = np.float32) -> NDArray[Any]:
        """The whole matrix as `dtype` (float32 or float64); what was given where the type fits."""
        stored = self._rows(0, self.shape[0])
        if np.dtype(dtype) == widened_dtype(self.dtype):
            return without_signals(widen(stored, self.dtype))
        return widen(stored, self.dtype, out=np.empty(self.shape, dtype))

    def _rows(self, start: int, stop: int) -> NDArray[Any]:
        """Rows as they are stored."""
        return self._stored[start:stop]


class TensorFile(abc.ABC):
    """Named tensors of one file, read one by one.

    Attributes
    ----------
    path : str
        As given by the user.
    container : str
        Kind of file, for instance "safetensors".
    metadata : mapping of str to str
        The writer's notes on the file; empty where the container has no place for them.
    layout : mapping of str to TensorInfo
        Every tensor, in file order.
    skipped : mapping of str to str
        Entries of the file that are not tensors, with the reason.
    settings : mapping of str to object
        Plain values (numbers, text, lists and dicts of them) that stand beside the tensors, by their dotted place.
    """

    container: str = ""

    def __init__(
        self,
        path: str,
        *,
        layout: Mapping[str, TensorInfo],
        metadata: Mapping[str, str] | None = None,
        skipped: Mapping[str, str] | None = None,
        file: HeldFile | None = None,
    ) -> None:
        self.path = path
        self._file = file
        self.layout = layout
        self.metadata: Mapping[str, str] = metadata or {}
        self.skipped: Mapping[str, str] = skipped or {}
        self.settings: Mapping[str, Any] = {}

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {shown(self.path)!r}: {counted(len(self.layout), 'tensor')}, {self.container}>"

    @abc.abstractmethod
    def raw(self, key: str) -> NDArray[Any]:
        """The tensor as stored, not widened: bfloat16 as uint16, 8-bit floats as uint8.

        Read-only where it was read from a file. Raises FormatError for a key that is not in the layout, and for a
        type that NumPy cannot hold; FileError if the file has changed since it was opened.
        """

    def info(self, key: str) -> TensorInfo:
        """Type and shape of one tensor; FormatError if the file has no such tensor."""
        try:
            return self.layout[key]
        except KeyError:
            raise FormatError(
                f"No such tensor: {shown(key)}, in {shown(self.path)}; there are {listed(self.layout)}"
            ) from None

    def read(self, key: str) -> NDArray[Any]:
        """Values of a floating point tensor, exact: float64 as float64, all narrower types as float32.

        Raises
        ------
        FormatError
            If there is no such tensor, or its numbers are not real floating point numbers.

        Notes
        -----
        float32 and float64 are what `raw` returns, and then read-only.
        """
        dtype = self._float_dtype(key)
        return without_signals(widen(self.raw(key), dtype))

    def read_scalar(self, key: str) -> float:
        """The number in a tensor of one element, of any real numeric type.

        Raises
        ------
        FormatError
            If the type is not a real number.
        ShapeError
            If the tensor has not exactly one element.
        ValueRangeError
            If the number is not finite.
        """
        dtype, shape = self.info(key)
        if math.prod(shape) != 1:
            raise ShapeError(f"Not a single number: a tensor of shape {shape}, in {self._where(key)}")
        if dtype in FLOATS:
            number = float(self.read(key).reshape(()))
        elif "int" in dtype:
            number = float(self.raw(key).reshape(()))
        else:
            raise FormatError(f"Not a real number: a tensor of type {shown(dtype)}, in {self._where(key)}")
        if not math.isfinite(number):
            raise ValueRangeError(f"Not a finite number: {number}, in {self._where(key)}")
        return number

    def stored(self, key: str, shape: tuple[int, int] | None = None) -> StoredMatrix:
        """A floating point matrix that is not widened yet, reshaped to `shape` if that is given.

        Raises
        ------
        FormatError
            As `read`.
        ShapeError
            If the tensor does not have two dimensions and no `shape` is given.
        """
        dtype = self._float_dtype(key)
        raw = self.raw(key)
        if shape is None and raw.ndim != 2:
            raise ShapeError(f"Not a matrix: a tensor of shape {raw.shape}, in {self._where(key)}")
        matrix = StoredMatrix(raw if shape is None else raw.reshape(shape), dtype)
        matrix.identity = self._identity(key)
        return matrix

    def sha256(self) -> str:
        """SHA-256 of the bytes of the file, in hexadecimal; the file is read in pieces.

        Raises
        ------
        FileError
            If the file has changed since it was opened.
        """
        return held(self._file or self.path).sha256()

    def release(self) -> None:  # noqa: B027 - most containers have nothing to release
        """Release the memory of what was read so far; arrays that are still in use stay valid."""

    def stamps(self) -> tuple[Stamp, ...]:
        """Stamps of the files that the tensors are in, by which the same files are known again; () in memory."""
        return () if self._file is None else (self._file.stamp,)

    def _identity(self, key: str) -> tuple[object, ...] | None:
        return None if self._file is None else (self._file.stamp, key)

    def _where(self, key: str) -> str:
        return place(self.path, key)

    def _float_dtype(self, key: str) -> str:
        dtype = self.info(key).dtype
        if dtype not in FLOATS:
            raise FormatError(
                f"Not floating point numbers: a tensor of type {shown(dtype)}, in {self._where(key)}; "
                "dequantise it or convert it to float32 first"
            )
        return dtype
