"""A zip archive checked by its directory alone, before anything in it is read; nothing is ever extracted to disk.

References
----------
PKWARE, APPNOTE.TXT 6.3.10, sections 4.3.14-16 (end of central directory).
The limits here follow those of modelaudit (10,000 members, 100:1), adapted to what torch writes.
"""

from __future__ import annotations

import os
import struct
import zipfile
from typing import BinaryIO

from subspace.errors import FileError, FormatError, UnsafeFileError
from subspace.text import listed, shown

__all__ = ["checked_archive", "container_of_members"]

_MOST_MEMBERS = 40_000  # an adapter of 10,000 modules has 20,000 tensors
_HIGHEST_RATIO = 20  # weights hardly compress; NumPy's savez_compressed reaches this only for zeros
_FREE_BYTES = 64 * 2**20  # up to here an archive may expand freely


def checked_archive(file: BinaryIO, name: str) -> zipfile.ZipFile:
    """Reader of a zip archive whose directory holds nothing dangerous.

    Parameters
    ----------
    file : binary reader
        The result goes on using it.
    name : str
        The name of the file in errors.

    Raises
    ------
    FileError
        If the archive is cut short or damaged.
    UnsafeFileError
        If it has too many members, expands too far, hides or repeats names, is encrypted, or has names that
        point outside the archive.
    """
    _require_short_directory(file, name)
    try:
        archive = zipfile.ZipFile(file)
    # all that zipfile raises on a damaged directory
    except (zipfile.BadZipFile, ValueError, NotImplementedError, struct.error, OSError, IndexError, KeyError):
        raise _damaged(name) from None
    size = os.fstat(file.fileno()).st_size
    _require_plain_names([member.orig_filename for member in archive.infolist()], name)
    for member in archive.infolist():
        _require_plain_member(member, name)
    declared = sum(member.file_size for member in archive.infolist())
    packed = sum(member.compress_size for member in archive.infolist())
    if packed > size or declared > _HIGHEST_RATIO * size + _FREE_BYTES:
        raise _unsafe(f"{size} bytes that expand to {declared}", name)
    return archive


def container_of_members(file: BinaryIO, name: str) -> str:
    """Return "torch zip" or "npz" by the names in the archive; FormatError if it is neither.

    Raises
    ------
    FileError
        As `checked_archive`.
    """
    members = [
        member.filename
        for member in checked_archive(file, name).infolist()
        if not member.filename.endswith("/")
    ]
    if any(member.split("/")[-1] == "data.pkl" for member in members):
        return "torch zip"
    if members and all(member.endswith(".npy") for member in members):
        return "npz"
    raise FormatError(
        f"Not a zip archive of torch or NumPy: it holds {listed(members, empty='no files')}, in {shown(name)}; "
        "unpack it first if the weights are inside"
    )


def _require_short_directory(file: BinaryIO, name: str) -> None:
    """Refuse a long directory before zipfile creates an object for each entry, and one whose place is ambiguous."""
    size = file.seek(0, os.SEEK_END)
    start = max(0, size - 65_557 - 20)  # the longest comment, the record, the zip64 locator
    file.seek(start)
    tail = file.read()
    file.seek(0)
    end = tail.rfind(b"PK\x05\x06")
    if end < 0 or len(tail) - end < 22:
        raise _damaged(name)
    members, length, position = struct.unpack_from("<HII", tail, end + 10)
    stop = start + end
    if end >= 20 and tail[end - 20 : end - 16] == b"PK\x06\x07":
        stop = struct.unpack_from("<Q", tail, end - 12)[0]
        members, length, position = _zip64_directory(file, stop, start + end - 76, name)
    if members > _MOST_MEMBERS or length > 1000 * _MOST_MEMBERS:
        raise _unsafe(f"{members} members, more than {_MOST_MEMBERS}", name)
    # zipfile looks for the directory right before its end record, torch where the record says: they must agree
    if position + length != stop:
        raise _unsafe("its directory is not where its end record says", name)


def _zip64_directory(file: BinaryIO, position: int, expected: int, name: str) -> tuple[int, int, int]:
    if position != expected:
        raise _damaged(name)
    file.seek(position)
    record = file.read(56)
    file.seek(0)
    if record[:4] != b"PK\x06\x06" or len(record) < 56:
        raise _damaged(name)
    members, length, start = struct.unpack_from("<QQQ", record, 32)
    return members, length, start


def _require_plain_names(members: list[str], name: str) -> None:
    # some readers ignore the case of names, so names that differ only in case count as repeated too
    if len({member.lower() for member in members}) != len(members):
        raise _unsafe("two members have the same name", name)
    for member in members:
        if member.startswith("/") or "\\" in member or "\0" in member or ".." in member.split("/"):
            raise _unsafe(f"a member has the name {shown(member, longest=60)}", name)


def _require_plain_member(member: zipfile.ZipInfo, name: str) -> None:
    where = f"{member.filename} of {name}"
    if member.flag_bits & 0x2041:
        raise _unsafe("a member is encrypted", where)
    if member.compress_type not in {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}:
        raise _unsafe(f"unknown compression method {member.compress_type}", where)
    if member.compress_type == zipfile.ZIP_STORED and member.compress_size != member.file_size:
        raise _unsafe(f"{member.compress_size} stored bytes are declared as {member.file_size}", where)


def _unsafe(fact: str, name: str) -> UnsafeFileError:
    return UnsafeFileError(
        f"Unsafe zip archive: {fact}, in {shown(name)}; it was not opened; "
        "if you trust its source, save the weights again as safetensors"
    )


def _damaged(name: str) -> FileError:
    return FileError(f"Damaged zip archive: {shown(name)} is cut short or corrupt; download it again")
