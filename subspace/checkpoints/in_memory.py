"""Tensors that a program already holds, as if they were a file."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from subspace.checkpoints.state_dict import Found, named_tensors
from subspace.checkpoints.tensor_file import TensorFile, TensorInfo, place
from subspace.checkpoints.widening import STORAGE
from subspace.errors import FormatError
from subspace.text import shown

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

__all__ = ["MemoryFile", "stored_array"]


class MemoryFile(TensorFile):
    """Arrays of a mapping; NumPy arrays and torch tensors on the CPU are not copied.

    Those of dicts in dicts have dotted names, as in a torch file, and plain values beside them are in `settings`.

    Examples
    --------
    >>> file = MemoryFile({"lora_A": np.eye(2, dtype=np.float32)}, name="mine")
    >>> file.layout
    {'lora_A': TensorInfo(dtype='float32', shape=(2, 2))}
    """

    container = "memory"

    def __init__(self, tensors: Mapping[str, Any], *, name: str) -> None:
        self._arrays: dict[str, NDArray[Any]] = {}
        layout = {}
        found = _found(dict(tensors), name)
        for key, value in found.tensors.items():
            if not isinstance(key, str):
                raise FormatError(f"The name of a tensor is not text: {shown(repr(key))}, in {shown(name)}")
            self._arrays[key], layout[key] = stored_array(value, where=place(name, key))
        super().__init__(name, layout=layout, skipped=found.skipped)
        self.settings = found.settings

    def raw(self, key: str) -> NDArray[Any]:  # noqa: D102
        self.info(key)
        return self._arrays[key]

    def sha256(self) -> str:
        """SHA-256 over name, type, shape and bytes of every tensor, in order of the names."""
        sha = hashlib.sha256()
        for key in sorted(self.layout):
            sha.update(repr((key, *self.layout[key])).encode("utf-8", "backslashreplace"))
            sha.update(np.ascontiguousarray(self._arrays[key]).tobytes())
        return sha.hexdigest()


def _found(tensors: dict[Any, Any], name: str) -> Found:
    """The tensors of a mapping; where it holds dicts, or lists of tensors, they are looked for as in a torch file."""
    if any(isinstance(value, Mapping) or _is_list_of_tensors(value) for value in tensors.values()):
        return named_tensors(tensors, name, _is_tensor)
    return Found(tensors, {}, {})


def _is_list_of_tensors(value: object) -> bool:
    return isinstance(value, list | tuple) and any(
        isinstance(entry, Mapping) or _is_tensor(entry) for entry in value
    )


def _is_tensor(value: object) -> bool:
    is_torch = hasattr(value, "detach") and hasattr(value, "untyped_storage")
    return is_torch or isinstance(value, np.ndarray | np.generic)


def stored_array(value: Any, *, where: str) -> tuple[NDArray[Any], TensorInfo]:
    """Stored bytes, type and shape of a NumPy array or torch tensor; errors name it as `where`.

    Raises
    ------
    FormatError
        If `value` is neither, or is a tensor that is sparse, quantised or on the device "meta".
    """
    dtype = str(getattr(value, "dtype", "")).removeprefix("torch.")
    if isinstance(value, np.ndarray | np.generic):
        array = np.asarray(value)
        array, dtype = array.astype(array.dtype.newbyteorder("<"), copy=False), array.dtype.name
    elif hasattr(value, "detach") and hasattr(value, "untyped_storage"):
        array = _torch_array(value, dtype, where)
    else:
        raise FormatError(
            f"Not a NumPy array or torch tensor: a value of type {type(value).__name__}, in {where}"
        )
    if dtype not in STORAGE:
        raise FormatError(f"Unsupported type of numbers: {shown(dtype)}, in {where}; convert it to float32")
    return array, TensorInfo(dtype, array.shape)


def _torch_array(tensor: Tensor, dtype: str, where: str) -> NDArray[Any]:
    layout = str(tensor.layout).removeprefix("torch.")
    if layout != "strided" or tensor.is_quantized or tensor.device.type == "meta":
        kind = "quantised" if tensor.is_quantized else "meta" if layout == "strided" else layout
        raise FormatError(f"Not a dense tensor: a {kind} tensor, in {where}; make it dense")
    plain = tensor.detach().cpu().resolve_conj().resolve_neg()
    if dtype == "bfloat16" or dtype.startswith("float8"):
        import torch

        # NumPy has no such type, so the bytes are taken as integers
        bits: NDArray[Any] = plain.view(torch.int16 if dtype == "bfloat16" else torch.uint8).numpy()
        return bits.view(STORAGE[dtype])
    if dtype not in STORAGE:
        raise FormatError(f"Unsupported type of numbers: {shown(dtype)}, in {where}; convert it to float32")
    array: NDArray[Any] = plain.numpy()
    return array
