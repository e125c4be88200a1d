"""From a path to a text: bytes of a regular file, unpacked and decoded, all within a limit."""

from __future__ import annotations

import codecs
import io
import re
from typing import TYPE_CHECKING

from subspace.checkpoints.regular_file import open_regular, path_text
from subspace.errors import FileError, FormatError, UnsafeFileError, ValueRangeError
from subspace.text import shown
from subspace.training.data.encodings import likely_encoding, mostly_utf8

if TYPE_CHECKING:
    import os
    from typing import BinaryIO

__all__ = ["LIMIT", "PACKED", "decoded", "read_bytes", "unpacked"]

LIMIT = 4 * 2**30
PACKED = (".gz", ".bz2")
_CHUNK = 2**20
_WINDOWS = re.compile(rb"[\x80-\x9f]")

# UTF-32 first: its little-endian mark begins with that of UTF-16
_OTHER_MARKS = [
    (codecs.BOM_UTF32_LE, "UTF-32"),
    (codecs.BOM_UTF32_BE, "UTF-32"),
    (codecs.BOM_UTF16_LE, "UTF-16"),
    (codecs.BOM_UTF16_BE, "UTF-16"),
]


def read_bytes(path: str | os.PathLike[str]) -> bytearray:
    """Return the bytes of a regular file as they are on disk.

    Raises
    ------
    FileError
        If it is not a regular file, cannot be read, or is longer than `LIMIT`.
    """
    try:
        with open_regular(path) as file:
            return _whole(file, path_text(path))
    except FileError:
        raise
    except OSError as error:
        raise FileError(
            f"Cannot read {shown(path_text(path))}: {shown(error.strerror)}; check the disk"
        ) from None


def unpacked(raw: bytearray, path: str) -> bytearray:
    """Return the bytes without the compression that the end of `path` declares: .gz, .bz2, or none.

    Raises
    ------
    FileError
        If the compressed data are damaged or cut, or unpack to more than `LIMIT`.
    """
    import zlib

    try:
        if path.lower().endswith(".gz"):
            import gzip

            return _whole(gzip.GzipFile(fileobj=io.BytesIO(raw)), path)
        if path.lower().endswith(".bz2"):
            import bz2

            return _whole(bz2.BZ2File(io.BytesIO(raw)), path)
    except FileError:
        raise
    except (OSError, EOFError, zlib.error) as error:
        raise FileError(
            f"Cannot unpack {shown(path)}: {shown(error)}; get it from its source again, or name it after its format"
        ) from None
    return raw


def decoded(raw: bytearray, path: str, encoding: str | None = None) -> str:
    """Return the text of bytes in UTF-8, or in another encoding, without a byte order mark; line ends are kept.

    Parameters
    ----------
    raw, path : the bytes of a file, and its path
    encoding : one that Python knows, such as "cp949"; None: UTF-8

    Raises
    ------
    FormatError
        If the bytes are of another encoding or look binary.
    ValueRangeError
        If there is no such encoding.

    Examples
    --------
    >>> decoded(bytearray("caf\u00e9".encode("latin1")), "menu.txt")
    Traceback (most recent call last):
    subspace.errors.FormatError: The text is not UTF-8: the byte 0xE9 at offset 3, in menu.txt line 1; ...
    """
    name = _encoding_name(encoding or "utf-8")
    if not name.startswith(("utf-16", "utf-32")):
        _require_text(raw, path)
    try:
        return raw.decode(name).removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        at = f"the byte 0x{raw[error.start]:02X} at offset {error.start}, in {_line(raw, error.start, path)}"
        cure = _conversion(raw, error.start) if encoding is None else "check `encoding`"
        raise FormatError(f"The text is not {name.upper()}: {at}; {cure}") from None


def _encoding_name(encoding: str) -> str:
    try:
        "".encode(encoding)  # refuses what is no encoding of texts, such as rot13
        return codecs.lookup(encoding).name
    except (LookupError, ValueError):
        raise ValueRangeError(
            f"Unknown encoding '{shown(encoding)}'; give `encoding` as one that Python knows, such as utf-8, cp949 or "
            "latin1"
        ) from None


def _conversion(raw: bytearray, offset: int) -> str:
    if mostly_utf8(raw, offset):
        return "the rest is mostly UTF-8, so it is damaged there or mixed with another encoding: repair that line"
    if found := likely_encoding(raw, offset):
        name, language = found
        return f"it looks like {name} ({language}): {_ways(name)}"
    # Windows has quotation marks and dashes where Latin-1 has control characters
    name = "CP1252" if _WINDOWS.search(raw) else "LATIN1"
    return f"if it is a Western European text, {_ways(name)}; otherwise look for its encoding"


def _ways(name: str) -> str:
    return f"convert it by iconv -f {name} -t UTF-8, or give `encoding` as {name.lower()}"


def _require_text(raw: bytearray, path: str) -> None:
    for mark, name in _OTHER_MARKS:
        if raw.startswith(mark):
            raise FormatError(
                f"The text is not UTF-8: it begins with the byte order mark of {name}, in {shown(path)}; {_ways(name)}"
            )
    if (at := raw.find(b"\0")) >= 0:
        raise FormatError(
            f"The file looks binary: a NUL byte at offset {at}, in {_line(raw, at, path)}; {_unmarked(raw)}give "
            ".jsonl, .json, .csv, .tsv or plain text in UTF-8"
        )


def _unmarked(raw: bytearray) -> str:
    """The advice for UTF-16 without its mark, where in a text with line breaks every second byte of many is 0."""
    for name, line_break in (("UTF-16LE", b"\n\0"), ("UTF-16BE", b"\0\n")):
        sample = raw[: 2**16]
        if any(at % 2 == 0 and sample[at : at + 2] == line_break for at in range(0, len(sample), 2)):
            return f"if it is a text in UTF-16, {_ways(name)}; otherwise "
    return ""


def _line(raw: bytearray, offset: int, path: str) -> str:
    line = raw.count(b"\n", 0, offset) + 1
    return f"{shown(path)} line {line}"


def _whole(file: BinaryIO | io.BufferedIOBase, path: str) -> bytearray:
    whole = bytearray()
    while chunk := file.read(_CHUNK):
        whole += chunk
        if len(whole) > LIMIT:
            raise UnsafeFileError(
                f"The training data are too large: more than {LIMIT} bytes, unpacked, in {shown(path)}; give a part "
                "of them"
            )
    return whole
