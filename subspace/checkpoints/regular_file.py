"""Regular files opened safely: a device, a pipe or a loop of links can neither block nor mislead."""

from __future__ import annotations

import errno
import os
import stat
from typing import TYPE_CHECKING

from subspace.errors import FileError
from subspace.text import shown

if TYPE_CHECKING:
    from typing import BinaryIO

__all__ = ["open_descriptor", "open_regular", "path_text", "unreadable"]

_KINDS = {
    stat.S_IFDIR: "a directory",
    stat.S_IFIFO: "a FIFO (named pipe)",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a character device",
    stat.S_IFBLK: "a block device",
}

_REASONS = {
    errno.ENOENT: ("No such file or directory", "check the path"),
    errno.ENOTDIR: ("No such file or directory, since its path leads through another file", "check the path"),
    errno.EACCES: ("Permission denied to read the file", "check its permissions"),
    errno.EPERM: ("Permission denied to read the file", "check its permissions"),
    errno.ELOOP: ("Symbolic links form a loop", "point the link at a file"),
    errno.ENAMETOOLONG: ("The path is too long for the system", "check the path"),
}

# a FIFO that takes the file's place between stat and open must not block the open
_OPEN_FLAGS = (
    os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
)


def path_text(path: str | os.PathLike[str]) -> str:
    """Text of a path, with bytes that cannot be decoded as surrogate escapes.

    Examples
    --------
    >>> path_text(b"adapter.safetensors")
    'adapter.safetensors'
    """
    return os.fsdecode(path)


def open_regular(path: str | os.PathLike[str]) -> BinaryIO:
    """Binary reader of a regular file; symbolic links are followed.

    Raises
    ------
    FileError
        If the path is missing, unreadable, a directory, device, socket, FIFO, or a looping or dangling link.
        Never blocks.

    Examples
    --------
    >>> open_regular(os.devnull)
    Traceback (most recent call last):
    subspace.errors.FileError: Not a regular file: /dev/null is a character device; give the path of a file
    """
    return os.fdopen(open_descriptor(path), "rb")


def open_descriptor(path: str | os.PathLike[str]) -> int:
    """Descriptor of a regular file, which the caller closes; errors as `open_regular`."""
    try:
        _require_regular(os.stat(path), path)  # noqa: PTH116 - a path may be bytes
        descriptor = os.open(path, _OPEN_FLAGS)
    except FileError:
        raise
    except (OSError, ValueError) as error:  # ValueError: a NUL or an unpaired surrogate in the path
        raise unreadable(path, error) from None
    try:
        _require_regular(os.fstat(descriptor), path)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _require_regular(status: os.stat_result, path: str | os.PathLike[str]) -> None:
    if not stat.S_ISREG(status.st_mode):
        kind = _KINDS.get(stat.S_IFMT(status.st_mode), "something else")
        raise FileError(f"Not a regular file: {shown(path_text(path))} is {kind}; give the path of a file")


def unreadable(path: str | os.PathLike[str], error: OSError | ValueError) -> FileError:
    """What the system said of a path, as an error that says what to do."""
    code = error.errno if isinstance(error, OSError) else None
    text = error.strerror if isinstance(error, OSError) else "no file can have this path"
    fact, cure = _REASONS.get(code or 0, (f"Cannot read the file ({shown(text)})", "check the path"))
    return FileError(f"{fact}: {shown(path_text(path))}; {cure}")
