"""One file per library that names modules in its own way; it is found by being here.

`every` imports the modules of this folder and collects their ``NAMES``.
"""

from __future__ import annotations

from functools import cache
from importlib import import_module
from pkgutil import iter_modules

from subspace.adapters.naming.writers._names import WriterNames

__all__ = ["every"]


@cache
def every() -> tuple[WriterNames, ...]:
    """The names of all known libraries, in the order of their file names."""
    names = sorted(found.name for found in iter_modules(__path__) if not found.name.startswith("_"))
    return tuple(import_module(f"{__name__}.{name}").NAMES for name in names)
