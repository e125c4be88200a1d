"""Readers of NumPy's files: one array (.npy), or several in a zip archive (.npz); Python objects are refused.

References
----------
NumPy, numpy/lib/format.py, "Format Version 1.0" to "3.0".
"""

from __future__ import annotations

import math
import mmap
import os
import struct
import warnings
import weakref
import zipfile
import zlib
from io import BytesIO
from typing import IO, TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.lib import format as npy_format

from subspace.checkpoints.regular_file import open_regular, path_text
from subspace.checkpoints.tensor_file import TensorFile, TensorInfo, place
from subspace.checkpoints.zip_archive import checked_archive
from subspace.errors import FileError, UnsafeFileError
from subspace.text import shown

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["NpyFile", "NpzFile"]

_LONGEST_HEADER = 10_000  # NumPy's own limit
_LONGEST_ITEM = 99  # bytes
_VERSIONS = {
    (1, 0),
    (2, 0),
    (3, 0),
}  # the last two differ only in the text of names, which plain numbers have none of
_MOST_DIMENSIONS = 32


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

    def array(self, buffer: Any, *, offset: int = 0) -> NDArray[Any]:
        flat = np.frombuffer(buffer, self.dtype, count=math.prod(self.shape), offset=offset)
        array = flat.reshape(self.shape, order="F" if self.fortran else "C")
        return array.astype(self.dtype.newbyteorder("<"), copy=False)


class NpyFile(TensorFile):
    """The one array of an .npy file, memory-mapped, under the key "".

    Raises
    ------
    FileError
        If the file is damaged or not of the size that its header declares.
    UnsafeFileError
        If it holds Python objects.
    """

    container = "npy"

    def __init__(self, path: str | os.PathLike[str]) -> None:
        name = path_text(path)
        with open_regular(path) as file:
            size = os.fstat(file.fileno()).st_size
            self._header = _header(file, shown(name))
            if self._header.start + self._header.nbytes != size:
                raise _damaged(
                    f"{size} bytes instead of {self._header.start + self._header.nbytes}", shown(name)
                )
            self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        super().__init__(name, layout={"": self._header.info})

    def raw(self, key: str) -> NDArray[Any]:  # noqa: D102
        self.info(key)
        return self._header.array(self._map, offset=self._header.start)


class NpzFile(TensorFile):
    """Arrays of an .npz file, unpacked one by one when they are read; the key is the name without ".npy".

    Raises
    ------
    FileError
        If the archive or a header is damaged, or an array is not of its declared size.
    UnsafeFileError
        If it holds Python objects, or the archive is unsafe (see `checked_archive`).
    """

    container = "npz"

    def __init__(self, path: str | os.PathLike[str]) -> None:
        name = path_text(path)
        file = open_regular(path)
        # closes the file with the last use of this object
        weakref.finalize(self, file.close)
        self._archive = checked_archive(file, name)
        self._headers: dict[str, _Header] = {}
        for member in self._archive.infolist():
            key = member.filename.removesuffix(".npy")
            where = place(name, key)
            with _open_member(self._archive, member, where) as stream:
                header = self._headers[key] = _guarded_header(stream, where)
            if header.start + header.nbytes != member.file_size:
                raise _damaged(f"{member.file_size} bytes instead of {header.start + header.nbytes}", where)
        super().__init__(name, layout={key: header.info for key, header in self._headers.items()})

    def raw(self, key: str) -> NDArray[Any]:  # noqa: D102
        self.info(key)
        header = self._headers[key]
        member = self._archive.getinfo(f"{key}.npy")
        with _open_member(self._archive, member, self._where(key)) as stream:
            try:
                content = stream.read()
            except _ZIP_ERRORS:
                raise _damaged("its content cannot be unpacked", self._where(key)) from None
        return header.array(content, offset=header.start)


# what zipfile raises on damaged members
_ZIP_ERRORS = (zipfile.BadZipFile, zlib.error, OSError, EOFError, RuntimeError, ValueError, struct.error)


def _open_member(archive: zipfile.ZipFile, member: zipfile.ZipInfo, where: str) -> IO[bytes]:
    try:
        return archive.open(member)
    except _ZIP_ERRORS:
        raise _damaged("its content cannot be unpacked", where) from None


def _guarded_header(stream: IO[bytes], where: str) -> _Header:
    try:
        return _header(stream, where)
    except FileError:
        raise
    except _ZIP_ERRORS:
        raise _damaged("its content cannot be unpacked", where) from None


def _header(stream: IO[bytes], where: str) -> _Header:
    """Type, shape and order of an array, from the bytes before its data."""
    # NumPy reads as much as a header claims to be long, so it is only given what a header may be
    head = BytesIO(stream.read(_LONGEST_HEADER + 12))
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
    if len(shape) > _MOST_DIMENSIONS or not all(type(n) is int and 0 <= n < 2**63 for n in shape):
        raise _damaged(f"its shape is {shown(shape, longest=40)}", where)
    return shape


def _damaged(fact: str, where: str) -> FileError:
    return FileError(f"Damaged NumPy file: {fact}, in {where}; save or download it again")
