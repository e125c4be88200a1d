"""How far a change turns the leading singular vectors of a matrix, and how far it could, and a random one would.

Conventions: spans of k leading left or right singular vectors; angles in degrees. An average over principal angles is
of their squared sines.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from subspace.geometry import lapack

if TYPE_CHECKING:
    from subspace.geometry.lapack import Floats
    from subspace.geometry.singular_basis import Basis

__all__ = ["angles", "average", "random_rotation", "wedin_bound"]

_RIGHT_ANGLE = 90.0


def angles(U: Floats, U_changed: Floats) -> Floats:
    """Principal angles of two spans of k dimensions, degrees in [0, 90], ascending, shape (k,).

    Parameters
    ----------
    U, U_changed : ndarray, shape (d, k), with orthonormal columns

    Notes
    -----
    Small angles come from sines, large ones from cosines.

    References
    ----------
    Björck & Golub 1973, Math. Comp. 27:579.

    Examples
    --------
    >>> angles(np.eye(3)[:, :1], np.array([[1.0], [1.0], [0.0]]) / np.sqrt(2)).round(12)
    array([45.])
    """
    C = U.T @ U_changed
    cosines = np.minimum(lapack.singular_values(C), 1.0)
    sines = np.minimum(lapack.singular_values(U_changed - U @ C)[: len(cosines)][::-1], 1.0)
    return np.degrees(np.where(sines < cosines, np.arcsin(sines), np.arccos(cosines)))


def average(theta: Floats) -> float:
    """The angle whose squared sine is the mean of theirs, in degrees.

    Examples
    --------
    >>> round(average(np.array([0.0, 90.0])), 12)
    45.0
    """
    return _degrees(float(np.sqrt(np.mean(np.sin(np.radians(theta)) ** 2))))


def wedin_bound(largest: float, gap: float) -> float:
    """Bound of the largest angle, degrees; 90, which says nothing, where the change is as large as the gap.

    Parameters
    ----------
    largest : float
        Spectral norm of the change; on the k leading vectors of the changed matrix suffices, the larger of both sides.
    gap : float
        The k-th singular value of the changed matrix less the value after the k-th of the other.

    References
    ----------
    Wedin 1972, BIT 12:99; Stewart & Sun 1990, Matrix Perturbation Theory, theorem V.4.4.

    Examples
    --------
    >>> round(wedin_bound(1.0, 2.0), 9), wedin_bound(1.0, 0.5)
    (30.0, 90.0)
    """
    return _degrees(largest / gap) if 0 <= largest < gap else _RIGHT_ANGLE


def random_rotation(base: Basis, k: int, norm: float) -> tuple[float, float]:
    """`average` of the angles by which a random change of a given norm turns the k leading left and right vectors.

    Parameters
    ----------
    base : Basis
        Of the matrix that is changed.
    k : int
        In 1..rank.
    norm : float
        Frobenius norm of the change, whose two frames of singular vectors are Haar-random; to first order its rank does
        not matter.

    Returns
    -------
    left, right : float
        Degrees; at most those of two random spans.

    Notes
    -----
    To first order a change E turns u_i towards u_j by ``(s_i u_j.T E v_i + s_j u_i.T E v_j) / (s_i^2 - s_j^2)``, and
    each entry of a random E in fixed frames has the mean square ``norm^2 / (d_out d_in)``; the entries do not
    correlate. So the sum over i <= k < j of ``(s_i^2 + s_j^2) / (s_i^2 - s_j^2)^2`` is all that is needed. Within a
    tenth where the change's largest singular value is at most a quarter of the k-th of the matrix and the angle is
    below 10 degrees; a larger change turns further than this, up to three times. Singular values that were not computed
    are taken for equal ones of the same energy and fourth moment.

    Examples
    --------
    >>> from subspace.geometry.singular_basis import exact_basis
    >>> left, right = random_rotation(exact_basis(np.diag([1.0, 0.0])), 1, 0.02)
    >>> float(np.sin(np.radians(left)).round(9))
    0.01
    """
    squares, times = base.squares_after(k)
    leading = (base.S[:k] / base.S[0]) ** 2
    m, n = len(base.U), len(base.V)
    with np.errstate(divide="ignore", over="ignore"):
        gaps = np.maximum(np.subtract.outer(leading, squares), 0.0)
        within = float(np.sum((np.add.outer(leading, squares) / gaps**2) @ times))
        outside = float(np.sum(1 / leading))
    unit = (norm / base.S[0]) ** 2 / (m * n) / k
    sines = [unit * (within + (d - min(m, n)) * outside) for d in (m, n)]
    left, right = (
        _degrees(math.sqrt(min(sine, 1 - k / d))) if k < d else 0.0
        for sine, d in zip(sines, (m, n), strict=True)
    )
    return left, right


def _degrees(sine: float) -> float:
    return math.degrees(math.asin(min(1.0, sine)))
