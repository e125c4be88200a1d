"""One file per training method; a method is found by being here.

`every` imports the modules of this folder and collects their ``METHOD``, a frozen dataclass derived from
`subspace.training.method.Method`. No torch is imported.
"""

from __future__ import annotations

from functools import cache
from importlib import import_module
from pkgutil import iter_modules

from subspace.training.method import Method

__all__ = ["every"]


def __dir__() -> list[str]:
    return __all__


@cache
def every() -> dict[str, type[Method]]:
    """Return all known methods by their names, in the order of their file names.

    Examples
    --------
    >>> list(every())
    ['dora', 'full', 'ia3', 'lora']
    """
    files = sorted(found.name for found in iter_modules(__path__) if not found.name.startswith("_"))
    methods: list[type[Method]] = [import_module(f"{__name__}.{file}").METHOD for file in files]
    return {method.name: method for method in methods}
