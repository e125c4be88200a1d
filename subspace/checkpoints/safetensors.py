"""Reader of safetensors files: a checked header, then copies of the bytes of each tensor.

The header is checked in full before anything is allocated for a tensor, and more strictly than by the reference
library: duplicate keys and a header that does not begin with ``{`` are refused.

References
----------
safetensors 0.8.0, README.md "Format" and safetensors/src/tensor.rs.
"""

from __future__ import annotations

import contextlib
import gc
import math
import reprlib
import struct
from typing import TYPE_CHECKING, Any

import numpy as np

from subspace.checkpoints import strict_json
from subspace.checkpoints.budget import ENTRIES
from subspace.checkpoints.held_file import HeldFile, held
from subspace.checkpoints.shapes import LARGEST, MOST_DIMENSIONS, is_possible
from subspace.checkpoints.tensor_file import StoredMatrix, TensorFile, TensorInfo
from subspace.checkpoints.widening import BITS, STORAGE
from subspace.errors import FileError, FormatError, ShapeError
from subspace.text import shown

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator, Mapping

    from numpy.typing import NDArray

__all__ = ["SafetensorsFile"]

_DTYPES = {
    "F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16",
    "F8_E4M3": "float8_e4m3fn", "F8_E5M2": "float8_e5m2",
    "F8_E4M3FNUZ": "float8_e4m3fnuz", "F8_E5M2FNUZ": "float8_e5m2fnuz",
    "I8": "int8", "I16": "int16", "I32": "int32", "I64": "int64",
    "U8": "uint8", "U16": "uint16", "U32": "uint32", "U64": "uint64",
    "BOOL": "bool", "C64": "complex64",
    "F4": "F4", "F6_E2M3": "F6_E2M3", "F6_E3M2": "F6_E3M2", "F8_E8M0": "F8_E8M0",
}  # fmt: skip

_LONGEST_HEADER = 100_000_000
# bytes that are kept until `release`: the factors of a module are asked for several times
_KEPT = 2**24
_LARGEST_WHOLE = 2**28  # bytes of a matrix that is kept while it is read in pieces


class SafetensorsFile(TensorFile):
    """Tensors of a safetensors file, each read when it is asked for, and of a large matrix only the rows.

    Raises
    ------
    FileError
        If the file or its header does not follow the format.
    """

    container = "safetensors"

    def __init__(self, path: str | os.PathLike[str] | HeldFile) -> None:
        file = held(path)
        name = shown(file.path)
        with _collector_paused():
            header, self._begin = _header(file, name)
            metadata = header.pop("__metadata__", None) or {}  # MLX writes null
            file.budget.spend(ENTRIES, len(header))
            layout, self._offsets = _tensors(header, file.size - self._begin, name)
        _require_strings(metadata, name)
        self._held = file
        self._recent: dict[str, NDArray[Any]] = {}
        self._room = _KEPT
        super().__init__(file.path, layout=layout, metadata=metadata, file=file)

    def raw(self, key: str) -> NDArray[Any]:  # noqa: D102
        shape = self.info(key).shape
        recent = self._recent.get(key)
        if recent is not None:
            return recent
        start, stored = self._begin + self._offsets[key], self._storage(key)
        numbers = self._held.array(start, math.prod(shape), stored).reshape(shape)
        if numbers.nbytes <= self._room:
            self._recent[key] = numbers
            self._room -= numbers.nbytes
        return numbers

    def release(self) -> None:  # noqa: D102
        self._recent.clear()
        self._room = _KEPT

    def stored(self, key: str, shape: tuple[int, int] | None = None) -> StoredMatrix:  # noqa: D102
        dtype = self._float_dtype(key)
        own = self.info(key).shape
        if shape is None and len(own) != 2:
            raise ShapeError(f"Not a matrix: a tensor of shape {own}, in {self._where(key)}")
        n, m = shape or own
        matrix = _MatrixOnDisk(self._held, self._begin + self._offsets[key], (n, m), dtype)
        matrix.identity = self._identity(key)
        return matrix

    def _storage(self, key: str) -> np.dtype[Any]:
        dtype = self.layout[key].dtype
        if dtype not in STORAGE:
            raise FormatError(
                f"Unsupported type of numbers: {dtype}, in {self._where(key)}; convert it to float32"
            )
        return STORAGE[dtype]


class _MatrixOnDisk(StoredMatrix):
    """A matrix of which only the rows that are asked for are read.

    One that is read into a buffer is most likely read from end to end, several times: it is kept from the first time
    on, unless it is larger than a layer of any model, such as an embedding of a large vocabulary.
    """

    def __init__(self, file: HeldFile, start: int, shape: tuple[int, int], dtype: str) -> None:
        self._file = file
        self._start = start
        self._kind = STORAGE[dtype]
        self._whole: NDArray[Any] | None = None
        self.shape = shape
        self.dtype = dtype

    def rows(self, start: int, stop: int, out: NDArray[Any] | None = None) -> NDArray[Any]:
        small = self.shape[0] * self.shape[1] * self._kind.itemsize <= _LARGEST_WHOLE
        if out is not None and small and self._whole is None:
            self._whole = self._rows(0, self.shape[0])
        return super().rows(start, stop, out)

    def _rows(self, start: int, stop: int) -> NDArray[Any]:
        if self._whole is not None:
            return self._whole[start:stop]
        start, stop, _ = slice(start, stop).indices(self.shape[0])
        count, width = max(0, stop - start), self.shape[1]
        begin = self._start + start * width * self._kind.itemsize
        return self._file.array(begin, count * width, self._kind).reshape(count, width)


@contextlib.contextmanager
def _collector_paused() -> Iterator[None]:
    """No garbage collection while a long header becomes a million small objects, none of which is garbage."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _header(file: HeldFile, name: str) -> tuple[dict[str, Any], int]:
    size, head = file.size, file.read(0, 8)
    if len(head) < 8:
        raise _broken(f"only {size} bytes", name)
    (length,) = struct.unpack("<Q", head)
    if length > _LONGEST_HEADER:
        raise _broken(f"a header of {length} bytes, more than {_LONGEST_HEADER}", name)
    if length > size - 8:
        raise _broken(f"a header of {length} bytes in a file of {size}, which is cut short", name)
    raw = file.read(8, length)
    if raw[:1] != b"{":
        raise _broken("a header that does not begin with '{'", name)
    try:
        header = strict_json.parse(raw.decode("utf-8").rstrip(" "))
    except UnicodeError:
        raise _broken("a header that is not UTF-8", name) from None
    except ValueError as error:
        raise _broken(f"the header is not valid JSON ({shown(error)})", name) from None
    return header, 8 + length


def _tensors(header: dict[str, Any], size: int, name: str) -> tuple[dict[str, TensorInfo], dict[str, int]]:
    """Layout and first byte of each tensor, once the types, sizes and offsets of all agree."""
    layout: dict[str, TensorInfo] = {}
    spans: list[tuple[int, int, str]] = []
    for key, entry in header.items():
        try:
            layout[key], begin, end = _entry(entry)
        except ValueError as error:
            raise _broken(str(error), f"{shown(key)} of {name}") from None
        spans.append((begin, end, key))
    _require_coverage(spans, size, name)
    return layout, {key: begin for begin, _, key in spans}


def _entry(entry: Any) -> tuple[TensorInfo, int, int]:
    """Type and shape, first byte, byte after the last; ValueError that says what is wrong."""
    try:
        dtype, shape, (begin, end) = entry["dtype"], entry["shape"], entry["data_offsets"]
        ours = _DTYPES[dtype]
    except (TypeError, KeyError, ValueError):
        raise ValueError(
            f"an entry {shown(reprlib.repr(entry), longest=120)} without a known dtype, shape and two data_offsets"
        ) from None
    # type() and not isinstance(): a bool is not an integer here
    if type(begin) is not int or type(end) is not int or type(shape) is not list:
        raise ValueError("data_offsets that are not integers, or a shape that is not a list")
    if len(shape) > MOST_DIMENSIONS:
        raise ValueError(f"{len(shape)} dimensions")
    count = 1
    for n in shape:
        if type(n) is not int or not 0 <= n < LARGEST:
            raise ValueError(f"a dimension {shown(reprlib.repr(n), longest=40)}")
        count *= n
    if not count and not is_possible(shape):
        raise ValueError(f"the shape {shown(shape)}, which no array can have")
    if not 0 <= begin <= end or BITS[ours] * count != 8 * (end - begin):
        raise ValueError(f"data_offsets {[begin, end]} for {dtype} of shape {shown(shape)}")
    return TensorInfo(ours, tuple(shape)), begin, end


def _require_coverage(spans: list[tuple[int, int, str]], size: int, name: str) -> None:
    """Tensors must follow each other without a gap or an overlap, and end where the file ends."""
    covered = 0
    for begin, end, key in sorted(spans):
        if begin != covered:
            kind = "a gap" if begin > covered else "an overlap"
            raise _broken(
                f"{kind} in the data, which goes on at {begin} instead of {covered}",
                f"{shown(key)} of {name}",
            )
        covered = end
    if covered > size:
        raise _broken(
            f"{size} bytes of data where the header declares {covered}, so the file is cut short", name
        )
    if covered < size:
        raise _broken(f"{size - covered} bytes after the last tensor", name)


def _require_strings(metadata: Mapping[str, Any], name: str) -> None:
    if not isinstance(metadata, dict) or not all(isinstance(text, str) for text in metadata.values()):
        raise _broken("__metadata__ that does not map text to text", name)


def _broken(fact: str, where: str) -> FileError:
    return FileError(f"Damaged safetensors file: {fact}, in {where}; download or save it again")
