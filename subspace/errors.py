"""Every error that the package raises on purpose.

An error is one line: ``<what must hold>: got <values>, in <file / module>; <what to do>``.
The command line turns any `SubspaceError` into that line and the exit code that the class carries;
a traceback is a bug.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

__all__ = [
    "FileError",
    "FormatError",
    "InconclusiveError",
    "ShapeError",
    "SubspaceError",
    "UnrecognisedError",
    "UnsafeFileError",
    "ValueRangeError",
    "located",
]


class SubspaceError(Exception):
    """Root of all errors raised on purpose; `exit_code` is what the command line ends with."""

    exit_code = 1


class FileError(SubspaceError, OSError):
    """A file cannot be read: missing, cut, damaged, not of the declared size, not a regular file."""


class UnsafeFileError(FileError):
    """A file asks for something that no weights need: code, huge allocations, odd opcodes."""


class FormatError(SubspaceError, ValueError):
    """A file was read but is not an adapter of a known format, or is one that says contradictory things."""


class UnrecognisedError(FormatError):
    """No known format claims a file: it may be plain weights, or no adapter at all."""


class ShapeError(SubspaceError, ValueError):
    """Matrices whose shapes or types do not fit together."""


class ValueRangeError(SubspaceError, ValueError):
    """A number out of its range: not finite, negative where it must not be, an index beyond the rank."""


class InconclusiveError(SubspaceError):
    """The input is sound but the question has no answer: untrained, nothing in common, unknown scale."""

    exit_code = 3


@contextmanager
def located(where: str | Callable[[], str]) -> Iterator[None]:
    """Add to an inner error the place in the user's input that it speaks of; looked for only then, if callable.

    Examples
    --------
    >>> with located("module q_proj of a.safetensors"):
    ...     raise ValueRangeError("every value must be finite: got 1 NaN")
    Traceback (most recent call last):
    subspace.errors.ValueRangeError: every value must be finite: got 1 NaN, in module q_proj of a.safetensors
    """
    try:
        yield
    except SubspaceError as error:
        if getattr(error, "located", False):
            raise
        told = type(error)(f"{error}, in {where() if callable(where) else where}")
        told.located = True  # type: ignore[attr-defined]
        raise told from error
