"""The directory of a zip archive, read so that no two readers could disagree about it; only `zip_archive` uses this.

Readers of zip differ: Python names a member by the Unicode Path field of its entry and torch by the entry itself, one
looks for the directory where its end record says and another right before that record, some go by the directory and
some by the headers in front of the members, and which of two members of one name they take is anybody's guess. An
archive in which any of this makes a difference is refused, so that what is checked here is what any other reader,
torch's or NumPy's, would find.

References
----------
PKWARE, APPNOTE.TXT 6.3.10, sections 4.3.7 (local header), 4.3.12 (entries), 4.3.14-16 (end records), 4.5.3 (zip64).
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, NamedTuple

from subspace.checkpoints.budget import MEMBERS
from subspace.errors import FileError, UnsafeFileError
from subspace.text import shown

if TYPE_CHECKING:
    from subspace.checkpoints.held_file import HeldFile

__all__ = ["DEFLATED", "STORED", "Entry", "damaged", "directory", "unsafe"]

STORED, DEFLATED = 0, 8
_END, _END64, _LOCATOR64 = b"PK\x05\x06", b"PK\x06\x06", b"PK\x06\x07"
_ENTRY, _LOCAL, _DESCRIPTOR = b"PK\x01\x02", b"PK\x03\x04", b"PK\x07\x08"
_ENTRY_FIELDS = struct.Struct("<4s4xHH4xIIIHHHH6xI")
_LOCAL_FIELDS = struct.Struct("<4s2xHH4xIIIHH")
_SMALL, _LARGE = 0xFFFF, 0xFFFFFFFF  # in place of a number that stands in a zip64 record
_ZIP64, _UNICODE_PATH = 0x0001, 0x7075
_ENCRYPTED, _DESCRIBED_AFTER, _UTF8 = 0x2041, 0x0008, 0x0800
_LONGEST_COMMENT = 65_535
_READ_AHEAD = 256  # torch aligns members to 64 bytes with a field in their headers


class Entry(NamedTuple):
    """A member of an archive: its name, how it is packed, where its header begins and ends, and its sizes."""

    name: str
    flags: int
    method: int
    crc: int
    packed: int
    size: int
    header: int
    start: int = 0  # first byte of the content

    @property
    def stop(self) -> int:
        """Byte after the content."""
        return self.start + self.packed


def directory(file: HeldFile) -> list[Entry]:
    """Members of an archive in the order of its directory, each of which agrees with its header.

    Raises
    ------
    FileError
        If the archive is cut short or damaged.
    UnsafeFileError
        If two readers could read it in two ways, or it has more members than a file of its size can need.
    """
    count, length, start = _end(file)
    file.budget.spend(MEMBERS, count)
    content = file.read(start, length)
    entries, position = [], 0
    for _ in range(count):
        entry, position = _entry(content, position, file)
        _require_plain(entry, file)
        entries.append(entry)
    if position != length:
        raise unsafe(f"its directory goes on after {count} members", file)
    located = [_located(entry, start, file) for entry in entries]
    _require_tiled(located, start, file)
    return located


def _end(file: HeldFile) -> tuple[int, int, int]:
    """Number of members, length and first byte of the directory, by the record at the very end of the file."""
    begin = max(0, file.size - 22 - _LONGEST_COMMENT)
    tail = file.read(begin, file.size - begin)
    end = tail.rfind(_END)
    if end < 0 or len(tail) - end < 22:
        raise damaged(file)
    disk, first, here, count, length, start, comment = struct.unpack_from("<HHHHIIH", tail, end + 4)
    if len(tail) - end - 22 != comment:
        raise unsafe("there are bytes after its end record", file)
    if disk or first or here != count:
        raise unsafe("it is a part of an archive in several files", file)
    stop = begin + end
    if stop >= 20 and file.read(stop - 20, 4) == _LOCATOR64:
        short = (count, _SMALL), (length, _LARGE), (start, _LARGE)
        count, length, start, stop = _end64(file, stop - 20)
        if any(
            long not in pair
            for long, pair in zip((count, length, start), short, strict=True)
            if pair[0] != pair[1]
        ):
            raise unsafe("its two end records disagree", file)
    # some look for the directory right before its end record, others where that says: they must agree
    if start + length != stop:
        raise unsafe("its directory is not where its end record says", file)
    return count, length, start


def _end64(file: HeldFile, locator: int) -> tuple[int, int, int, int]:
    """The same by the zip64 record, and where that begins."""
    disk, position, disks = struct.unpack("<IQI", file.read(locator + 4, 16))
    record = file.read(position, 56)
    if position + 56 != locator or record[:4] != _END64 or disk or disks != 1:
        raise damaged(file)
    size, *_, here, count, length, start = struct.unpack_from("<QHHIIQQQQ", record, 4)
    if size != 44 or here != count:
        raise damaged(file)
    return count, length, start, position


def _entry(content: bytes, position: int, file: HeldFile) -> tuple[Entry, int]:
    """One entry of the directory, and where the next begins."""
    if content[position : position + 4] != _ENTRY or len(content) - position < 46:
        raise damaged(file)
    fields = _ENTRY_FIELDS.unpack_from(content, position)
    _, flags, method, crc, packed, size, n, m, comment, disk, header = fields
    begin = position + 46
    position = begin + n + m + comment
    if position > len(content):
        raise damaged(file)
    name = _name(content[begin : begin + n], flags, file)
    if disk:
        raise unsafe("it is a part of an archive in several files", file)
    extra = content[begin + n : begin + n + m]
    size, packed, header = _in_64_bits(extra, [size, packed, header], file)
    return Entry(name, flags, method, crc, packed, size, header), position


def _name(raw: bytes, flags: int, file: HeldFile) -> str:
    try:
        # without the flag some readers take another alphabet
        return raw.decode("utf-8" if flags & _UTF8 else "ascii")
    except UnicodeDecodeError:
        raise unsafe(f"a member has the name {shown(raw, longest=60)}", file) from None


def _in_64_bits(extra: bytes, numbers: list[int], file: HeldFile) -> list[int]:
    """Numbers of 32 bits, those that do not fit replaced by the ones of the zip64 field, which must hold no others."""
    absent = [i for i, number in enumerate(numbers) if number == _LARGE]
    fields = _extra_fields(extra, file)
    if not absent:
        return numbers
    wide = fields.get(_ZIP64, b"")
    if len(wide) != 8 * len(absent):
        raise unsafe("a member has a zip64 field that does not fit its entry", file)
    for i, number in zip(absent, struct.unpack(f"<{len(absent)}Q", wide), strict=True):
        numbers[i] = number
    return numbers


def _extra_fields(extra: bytes, file: HeldFile) -> dict[int, bytes]:
    fields: dict[int, bytes] = {}
    position = 0
    while len(extra) - position >= 4:
        kind, length = struct.unpack_from("<HH", extra, position)
        if kind in fields or kind == _UNICODE_PATH:
            raise unsafe(
                "a member has two names" if kind == _UNICODE_PATH else "a member has a field twice", file
            )
        fields[kind] = extra[position + 4 : position + 4 + length]
        position += 4 + length
    if position > len(extra):
        raise unsafe("a member has a field that is cut short", file)
    return fields


def _require_plain(entry: Entry, file: HeldFile) -> None:
    where = shown(entry.name, longest=60)
    if entry.flags & _ENCRYPTED:
        raise unsafe(f"the member {where} is encrypted", file)
    if entry.method not in {STORED, DEFLATED}:
        raise unsafe(f"the member {where} has the unknown compression method {entry.method}", file)
    if entry.method == STORED and entry.packed != entry.size:
        raise unsafe(f"{entry.packed} stored bytes of {where} are declared as {entry.size}", file)


def _located(entry: Entry, end: int, file: HeldFile) -> Entry:
    """The entry with the place of its content, once the header in front of that says the same."""
    if entry.header > end:
        raise damaged(file)
    raw = file.read(entry.header, min(_READ_AHEAD, end - entry.header))
    if raw[:4] != _LOCAL or len(raw) < 30:
        raise damaged(file)
    _, flags, method, crc, packed, size, n, m = _LOCAL_FIELDS.unpack_from(raw)
    if 30 + n + m > len(raw):
        raw = file.read(entry.header, 30 + n + m)
    if _name(raw[30 : 30 + n], flags, file) != entry.name or (flags, method) != (entry.flags, entry.method):
        raise unsafe("a member has another name or kind in front of it than in the directory", file)
    size, packed = _in_64_bits(raw[30 + n : 30 + n + m], [size, packed], file)
    told, known = (crc, size, packed), (entry.crc, entry.size, entry.packed)
    if told != known and not (flags & _DESCRIBED_AFTER and told == (0, 0, 0)):
        raise unsafe("a member has another checksum or size in front of it than in the directory", file)
    return entry._replace(start=entry.header + 30 + n + m)


def _require_tiled(entries: list[Entry], end: int, file: HeldFile) -> None:
    """Members must follow each other from the first byte to the directory, without a gap or an overlap."""
    position = 0
    for entry in sorted(entries, key=lambda entry: entry.header):
        if entry.header < position or entry.stop > end:
            raise unsafe("two members share bytes", file)
        if entry.header > position:
            raise unsafe(f"there are bytes before the member {shown(entry.name, longest=60)}", file)
        position = entry.stop + _description(entry, file)
    if position != end:
        raise unsafe("there are bytes between its members and its directory", file)


def _description(entry: Entry, file: HeldFile) -> int:
    """Length of the record of checksum and sizes behind a member, with or without a signature, of 32 or 64 bits."""
    if not entry.flags & _DESCRIBED_AFTER:
        return 0
    raw = file.read(entry.stop, 24)
    skip = 4 if raw.startswith(_DESCRIPTOR) else 0
    for layout in ("<III", "<IQQ"):
        length = skip + struct.calcsize(layout)
        if len(raw) >= length and struct.unpack_from(layout, raw, skip) == (
            entry.crc,
            entry.packed,
            entry.size,
        ):
            return length
    raise unsafe("a member has another checksum or size behind it than in the directory", file)


def unsafe(fact: str, file: HeldFile) -> UnsafeFileError:
    """The error of an archive that is not as anybody would write it."""
    return UnsafeFileError(
        f"Unsafe zip archive: {fact}, in {shown(file.path)}; it was not opened; "
        "if you trust its source, save the weights again as safetensors"
    )


def damaged(file: HeldFile) -> FileError:
    """The error of an archive that has lost or changed bytes."""
    return FileError(f"Damaged zip archive: {shown(file.path)} is cut short or corrupt; download it again")
