"""Reader of GGUF, the container of llama.cpp; the package `gguf` is needed for quantised types alone.

References
----------
ggml-org/ggml, docs/gguf.md (version 3), include/ggml.h (`enum ggml_type`); gguf 0.19, gguf/quants.py.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from subspace.checkpoints.gguf_header import GgufTensor, gguf_header
from subspace.checkpoints.held_file import HeldFile, held
from subspace.checkpoints.tensor_file import StoredMatrix, TensorFile, TensorInfo
from subspace.checkpoints.widening import STORAGE
from subspace.errors import FileError
from subspace.text import shown

if TYPE_CHECKING:
    import os

    from numpy.typing import NDArray

__all__ = ["GgufFile"]

_PLAIN = {
    0: "float32", 1: "float16", 24: "int8", 25: "int16", 26: "int32", 27: "int64", 28: "float64", 30: "bfloat16",
}  # fmt: skip
_LONGEST_TEXT = 1000


class GgufFile(TensorFile):
    """Tensors of a GGUF file; quantised ones are dequantised to float32 when read.

    Attributes
    ----------
    quantised : mapping of str to str
        Type in the file ("Q8_0") of every tensor that is not stored as plain numbers.

    Raises
    ------
    FileError
        If the file is damaged, or has quantised tensors and the package is not installed.
    """

    container = "gguf"

    def __init__(self, path: str | os.PathLike[str] | HeldFile) -> None:
        self._held = file = held(path)
        self.quantised: dict[str, str] = {}
        try:
            header = gguf_header(file)
            sizes = {key: self._size(key, tensor) for key, tensor in header.tensors.items()}
        except (ValueError, OverflowError) as error:
            raise FileError(
                f"Damaged GGUF file: {shown(error, longest=80)}, in {shown(file.path)}; download or convert it again"
            ) from None
        self._order, self._tensors = header.order, header.tensors
        self._places = {key: (header.start + header.tensors[key].offset, size) for key, size in sizes.items()}
        _require_inside(self._places, file)
        layout = {
            key: TensorInfo(_PLAIN.get(tensor.kind, "float32"), tensor.shape)
            for key, tensor in self._tensors.items()
        }
        metadata = {
            key: str(value) for key, value in header.metadata.items() if len(str(value)) <= _LONGEST_TEXT
        }
        super().__init__(file.path, layout=layout, metadata=metadata, file=file)

    def raw(self, key: str) -> NDArray[Any]:  # noqa: D102
        dtype, shape = self.info(key)
        start, size = self._places[key]
        if key in self.quantised:
            return self._dequantised(key, self._held.array(start, size, np.uint8), shape)
        stored = STORAGE[dtype].newbyteorder(self._order)
        numbers = self._held.array(start, math.prod(shape), stored)
        return numbers.reshape(shape).astype(STORAGE[dtype], copy=False)

    def stored(self, key: str, shape: tuple[int, int] | None = None) -> StoredMatrix:  # noqa: D102
        own = self.info(key).shape
        if key not in self.quantised or len(own) != 2 or shape not in {None, own}:
            return super().stored(key, shape)
        return _QuantisedRows(self, key, (own[0], own[1]), self._identity(key))

    def quantised_rows(self, key: str, start: int, stop: int) -> NDArray[np.float32]:
        """Rows start to stop of a quantised matrix, of which only those are read."""
        begin, size = self._places[key]
        each = size // max(1, self.layout[key].shape[0])
        stored = self._held.array(begin + start * each, (stop - start) * each, np.uint8)
        return self._dequantised(key, stored, (stop - start, self.layout[key].shape[1]))

    def _size(self, key: str, tensor: GgufTensor) -> int:
        """Bytes of a tensor; the type of one that is quantised is noted."""
        count = math.prod(tensor.shape)
        if tensor.kind in _PLAIN:
            return count * STORAGE[_PLAIN[tensor.kind]].itemsize
        constants = _package(self._held.path).constants
        kind = constants.GGMLQuantizationType(tensor.kind)
        block, size = constants.GGML_QUANT_SIZES[kind]
        if not tensor.shape or tensor.shape[-1] % block:
            raise ValueError(f"rows that are not a multiple of the {block} numbers of a block of {kind.name}")
        self.quantised[key] = kind.name
        return int(count // block * size)

    def _dequantised(self, key: str, stored: NDArray[Any], shape: tuple[int, ...]) -> NDArray[np.float32]:
        if not stored.size:
            return np.zeros(shape, np.float32)
        package = _package(self._held.path)
        kind = self.quantised[key]
        try:
            if self._order != "<":
                raise NotImplementedError
            rows = stored.reshape(math.prod(shape[:-1]), -1)
            # what is not finite is found where it is used
            with np.errstate(all="ignore"):
                values: NDArray[Any] = package.quants.dequantize(
                    rows, package.constants.GGMLQuantizationType[kind]
                )
        except NotImplementedError:
            raise FileError(
                f"The package gguf cannot dequantise the type {kind}, in {self._where(key)}; "
                "convert the file again with the type f16"
            ) from None
        return values.astype(np.float32, copy=False).reshape(shape)


class _QuantisedRows(StoredMatrix):
    """A quantised matrix of which only the rows that are asked for are read and dequantised."""

    def __init__(
        self, file: GgufFile, key: str, shape: tuple[int, int], identity: tuple[object, ...] | None
    ) -> None:
        self._file = file
        self._key = key
        self.shape = shape
        self.dtype = "float32"
        self.identity = identity

    def _rows(self, start: int, stop: int) -> NDArray[Any]:
        start, stop, _ = slice(start, stop).indices(self.shape[0])
        return self._file.quantised_rows(self._key, start, max(start, stop))


def _require_inside(places: dict[str, tuple[int, int]], file: HeldFile) -> None:
    for key, (start, size) in places.items():
        if start + size > file.size:
            raise FileError(
                f"Damaged GGUF file: {file.size} bytes where {shown(key)} ends at {start + size}, in "
                f"{shown(file.path)}; download or convert it again"
            )


def _package(name: str) -> Any:
    try:
        import gguf
        import gguf.constants
        import gguf.quants
    except ImportError:
        raise FileError(
            f"The package gguf is not installed; it is needed to read the quantised tensors of {shown(name)}: "
            "pip install 'lora-subspace[gguf]'"
        ) from None
    return gguf
