"""Tensors as the bytes of a safetensors or torch file, or as the `TensorFile` that those bytes would be."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from subspace.checkpoints.tensor_file import TensorFile, TensorInfo
from subspace.errors import FileError, FormatError
from subspace.text import shown

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

__all__ = ["PlannedFile", "StoredTensor", "safetensors_bytes", "torch_bytes"]

_CODES = {
    "float64": "F64", "float32": "F32", "float16": "F16", "bfloat16": "BF16",
    "float8_e4m3fn": "F8_E4M3", "float8_e5m2": "F8_E5M2",
    "float8_e4m3fnuz": "F8_E4M3FNUZ", "float8_e5m2fnuz": "F8_E5M2FNUZ",
    "int8": "I8", "int16": "I16", "int32": "I32", "int64": "I64",
    "uint8": "U8", "uint16": "U16", "uint32": "U32", "uint64": "U64", "bool": "BOOL",
}  # fmt: skip


class StoredTensor(NamedTuple):
    """The elements of a tensor as a file stores them, bfloat16 as uint16, and the name of their type."""

    raw: NDArray[Any]
    dtype: str


class PlannedFile(TensorFile):
    """Tensors that are to be written, as the file that they will be."""

    container = "memory"

    def __init__(self, tensors: Mapping[str, StoredTensor], *, path: str) -> None:
        self._tensors = tensors
        layout = {key: TensorInfo(tensor.dtype, tensor.raw.shape) for key, tensor in tensors.items()}
        super().__init__(path, layout=layout)

    def raw(self, key: str) -> NDArray[Any]:  # noqa: D102
        self.info(key)
        return self._tensors[key].raw


def safetensors_bytes(tensors: Mapping[str, StoredTensor], metadata: Mapping[str, str]) -> bytes:
    """Content of a safetensors file.

    Raises
    ------
    FormatError : safetensors has no name for a type

    References
    ----------
    safetensors 0.8.0, README.md "Format": header length, JSON header, then the tensors without gaps; the widest types
    first and a header padded to 8 bytes, so that every tensor is aligned.

    Examples
    --------
    >>> content = safetensors_bytes({"a": StoredTensor(np.zeros(2, np.uint16), "bfloat16")}, {"format": "pt"})
    >>> content[8:-4].decode().strip()
    '{"__metadata__":{"format":"pt"},"a":{"dtype":"BF16","shape":[2],"data_offsets":[0,4]}}'
    """
    header: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    widest_first = sorted(tensors.items(), key=lambda item: -item[1].raw.itemsize)
    end = 0
    for key, (raw, dtype) in widest_first:
        if dtype not in _CODES:
            raise FormatError(
                f"safetensors cannot hold the type {shown(dtype)}, in {shown(key)}; convert it to float32"
            )
        begin, end = end, end + raw.nbytes
        header[key] = {"dtype": _CODES[dtype], "shape": list(raw.shape), "data_offsets": [begin, end]}
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=True).encode("ascii")
    text += b" " * (-len(text) % 8)
    data = (np.ascontiguousarray(raw).reshape(-1).view(np.uint8).data for _, (raw, _) in widest_first)
    return b"".join([struct.pack("<Q", len(text)), text, *data])


def torch_bytes(tensors: Mapping[str, StoredTensor]) -> bytes:
    """Content of a torch file: a dict of plain tensors, which ``torch.load(weights_only=True)`` accepts.

    Raises
    ------
    FileError : torch is not installed
    """
    try:
        import torch
    except ImportError:
        raise FileError(
            "The package torch is not installed; it is needed to write a torch file: pip install torch, or choose "
            "another format"
        ) from None
    from io import BytesIO

    content = BytesIO()
    torch.save({key: _torch_tensor(*tensor) for key, tensor in tensors.items()}, content)
    return content.getvalue()


def _torch_tensor(raw: NDArray[Any], dtype: str) -> Tensor:
    import torch

    copy = np.array(raw, order="C")  # torch needs memory that it may write to
    held = str(copy.dtype)
    if held == dtype:
        return torch.from_numpy(copy)
    signed = {1: np.uint8, 2: np.int16}[copy.itemsize]
    return torch.from_numpy(copy.view(signed)).view(getattr(torch, dtype))
