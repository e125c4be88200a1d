"""One file per written format; a format is found by being here.

`every` imports the modules of this folder and collects their ``WRITING``.
"""

from __future__ import annotations

from functools import cache
from importlib import import_module
from pkgutil import iter_modules

from subspace.adapters.layout.written import Writing
from subspace.errors import FormatError, shown

__all__ = ["every", "named"]


@cache
def every() -> dict[str, Writing]:
    """All written formats by name, in the order of their file names."""
    names = sorted(found.name for found in iter_modules(__path__))
    return {name: import_module(f"{__name__}.{name}").WRITING for name in names}


def named(name: str) -> Writing:
    """The written format of a name.

    Raises
    ------
    FormatError : there is none
    """
    if name not in every():
        raise FormatError(
            f"a format must be one that is written: got {shown(name)}; choose one of {', '.join(every())}"
        )
    return every()[name]
