"""Modules by a dotted path or by the end of one."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator
from itertools import islice

__all__ = ["Modules"]

_DEEPEST = 64


class Modules:
    """Names of modules that are searched many times; a search takes time logarithmic in their number.

    Examples
    --------
    >>> Modules(["h.0.attn", "h.1.attn"]).same("transformer.h.0.attn")
    ['h.0.attn']
    """

    def __init__(self, names: Iterable[str]) -> None:
        self._names = dict.fromkeys(names)
        # a path ends with ".q" exactly where its mirror image begins with "q."
        self._mirrored = sorted(name[::-1] for name in self._names)

    def same(self, name: str, *, most: int = 8) -> list[str]:
        """Up to `most` names of the module `name`: the equal one alone, else paths of which one ends with the other."""
        if name in self._names:
            return [name]
        if not name:
            return []
        longer = islice(self._longer(name), most)
        shorter = (suffix for suffix in _suffixes(name) if suffix in self._names)
        return list(islice(dict.fromkeys([*longer, *shorter]), most))

    def _longer(self, name: str) -> Iterator[str]:
        start = f"{name[::-1]}."
        for place in range(bisect_left(self._mirrored, start), len(self._mirrored)):
            if not self._mirrored[place].startswith(start):
                return
            yield self._mirrored[place][::-1]


def _suffixes(name: str) -> Iterator[str]:
    """Proper dotted suffixes of a path, at most 64: "a.b.c" -> "b.c", "c"."""
    place = name.find(".")
    for _ in range(_DEEPEST):
        if place < 0:
            return
        yield name[place + 1 :]
        place = name.find(".", place + 1)
