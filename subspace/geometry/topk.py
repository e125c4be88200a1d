"""The leading singular triplets of a large matrix, with an estimate of the error."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from subspace.errors import ShapeError, ValueRangeError
from subspace.geometry import lapack
from subspace.geometry.krylov import BlockKrylov
from subspace.geometry.products import products
from subspace.geometry.row_chunks import Rows
from subspace.geometry.sketch import Sketch
from subspace.geometry.spectrum import numerical_rank

if TYPE_CHECKING:
    from subspace.geometry.lapack import Floats

__all__ = ["Leading", "leading", "project"]

_DENSE = 512  # smaller side up to which a dense SVD is as fast, and exact
_BUCKETS = 8  # buckets of the sketch for each column of a block
_SAFE = (1e-16, 1e32)  # with a sum of squares between these, float32 has lost nothing that matters
_FEW, _TOL, _TOL_OF_MANY = 16, 3e-4, 1e-3  # default tolerances, by the number of directions
_FINEST = 2e-7  # a smaller tolerance is never met in float32
_SEPARATE = 8  # directions that the fourth moment takes one by one; the rest it samples


@dataclass(frozen=True, eq=False)
class Leading:
    """Leading singular triplets of a matrix `W`, and how far to trust them.

    Attributes
    ----------
    U : ndarray, shape (d_out, k)
    S : ndarray, shape (k,)
        Descending. Lower bounds: except for rounding, a Krylov value never exceeds the true one.
    V : ndarray, shape (d_in, k)
    sigma_next : float
        Lower bound of the singular value after the last; 0 if there is none. If it is close to ``S[-1]``, the span
        of the k directions is not determined, though `F` is.
    error : float
        Estimate of the relative error of `F`; usually 100 times too large.
    passes : int
        Number of times that all of `W` was read.
    norm : float
        Frobenius norm of `W`.
    fourth_moment : float
        ``tr((W.T W)^2)``, the sum of the fourth powers of all singular values: an estimate unless `exact`.
    exact : bool
        Whether all of this comes from a dense SVD.
    """

    U: Floats
    S: Floats
    V: Floats
    sigma_next: float
    error: float
    passes: int
    norm: float
    fourth_moment: float
    exact: bool

    @property
    def F(self) -> float:
        """Norm of the leading part, ``sqrt(sum S^2)``: the norm of ``U.T @ W @ V``."""
        return float(np.linalg.norm(self.S))


def leading(
    W: Any,
    k: int,
    *,
    tol: float | None = None,
    rng_seed: int = 0,
    max_passes: int = 40,
    block: int | None = None,
) -> Leading:
    """Top `k` singular triplets of `W`, the values descending, with an error estimate.

    Parameters
    ----------
    W : ndarray or RowReader, shape (d_out, d_in)
        A matrix, or anything with `shape` and ``rows(start, stop, out=None)``.
    k : int
        At least 1; cut to the smaller dimension.
    tol : float, optional
        Stop when the estimated relative error of ``sqrt(sum S^2)`` is below this; float32 allows 2e-7 at best. By
        default 3e-4 up to 16 directions and 1e-3 beyond, where the estimate is a thousand times the error.
    rng_seed : int
        Seed of the random start: the same seed gives the same answer.
    max_passes : int
        Stop after reading `W` this often, whatever the estimated error, which is returned.
    block : int, optional
        Number of columns of one Krylov block; 16 up to 16 directions and 32 beyond by default.

    Returns
    -------
    Leading

    Raises
    ------
    ShapeError
        If `W` is not a matrix of real numbers.
    ValueRangeError
        If `k` is below 1 or an entry is not finite.

    Notes
    -----
    Randomised block Krylov iteration on ``W.T W`` with full reorthogonalisation, in float32 with the small
    matrices in float64: one pass over `W` for a sketch that the start is taken from, then one a step. Stops
    when ``b / (2 F^2) < tol``, where `b` bounds the error of ``F^2`` by the residual `R` of the k Ritz pairs:
    ``min(sqrt(k) ||R||_F, ||R||_F^2 / gap)``. That bounds the distance to *some* k eigenvalues; that a
    direction was missed altogether is excluded by the random start with high probability, not with certainty.
    One block finds at most b copies of a repeated value: where as many were found, or the space has ended before all
    of ``||W||_F^2`` was seen, the iteration goes on with new directions outside the basis. Where `max_passes` forbids
    that, `error` includes what may be missing.
    Single values converge later than their sum: the last may be 3 % low where `F` is right to 1e-3.
    A smaller side of 512 or less, or a large `k`, takes a dense SVD.

    References
    ----------
    Musco & Musco 2015, NeurIPS 28, algorithm 2. Parlett, The Symmetric Eigenvalue Problem, theorem 11.5.1.

    Examples
    --------
    >>> found = leading(np.diag([1.0, 3.0, 2.0]), 2)
    >>> found.S, found.sigma_next, found.exact
    (array([3., 2.]), 1.0, True)
    """
    if k < 1:
        raise ValueRangeError(f"k = {k} is too small: ask for at least one direction")
    rows = Rows(W)
    smaller = min(rows.shape)
    if smaller <= _DENSE or k > smaller // 8:
        return _dense(rows, min(k, smaller))
    rng, b = np.random.default_rng(rng_seed), block or _block(k)
    sketch = Sketch(rows, _BUCKETS * b, rng)
    if not _SAFE[0] < sketch.squares < _SAFE[1]:
        sketch = Sketch(rows.scaled(), _BUCKETS * b, rng)
    tol = tol if tol is not None else _TOL if k <= _FEW else _TOL_OF_MANY
    krylov = BlockKrylov(sketch.rows, sketch.start(b, rng), sketch.squares)
    error = _converged(sketch, krylov, k, rng, tol=max(tol, _FINEST), steps=max_passes - 1)
    return _found(sketch, krylov, k, error)


def _block(k: int) -> int:
    return 16 if k <= _FEW else 32


def _dense(rows: Rows, k: int) -> Leading:
    U, S, Vh = lapack.svd(rows.dense())
    k = min(k, numerical_rank(S, longest=max(rows.shape)))
    with np.errstate(over="ignore"):
        norm, fourth = float(np.linalg.norm(S)), float(np.sum(S**4))
    after = float(S[k]) if len(S) > k else 0.0
    return Leading(U[:, :k], S[:k], Vh[:k].T, after, 0.0, 1, norm, fourth, exact=True)


def _converged(
    sketch: Sketch, krylov: BlockKrylov, k: int, rng: np.random.Generator, *, tol: float, steps: int
) -> float:
    """The estimated error after steps until it is below `tol`, with a new start while copies may be missing."""
    _step(krylov, k, tol, steps)
    first = krylov.passes
    while krylov.may_miss(k) and krylov.passes < steps:
        krylov.widen(sketch.start(krylov.width, rng, without=krylov.basis))
        # the copies come as late as the first of them came
        for _ in range(min(first, steps - krylov.passes)):
            if not krylov.exhausted:
                krylov.step()
        _step(krylov, k, tol, steps)
    return max(krylov.error(k), krylov.missing(k) if krylov.may_miss(k) else 0.0)


def _step(krylov: BlockKrylov, k: int, tol: float, steps: int) -> None:
    while krylov.error(k) >= tol and krylov.passes < steps and not krylov.exhausted:
        krylov.step()


def _found(sketch: Sketch, krylov: BlockKrylov, k: int, error: float) -> Leading:
    U, S, V = krylov.triplets(max(k, _SEPARATE) + 1)
    fourth, norm = sketch.fourth_moment(S, V), float(np.sqrt(sketch.squares))
    after = float(S[k]) if len(S) > k else 0.0
    passes = krylov.passes + 1  # the sketch read W too
    found = Leading(U[:, :k], S[:k], V[:, :k], after, error, passes, norm, fourth, exact=False)
    return _unscaled(found, sketch.rows.exponent)


def _unscaled(found: Leading, exponent: int) -> Leading:
    if exponent == 0:
        return found
    with np.errstate(over="ignore", under="ignore"):
        S = np.ldexp(found.S, exponent)
        after, norm = (float(np.ldexp(value, exponent)) for value in (found.sigma_next, found.norm))
        fourth = float(np.ldexp(found.fourth_moment, 4 * exponent))
    return replace(found, S=S, sigma_next=after, norm=norm, fourth_moment=fourth)


def project(W: Any, U: Any, V: Any) -> Floats:
    """Core ``U.T @ W @ V``, shape (k1, k2), in one pass over `W`.

    Parameters
    ----------
    W : ndarray or RowReader, shape (d_out, d_in)
    U : array_like, shape (d_out, k1)
    V : array_like, shape (d_in, k2)

    Raises
    ------
    ShapeError
        If the shapes do not fit.
    ValueRangeError
        If an entry is not finite.

    Notes
    -----
    Rows of `W` meet `V` in float32 and the core accumulates in float64: within 1e-6 of the norm of `W`.

    Examples
    --------
    >>> project(np.diag([2.0, 3.0]), np.eye(2), [[0.0], [1.0]])
    array([[0.],
           [3.]])
    """
    U, V = lapack.as_float64(U, name="U"), lapack.as_float64(V, name="V")
    rows = Rows(W)
    if rows.shape != (U.shape[0], V.shape[0]):
        raise ShapeError(
            f"U.T @ W @ V cannot be multiplied: shapes {U.shape}, {rows.shape} and {V.shape}; "
            "check that all belong to the same module"
        )
    core = products().core(rows, U, V)
    if not np.isfinite(core).all() or np.abs(core).max(initial=0.0) < 1e-30:
        lapack.refuse(U, name="U")
        lapack.refuse(V, name="V")
        rows = rows.scaled()
        core = np.ldexp(products().core(rows, U, V), rows.exponent)
    return core
