"""Where the heavy products of a large matrix are computed: here, in NumPy, or on another device that is put in place.

Two products read all of W: a step of the Krylov iteration, and the core U^T W V. Everything else is small.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Protocol

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from subspace.geometry.lapack import Floats
    from subspace.geometry.row_chunks import Rows

__all__ = ["NumpyProducts", "Products", "products", "products_by"]


class Products(Protocol):
    """The products of a large matrix, in float32."""

    def gram_step(
        self, rows: Rows, V: NDArray[np.float32]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return ``W V`` (m, b) and ``V.T W.T W`` (b, n) for V (n, b), in one pass over W."""

    def core(self, rows: Rows, U: Floats, V: Floats) -> Floats:
        """Return ``U.T W V`` (k1, k2), the rows of W meeting V in float32 and the sum in float64."""


class NumpyProducts:
    """The products in NumPy, a chunk of rows at a time."""

    def gram_step(
        self, rows: Rows, V: NDArray[np.float32]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return ``W V`` and ``V.T W.T W``."""
        Y = np.empty((rows.shape[0], V.shape[1]), dtype=np.float32)
        Z = np.zeros((V.shape[1], V.shape[0]), dtype=np.float32)
        part = np.empty_like(Z)
        for start, stop, chunk in rows.chunks():
            np.matmul(chunk, V, out=Y[start:stop])
            np.add(Z, np.matmul(Y[start:stop].T, chunk, out=part), out=Z)
        return Y, Z

    def core(self, rows: Rows, U: Floats, V: Floats) -> Floats:
        """Return ``U.T W V``."""
        narrow = V.astype(np.float32)
        core = np.zeros((U.shape[1], V.shape[1]))
        with np.errstate(all="ignore"):  # the caller checks that the result is finite
            for start, stop, chunk in rows.chunks():
                core += U[start:stop].T @ (chunk @ narrow).astype(np.float64)
        return core


_here = NumpyProducts()
_chosen: ContextVar[Products | None] = ContextVar("products", default=None)


def products() -> Products:
    """Return what computes the products now."""
    return _chosen.get() or _here


@contextmanager
def products_by(engine: Products) -> Iterator[None]:
    """Let something else compute the products meanwhile, in this thread."""
    token = _chosen.set(engine)
    try:
        yield
    finally:
        _chosen.reset(token)
