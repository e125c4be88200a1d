"""One file per format that is read; a format is found by being here.

`every` imports the modules of this folder and collects their ``FORMAT``.
"""

from __future__ import annotations

from functools import cache
from importlib import import_module
from pkgutil import iter_modules

from subspace.adapters.format import Format, Source

__all__ = ["every", "matching_formats"]


@cache
def every() -> tuple[Format, ...]:
    """All known formats, in the order of their file names."""
    names = sorted(found.name for found in iter_modules(__path__) if not found.name.startswith("_"))
    return tuple(import_module(f"{__name__}.{name}").FORMAT for name in names)


def matching_formats(source: Source) -> list[Format]:
    """The formats that a file could be of; one that is a fallback only where no other is."""
    found = [known for known in every() if not known.fallback and known.claims(source)]
    return found or [known for known in every() if known.fallback and known.claims(source)]
