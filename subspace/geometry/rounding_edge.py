"""How large the singular values are that rounding alone gives the difference of two stored matrices.

Rounding to nearest adds to every number an error that is as good as uniform between minus and plus half the spacing of
the numbers of its type there: independent errors of variance ``spacing^2 / 12``, whose matrix has singular values up to
an edge. What stands above the edge was not made by rounding.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from subspace.geometry.gram import EPS
from subspace.geometry.rounding import float64_noise

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from subspace.geometry.lapack import Floats

__all__ = ["Edge", "Sums", "edge", "spacing"]

_TAIL = 4.0  # of Tracy and Widom's law: it is above this with a probability of 1e-4
_CANCELLED = 64 * EPS  # what is left of a sum of squares after the leading part is taken off is this exact


class Sums(NamedTuple):
    """Sums over every row (m,) and every column (n,) of a matrix, of squares or of variances."""

    rows: Floats
    columns: Floats


def spacing(M: NDArray[Any], resolution: float, smallest: float = 0.0) -> NDArray[Any]:
    """Distance between neighbouring numbers of a type at every number of `M`, in the type of `M`.

    Parameters
    ----------
    M : ndarray of float32 or float64
    resolution : relative spacing of the type, 2**-7 of bfloat16
    smallest : spacing of its smallest numbers

    Examples
    --------
    >>> spacing(np.array([1.0, 1.5, 4.0]), 2.0**-7) * 128
    array([1., 1., 4.])
    """
    bits: NDArray[Any] = np.ascontiguousarray(M).view(np.int32 if M.dtype == np.float32 else np.int64)
    # the exponent alone is the power of two at or below the number
    powers = (bits & (0x7F800000 if M.dtype == np.float32 else 0x7FF0000000000000)).view(M.dtype)
    found: NDArray[Any] = np.maximum(powers * M.dtype.type(resolution), M.dtype.type(smallest))
    return found


def edge(variances: Sums) -> float:
    """Largest singular value of a matrix of independent errors, which one in ten thousand exceeds.

    Parameters
    ----------
    variances : sums of the variances over each row and each column

    Notes
    -----
    The largest row norm plus the largest column norm, which is the edge of Marchenko and Pastur where all variances are
    equal and a bound otherwise, and the room that Tracy and Widom's law asks for.

    References
    ----------
    Bandeira & van Handel 2016, Ann. Probab. 44:2479, theorem 1.1. Johnstone 2001, Ann. Stat. 29:295, theorem 1.1.

    Examples
    --------
    >>> round(edge(Sums(np.full(100, 100.0), np.full(100, 100.0))), 2)  # 100 x 100 of variance 1: 20 and 6 % more
    21.17
    """
    m, n = len(variances.rows), len(variances.columns)
    bound = np.sqrt(variances.rows.max(initial=0.0)) + np.sqrt(variances.columns.max(initial=0.0))
    room = _TAIL / 2 * (m**-0.5 + n**-0.5) ** (1 / 3) / (m**0.5 + n**0.5)
    return float(bound * (1 + room))


@dataclass(frozen=True)
class Edge:
    """The edge of the rounding in one difference.

    Attributes
    ----------
    squares : of the difference
    own : variances of the rounding of the second matrix alone
    variances : of all rounding, as large as it can be: that of both matrices
    """

    squares: Sums
    own: Sums
    variances: Sums

    @property
    def norm(self) -> float:
        """Frobenius norm of the difference."""
        return float(np.sqrt(self.squares.rows.sum()))

    def above(self, U: Floats, S: Floats, V: Floats) -> tuple[int, float]:
        """How many singular values are above the edge, and from where on every direction of a change is found.

        Parameters
        ----------
        U, S, V : leading triplets of the difference, shapes (m, k), (k,) and (n, k), descending

        Notes
        -----
        The edge of the largest rounding that the types allow comes first. What is left without the directions above it
        may show that the rounding was less: a base that was not rounded itself, or numbers that a small update did not
        move. Then the edge of what is left counts, and it is taken again, until no direction is added. A change up to
        the edge of its own rounding may be hidden, so that the second number is never below that.
        """
        zero = float64_noise((len(U), len(V)), float(S.max(initial=0.0)))
        limit = max(edge(self.variances), zero)
        k = int(np.count_nonzero(limit < S))
        while True:
            limit = max(min(limit, edge(self._left(U[:, :k], S[:k], V[:, :k]))), zero)
            more = int(np.count_nonzero(limit < S))
            if more <= k:
                return k, max(limit, edge(self.own))
            k = more

    def _left(self, U: Floats, S: Floats, V: Floats) -> Sums:
        """Sums of squares of the difference without its leading part."""
        rows, columns = self.squares.rows, self.squares.columns
        left = rows - U**2 @ S**2, columns - V**2 @ S**2
        return Sums(np.maximum(left[0], _CANCELLED * rows), np.maximum(left[1], _CANCELLED * columns))
