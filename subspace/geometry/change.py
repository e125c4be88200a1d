"""A change of a matrix, as three factors or as a matrix of its own, and the sum of both read in chunks of rows."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from subspace.geometry import lapack
from subspace.geometry.frobenius import frobenius
from subspace.geometry.row_chunks import reader
from subspace.geometry.topk import Leading, leading

if TYPE_CHECKING:
    from subspace.geometry.lapack import Floats

__all__ = ["Change", "Changed", "DenseChange", "LowRankChange"]

_SEPARATE = 8  # directions of a dense change whose fourth powers are not estimated
_BLOCK = 256  # rows of a dense change that are widened at once


@dataclass(frozen=True, eq=False)
class LowRankChange:
    """The change ``U @ diag(S) @ Vh``.

    Attributes
    ----------
    U : ndarray, shape (m, r), with orthonormal columns
    S : ndarray, shape (r,)
    Vh : ndarray, shape (r, n), with orthonormal rows
    """

    U: Floats
    S: Floats
    Vh: Floats

    @property
    def shape(self) -> tuple[int, int]:
        """Of the matrix."""
        return len(self.U), self.Vh.shape[1]

    @cached_property
    def norm(self) -> float:
        """Frobenius norm."""
        return frobenius(self.S)

    @property
    def concentration(self) -> float:
        """``tr((M.T M)^2) / ||M||_F^4``: 1 for a change of rank one, 1 / r for r equal singular values."""
        return float(np.sum((self.S / self.norm) ** 4)) if self.norm > 0 else 1.0

    @cached_property
    def largest(self) -> float:
        """Largest singular value."""
        return float(np.abs(self.S).max(initial=0.0))

    @property
    def T(self) -> LowRankChange:
        """The transposed change."""
        return LowRankChange(self.Vh.T, self.S, self.U.T)

    def times(self, factor: float) -> LowRankChange:
        """The change times a number; its S may then be negative."""
        return replace(self, S=self.S * factor)

    def turned(self, rng: np.random.Generator) -> LowRankChange:
        """A change of the same singular values in Haar-random frames."""
        U, Vh = (lapack.qr(rng.standard_normal((d, len(self.S))))[0] for d in self.shape)
        return LowRankChange(U, self.S, Vh.T)

    def rows(self, start: int, stop: int, out: Any = None) -> Any:
        """Rows start to stop in float64, or in the type of `out`, which is written."""
        wide = (self.U[start:stop] * self.S) @ self.Vh
        return wide if out is None else _copied(wide, out[: stop - start])

    def of_right(self, V: Floats) -> Floats:
        """``M @ V``."""
        return (self.U * self.S) @ (self.Vh @ V)

    def of_left(self, U: Floats) -> Floats:
        """``U.T @ M``."""
        return ((U.T @ self.U) * self.S) @ self.Vh


@dataclass(frozen=True, eq=False)
class DenseChange:
    """The change ``factor * M``, `M` (m, n) of any float type."""

    M: Any
    factor: float = 1.0

    @property
    def shape(self) -> tuple[int, int]:
        """Of the matrix."""
        return int(self.M.shape[0]), int(self.M.shape[1])

    @cached_property
    def norm(self) -> float:
        """Frobenius norm."""
        return abs(self.factor) * frobenius([frobenius(block) for _, _, block in _blocks(self.M)])

    @cached_property
    def _leading(self) -> Leading:
        return leading(self.M, _SEPARATE, tol=1e-3)

    @property
    def concentration(self) -> float:
        """As of `LowRankChange`; an estimate where the smaller side is above 512."""
        found = self._leading
        relative = found.fourth_moment**0.25 / found.norm if found.norm > 0 else 1.0
        return float(min(max(relative**4, 1 / min(self.shape)), 1.0))

    @property
    def T(self) -> DenseChange:
        """The transposed change."""
        return DenseChange(self.M.T, self.factor)

    def times(self, factor: float) -> DenseChange:
        """The change times a number."""
        return replace(self, factor=self.factor * factor)

    def rows(self, start: int, stop: int, out: Any = None) -> Any:
        """Rows start to stop in float64, or in the type of `out`, which is written."""
        wide = self.M[start:stop].astype(np.float64) * self.factor
        return wide if out is None else _copied(wide, out[: stop - start])

    def of_right(self, V: Floats) -> Floats:
        """``factor * M @ V``."""
        product = np.concatenate([block @ V for _, _, block in _blocks(self.M)])
        return np.asarray(self.factor * product)

    def of_left(self, U: Floats) -> Floats:
        """``factor * U.T @ M``."""
        product = np.zeros((U.shape[1], self.shape[1]))
        for start, stop, block in _blocks(self.M):
            product += U[start:stop].T @ block
        return np.asarray(self.factor * product)


Change: TypeAlias = LowRankChange | DenseChange


class Changed:
    """``W + M`` in chunks of rows.

    Parameters
    ----------
    W : ndarray or RowReader, shape (m, n)
    change : Change, of the same shape
    """

    def __init__(self, W: Any, change: Change) -> None:
        self._read = W.rows if hasattr(W, "rows") else reader(W)
        self._change = change
        self.shape = change.shape

    def rows(self, start: int, stop: int, out: Any = None) -> Any:
        """Rows start to stop, added in float64; in the type of `out`, which is written."""
        wide = np.empty((stop - start, self.shape[1]))
        np.copyto(wide, self._read(start, stop, out=wide))
        wide += self._change.rows(start, stop)
        return wide if out is None else _copied(wide, out[: stop - start])


def _copied(wide: Floats, out: Any) -> Any:
    np.copyto(out, wide, casting="same_kind")
    return out


def _blocks(M: Any) -> Any:
    """Rows of a matrix in float64, some at a time, with where they are."""
    for start in range(0, len(M), _BLOCK):
        stop = min(start + _BLOCK, len(M))
        yield start, stop, np.asarray(M[start:stop], dtype=np.float64)
