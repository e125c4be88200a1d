"""Readers of NumPy's files: one array (.npy), or several in a zip archive (.npz), never of Python objects.

References
----------
NumPy, numpy/lib/format.py, "Format Version 1.0" to "3.0".
"""

from __future__ import annotations

import ast
import math
import mmap
import os
import re
import struct
import weakref
import zipfile
import zlib
from typing import IO, TYPE_CHECKING, Any, NamedTuple

import numpy as np

from subspace.checkpoints.regular_file import open_regular, path_text
from subspace.checkpoints.tensor_file import TensorFile, TensorInfo
from subspace.checkpoints.zip_archive import checked_archive
from subspace.errors import FileError, UnsafeFileError
from subspace.text import shown

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["NpyFile", "NpzFile"]

_LONGEST_HEADER = 10_000  # NumPy's own limit
_MOST_DIMENSIONS = 32
_PLAIN = re.compile(r"[<>|=]?[biufcV]\d{1,2}|[<>|=]?\?")


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
                raise _damaged(f"{size} bytes for {self._header.start + self._header.nbytes}", shown(name))
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
        If it holds Python objects or the archive is not honest about its sizes.
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
            where = f"{shown(name)}: {shown(key)}"
            with _open_member(self._archive, member, where) as stream:
                header = self._headers[key] = _guarded_header(stream, where)
            if header.start + header.nbytes != member.file_size:
                raise _damaged(f"{member.file_size} bytes for {header.start + header.nbytes}", where)
        super().__init__(name, layout={key: header.info for key, header in self._headers.items()})

    def raw(self, key: str) -> NDArray[Any]:  # noqa: D102
        self.info(key)
        header = self._headers[key]
        member = self._archive.getinfo(f"{key}.npy")
        with _open_member(self._archive, member, self._where(key)) as stream:
            try:
                content = stream.read()
            except _ZIP_ERRORS:
                raise _damaged("content that cannot be unpacked", self._where(key)) from None
        return header.array(content, offset=header.start)


# what zipfile lets out of damaged members
_ZIP_ERRORS = (zipfile.BadZipFile, zlib.error, OSError, EOFError, RuntimeError, ValueError, struct.error)


def _open_member(archive: zipfile.ZipFile, member: zipfile.ZipInfo, where: str) -> IO[bytes]:
    try:
        return archive.open(member)
    except _ZIP_ERRORS:
        raise _damaged("a member that cannot be unpacked", where) from None


def _guarded_header(stream: IO[bytes], where: str) -> _Header:
    try:
        return _header(stream, where)
    except FileError:
        raise
    except _ZIP_ERRORS:
        raise _damaged("a member that cannot be unpacked", where) from None


def _header(stream: IO[bytes], where: str) -> _Header:
    """Type, shape and order of an array, from the bytes before its data."""
    start = stream.read(8)
    wide = start[6:7] != b"\x01"
    length_bytes = stream.read(4 if wide else 2)
    if start[:6] != b"\x93NUMPY" or start[6] not in {1, 2, 3} or len(length_bytes) != (4 if wide else 2):
        raise _damaged("no NumPy header", where)
    length = int.from_bytes(length_bytes, "little")
    if length > _LONGEST_HEADER:
        raise _damaged(f"a header of {length} bytes, above {_LONGEST_HEADER}", where)
    text = stream.read(length)
    try:
        fields = ast.literal_eval(text.decode("utf-8" if start[6] == 3 else "latin1").strip())
        descr, fortran, shape = fields["descr"], fields["fortran_order"], fields["shape"]
    except (ValueError, SyntaxError, TypeError, KeyError, RecursionError, MemoryError):
        raise _damaged("a header that is no NumPy header", where) from None
    return _Header(
        _plain_dtype(descr, where), _shape(shape, where), bool(fortran), 8 + len(length_bytes) + len(text)
    )


def _plain_dtype(descr: object, where: str) -> np.dtype[Any]:
    if isinstance(descr, str) and descr.lstrip("<>|=").startswith("O"):
        raise UnsafeFileError(
            f"an array must hold numbers: got Python objects (a pickle), in {where}; do not trust the file"
        )
    try:
        if isinstance(descr, str) and _PLAIN.fullmatch(descr):
            return np.dtype(descr)
    except TypeError:
        pass
    raise _damaged(f"the type {shown(descr, longest=40)}", where)


def _shape(shape: object, where: str) -> tuple[int, ...]:
    if not isinstance(shape, tuple) or len(shape) > _MOST_DIMENSIONS:
        raise _damaged("a shape that is no short tuple", where)
    if not all(type(n) is int and 0 <= n < 2**63 for n in shape):
        raise _damaged(f"the shape {shown(shape, longest=40)}", where)
    return shape


def _damaged(fact: str, where: str) -> FileError:
    return FileError(f"a NumPy file must be whole: got {fact}, in {where}; save or download it again")
