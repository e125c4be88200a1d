"""One module's update in coordinates that no change of factors moves: orthonormal directions, and A and B in them.

``B @ A`` and ``(B G^-1) @ (G A)`` are one update. Its canonical form has the directions that it reads and writes, by
descending singular value, which products of many updates need, and A and B as small matrices in these directions, so
that nothing is lost.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from subspace.geometry import lapack
from subspace.geometry.frame import Frame, factors, product_frames, row_frame

if TYPE_CHECKING:
    from subspace.geometry.lapack import Floats

__all__ = ["Canonical", "canonical"]


@dataclass(frozen=True, eq=False)
class Canonical:
    """An update ``delta_W = B @ A``, its scale left out, as ``left[:k].T @ diag(S) @ right[:k]``.

    Attributes
    ----------
    right : ndarray, shape (k_in, d_in)
        Orthonormal rows. The first k are the right singular vectors of delta_W; the others, where there are any,
        complete the row space of A (a B of lower rank hides them from delta_W).
    left : ndarray, shape (k_out, d_out)
        The same of the left singular vectors of delta_W and the columns of B.
    S : ndarray, shape (k,)
        Singular values of ``B @ A``, descending, cut at the numerical rank; empty where the product is zero.
    a : ndarray, shape (r, k_in), or None
        A in these directions, ``A = a @ right``; None of an update without factors.
    b : ndarray, shape (r, k_out), or None
        B in these directions, ``B.T = b @ left``.
    """

    right: Floats
    left: Floats
    S: Floats
    a: Floats | None = None
    b: Floats | None = None

    @property
    def k(self) -> int:
        """Numerical rank of delta_W."""
        return int(self.S.shape[0])


def canonical(B: Any, A: Any) -> Canonical:
    """The canonical form of ``B @ A``.

    Parameters
    ----------
    B : array_like, shape (d_out, r)
    A : array_like, shape (r, d_in)

    Raises
    ------
    ShapeError
        If the shapes do not fit.
    ValueRangeError
        If an entry is not finite.

    Notes
    -----
    The signs of a pair of directions are arbitrary, as in every SVD, and so is the basis of a repeated singular value:
    what is computed from several forms must not depend on them.

    Examples
    --------
    >>> found = canonical([[3.0], [0.0]], [[0.0, 0.0, 2.0]])
    >>> found.S, abs(found.right), abs(found.a)
    (array([6.]), array([[0., 0., 1.]]), array([[2.]]))
    """
    B, A = factors(B, A)
    left, right = product_frames(B, A)
    rows = _completed(right, A), _completed(left, B.T)
    return Canonical(rows[0], rows[1], right.S, A @ rows[0].T, B.T @ rows[1].T)


def _completed(frame: Frame, M: Floats) -> Floats:
    """The directions of a frame as rows, and those of the row space of `M` that it lacks."""
    found = frame.vectors().T
    if frame.k == len(M) or (whole := row_frame(M)).k <= frame.k:
        return found
    rest = whole.vectors().T
    for _ in range(2):  # what the first pass leaves of rounding, the second takes out
        rest = rest - (rest @ found.T) @ found
    missing = lapack.svd(rest)[2][: whole.k - frame.k]
    return np.vstack([found, missing])
