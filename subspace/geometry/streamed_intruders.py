"""Intruder dimensions of a large W + B A without W's singular value decomposition: the fast route.

The leading triplets of both matrices come from block Krylov spaces; what the leading vectors of W leave open about a
cosine is bounded by Lanczos recurrences; the first scale and the law are of a Krylov space of W and a quadrature.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from subspace.geometry import factored, lapack
from subspace.geometry.intruders import Intrusion, Side, Spectrum, scale_of_first, spans_captured, unscaled
from subspace.geometry.large_products import Products
from subspace.geometry.largest_cosine import Cosines, bounded
from subspace.geometry.merged_frame import MergedFrame, framed
from subspace.geometry.row_chunks import Rows
from subspace.geometry.sketch import Sketch
from subspace.geometry.spectral_measure import Lanczos, lanczos
from subspace.geometry.triplets import Triplets, fresh, triplets

if TYPE_CHECKING:
    from collections.abc import Sequence

    from subspace.geometry.lapack import Floats

__all__ = ["streamed_intrusion"]

_SAFE = (1e-16, 1e32)  # with a sum of squares between these, float32 has lost nothing that matters
_BUCKETS, _GUARD, _LEAST_BLOCK = 8, 6, 16
_TOL, _STEPS = 1e-6, 60  # residual of a triplet as a share of the largest singular value
_SETTLED = 2e-6  # the same of one that W's part is split off by
_PROBES, _POINTS = 4, 32  # random vectors of the quadrature of W's spectrum, and steps from each
_ROOM, _LONGEST = (
    320,
    30,
)  # directions of W's Krylov space for the first scale, besides those it begins with, and steps


def streamed_intrusion(
    W: Any,
    B: Floats,
    A: Floats,
    *,
    k: int,
    epsilon: float,
    sides: Sequence[str],
    up_to: float,
    others: Sequence[float] = (),
    merged: Any = None,
    rng_seed: int = 0,
) -> Intrusion:
    """Intruder dimensions from products of W with blocks of vectors; parameters as `exact_intrusion`, and:

    Parameters
    ----------
    W : ndarray or RowReader, shape (m, n)
    others : further thresholds that the cosines are compared with
    merged : RowReader, optional
        W with a dense update added, of which B A is the leading part; the leading directions are then of this sum.
    rng_seed : of the random starts

    Raises
    ------
    ValueRangeError
        If an entry is not finite.
    """
    rng, width = np.random.default_rng(rng_seed), max(_LEAST_BLOCK, k + _GUARD)
    sketch = Sketch(Rows(W), _BUCKETS * width, rng)
    if not _SAFE[0] < sketch.squares < _SAFE[1]:
        sketch = Sketch(Rows(W).scaled(), _BUCKETS * width, rng)
    exponent = sketch.rows.exponent
    own = Products(sketch.rows)
    both = Products(sketch.rows, B, A) if merged is None else Products(Rows(merged, exponent=exponent))
    ours = _converged(own, _start(sketch, width, rng), k)
    theta, along = _update(B, A)
    mine = _converged(both, np.hstack([ours.V[:, : k + _GUARD], along]), k).first(k)
    settled = ours.first(ours.settled(_SETTLED))
    spectrum = _spectrum(own, ours, settled, rng)
    frame = _frame(own, ours, np.ldexp(B, -exponent), A) if up_to and theta else None
    found = {
        side: Side(
            _cosines(own, mine, settled, side, epsilon=epsilon, others=others),
            spans_captured(_vectors(ours, side)[:, :k].T @ _vectors(mine, side)),
            None
            if frame is None
            else scale_of_first(
                frame, side, k=k, epsilon=epsilon, theta=float(np.ldexp(theta, -exponent)), up_to=up_to
            ),
        )
        for side in sides
    }
    return unscaled(Intrusion(mine, found, float(np.ldexp(theta, -exponent)), spectrum), exponent)


def _start(sketch: Sketch, width: int, rng: np.random.Generator) -> Floats:
    """The start of a sketch, random where W has too few directions for it."""
    with np.errstate(divide="ignore", invalid="ignore"):
        start = sketch.start(width, rng)
    result: Floats = np.where(np.isfinite(start), start, rng.standard_normal(start.shape))
    return result


def _update(B: Floats, A: Floats) -> tuple[float, Floats]:
    """Norm of B A, and its leading right singular vectors."""
    _, S, Vh = factored.svd(B, A)
    return float(S.max(initial=0.0)), Vh[:_GUARD].T


def _converged(products: Products, start: Floats, k: int) -> Triplets:
    """Leading triplets in float32, then once more in float64 within the span that was found.

    Notes
    -----
    That last step is what separates nearly equal singular values: their vectors are mixed by rounding of float32.
    """
    found = triplets(products.apply, products.adjoint, start, k, tol=_TOL, steps=_STEPS)
    if not len(found.S):
        return found
    fine = partial(products.apply, fine=True), partial(products.adjoint, fine=True)
    return triplets(*fine, found.V, k, tol=_TOL, steps=1)


def _vectors(found: Triplets, side: str) -> Floats:
    return found.U if side == "left" else found.V


def _cosines(
    own: Products, mine: Triplets, settled: Triplets, side: str, *, epsilon: float, others: Sequence[float]
) -> Cosines:
    def twice(X: Floats) -> Floats:
        if side == "left":
            return own.apply(own.adjoint(X, fine=True), fine=True)
        return own.adjoint(own.apply(X, fine=True), fine=True)

    return bounded(
        _vectors(mine, side), settled, _vectors(settled, side), twice, threshold=epsilon, others=others
    )


def _spectrum(own: Products, ours: Triplets, settled: Triplets, rng: np.random.Generator) -> Spectrum:
    """The leading singular values, and a stochastic Lanczos quadrature of the others.

    References
    ----------
    Ubaru, Chen & Saad 2017, SIAM J. Matrix Anal. Appl. 38:1075.
    """
    m, n = own.shape
    left = m <= n
    rest = min(m, n) - len(settled.S)
    if rest == 0:
        return Spectrum(ours.S, settled.S, np.ones(len(settled.S)), own.shape)
    without = _vectors(settled, "left" if left else "right")
    probes = rng.standard_normal((min(m, n), _PROBES))
    probes -= without @ (without.T @ probes)
    spaces = [Lanczos(probe, float(ours.S.max(initial=1.0)) ** 2) for probe in probes.T]
    twice = (lambda X: own.apply(own.adjoint(X))) if left else (lambda X: own.adjoint(own.apply(X)))
    lanczos(twice, spaces, without, steps=_POINTS, done=lambda _: False)
    values, weights = [settled.S], [np.ones(len(settled.S))]
    for space in spaces:
        nodes, first, _ = space.measure()
        values.append(np.sqrt(np.maximum(nodes, 0.0)))
        weights.append(rest / _PROBES * first**2)
    return Spectrum(ours.S, np.concatenate(values), np.concatenate(weights), own.shape)


def _frame(own: Products, ours: Triplets, B: Floats, A: Floats) -> MergedFrame:
    """W between Krylov spaces that begin with its leading vectors and those of the update: W + s B A for all s.

    Notes
    -----
    The update is in the spaces exactly, and so are the moments of W at its directions, up to the number of steps; a
    bulk of W's vectors is represented by fewer.
    """
    L = fresh(np.hstack([ours.U, B]), np.empty((len(B), 0)))
    R = fresh(np.hstack([ours.V, A.T]), np.empty((A.shape[1], 0)))
    room, images = len(ours.S) + B.shape[1] + _ROOM, own.apply(R)
    new = L, images
    for _ in range(_LONGEST):
        if L.shape[1] >= room:
            break
        to_right, to_left = fresh(own.adjoint(new[0]), R), fresh(new[1], L)
        if not to_right.size and not to_left.size:
            break
        new = to_left, own.apply(to_right)
        L, R, images = np.hstack([L, to_left]), np.hstack([R, to_right]), np.hstack([images, new[1]])
    U, S, Vh = lapack.svd(L.T @ images)
    return framed(U, S, Vh.T, L.T @ B, A @ R)
