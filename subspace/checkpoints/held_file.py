"""A regular file held open from the first check to the last read, so that what was checked is what is read.

Every reader of this package takes all its bytes from one descriptor, by position, and copies them: what was judged are
the bytes in memory that are then parsed, another file under the same name is never opened, and the digest is of the
same file. Nothing is mapped into memory: a mapped file that another program cuts short ends the process with a signal,
and one that it writes to changes under the computation. Reading finds both, and says so.
"""

from __future__ import annotations

import os
import threading
import weakref
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from subspace.checkpoints.budget import Budget
from subspace.checkpoints.regular_file import open_descriptor, path_text, unreadable
from subspace.errors import FileError
from subspace.text import shown

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import DTypeLike, NDArray

__all__ = ["HeldFile", "Stamp", "held"]

_PIECE = 2**20
# up to here, a call of the system for each array would take longer than a block of what may be asked for next
_SMALL, _BLOCK = 2**12, 2**16
_AT_ONCE = 2**30  # Linux reads at most 2 GiB at a time

_T = TypeVar("_T", int, bytes)

# size, time of the last change, device and number: two files with the same are one, unchanged
Stamp = tuple[int, int, int, int]


class HeldFile:
    """A regular file, held open until the object goes.

    Attributes
    ----------
    path : str
        As given by the user.
    size : int
        In bytes, when it was opened.
    budget : Budget
        What its readers may spend.

    Raises
    ------
    FileError
        As `open_regular`.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = path_text(path)
        self._descriptor = open_descriptor(path)
        weakref.finalize(self, os.close, self._descriptor)
        self.stamp = self._stamp_now()
        self.size = self.stamp[0]
        self.budget = Budget(self.size, self.path)
        self._lock = threading.Lock()
        self._block = (0, b"")

    def read(self, start: int, count: int) -> bytes:
        """Bytes start to start + count; fewer only at the end of the file.

        Raises
        ------
        FileError
            If the file cannot be read, or changed since it was opened.
        """
        missing = max(0, min(count, self.size - start))
        pieces: list[bytes] = []
        while missing:
            pieces.append(self._guarded(self._piece, min(missing, _AT_ONCE), start))
            start, missing = start + len(pieces[-1]), missing - len(pieces[-1])
        self.require_unchanged()
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def array(self, start: int, count: int, dtype: DTypeLike) -> NDArray[Any]:
        """`count` numbers from byte `start` on, a copy that is read-only; errors as `read`."""
        kind = np.dtype(dtype)
        if 0 < count * kind.itemsize <= _SMALL:
            return np.frombuffer(self._near(start, count * kind.itemsize), kind)
        numbers = np.empty(count, kind)
        self.fill(numbers, start)
        numbers.flags.writeable = False
        return numbers

    def _near(self, start: int, count: int) -> bytes:
        """A few bytes, from the block that the last ones were in where it has them too."""
        begin, block = self._block
        if not begin <= start <= start + count <= begin + len(block):
            begin, block = self._block = start, self.read(start, _BLOCK)
        if len(block) < start - begin + count:
            raise self.changed()
        return block[start - begin : start - begin + count]

    def fill(self, numbers: NDArray[Any], start: int) -> None:
        """Write the bytes from `start` on over those of a contiguous array; errors as `read`."""
        if numbers.nbytes:
            self._fill(numbers.reshape(-1).view(np.uint8).data, start)

    def pieces(self) -> Iterator[memoryview]:
        """All bytes, a piece at a time; each is valid until the next. Errors as `read`."""
        buffer = memoryview(bytearray(min(_PIECE, self.size)))
        for start in range(0, self.size, _PIECE):
            piece = buffer[: self.size - start]
            self._fill(piece, start)
            yield piece

    def sha256(self) -> str:
        """SHA-256 of the file that is open, in hexadecimal; errors as `read`."""
        import hashlib  # 5 ms that only a report pays for

        sha = hashlib.sha256()
        for piece in self.pieces():
            sha.update(piece)
        self.require_unchanged()
        return sha.hexdigest()

    def require_unchanged(self) -> None:
        """FileError if the file has been written to since it was opened."""
        if self._stamp_now()[:2] != self.stamp[:2]:
            raise self.changed()

    def changed(self) -> FileError:
        """The error of a file that another program writes to."""
        return FileError(
            f"The file changed while it was being read: {shown(self.path)}; read it again when nothing writes to it"
        )

    def _stamp_now(self) -> Stamp:
        try:
            status = os.fstat(self._descriptor)
        except OSError as error:
            raise unreadable(self.path, error) from None
        return status.st_size, status.st_mtime_ns, status.st_dev, status.st_ino

    def _fill(self, view: memoryview, start: int) -> None:
        done = 0
        while done < len(view):
            done += self._guarded(self._into, view[done : done + _AT_ONCE], start + done)
        self.require_unchanged()

    def _guarded(self, read: Callable[[Any, int], _T], what: Any, start: int) -> _T:
        """The result of a read, which is not empty: no read goes beyond the size that the file had."""
        try:
            found = read(what, start)
        except OSError as error:
            raise unreadable(self.path, error) from None
        if not found:
            raise self.changed()
        return found

    def _piece(self, count: int, start: int) -> bytes:
        if hasattr(os, "pread"):
            return os.pread(self._descriptor, count, start)
        # Windows has one position in a file for all threads
        with self._lock:
            os.lseek(self._descriptor, start, os.SEEK_SET)
            return os.read(self._descriptor, count)

    def _into(self, view: memoryview, start: int) -> int:
        if hasattr(os, "preadv"):
            return os.preadv(self._descriptor, [view], start)
        content = self._piece(len(view), start)
        view[: len(content)] = content
        return len(content)


def held(file: str | os.PathLike[str] | HeldFile) -> HeldFile:
    """The file itself where it is open already, else opened."""
    return file if isinstance(file, HeldFile) else HeldFile(file)
