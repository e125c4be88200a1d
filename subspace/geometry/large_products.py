"""Products of a large matrix, read in chunks of rows, with blocks of vectors; a low-rank update is applied apart."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from subspace.errors import ShapeError
from subspace.geometry import lapack
from subspace.geometry.row_chunks import Rows

if TYPE_CHECKING:
    from collections.abc import Iterator

    from subspace.geometry.lapack import Floats

__all__ = ["Products", "Summed"]


class Products:
    """``(W + B A) X`` and ``(W + B A).T Y`` without forming the sum, all divided by ``2**exponent``.

    Parameters
    ----------
    W : ndarray, RowReader or Rows, shape (m, n)
    B, A : array_like, optional
        (m, r) and (r, n), the scale multiplied in; nothing is added without them.

    Raises
    ------
    ShapeError
        If the shapes do not fit.
    ValueRangeError
        If an entry of a factor is not finite.

    Notes
    -----
    A product reads `W` once. It multiplies in float32, or where it is `fine` in float64; the factors are float64.

    Examples
    --------
    >>> products = Products(np.eye(2), [[1.0], [0.0]], [[0.0, 3.0]])
    >>> products.apply(np.array([[0.0], [1.0]])).ravel(), products.adjoint(np.array([[1.0], [0.0]])).ravel()
    (array([3., 1.]), array([1., 3.]))
    """

    def __init__(self, W: Any, B: Any = None, A: Any = None) -> None:
        self.rows = W if isinstance(W, Rows) else Rows(W)
        self.shape = self.rows.shape
        self.exponent = self.rows.exponent
        m, n = self.shape
        self.B = lapack.as_float64(np.empty((m, 0)) if B is None else B, name="B")
        self.A = lapack.as_float64(np.empty((0, n)) if A is None else A, name="A")
        if self.B.shape[0] != m or self.A.shape[1] != n or self.B.shape[1] != self.A.shape[0]:
            raise ShapeError(
                f"B A of shapes {self.B.shape} and {self.A.shape} does not fit W of shape {self.shape}"
            )
        lapack.refuse(self.B, name="B")
        lapack.refuse(self.A, name="A")
        if self.exponent:
            self.B = np.ldexp(self.B, -self.exponent)

    def apply(self, X: Floats, *, fine: bool = False) -> Floats:
        """``(W + B A) X`` (m, b) in float64."""
        out = np.empty((self.shape[0], X.shape[1]))
        narrow = X if fine else X.astype(np.float32)
        for start, stop, chunk in self._chunks(fine=fine):
            out[start:stop] = chunk @ narrow
        return out + self.B @ (self.A @ X) if self.B.size else out

    def adjoint(self, Y: Floats, *, fine: bool = False) -> Floats:
        """``(W + B A).T Y`` (n, b) in float64."""
        out = np.zeros((Y.shape[1], self.shape[1]))
        narrow = np.ascontiguousarray(Y.T if fine else Y.T.astype(np.float32))
        for start, stop, chunk in self._chunks(fine=fine):
            out += narrow[:, start:stop] @ chunk
        result: Floats = out.T
        return result + self.A.T @ (self.B.T @ Y) if self.B.size else result

    def _chunks(self, *, fine: bool) -> Iterator[tuple[int, int, Any]]:
        yield from self.rows.wide_chunks() if fine else self.rows.chunks()


class Summed:
    """``W + scale * D`` of two matrices of one shape, handed out by rows as a RowReader."""

    def __init__(self, W: Any, D: Any, scale: float) -> None:
        self._first, self._second, self._scale = Rows(W), D, scale
        self.shape = self._first.shape

    def rows(self, start: int, stop: int, out: Any = None) -> Any:
        """Rows start to stop, in the type of `out`, float64 without one."""
        total = np.empty((stop - start, self.shape[1])) if out is None else out
        total[...] = self._first.read(start, stop) + self._scale * self._second[start:stop].astype(np.float64)
        return total
