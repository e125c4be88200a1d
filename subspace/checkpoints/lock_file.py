"""A lock that ends with its process, on a file that is removed when the lock is released."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

__all__ = ["holder", "taken"]

_NO_LOCKS = (errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK)

if sys.platform == "win32":

    def taken(path: Path) -> Callable[[], None] | None:
        """As below; Windows removes the file when it is released."""
        from filelock import FileLock, Timeout

        lock = FileLock(path, timeout=0)
        try:
            lock.acquire()
        except Timeout:
            return None
        except NotImplementedError:
            return lambda: None
        return lock.release

else:
    # not filelock, whose import takes 0.05 s: a tenth of the time of a conversion
    import fcntl

    def taken(path: Path) -> Callable[[], None] | None:
        """Take the lock on a file, which is made; return what releases it, None where another process holds it.

        Where the file system has no locks, other processes are trusted.

        Raises
        ------
        OSError : the file cannot be made
        """
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666)
        try:
            held = _locked(descriptor) and _is_at(descriptor, path)
        except BaseException:
            os.close(descriptor)
            raise
        if not held:
            os.close(descriptor)
            return None
        with suppress(OSError):  # a full disk; the lock holds without its text
            os.ftruncate(descriptor, 0)
            os.write(descriptor, str(os.getpid()).encode())

        def release() -> None:
            with suppress(OSError):
                path.unlink()  # while it is held: whoever opens it next makes a new one
            os.close(descriptor)

        return release

    def _locked(descriptor: int) -> bool:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
        return True

    def _is_at(descriptor: int, path: Path) -> bool:
        """Whether it is still the file of that name: its last holder may have removed it before we had the lock."""
        try:
            return os.path.samestat(os.fstat(descriptor), path.lstat())
        except FileNotFoundError:
            return False


def holder(path: Path) -> int | None:
    """Return the number of the process that holds the lock, None where the file does not say it."""
    try:
        return int(path.read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None
