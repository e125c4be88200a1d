"""One chart per file, found by being here: a public file holds a function of its own name that draws and returns axes.

`subspace.plots` offers every one of them. What several share begins with an underscore or lies one folder up.
"""

from __future__ import annotations

from pkgutil import iter_modules

__all__ = ["names"]


def names() -> tuple[str, ...]:
    """Names of all charts, which are those of their files, in order; nothing is imported for it."""
    return tuple(sorted(found.name for found in iter_modules(__path__) if not found.name.startswith("_")))
