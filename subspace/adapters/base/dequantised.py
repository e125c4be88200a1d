"""Base weights that are stored as short codes and scales, as the numbers that the model computes with.

- bitsandbytes, 8 bits: ``W = weight * SCB / 127``, a scale for each row;
- bitsandbytes, 4 bits: two codes a byte, a table of 16 values (nf4 or fp4), a scale (``absmax``) for each block of
  numbers, which may be stored as codes of its own ("double quantisation");
- 8-bit floats and integers with scales, which are factors whatever their name says: one for the tensor, for each row,
  or for each block (``weight_scale_inv`` of DeepSeek, ``weight_scale`` of compressed-tensors, ``scale_weight``).

Rows are computed when they are read. The numbers are not rounded to the 16 bits that a library may round its products
to. Codes of a group in an order of their own (GPTQ, AWQ, HQQ, packed integers) are refused by `quantised`.

References
----------
bitsandbytes 0.50: functional.py (`QuantState`), backends/default/ops.py (`int8_vectorwise_dequant`, `dequantize_4bit`,
`dequantize_blockwise`). DeepSeek-V3, inference/kernel.py (`weight_dequant`). compressed-tensors 0.12, quantization/
lifecycle/forward.py (`_dequantize`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from subspace.checkpoints.strict_json import parse
from subspace.checkpoints.tensor_file import StoredMatrix
from subspace.checkpoints.widening import widen
from subspace.errors import SubspaceError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from subspace.checkpoints import TensorFile

__all__ = ["Dequantised", "dequantised"]

_STATES = ("quant_state.bitsandbytes__nf4", "quant_state.bitsandbytes__fp4")
_SCALES = ("weight_scale_inv", "weight_scale", "scale_weight")
_BLOCK = 128  # of DeepSeek, in both directions
_ROWS_IN_ORDER = 0  # weight_format of bitsandbytes for codes in the order of the matrix

_Rows = Callable[[int, int], "NDArray[np.float32]"]


class Dequantised(NamedTuple):
    """A weight that is stored as codes.

    Attributes
    ----------
    matrix : its numbers, computed when they are read
    how : what it was stored as, such as "bitsandbytes nf4"
    """

    matrix: StoredMatrix
    how: str


class _Matrix(StoredMatrix):
    """A matrix whose rows are computed in float32."""

    def __init__(self, shape: tuple[int, int], rows: _Rows, identity: tuple[object, ...] | None) -> None:
        self.shape = shape
        self.dtype = "float32"
        self.identity = identity
        self._computed = rows

    def _rows(self, start: int, stop: int) -> NDArray[Any]:
        start, stop, _ = slice(start, stop).indices(self.shape[0])
        # scales may be infinite: what is not finite is found where it is used
        with np.errstate(all="ignore"):
            return self._computed(start, max(start, stop))


def dequantised(tensors: TensorFile, key: str, config: Mapping[str, Any]) -> Dequantised | None:
    """A weight of a model that is stored as codes with scales; None where its numbers are stored, or it is refused.

    Parameters
    ----------
    key : of the weight, ``q.weight``
    config : of the model, which says how large the blocks are
    """
    kind = getattr(tensors, "quantised", {}).get(key)
    if kind is not None:
        return Dequantised(tensors.stored(key), f"GGUF {kind}")
    try:
        with np.errstate(all="ignore"):
            found = _int8(tensors, key) or _4bit(tensors, key) or _scaled(tensors, key, config)
    except (SubspaceError, ValueError, KeyError, TypeError, IndexError, ArithmeticError):
        return None  # parts are missing, or do not fit together
    if found is None:
        return None
    how, shape, rows = found
    stamps = tensors.stamps()
    return Dequantised(_Matrix(shape, rows, (stamps, key, how) if stamps else None), how)


_Found = tuple[str, tuple[int, int], _Rows]


def _int8(tensors: TensorFile, key: str) -> _Found | None:
    layout, stem = tensors.layout, key.removesuffix("weight")
    scale = next((each for each in (f"{stem}SCB", f"{key}.SCB") if each in layout), None)
    if scale is None or layout[key].dtype != "int8":
        return None
    for name in (f"{stem}weight_format", f"{key}.weight_format"):
        if name in layout and int(tensors.raw(name).reshape(-1)[0]) != _ROWS_IN_ORDER:
            return None  # the order of the kernels of one graphics card
    codes = _as_matrix(tensors.raw(key))
    scales = tensors.read(scale).reshape(len(codes), 1)

    def rows(start: int, stop: int) -> NDArray[np.float32]:
        numbers: NDArray[np.float32] = codes[start:stop].astype(np.float32)
        numbers *= scales[start:stop]
        numbers *= np.float32(1 / 127)
        return numbers

    return "bitsandbytes int8", codes.shape, rows


def _4bit(tensors: TensorFile, key: str) -> _Found | None:
    layout = tensors.layout
    stated = next((f"{key}.{each}" for each in _STATES if f"{key}.{each}" in layout), None)
    if layout[key].dtype != "uint8" or stated is None:
        return None
    state = parse(tensors.raw(stated).tobytes().decode())
    n, m = map(_size, state["shape"])
    codes, size = tensors.raw(key).reshape(-1), _size(state["blocksize"])
    scales = _absmax(tensors, key, state)
    if 2 * codes.size != n * m + n * m % 2 or scales.size != -(-n * m // size):
        raise ValueError("sizes that do not fit together")
    size = min(size, n * m)  # a block may be longer than all that is there
    values = tensors.read(f"{key}.quant_map").astype(np.float32)
    byte = np.arange(256)
    table = np.stack([values[byte >> 4], values[byte & 15]], axis=1)  # the first number is in the upper half

    def rows(start: int, stop: int) -> NDArray[np.float32]:
        first, last = start * m, stop * m
        numbers = table[codes[first // 2 : -(-last // 2)]].reshape(-1)[first % 2 :][: last - first]
        product = np.repeat(scales[first // size : -(-last // size)], size)[first % size :][: last - first]
        product *= numbers
        return product.reshape(stop - start, m)

    return f"bitsandbytes {stated.rpartition('__')[2]}", (n, m), rows


def _size(number: object) -> int:
    if type(number) is not int or number < 1:
        raise ValueError(f"{number!r} is no size")
    return number


def _absmax(tensors: TensorFile, key: str, state: Mapping[str, Any]) -> NDArray[np.float32]:
    """A scale for each block of numbers, of which there are codes in blocks too."""
    stored = tensors.raw(f"{key}.absmax").reshape(-1)
    if tensors.layout[f"{key}.absmax"].dtype != "uint8":
        return tensors.read(f"{key}.absmax").reshape(-1).astype(np.float32)
    scales: NDArray[np.float32] = tensors.read(f"{key}.nested_quant_map").astype(np.float32)[stored]
    blocks = np.arange(len(stored)) // _size(state["nested_blocksize"])
    scales *= tensors.read(f"{key}.nested_absmax").reshape(-1)[blocks]
    scales += np.float32(state["nested_offset"])
    return scales


def _scaled(tensors: TensorFile, key: str, config: Mapping[str, Any]) -> _Found | None:
    layout, stem = tensors.layout, key.removesuffix("weight")
    dtype, shape = layout[key]
    name = next((word for word in _SCALES if f"{stem}{word}" in layout), None)
    if name is None or not (dtype == "int8" or dtype.startswith("float8")):
        return None
    codes = tensors.raw(key).reshape(shape[0], math.prod(shape[1:]))
    n, m = codes.shape
    scales = _as_scales(tensors.read(f"{stem}{name}").astype(np.float32), n)
    zero = f"{stem}weight_zero_point"
    zeros = _as_scales(tensors.raw(zero).astype(np.float32), n) if zero in layout else None
    block = _block(scales.shape, (n, m), config)
    zero_block = block if zeros is None else _block(zeros.shape, (n, m), config)

    def spread(
        values: NDArray[np.float32], block: tuple[int, int], start: int, stop: int
    ) -> NDArray[np.float32]:
        return np.repeat(values[np.arange(start, stop) // block[0]], block[1], axis=1)[:, :m]

    def rows(start: int, stop: int) -> NDArray[np.float32]:
        part = codes[start:stop]
        numbers: NDArray[np.float32] = part.astype(np.float32) if dtype == "int8" else widen(part, dtype)
        if zeros is not None:
            numbers -= spread(zeros, zero_block, start, stop)
        numbers *= spread(scales, block, start, stop)
        return numbers

    return f"{dtype} with {name}", (n, m), rows


def _as_matrix(codes: NDArray[Any]) -> NDArray[Any]:
    return codes.reshape(codes.shape[0], -1)


def _as_scales(stored: NDArray[np.float32], n: int) -> NDArray[np.float32]:
    """Scales as a matrix, of one column where there is one for each row."""
    if stored.size == 1:
        return stored.reshape(1, 1)
    return stored.reshape(n, 1) if stored.ndim == 1 else _as_matrix(stored)


def _block(scales: tuple[int, int], shape: tuple[int, int], config: Mapping[str, Any]) -> tuple[int, int]:
    """Rows and columns that have one scale in common.

    Raises
    ------
    ValueError : there is another number of scales
    """
    settings = config.get("quantization_config")
    stated = settings.get("weight_block_size") if isinstance(settings, Mapping) else None
    sizes = stated if isinstance(stated, list) and len(stated) == 2 else (None, None)
    high, wide = (_side(*each) for each in zip(scales, shape, sizes, strict=True))
    return high, wide


def _side(count: int, length: int, stated: Any) -> int:
    if count == 1:
        return max(1, length)
    for size in (stated, _BLOCK, length // count):
        if isinstance(size, int) and size > 0 and -(-length // size) == count:
            return size
    raise ValueError(f"{count} scales for {length}")
