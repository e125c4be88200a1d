"""Which pairs of N members are wanted, and where each of them stands in a list."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["PairList", "pair_list"]


@dataclass(frozen=True, eq=False)
class PairList:
    """The pairs, ascending by their first member and then by their second: of all members SciPy's condensed order.

    Attributes
    ----------
    n : number of members
    new : numbers of the members that every pair has at least one of, ascending
    first, second : numbers of the members of every pair, ``first < second``
    """

    n: int
    new: NDArray[np.intp]
    first: NDArray[np.int32]
    second: NDArray[np.int32]

    def __len__(self) -> int:
        return len(self.first)

    def at(self, first: NDArray[np.intp], second: NDArray[np.intp]) -> NDArray[np.intp]:
        """Places in the list of pairs with ``first < second`` that it has.

        Examples
        --------
        >>> pair_list(4, [3]).at(np.array([0, 2]), np.array([3, 3]))
        array([0, 2])
        """
        is_new = np.zeros(self.n, dtype=bool)
        is_new[self.new] = True
        up_to = np.cumsum(is_new)  # new members up to and with each
        later = np.where(is_new, np.arange(self.n - 1, -1, -1), len(self.new) - up_to)
        starts = np.concatenate([[0], np.cumsum(later)[:-1]]).astype(np.intp)
        within = np.where(is_new[first], second - first, up_to[second] - up_to[first]) - 1
        found: NDArray[np.intp] = starts[first] + within
        return found


def pair_list(n: int, new: Sequence[int] | None = None) -> PairList:
    """All pairs of n members, or those that have at least one of `new`.

    Examples
    --------
    >>> found = pair_list(3)
    >>> found.first, found.second
    (array([0, 0, 1], dtype=int32), array([1, 2, 2], dtype=int32))
    >>> found = pair_list(3, new=[2])
    >>> found.first, found.second
    (array([0, 1], dtype=int32), array([2, 2], dtype=int32))
    """
    wanted = np.arange(n) if new is None else np.unique(np.asarray(new, dtype=np.intp))
    is_new = np.zeros(n, dtype=bool)
    is_new[wanted] = True
    later = [np.arange(m + 1, n) if is_new[m] else wanted[wanted > m] for m in range(n)]
    first = np.repeat(np.arange(n), [len(each) for each in later]).astype(np.int32)
    second = np.concatenate([*later, np.zeros(0, dtype=np.intp)]).astype(np.int32)
    return PairList(n, wanted.astype(np.intp), first, second)
