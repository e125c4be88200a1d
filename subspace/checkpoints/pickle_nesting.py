"""Whether containers that hold each other can be walked through: how deep they are, and how much they are unfolded.

Containers share their parts, so that 60 tuples of two can hold 10**18 values, and a dictionary can hold itself. Each
container is looked at once, without recursion, however often others refer to it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from subspace.checkpoints.budget import NESTED
from subspace.checkpoints.pickle_calls import RefusedError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from subspace.checkpoints.budget import Budget

__all__ = ["require_bounded"]

_DEEPEST = 100


class _Open:
    """A container that is being looked at: values that are left, and the size and depth of those seen."""

    __slots__ = ("container", "depth", "left", "size")

    def __init__(self, container: Any) -> None:
        self.container = container
        self.left: Iterator[Any] = iter(container.values() if isinstance(container, dict) else container)
        self.size = 1
        self.depth = 1

    def add(self, size: int, depth: int) -> None:
        self.size += size
        self.depth = max(self.depth, depth + 1)


def require_bounded(root: object, budget: Budget) -> None:
    """Nothing, where a walk through all that `root` holds ends soon.

    Raises
    ------
    RefusedError
        If a container holds itself, or they are more than 100 deep.
    UnsafeFileError
        If they hold more values, each counted as often as it is referred to, than the budget has.
    """
    known: dict[int, tuple[int, int]] = {}  # size and depth of each container that was looked at, by identity
    open_ones = [_Open([root])]
    inside: set[int] = set()
    while True:
        last = open_ones[-1]
        inner = _next_container(last, known)
        if inner is not None:
            if id(inner) in inside:
                raise RefusedError("holds a container that contains itself")
            inside.add(id(inner))
            open_ones.append(_Open(inner))
        elif len(open_ones) == 1:
            break
        else:
            open_ones.pop()
            inside.discard(id(last.container))
            known[id(last.container)] = last.size, last.depth
            open_ones[-1].add(last.size, last.depth)
        if len(open_ones) + last.depth > _DEEPEST + 2:
            raise RefusedError(f"nests containers more than {_DEEPEST} deep")
    budget.spend(NESTED, last.size)


def _next_container(opened: _Open, known: dict[int, tuple[int, int]]) -> Any:
    """The next container that was not looked at; None at the end."""
    for value in opened.left:
        if not isinstance(value, dict | list | tuple):
            opened.size += 1
        elif id(value) in known:
            opened.add(*known[id(value)])
        else:
            return value
    return None
