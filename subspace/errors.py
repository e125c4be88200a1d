"""Every error that the package raises on purpose.

An error is one line: ``<what happened>: <the values>, in <file or module>; <what to do>``. The command line prints it
for any `SubspaceError` and exits with the code that the class carries; a traceback is a bug.
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


def __dir__() -> list[str]:
    return sorted(__all__)


class SubspaceError(Exception):
    """Root of all errors raised on purpose; the command line exits with `exit_code`."""

    exit_code = 1


class FileError(SubspaceError, OSError):
    """A file cannot be read or written: missing, cut short, damaged, not of the declared size, not a regular file."""


class UnsafeFileError(FileError):
    """A file asks for something that no weights need: to run code, huge allocations, unusual pickle opcodes."""


class FormatError(SubspaceError, ValueError):
    """A file was read, but it is not an adapter of a known format, or it contradicts itself."""


class UnrecognisedError(FormatError):
    """No known format claims a file: it may be plain weights, or no adapter at all."""


class ShapeError(SubspaceError, ValueError):
    """Matrices whose shapes or types do not fit together."""


class ValueRangeError(SubspaceError, ValueError):
    """A number outside its range: not finite, negative where it must not be, an index beyond the rank."""


class InconclusiveError(SubspaceError):
    """The input is sound, but the question has no answer: untrained, no modules in common, unknown scale."""

    exit_code = 3


@contextmanager
def located(where: str | Callable[[], str]) -> Iterator[None]:
    """Add to an error raised inside the place in the user's input that it is about, unless it names it already.

    Parameters
    ----------
    where : str or callable
        A callable is only called when there is an error.

    Examples
    --------
    >>> with located("module q_proj of a.safetensors"):
    ...     raise ValueRangeError("Not a finite number: nan; train it again")
    Traceback (most recent call last):
    subspace.errors.ValueRangeError: Not a finite number: nan, in module q_proj of a.safetensors; train it again
    >>> with located("module q_proj of a.safetensors"):
    ...     raise InconclusiveError("The scale is unknown, in module q_proj; give `scale`")
    Traceback (most recent call last):
    subspace.errors.InconclusiveError: The scale is unknown, in module q_proj of a.safetensors; give `scale`
    """
    try:
        yield
    except SubspaceError as error:
        if getattr(error, "located", False):
            raise
        place = where() if callable(where) else where
        fact, separator, cure = str(error).partition("; ")
        what, within, part = fact.rpartition(", in ")
        if within and place.startswith(f"{part} of "):  # "in module q" becomes "in module q of a.safetensors"
            fact = what
        message = str(error) if place in fact else f"{fact}, in {place}{separator}{cure}"
        placed = type(error)(message)
        placed.located = True  # type: ignore[attr-defined]
        raise placed from error
