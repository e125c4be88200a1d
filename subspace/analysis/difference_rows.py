"""The difference of two stored weights row by row, and what one pass over it says."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from subspace.adapters.update import Factor
from subspace.geometry import lapack
from subspace.geometry.rounding_edge import Edge, Sums, spacing

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from subspace.checkpoints import StoredMatrix
    from subspace.geometry.lapack import Floats

__all__ = ["Difference", "Survey", "survey"]

_CHUNK = 1 << 19  # numbers that are read at once
# roundings of a merged product before it is added: sums in float32 have one for each rank, shorter types one or two
_OF_PRODUCT = {"float64": 64, "float32": 64}
_OF_SHORT_PRODUCT = 4


class Difference:
    """``tuned - base`` as the file stores it; a row is read when it is asked for.

    Examples
    --------
    >>> from subspace.checkpoints import StoredMatrix
    >>> one, other = (StoredMatrix(np.full((2, 3), value, np.float32), "float32") for value in (3.0, 1.0))
    >>> Difference(one, other).rows(0, 1)
    array([[2., 2., 2.]])
    """

    def __init__(self, tuned: StoredMatrix, base: StoredMatrix) -> None:
        self.tuned, self.base = tuned, base
        self.shape = tuned.shape

    def rows(self, start: int, stop: int) -> Floats:
        """Rows start to stop, in float64."""
        with np.errstate(over="ignore", invalid="ignore"):  # whoever uses the numbers refuses these
            tuned, base = self.tuned.rows(start, stop), self.base.rows(start, stop)
            found: Floats = np.subtract(tuned, base, dtype=np.float64)
            return found

    def chunks(self) -> Iterator[tuple[slice, NDArray[np.float64]]]:
        """Some rows at a time, in float64."""
        step = max(1, _CHUNK // self.shape[1])
        for start in range(0, self.shape[0], step):
            stop = min(start + step, self.shape[0])
            yield slice(start, stop), self.rows(start, stop)

    def dense(self) -> Floats:
        """The whole difference, in float64."""
        return self.rows(0, self.shape[0])

    def times(self, V: Floats) -> Floats:
        """``D @ V``, shape (m, k)."""
        return np.vstack([chunk @ V for _, chunk in self.chunks()])

    def transposed_times(self, U: Floats) -> Floats:
        """``D.T @ U``, shape (n, k)."""
        product = np.zeros((self.shape[1], U.shape[1]))
        for at, chunk in self.chunks():
            product += chunk.T @ U[at]
        return product

    def without(self, P: Floats, Q: Floats) -> NDArray[np.float32]:
        """``D - P Q`` in float32, each number rounded once."""
        rest = np.empty(self.shape, np.float32)
        for at, chunk in self.chunks():
            rest[at] = chunk - P[at] @ Q if len(Q) else chunk
        return rest

    def distance(self, P: Floats, Q: Floats) -> float:
        """``||D - P Q||_F``."""
        squares = [float(np.sum((chunk - P[at] @ Q) ** 2)) for at, chunk in self.chunks()]
        return float(np.sqrt(sum(squares)))


@dataclass(frozen=True)
class Survey:
    """What one pass over both weights says.

    Attributes
    ----------
    edge : of the rounding of their numbers
    norm : ``||tuned - base||_F``
    norm_base : ``||base||_F``
    unmoved : share of the numbers that are the same
    """

    edge: Edge
    norm: float
    norm_base: float
    unmoved: float


def survey(D: Difference) -> Survey:
    """Sums over the rows and columns of a difference, of its squares and of the variances of its rounding.

    Raises
    ------
    ValueRangeError : a number is not finite

    Notes
    -----
    The base was rounded to the coarser of the two types, if whoever merged read it in that of the result; and a product
    that was merged was rounded in proportion to its own size, which matters where it is larger than the base.
    """
    types = [_Type(M.dtype) for M in (D.tuned, D.base)]
    coarser = max(types, key=lambda each: each.resolution)
    sums = [_Collected(D.shape) for _ in range(3)]
    of_base, moved = 0.0, 0
    for at, chunk in D.chunks():
        lapack.refuse(chunk, name="the difference of the two weights")
        tuned, base = (M.rows(at.start, at.stop) for M in (D.tuned, D.base))
        own = types[0].variances(tuned)
        for into, numbers in zip(sums, (chunk**2, own, own + coarser.variances(base)), strict=True):
            into.add(at, numbers)
        moved += int(np.count_nonzero(chunk))
        of_base += float(np.sum(base.astype(np.float64) ** 2))
    squares, of_tuned, of_both = (each.sums() for each in sums)
    of_product = types[0].of_product
    most = Sums(*(v + of_product * s for v, s in zip(of_both, squares, strict=True)))
    edge = Edge(squares, of_tuned, most)
    return Survey(edge, edge.norm, float(np.sqrt(of_base)), 1 - moved / (D.shape[0] * D.shape[1]))


class _Type:
    """A type that weights are stored in."""

    def __init__(self, dtype: str) -> None:
        numbers = Factor((1, 1), dtype, lambda: np.zeros((1, 1)))
        self.resolution, self._smallest = numbers.resolution, numbers.smallest_step
        # variance of the rounding of a product over its square
        self.of_product = _OF_PRODUCT.get(dtype, _OF_SHORT_PRODUCT) * self.resolution**2 / 12

    def variances(self, M: NDArray[Any]) -> Floats:
        """Of the rounding of every number."""
        found: Floats = spacing(M, self.resolution, self._smallest).astype(np.float64) ** 2 / 12
        return found


class _Collected:
    def __init__(self, shape: tuple[int, int]) -> None:
        self._rows, self._columns = np.zeros(shape[0]), np.zeros(shape[1])

    def add(self, at: slice, numbers: Floats) -> None:
        self._rows[at] = numbers.sum(axis=1)
        self._columns += numbers.sum(axis=0)

    def sums(self) -> Sums:
        return Sums(self._rows, self._columns)
