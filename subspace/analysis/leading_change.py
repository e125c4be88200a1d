"""The directions of a change of weights that stand above the rounding of the numbers, as many as are asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from subspace.analysis.difference_rows import Difference, Survey
from subspace.geometry import lapack
from subspace.geometry.topk import leading

if TYPE_CHECKING:
    from subspace.geometry.lapack import Floats

__all__ = ["Change", "leading_change"]

_DENSE = 512  # smaller side up to which a dense SVD is as fast
_FIRST = 16  # directions that are looked for at first, then twice as many
_TOL, _PASSES = 1e-4, 16
_PROBE_TOL = 3e-3  # of the largest singular value of the rest, which the edge leaves more room


class Change(NamedTuple):
    """Leading singular triplets of a difference.

    Attributes
    ----------
    U, S, V : shapes (m, k), (k,) and (n, k), descending
    above : how many are above the edge of rounding
    floor : every direction of the change above it is found
    complete : whether all directions above the edge are among them
    """

    U: Floats
    S: Floats
    V: Floats
    above: int
    floor: float
    complete: bool

    def energy(self, norm: float) -> float:
        """Share of the squared norm that the directions above the edge hold."""
        return float(np.sum((self.S[: self.above] / norm) ** 2))


def leading_change(D: Difference, found: Survey, *, most: int, energy: float | None) -> Change:
    """Directions of a difference until all above rounding are found, more than `most`, or enough for `energy`.

    Parameters
    ----------
    found : `survey` of the difference
    most : no more directions than this are looked for, unless energy asks for them
    energy : share of the squared norm

    Notes
    -----
    A large matrix takes rounds of block Krylov iteration, each on what the rounds before left over, so that a direction
    that is a million times smaller than the first is found too; between them a probe for the largest direction of the
    rest tells whether there is more. All directions go through one step of subspace iteration in float64. A dense SVD
    where the directions are more than a quarter of all.
    """
    if min(D.shape) <= _DENSE:
        return _dense(D, found)
    U, S, V = np.empty((D.shape[0], 0)), np.empty(0), np.empty((D.shape[1], 0))
    k, probing = _FIRST, False
    while True:
        if len(S) + k > min(D.shape) // 4:
            return _dense(D, found)
        rest = D.without(U * S, V.T)
        more = leading(rest, 1 if probing else k, tol=_PROBE_TOL if probing else _TOL, max_passes=_PASSES)
        if more.S.size:
            U, S, V = _refined(D, np.hstack([V, more.V]))
        above, floor = found.edge.above(U, S, V)
        change = Change(U, S, V, above, floor, complete=False)
        # of the rest, this round has found the largest
        if not more.S.size or above <= len(S) - len(more.S):
            return change._replace(complete=True)
        if above > most and (energy is None or change.energy(found.norm) >= energy):
            return change
        k, probing = max(_FIRST, len(S)), not probing and above == len(S)


def _dense(D: Difference, found: Survey) -> Change:
    U, S, Vh = lapack.svd(D.dense())
    above, floor = found.edge.above(U, S, Vh.T)
    return Change(U, S, Vh.T, above, floor, complete=True)


def _refined(D: Difference, V: Floats) -> tuple[Floats, Floats, Floats]:
    """Triplets of the difference from a basis of rows that float32 found: a step of subspace iteration in float64."""
    Q, _ = lapack.qr(D.times(lapack.qr(V)[0]))
    right, S, inner = lapack.svd(D.transposed_times(Q))  # D.T Q = right S inner
    return Q @ inner.T, S, right
