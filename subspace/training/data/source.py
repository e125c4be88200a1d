"""From a path to a text: bytes of a regular file, unpacked and decoded, all within a limit."""

from __future__ import annotations

import codecs
import io
from typing import TYPE_CHECKING

from subspace.checkpoints.regular_file import open_regular, path_text
from subspace.errors import FileError, FormatError, UnsafeFileError
from subspace.text import shown

if TYPE_CHECKING:
    import os
    from typing import BinaryIO

__all__ = ["LIMIT", "PACKED", "decoded", "read_bytes", "unpacked"]

LIMIT = 4 * 2**30
PACKED = (".gz", ".bz2")
_CHUNK = 2**20

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


def decoded(raw: bytearray, path: str) -> str:
    """Return the text of UTF-8 bytes, without a byte order mark; line ends are kept.

    Raises
    ------
    FormatError
        If the bytes are of another encoding or look binary.

    Examples
    --------
    >>> decoded(bytearray("caf\u00e9".encode("latin1")), "menu.txt")
    Traceback (most recent call last):
    subspace.errors.FormatError: The text is not UTF-8: the byte 0xE9 at offset 3, in menu.txt line 1; ...
    """
    _require_text(raw, path)
    try:
        return raw.decode("utf-8").removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        raise FormatError(
            f"The text is not UTF-8: the byte 0x{raw[error.start]:02X} at offset {error.start}, "
            f"in {_line(raw, error.start, path)}; convert it, such as by iconv -f LATIN1 -t UTF-8"
        ) from None


def _require_text(raw: bytearray, path: str) -> None:
    for mark, name in _OTHER_MARKS:
        if raw.startswith(mark):
            raise FormatError(
                f"The text is not UTF-8: it begins with the byte order mark of {name}, in {shown(path)}; convert it by "
                f"iconv -f {name} -t UTF-8"
            )
    if (at := raw.find(b"\0")) >= 0:
        raise FormatError(
            f"The file looks binary: a NUL byte at offset {at}, in {_line(raw, at, path)}; give .jsonl, .json, .csv, "
            ".tsv or plain text in UTF-8"
        )


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
