"""Judging a zip archive by its directory alone, before anything in it is unpacked; nothing is ever extracted.

References
----------
PKWARE, APPNOTE.TXT 6.3.10, sections 4.3.14-16 (end of central directory).
modelaudit's limits (10,000 members, 100:1) are the model of the caps here, fitted to what torch writes.
"""

from __future__ import annotations

import os
import struct
import zipfile
from typing import BinaryIO

from subspace.errors import FileError, FormatError, UnsafeFileError
from subspace.text import shown

__all__ = ["checked_archive", "container_of_members"]

_MOST_MEMBERS = 40_000  # an adapter of 10,000 modules has 20,000 tensors
_HIGHEST_RATIO = 20  # weights hardly compress; numpy's savez_compressed reaches this only for zeros
_FREE_BYTES = 64 * 2**20  # below this an archive may expand as it likes


def checked_archive(file: BinaryIO, name: str) -> zipfile.ZipFile:
    """Reader of a zip archive whose directory promises nothing dangerous.

    Parameters
    ----------
    file : binary reader
        Stays in use by the result.
    name : str
        How errors call the file.

    Raises
    ------
    FileError
        If the archive is cut or damaged.
    UnsafeFileError
        If it has too many members, expands too far, hides or repeats names, is encrypted, or has names that
        leave the archive.
    """
    _require_short_directory(file, name)
    try:
        archive = zipfile.ZipFile(file)
    # the zoo that zipfile lets out of a damaged directory
    except (zipfile.BadZipFile, ValueError, NotImplementedError, struct.error, OSError, IndexError, KeyError):
        raise _damaged(name) from None
    size = os.fstat(file.fileno()).st_size
    _require_plain_names([member.orig_filename for member in archive.infolist()], name)
    for member in archive.infolist():
        _require_plain_member(member, name)
    declared = sum(member.file_size for member in archive.infolist())
    packed = sum(member.compress_size for member in archive.infolist())
    if packed > size or declared > _HIGHEST_RATIO * size + _FREE_BYTES:
        raise _unsafe(f"{declared} bytes out of a file of {size}", name)
    return archive


def container_of_members(file: BinaryIO, name: str) -> str:
    """Say "torch zip" or "npz" by the names in the archive; FormatError when it is neither.

    Raises
    ------
    FileError
        As `checked_archive`.
    """
    members = [member.filename for member in checked_archive(file, name).infolist() if not member.is_dir()]
    if any(member.split("/")[-1] == "data.pkl" for member in members):
        return "torch zip"
    if members and all(member.endswith(".npy") for member in members):
        return "npz"
    seen = ", ".join(shown(member, longest=40) for member in members[:3]) or "no members"
    raise FormatError(
        f"a zip archive must hold data.pkl (torch) or .npy files: got {seen}, in {shown(name)}; "
        "unpack it first if the weights lie inside"
    )


def _require_short_directory(file: BinaryIO, name: str) -> None:
    """Refuse a long directory before zipfile makes an object of each entry, and one whose place is ambiguous."""
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
        raise _unsafe(f"{members} members, above {_MOST_MEMBERS}", name)
    # zipfile looks for the directory before its end record, torch where the record says: both must be one place
    if position + length != stop:
        raise _unsafe("a directory that is not where its end record says", name)


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
    # readers differ in the case they look names up with, so names that differ in case only are repeats too
    if len({member.lower() for member in members}) != len(members):
        raise _unsafe("two members of one name", name)
    for member in members:
        if member.startswith("/") or "\\" in member or "\0" in member or ".." in member.split("/"):
            raise _unsafe(f"a member named {shown(member, longest=60)}", name)


def _require_plain_member(member: zipfile.ZipInfo, name: str) -> None:
    where = f"{name}: {member.filename}"
    if member.flag_bits & 0x2041:
        raise _unsafe("an encrypted member", where)
    if member.compress_type not in {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}:
        raise _unsafe(f"compression method {member.compress_type}", where)
    if member.compress_type == zipfile.ZIP_STORED and member.compress_size != member.file_size:
        raise _unsafe(f"{member.compress_size} stored bytes that declare to be {member.file_size}", where)


def _unsafe(fact: str, name: str) -> UnsafeFileError:
    return UnsafeFileError(
        f"a zip archive of weights must be plain and of honest size: got {fact}, in {shown(name)}; "
        "do not trust it, or save the weights again as safetensors"
    )


def _damaged(name: str) -> FileError:
    return FileError(
        f"a zip archive must be whole: got a cut or damaged one, in {shown(name)}; download it again"
    )
