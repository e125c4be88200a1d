"""Pairs of members that are computed and kept together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Batch", "PairArrays", "members_of", "ranges"]


@dataclass(frozen=True)
class Batch:
    """Pairs that are computed together: each new member with all old ones and with the new ones before it.

    Attributes
    ----------
    new, old : numbers of members, ascending
    block : number of the block on disk that was lost, and that these pairs replace; None where they are new
    after : number of the last block when the batch was found, by which it is known whether another was faster
    """

    new: tuple[int, ...]
    old: tuple[int, ...]
    block: int | None = None
    after: int = 0

    def __len__(self) -> int:
        """Number of pairs."""
        return len(self.new) * len(self.old) + len(self.new) * (len(self.new) - 1) // 2

    def leading(self, most: int) -> Batch:
        """The pairs of at most so many of the new members, to be computed first; a lost block stays whole."""
        return self if self.block is not None else replace(self, new=self.new[:most])

    def pairs(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the two members of each pair: the earlier ones, and the new ones, in the order of the arrays.

        Examples
        --------
        >>> [numbers.tolist() for numbers in Batch(new=(2, 3), old=(0, 1)).pairs()]
        [[0, 1, 0, 1, 2], [2, 2, 3, 3, 3]]
        """
        earlier = [np.array([*self.old, *self.new[:n]], np.int64) for n in range(len(self.new))]
        new = np.repeat(np.array(self.new, np.int64), [len(each) for each in earlier])
        return np.concatenate([np.empty(0, np.int64), *earlier]), new


@dataclass(frozen=True)
class PairArrays:
    """Kept results of pairs.

    Attributes
    ----------
    first, second : numbers of the members of each pair, first < second
    arrays : by the names that they were kept under; the last axis is that of the pairs
    """

    first: NDArray[np.int64]
    second: NDArray[np.int64]
    arrays: Mapping[str, NDArray[Any]]


def ranges(members: Sequence[int]) -> str:
    """Ascending numbers as text that is short where they follow each other.

    Examples
    --------
    >>> ranges([1, 2, 3, 7]), members_of("1-3,7")
    ('1-3,7', [1, 2, 3, 7])
    """
    parts: list[list[int]] = []
    for member in members:
        if parts and member == parts[-1][-1] + 1:
            parts[-1][1:] = [member]
        else:
            parts.append([member])
    return ",".join("-".join(map(str, part)) for part in parts)


def members_of(text: str) -> list[int]:
    """The numbers of a text of `ranges`."""
    found: list[int] = []
    for part in text.split(",") if text else ():
        first, _, last = part.partition("-")
        found += range(int(first), int(last or first) + 1)
    return found
