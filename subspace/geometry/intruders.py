"""Intruder dimensions of W + B A, from all singular vectors of W: the exact route.

A singular vector y_j of W + B A, one of the k leading, is an intruder where ``max_i |cos(y_j, x_i)|`` is below epsilon,
the x_i being the singular vectors of W (Shuttleworth et al., arXiv 2410.21228, definition 3.1).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from subspace.geometry import factored, intruder_law, lapack
from subspace.geometry.first_scale import first_scale
from subspace.geometry.largest_cosine import Cosines, among_all
from subspace.geometry.merged_frame import MergedFrame, framed
from subspace.geometry.triplets import TIED, Triplets

if TYPE_CHECKING:
    from collections.abc import Sequence

    from subspace.geometry.lapack import Floats

__all__ = ["SIDES", "Intrusion", "Side", "Spectrum", "exact_intrusion", "spans_captured", "unscaled"]

SIDES = ("left", "right")
_SAFE = (1e-60, 1e60)  # singular values between these have squares in the range of float64, with room
_FEW = 6  # singular values after one that say how close they lie
_SMALLEST = (
    16  # the search for the first scale begins where the update is this part of W's k-th singular value
)


@dataclass(frozen=True, eq=False)
class Side:
    """One side of the k leading singular directions of W + B A.

    Attributes
    ----------
    cosines : with the singular vectors of W on that side
    captured : ndarray, shape (k,)
        Share of each direction inside the span of W's k leading vectors.
    s_star : least multiple of B A at which one of them is an intruder; None where there is none, or none was looked for
    """

    cosines: Cosines
    captured: Floats
    s_star: float | None


@dataclass(frozen=True, eq=False)
class Spectrum:
    """W's singular values for the law of the first intruder.

    Attributes
    ----------
    leading : ndarray
        The leading ones, at least the k-th.
    values, weights : ndarray
        All of them, or points that stand for as many.
    """

    leading: Floats
    values: Floats
    weights: Floats
    shape: tuple[int, int]

    def threshold(self, j: int) -> float:
        """``theta_bar`` with an edge just above the j-th singular value and the others as the bulk; NaN without any.

        The edge is half of the mean distance to the next few values above the j-th: at the value itself one that
        happens to lie close would decide.
        """
        j = min(j, len(self.leading))
        if not j:
            return float("nan")
        b, after = float(self.leading[j - 1]), self.leading[j : j + _FEW]
        below = self.values < b * (1 - TIED)
        n, m = sorted(self.shape)
        if not below.any():
            return float("nan")
        edge = b + (b - float(after[-1])) / (2 * len(after)) if len(after) else b
        return intruder_law.threshold(edge, self.values[below], self.weights[below], n=n, m=m)


@dataclass(frozen=True, eq=False)
class Intrusion:
    """What one matrix and its update show.

    Attributes
    ----------
    merged : the leading triplets of W + B A
    sides : "left" or "right" -> what was found there
    theta : largest singular value of B A
    spectrum : of W
    """

    merged: Triplets
    sides: dict[str, Side]
    theta: float
    spectrum: Spectrum


def exact_intrusion(
    W: Any, B: Floats, A: Floats, *, k: int, epsilon: float, sides: Sequence[str], up_to: float
) -> Intrusion:
    """Intruder dimensions from one dense SVD of W.

    Parameters
    ----------
    W : array_like, shape (m, n)
    B, A : ndarray, shapes (m, r) and (r, n)
        The scale multiplied in.
    k : int
        How many leading directions of W + B A are looked at.
    epsilon : float
        In (0, 1].
    sides : of "left", "right"
    up_to : float
        Largest multiple of B A at which a first intruder is looked for; 0 not to look.

    Notes
    -----
    W + s B A is a diagonal and a low-rank term in the frame of W's singular vectors, where its leading triplets cost
    little at any s, and the coordinates of a vector are its cosines with W's.

    Examples
    --------
    An update across W's directions that outgrows them all:

    >>> W, b = np.diag([2.0, 1.0, 1.5, 1.2]), np.full((4, 1), 0.5)
    >>> found = exact_intrusion(W, 9 * b, b.T, k=1, epsilon=0.7, sides=["left"], up_to=0)
    >>> found.sides["left"].cosines.most.round(2)
    array([0.53])
    """
    lapack.refuse(B, name="B")
    lapack.refuse(A, name="A")
    U, S, Vh = lapack.svd(W)
    exponent = 0 if not S.any() or _SAFE[0] < S[0] < _SAFE[1] else int(np.frexp(S[0])[1])
    S, B = np.ldexp(S, -exponent), np.ldexp(B, -exponent)
    frame = framed(U, S, Vh.T, B, A)
    merged = frame.merged(1.0, k)
    theta = float(factored.singular_values(B, A).max(initial=0.0))
    found = {
        side: Side(
            among_all(_coordinates(merged, side, len(S)), S),
            spans_captured(_coordinates(merged, side, len(S))[:k]),
            scale_of_first(frame, side, k=k, epsilon=epsilon, theta=theta, up_to=up_to),
        )
        for side in sides
    }
    lifted = Triplets(frame.left @ merged.U, merged.S, frame.right @ merged.V, merged.residuals)
    spectrum = Spectrum(S, S, np.ones(len(S)), (len(U), Vh.shape[1]))
    return unscaled(Intrusion(lifted, found, theta, spectrum), exponent)


def spans_captured(cosines: Floats) -> Floats:
    """Share of unit vectors inside a span: sums of their squared cosines (n, k) with an orthonormal basis of it."""
    captured: Floats = np.minimum((cosines**2).sum(axis=0), 1.0)
    return captured


def scale_of_first(
    frame: MergedFrame, side: str, *, k: int, epsilon: float, theta: float, up_to: float
) -> float | None:
    """Least multiple of the update of a frame at which a leading direction is an intruder, up to a largest one."""
    if not up_to or not theta:
        return None

    def intruded(s: float) -> bool:
        found = _coordinates(frame.merged(s, k), side, len(frame.S))
        return bool((among_all(found, frame.S).most < epsilon).any())

    smallest = float(frame.S[min(k, len(frame.S)) - 1]) / (_SMALLEST * theta)
    return first_scale(intruded, least=min(smallest, up_to / _SMALLEST) or up_to / _SMALLEST, most=up_to)


def _coordinates(found: Triplets, side: str, p: int) -> Floats:
    return (found.U if side == "left" else found.V)[:p]


def unscaled(found: Intrusion, exponent: int) -> Intrusion:
    """What was found of ``W / 2**exponent`` and its update, for W and the update themselves."""
    if exponent == 0:
        return found
    merged, spectrum = found.merged, found.spectrum
    sides = {
        side: Side(
            Cosines(
                each.cosines.most,
                each.cosines.least,
                each.cosines.match,
                np.ldexp(each.cosines.sigma, exponent),
            ),
            each.captured,
            each.s_star,
        )
        for side, each in found.sides.items()
    }
    return Intrusion(
        Triplets(merged.U, np.ldexp(merged.S, exponent), merged.V, merged.residuals),
        sides,
        float(np.ldexp(found.theta, exponent)),
        Spectrum(
            np.ldexp(spectrum.leading, exponent),
            np.ldexp(spectrum.values, exponent),
            spectrum.weights,
            spectrum.shape,
        ),
    )
