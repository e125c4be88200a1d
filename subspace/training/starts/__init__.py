"""One file per start of LoRA's A and B; a start is found by being here.

`every` imports the modules of this folder and collects their ``START``, a `subspace.training.start.Start`. No torch is
imported.
"""

from __future__ import annotations

from functools import cache
from importlib import import_module
from pkgutil import iter_modules

from subspace.training.start import Start

__all__ = ["every"]


def __dir__() -> list[str]:
    return __all__


@cache
def every() -> dict[str, Start]:
    """Return all known starts by their names, in the order of their file names.

    Examples
    --------
    >>> list(every())
    ['gaussian', 'kaiming', 'orthogonal', 'pissa', 'zero-a']
    """
    files = sorted(found.name for found in iter_modules(__path__) if not found.name.startswith("_"))
    starts: list[Start] = [import_module(f"{__name__}.{file}").START for file in files]
    return {start.name: start for start in starts}
