"""One file per format that is written; a format is found by being here.

`every` imports the modules of this folder and collects their ``WRITER``.
"""

from __future__ import annotations

from functools import cache
from importlib import import_module
from pkgutil import iter_modules

from subspace.adapters.writer import Writer
from subspace.errors import FormatError
from subspace.text import shown

__all__ = ["every", "named"]


@cache
def every() -> dict[str, Writer]:
    """All formats that are written, by name, in the order of their file names."""
    names = sorted(found.name for found in iter_modules(__path__) if not found.name.startswith("_"))
    return {name: import_module(f"{__name__}.{name}").WRITER for name in names}


def named(name: str) -> Writer:
    """The format of a name.

    Raises
    ------
    FormatError : no format that is written has that name
    """
    if name not in every():
        raise FormatError(f"Cannot write the format {shown(name)}; choose one of {', '.join(every())}")
    return every()[name]
