"""A zip archive checked by its directory alone, before anything in it is read; nothing is ever extracted to disk.

References
----------
The limits here follow those of modelaudit (10,000 members, 100:1), adapted to what torch writes.
"""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING

from subspace.checkpoints.budget import DECLARED_BYTES
from subspace.checkpoints.zip_directory import STORED, Entry, directory, unsafe
from subspace.errors import FormatError
from subspace.text import listed, shown

if TYPE_CHECKING:
    from subspace.checkpoints.held_file import HeldFile

__all__ = ["Archive", "BrokenMemberError", "container_of_members"]

_AT_ONCE = 2**16


class BrokenMemberError(Exception):
    """A member that cannot be unpacked, or is not what its checksum says."""


class Archive:
    """A zip archive whose directory holds nothing dangerous and nothing that two readers could read in two ways.

    Attributes
    ----------
    file : HeldFile
        The file.
    members : mapping of str to Entry
        Every member by its name, in the order of the directory.

    Raises
    ------
    FileError
        If the archive is cut short or damaged.
    UnsafeFileError
        If it has too many members, expands too far, hides or repeats names, is encrypted, has names that point outside
        the archive, or is ambiguous (see `zip_directory`).
    """

    def __init__(self, file: HeldFile) -> None:
        self.file = file
        entries = directory(file)
        _require_plain_names([entry.name for entry in entries], file)
        file.budget.spend(DECLARED_BYTES, sum(entry.size for entry in entries))
        self.members = {entry.name: entry for entry in entries}

    def read(self, entry: Entry, count: int | None = None) -> bytes:
        """The content of a member, or its first `count` bytes; the checksum is compared if it is read whole.

        Raises
        ------
        BrokenMemberError
            If it cannot be unpacked, or its checksum is another; torch can leave checksums out (as 0).
        """
        wanted = entry.size if count is None else min(count, entry.size)
        stored = entry.method == STORED
        content = self.file.read(entry.start, wanted) if stored else self._inflated(entry, wanted)
        if len(content) == entry.size and entry.crc and zlib.crc32(content) != entry.crc:
            raise BrokenMemberError
        return content

    def _inflated(self, entry: Entry, wanted: int) -> bytes:
        unpacker = zlib.decompressobj(-zlib.MAX_WBITS)
        pieces: list[bytes] = []
        position, missing = entry.start, wanted
        try:
            while missing and not unpacker.eof:
                packed = unpacker.unconsumed_tail
                if not packed:
                    packed = self.file.read(position, min(_AT_ONCE, entry.stop - position))
                    position += len(packed)
                pieces.append(unpacker.decompress(packed, missing))
                missing -= len(pieces[-1])
                if not packed and not pieces[-1]:
                    break
        except zlib.error:
            raise BrokenMemberError from None
        if missing:
            raise BrokenMemberError
        return b"".join(pieces)


def container_of_members(archive: Archive) -> str:
    """Return "torch zip" or "npz" by the names in the archive; FormatError if it is neither."""
    members = [name for name in archive.members if not name.endswith("/")]
    if any(member.split("/")[-1] == "data.pkl" for member in members):
        return "torch zip"
    if members and all(member.endswith(".npy") for member in members):
        return "npz"
    where = shown(archive.file.path)
    raise FormatError(
        f"Not a zip archive of torch or NumPy: it holds {listed(members, empty='no files')}, in {where}; "
        "unpack it first if the weights are inside"
    )


def _require_plain_names(members: list[str], file: HeldFile) -> None:
    # some readers ignore the case of names, so names that differ only in case count as repeated too
    if len({member.lower() for member in members}) != len(members):
        raise unsafe("two members have the same name", file)
    for member in members:
        if member.startswith("/") or "\\" in member or "\0" in member or ".." in member.split("/"):
            raise unsafe(f"a member has the name {shown(member, longest=60)}", file)
