"""One file per writer of names; a spelling is found by being here.

`every` imports the modules of this folder and collects their ``SPELLING``.
"""

from __future__ import annotations

from functools import cache
from importlib import import_module
from pkgutil import iter_modules

from subspace.adapters.names.spelling import Spelling

__all__ = ["every"]


@cache
def every() -> tuple[Spelling, ...]:
    """All known spellings, in the order of their file names."""
    names = sorted(found.name for found in iter_modules(__path__))
    return tuple(import_module(f"{__name__}.{name}").SPELLING for name in names)
