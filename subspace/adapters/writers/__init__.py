"""One file per format that is written; a format is found by being here.

`every` imports the modules of this folder and collects their ``WRITER``.
"""

from __future__ import annotations

from functools import cache
from importlib import import_module
from pkgutil import iter_modules

from subspace.adapters.writer import Writer
from subspace.errors import FormatError
from subspace.text import listed, shown

__all__ = ["every", "named", "names", "require_place"]


def names() -> list[str]:
    """Names of the written formats, which are those of their files; nothing is imported for it."""
    return sorted(found.name for found in iter_modules(__path__) if not found.name.startswith("_"))


@cache
def every() -> dict[str, Writer]:
    """All written formats by name."""
    return {name: import_module(f"{__name__}.{name}").WRITER for name in names()}


def named(name: str) -> Writer:
    """The format of a name.

    Raises
    ------
    FormatError : no format that is written has that name
    """
    if name not in every():
        raise FormatError(
            f"Adapters cannot be written in the format {shown(repr(name))}; choose one of {listed(every(), most=20)}"
        )
    return every()[name]


def require_place(source: str, out: str, to: str, *, overwrite: bool) -> None:
    """Check the place and the name of an output before any work is done.

    Parameters
    ----------
    source : the file or directory that was read, which stays as it is
    out : a directory, or a file where the format is one
    to : name of the format
    overwrite : whether an adapter that is there may be replaced

    Raises
    ------
    FileError : `out` is the input, exists, is of another kind, or has a name that belongs to another container
    """
    from subspace.adapters.writers import _destination

    _destination.require_place(source, out, named(to), overwrite=overwrite)
