"""One file per method of merging; a method is found by being here.

`every` imports the modules of this folder and collects their ``METHOD``, a `subspace.geometry.merger.Merger`.
"""

from __future__ import annotations

from functools import cache
from importlib import import_module
from pkgutil import iter_modules

from subspace.errors import ValueRangeError
from subspace.geometry.merger import Merger
from subspace.text import listed, shown

__all__ = ["every", "named", "names"]

# the order in which help lists them; others follow by name
_FIRST = ("sum", "cat", "svd", "ties", "dare", "knots", "iso", "tsv")


def __dir__() -> list[str]:
    return sorted(__all__)


def names() -> list[str]:
    """Names of the methods, which are those of their files; nothing is imported for it."""
    found = sorted(each.name for each in iter_modules(__path__) if not each.name.startswith("_"))
    return sorted(found, key=lambda name: _FIRST.index(name) if name in _FIRST else len(_FIRST))


@cache
def every() -> dict[str, Merger]:
    """All methods by name."""
    return {name: import_module(f"{__name__}.{name}").METHOD for name in names()}


def named(name: str) -> Merger:
    """The method of a name.

    Raises
    ------
    ValueRangeError : no method has that name
    """
    if name not in names():
        raise ValueRangeError(
            f"Unknown method of merging {shown(repr(name))}; give `method` one of {listed(names(), most=20)}"
        )
    return every()[name]
