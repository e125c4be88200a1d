"""One process at a time: a lock on a file or folder that is open, which ends with the process."""

from __future__ import annotations

__all__ = ["taken"]


def taken(descriptor: int) -> bool:
    """Lock what is open for as long as it stays so; whether another process has it, in which case nothing is locked.

    Where the system or the file system has no such locks, other processes are trusted.
    """
    try:
        import fcntl

        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except (ImportError, OSError):
        return False
    return False
