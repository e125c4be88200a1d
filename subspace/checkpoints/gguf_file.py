"""Reader of GGUF, the container of llama.cpp, through the package `gguf`.

References
----------
ggml-org/ggml, docs/gguf.md (version 3); gguf 0.19, gguf/gguf_reader.py: ``GGUFReader``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from subspace.checkpoints.regular_file import open_regular, path_text
from subspace.checkpoints.tensor_file import TensorFile, TensorInfo
from subspace.errors import FileError
from subspace.text import shown

if TYPE_CHECKING:
    import os

    from numpy.typing import NDArray

__all__ = ["GgufFile"]

_PLAIN = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}
_INTEGERS = {"I8": "int8", "I16": "int16", "I32": "int32", "I64": "int64"}
_LONGEST_TEXT = 1000


class GgufFile(TensorFile):
    """Tensors of a GGUF file, memory-mapped; quantised ones are dequantised to float32 when read.

    Attributes
    ----------
    quantised : mapping of str to str
        Type in the file ("Q8_0") of every tensor that is not stored as plain numbers.

    Raises
    ------
    FileError
        If the package is not installed, or the file is damaged.
    """

    container = "gguf"

    def __init__(self, path: str | os.PathLike[str]) -> None:
        name = path_text(path)
        open_regular(path).close()
        reader = _reader(name)
        self._tensors: dict[str, Any] = {tensor.name: tensor for tensor in reader.tensors}
        self.quantised = {
            key: tensor.tensor_type.name
            for key, tensor in self._tensors.items()
            if tensor.tensor_type.name not in _PLAIN | _INTEGERS
        }
        layout = {key: _info(tensor) for key, tensor in self._tensors.items()}
        super().__init__(name, layout=layout, metadata=_metadata(reader, name))

    def raw(self, key: str) -> NDArray[Any]:  # noqa: D102
        dtype, shape = self.info(key)
        tensor = self._tensors[key]
        data = np.asarray(tensor.data)
        if key in self.quantised:
            return self._dequantised(key)
        if dtype == "bfloat16":
            data = data.view(np.uint16)
        return data.reshape(shape).astype(data.dtype.newbyteorder("<"), copy=False)

    def _dequantised(self, key: str) -> NDArray[Any]:
        from gguf.quants import dequantize

        tensor = self._tensors[key]
        try:
            values: NDArray[Any] = dequantize(np.asarray(tensor.data), tensor.tensor_type)
        except NotImplementedError:
            raise FileError(
                f"The package gguf cannot dequantise the type {self.quantised[key]}, in {self._where(key)}; "
                "convert the adapter again with the type f16"
            ) from None
        return values.astype(np.float32, copy=False).reshape(self.layout[key].shape)


def _reader(name: str) -> Any:
    """The reader of the package gguf, but one that never leaves the file: a length beyond its end is damage."""
    try:
        from gguf.gguf_reader import GGUFReader
    except ImportError:
        raise FileError(
            f"The package gguf is not installed; it is needed to read {shown(name)}: "
            "pip install 'lora-subspace[gguf]'"
        ) from None

    class Bounded(GGUFReader):  # type: ignore[misc] # untyped where the package is not installed
        def _get(self, offset: int, dtype: Any, count: int = 1, override_order: Any = None) -> Any:
            end = int(offset) + np.dtype(dtype).itemsize * int(count)
            if not 0 <= int(offset) <= end <= len(self.data):
                raise ValueError("a length beyond the end of the file")
            return super()._get(int(offset), dtype, count, override_order)

    try:
        with np.errstate(all="ignore"):
            return Bounded(name)
    except Exception as error:  # noqa: BLE001 - the package raises KeyError, ValueError, UnicodeError, IndexError, ...
        raise FileError(
            f"Damaged GGUF file: {shown(error, longest=80)}, in {shown(name)}; download or convert it again"
        ) from None


def _info(tensor: Any) -> TensorInfo:
    """Type and shape; GGUF lists the dimensions in the reverse order."""
    kind = tensor.tensor_type.name
    shape = tuple(int(size) for size in reversed(tensor.shape.tolist()))
    return TensorInfo(_PLAIN.get(kind) or _INTEGERS.get(kind) or "float32", shape)


def _metadata(reader: Any, name: str) -> dict[str, str]:
    """The key-value pairs whose value is one number or one short text, as text."""
    found: dict[str, str] = {}
    try:
        for key, field in reader.fields.items():
            value = field.contents() if len(field.types) == 1 else None
            if isinstance(value, str | int | float) and len(str(value)) <= _LONGEST_TEXT:
                found[key] = str(value)
    except (ValueError, IndexError) as error:
        raise FileError(
            f"Damaged metadata of a GGUF file: {shown(error, longest=80)}, in {shown(name)}; "
            "download or convert it again"
        ) from None
    return found
