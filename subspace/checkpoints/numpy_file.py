"""Readers of NumPy's files: one array (.npy), or several in a zip archive (.npz); Python objects are refused.

References
----------
NumPy, numpy/lib/format.py, "Format Version 1.0" to "3.0".
"""

from __future__ import annotations

import math
import warnings
from io import BytesIO
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.lib import format as npy_format

from subspace.checkpoints.held_file import HeldFile, held
from subspace.checkpoints.shapes import LARGEST, is_possible
from subspace.checkpoints.tensor_file import TensorFile, TensorInfo, place
from subspace.checkpoints.zip_archive import Archive, BrokenMemberError
from subspace.errors import FileError, UnsafeFileError
from subspace.text import shown

if TYPE_CHECKING:
    import os

    from numpy.typing import NDArray

    from subspace.checkpoints.zip_directory import Entry

__all__ = ["NpyFile", "NpzFile"]

_LONGEST_HEADER = 10_000  # NumPy's own limit
_HEAD = _LONGEST_HEADER + 12  # NumPy reads as much as a header claims to be long, so it is only given these
_LONGEST_ITEM = 99  # bytes
_VERSIONS = {
    (1, 0),
    (2, 0),
    (3, 0),
}  # the last two differ only in the text of names, which plain numbers have none of


class _Header(NamedTuple):
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    fortran: bool
    start: int  # first byte of the data

    @property
    def nbytes(self) -> int:
        return self.dtype.itemsize * math.prod(self.shape)

    @property
    def info(self) -> TensorInfo:
        return TensorInfo(self.dtype.name, self.shape)

    def shaped(self, flat: NDArray[Any]) -> NDArray[Any]:
        """The array of its numbers."""
        array = flat.reshape(self.shape, order="F" if self.fortran else "C")
        return array.astype(self.dtype.newbyteorder("<"), copy=False)


class NpyFile(TensorFile):
    """The one array of an .npy file, under the key "".

    Raises
    ------
    FileError
        If the file is damaged or not of the size that its header declares.
    UnsafeFileError
        If it holds Python objects.
    """

    container = "npy"

    def __init__(self, path: str | os.PathLike[str] | HeldFile) -> None:
        self._held = file = held(path)
        self._header = _header(file.read(0, _HEAD), shown(file.path))
        if self._header.start + self._header.nbytes != file.size:
            raise _damaged(
                f"{file.size} bytes instead of {self._header.start + self._header.nbytes}", shown(file.path)
            )
        super().__init__(file.path, layout={"": self._header.info}, file=file)

    def raw(self, key: str) -> NDArray[Any]:  # noqa: D102
        self.info(key)
        header = self._header
        return header.shaped(self._held.array(header.start, math.prod(header.shape), header.dtype))


class NpzFile(TensorFile):
    """Arrays of an .npz file, unpacked one by one when they are read; the key is the name without ".npy".

    Raises
    ------
    FileError
        If the archive or a header is damaged, or an array is not of its declared size.
    UnsafeFileError
        If it holds Python objects, or the archive is unsafe (see `Archive`).
    """

    container = "npz"

    def __init__(self, path: str | os.PathLike[str] | HeldFile, *, archive: Archive | None = None) -> None:
        file = held(path)
        self._archive = archive or Archive(file)
        self._headers: dict[str, _Header] = {}
        for name, entry in self._archive.members.items():
            key = name.removesuffix(".npy")
            where = place(file.path, key)
            header = self._headers[key] = _header(self._content(entry, where, _HEAD), where)
            if header.start + header.nbytes != entry.size:
                raise _damaged(f"{entry.size} bytes instead of {header.start + header.nbytes}", where)
        layout = {key: header.info for key, header in self._headers.items()}
        super().__init__(file.path, layout=layout, file=file)

    def raw(self, key: str) -> NDArray[Any]:  # noqa: D102
        self.info(key)
        header = self._headers[key]
        content = self._content(self._archive.members[f"{key}.npy"], self._where(key))
        return header.shaped(np.frombuffer(content, header.dtype, math.prod(header.shape), header.start))

    def _content(self, entry: Entry, where: str, count: int | None = None) -> bytes:
        try:
            return self._archive.read(entry, count)
        except BrokenMemberError:
            raise _damaged("its content cannot be unpacked", where) from None


def _header(content: bytes, where: str) -> _Header:
    """Type, shape and order of an array, from its first bytes."""
    head = BytesIO(content)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Python 2 wrote 4L for 4
            version = npy_format.read_magic(head)
            reader = (
                npy_format.read_array_header_1_0 if version == (1, 0) else npy_format.read_array_header_2_0
            )
            shape, fortran, dtype = reader(head, max_header_size=_LONGEST_HEADER)
    except Exception:  # noqa: BLE001 - ast, tokenize and np.dtype raise ten kinds of them on damaged headers
        raise _damaged("it has no valid NumPy header", where) from None
    if version not in _VERSIONS:
        raise _damaged(f"its header is of the unknown version {version}", where)
    return _Header(_plain_dtype(dtype, where), _shape(shape, where), fortran, head.tell())


def _plain_dtype(dtype: np.dtype[Any], where: str) -> np.dtype[Any]:
    if dtype.hasobject:
        raise UnsafeFileError(
            f"The NumPy file could run code when it is loaded: it holds Python objects (a pickle), in {where}; "
            "it was not opened; save its numbers as a plain array"
        )
    # NumPy itself writes bfloat16 and 8-bit floats as raw bytes, of kind V
    if dtype.kind not in "biufcV" or dtype.names or dtype.subdtype or not 0 < dtype.itemsize <= _LONGEST_ITEM:
        unsupported = shown(dtype, longest=40)
        raise FileError(f"Unsupported type of numbers: {unsupported}, in {where}; convert it to float32")
    return dtype


def _shape(shape: tuple[int, ...], where: str) -> tuple[int, ...]:
    if not all(type(n) is int and 0 <= n < LARGEST for n in shape) or not is_possible(shape):
        raise _damaged(f"its shape is {_short(shape)}", where)
    return shape


def _short(shape: tuple[Any, ...]) -> str:
    """The shape, without its digits where it has thousands, which Python refuses to print."""
    if any(type(n) is int and n.bit_length() > 1000 for n in shape):
        return "no size that an array can have"
    return shown(shape, longest=40)


def _damaged(fact: str, where: str) -> FileError:
    return FileError(f"Damaged NumPy file: {fact}, in {where}; save or download it again")
