"""The orthonormal rows of many updates of one module, one under the other, so that one product meets all of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np

from subspace.errors import ShapeError
from subspace.geometry import lapack

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from subspace.geometry.canonical import Canonical
    from subspace.geometry.lapack import Floats

__all__ = ["SIDES", "Side", "Spans", "Stacked", "stacked"]

Side: TypeAlias = Literal["a", "b", "left", "right"]
SIDES: tuple[Side, ...] = ("a", "b", "left", "right")


@dataclass(frozen=True, eq=False)
class Spans:
    """Spans of n members in R^d.

    Attributes
    ----------
    X : ndarray, shape (sum of all k, d)
        Orthonormal rows of the first member, then those of the second, and so on.
    starts : ndarray, shape (n + 1,)
        Rows ``starts[m]`` to ``starts[m + 1]`` are of member m; it may have none.
    """

    X: NDArray[Any]
    starts: NDArray[np.intp]

    @property
    def k(self) -> NDArray[np.intp]:
        """Dimension of every span, shape (n,)."""
        return np.diff(self.starts)

    @property
    def d(self) -> int:
        """Dimension of the space."""
        return int(self.X.shape[1])

    def part(self, members: slice) -> Spans:
        """The spans of some neighbouring members, which share their memory with these."""
        begin, end, _ = members.indices(len(self.starts) - 1)
        starts = self.starts[begin : end + 1]
        return Spans(self.X[starts[0] : starts[-1]], starts - starts[0])

    def bands(self) -> Iterator[slice]:
        """The rows of each member."""
        return map(slice, self.starts[:-1].tolist(), self.starts[1:].tolist())


@dataclass(frozen=True, eq=False)
class Stacked:
    """n members of one module, as their pairs need them; see `stacked`."""

    forms: Sequence[Canonical]
    dtype: type[np.floating[Any]]

    def __len__(self) -> int:
        return len(self.forms)

    def spans(self, side: Side) -> Spans:
        """The whole spans of a side: k rows of "left" and "right", all of the row space of A ("a") and of B.T ("b").

        An update that is zero has none on any side, whatever its A is; of one without factors "a" and "b" are "right"
        and "left". Where no B and no A hides a direction of the other, "a" is the very object that "right" is.
        """
        return {"a": self._a, "b": self._b, "left": self._left, "right": self._right}[side]

    def leading(self, side: Side, i: int) -> Spans:
        """The spans of the leading `i` directions of a side; empty where a member has fewer."""
        return _joined([_leading(form, side, i) for form in self.forms], self.spans(side).d, self.dtype)

    @cached_property
    def _right(self) -> Spans:
        return _joined([form.right[: form.k] for form in self.forms], self._d("right"), self.dtype)

    @cached_property
    def _left(self) -> Spans:
        return _joined([form.left[: form.k] for form in self.forms], self._d("left"), self.dtype)

    @cached_property
    def _a(self) -> Spans:
        if all(_held(form, "a") == form.k for form in self.forms):
            return self._right
        return _joined([form.right[: _held(form, "a")] for form in self.forms], self._d("right"), self.dtype)

    @cached_property
    def _b(self) -> Spans:
        if all(_held(form, "b") == form.k for form in self.forms):
            return self._left
        return _joined([form.left[: _held(form, "b")] for form in self.forms], self._d("left"), self.dtype)

    def _d(self, name: Literal["left", "right"]) -> int:
        found = {int(getattr(form, name).shape[1]) for form in self.forms}
        if len(found) > 1:
            raise ShapeError(
                f"Updates of different dimensions in one module: {', '.join(map(str, sorted(found)))}; "
                "compare modules of the same shape"
            )
        return found.pop() if found else 0

    @cached_property
    def norms(self) -> Floats:
        """Frobenius norm of every ``B @ A``, its scale left out, shape (n,)."""
        return np.array([_norm(form.S) for form in self.forms])

    @cached_property
    def shares(self) -> NDArray[Any]:
        """Singular values divided by the norm of their member, in the order of the rows of "right" and "left"."""
        parts = [form.S / norm for form, norm in zip(self.forms, self.norms, strict=True) if form.k]
        return np.concatenate(parts or [np.zeros(0)]).astype(self.dtype)

    @cached_property
    def r(self) -> NDArray[np.intp]:
        """Rows of every A, shape (n,); 0 of an update that is zero or has no factors."""
        rows = [len(form.a) if form.a is not None and form.k else 0 for form in self.forms]
        return np.array(rows, dtype=np.intp)

    @cached_property
    def turns(self) -> Floats:
        """The nearest orthonormal rows to those of A (Löwdin), in the rows of "a": row n of them is column n here.

        Shape (rows of "a", largest r), with zeros to the right of a smaller r.
        """
        wide = np.zeros((int(self.spans("a").starts[-1]), int(self.r.max(initial=0))))
        for form, band in zip(self.forms, self.spans("a").bands(), strict=True):
            if form.a is not None and form.k:
                P, _, Vh = lapack.svd(form.a)
                wide[band, : len(form.a)] = (P @ Vh).T
        return wide

    @cached_property
    def sums(self) -> Floats:
        """Sum of those nearest orthonormal rows, as vectors of the space, shape (n, d)."""
        a, totals = self.spans("a"), self.turns.sum(axis=1)
        found = np.zeros((len(self), a.d))
        for n, band in enumerate(a.bands()):
            found[n] = totals[band] @ a.X[band]
        return found


def stacked(forms: Sequence[Canonical], *, precision: Literal["float32", "float64"] = "float32") -> Stacked:
    """Many updates of one module, ready for the products of all pairs.

    Parameters
    ----------
    forms : sequence of Canonical
        Of any ranks, 0 included, and one shape.
    precision : {"float32", "float64"}
        Type that the rows are held and multiplied in.

    Notes
    -----
    A stack of rows is made when a side is first asked for: ``4 r d`` bytes a member in float32.

    Examples
    --------
    >>> from subspace.geometry.canonical import canonical
    >>> one = canonical([[3.0], [0.0]], [[0.0, 2.0]])
    >>> found = stacked([one, one])
    >>> abs(found.spans("right").X), found.norms
    (array([[0., 1.],
           [0., 1.]], dtype=float32), array([6., 6.]))
    """
    return Stacked(tuple(forms), np.float64 if precision == "float64" else np.float32)


def _joined(parts: Sequence[NDArray[Any]], d: int, dtype: type[np.floating[Any]]) -> Spans:
    starts = np.concatenate([[0], np.cumsum([len(part) for part in parts], dtype=np.intp)]).astype(np.intp)
    X = np.empty((int(starts[-1]), d), dtype)
    for part, begin, end in zip(parts, starts[:-1].tolist(), starts[1:].tolist(), strict=True):
        X[begin:end] = part
    return Spans(X, starts)


def _held(form: Canonical, side: Literal["a", "b"]) -> int:
    """Rows of the row space of a factor, or of its side of delta_W without factors; none of an update that is zero."""
    factor = form.a if side == "a" else form.b
    return form.k if factor is None or not form.k else int(factor.shape[1])


def _leading(form: Canonical, side: Side, i: int) -> Floats:
    """The leading `i` directions as rows; none where there are fewer."""
    rows = form.right if side in ("a", "right") else form.left
    factor = None if side in ("left", "right") else form.a if side == "a" else form.b
    if factor is None:
        return rows[: i if i <= form.k else 0]
    if i > _held(form, "a" if side == "a" else "b"):
        return rows[:0]
    turned: Floats = lapack.svd(factor)[2][:i] @ rows
    return turned


def _norm(S: Floats) -> float:
    """Root of the sum of squares, which cannot overflow before it has to."""
    if not S.size:
        return 0.0
    with np.errstate(over="ignore"):
        return float(S[0] * np.linalg.norm(S / S[0]))
