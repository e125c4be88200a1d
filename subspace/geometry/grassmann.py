"""Similarity, principal angles and distances of two spans.

Conventions: `G` is the overlap ``U_first.T @ U_second`` of two orthonormal frames ordered by descending
singular value; `theta` are principal angles in radians, ascending.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from subspace.errors import ShapeError, ValueRangeError
from subspace.geometry import lapack
from subspace.geometry.frame import overlap
from subspace.text import shown

if TYPE_CHECKING:
    from subspace.geometry.frame import Frame
    from subspace.geometry.lapack import Floats

__all__ = ["distances", "phi_grid", "principal_angles"]

_SMALL = 1e-2  # radians; below, arccos of a cosine near 1 has lost too many digits
_ROUNDING = 1e-6  # above 1 + this phi is not rounding: the frames were not orthonormal


def phi_grid(G: Any) -> Floats:
    """Subspace similarity phi(i, j) for every i, j, shape (k1, k2), in [0, 1].

    ``phi[i - 1, j - 1]`` compares the span of the first `i` directions with that of the first `j`: 1 if
    one contains the other, 0 if they are orthogonal, ``max(i, j) / d`` on average for random spans.

    Parameters
    ----------
    G : array_like, shape (k1, k2)
        Overlap of two orthonormal frames.

    Raises
    ------
    ValueRangeError
        If `G` is not finite or cannot be the overlap of orthonormal frames.

    References
    ----------
    Hu et al., LoRA, arXiv 2106.09685v2, section 7.2, equation 4.

    Examples
    --------
    >>> phi_grid(np.eye(2))
    array([[1., 1.],
           [1., 1.]])
    >>> phi_grid([[0.0, 1.0], [0.0, 0.0]])
    array([[0. , 1. ],
           [0. , 0.5]])
    """
    G = lapack.as_float64(G, name="G")
    k1, k2 = G.shape
    energy = np.cumsum(np.cumsum(G * G, axis=0), axis=1)
    phi = energy / np.minimum.outer(np.arange(1, k1 + 1), np.arange(1, k2 + 1))
    largest = phi.max(initial=0.0)
    if not largest <= 1 + _ROUNDING:
        raise ValueRangeError(
            f"Not the overlap of orthonormal frames: phi would be {largest}, not in [0, 1]; check G"
        )
    return np.minimum(phi, 1.0, out=phi)


def principal_angles(first: Frame, second: Frame, *, G: Any = None) -> Floats:
    """Principal angles between two spans, radians in [0, pi/2], ascending, shape (min(k1, k2),).

    Parameters
    ----------
    first, second : Frame
    G : array_like, shape (k1, k2), optional
        Their overlap, if already known.

    Raises
    ------
    ShapeError
        If the frames belong to spaces of different dimensions.

    Notes
    -----
    From the cosines where every angle is above 1e-2; otherwise angles below 45 degrees come from their
    sines, at the cost of forming both frames (d x k). An angle carries an absolute error of about
    1e-15 times the condition number of what was factored.

    References
    ----------
    Bjorck & Golub 1973; Knyazev & Argentati 2002, SIAM J. Sci. Comput. 23:2008, algorithm 3.1.

    Examples
    --------
    >>> from subspace.geometry.frame import row_frame
    >>> principal_angles(row_frame([[1.0, 0.0]]), row_frame([[1.0, 1e-9]]))
    array([1.e-09])
    """
    cosines = lapack.singular_values(overlap(first, second) if G is None else G)
    theta = np.arccos(np.minimum(cosines, 1.0))
    if theta.size and theta[0] < _SMALL:
        return _from_sines(first.vectors(), second.vectors())
    return theta


def _from_sines(first: Floats, second: Floats) -> Floats:
    # 1. orthonormal bases of both spans, the larger one first
    Q_F, Q_G = sorted((lapack.qr(first)[0], lapack.qr(second)[0]), key=lambda Q: -Q.shape[1])
    # 2. cosines, descending
    cosines = np.minimum(lapack.singular_values(Q_F.T @ Q_G), 1.0)
    # 3. sines: the part of the smaller span outside the larger, projected out twice for the last digits
    outside = Q_G - Q_F @ (Q_F.T @ Q_G)
    outside -= Q_F @ (Q_F.T @ outside)
    sines = np.minimum(lapack.singular_values(outside)[::-1], 1.0)
    # 4. each angle from the function that is steep there
    return np.where(cosines**2 < 0.5, np.arccos(cosines), np.arcsin(sines))


def distances(
    theta: Any, i: int | None = None, j: int | None = None, *, containing: bool = True
) -> dict[str, float]:
    """Distances between two spans from their principal angles.

    Parameters
    ----------
    theta : array_like, shape (p,)
        Principal angles in [0, pi/2], radians.
    i, j : int, optional
        Dimensions of the two spans, ``min(i, j) = p``; needed where they differ and `containing` is False.
    containing : bool
        True: distance from one span to the nearest one that contains it, or is contained in it, among
        the spans of the other's dimension (a span inside another is at 0). False: a metric between spans
        of any dimensions, by ``|i - j|`` more angles of pi/2.

    Returns
    -------
    dict
        ``geodesic`` |theta|, ``chordal`` |sin theta|, ``projection`` sin theta_p, ``asimov`` theta_p,
        ``binet_cauchy`` sqrt(1 - prod cos^2), ``fubini_study`` arccos prod cos, ``martin``
        sqrt(-log prod cos^2) (infinite where an angle is pi/2), ``procrustes`` 2 |sin(theta/2)|,
        ``spectral`` 2 sin(theta_p / 2). NaN if there is no angle at all.

    Raises
    ------
    ShapeError
        If ``min(i, j)`` is not the number of angles.
    ValueRangeError
        If an angle lies outside [0, pi/2].

    References
    ----------
    Ye & Lim 2016, SIAM J. Matrix Anal. Appl. 37:1176, table 2 and theorems 7 and 12.

    Examples
    --------
    >>> round(distances([0.0, np.pi / 6])["projection"], 12)
    0.5
    >>> distances([0.0], 1, 2)["geodesic"], distances([0.0], 1, 2, containing=False)["asimov"]
    (0.0, 1.5707963267948966)
    """
    theta = np.sort(np.atleast_1d(np.asarray(theta, dtype=np.float64)))
    if not ((theta >= 0) & (theta <= np.pi / 2)).all():
        raise ValueRangeError(f"Principal angles outside [0, pi/2]: {shown(theta)}; give them in radians")
    if i is not None and j is not None:
        theta = _padded(theta, i, j, containing)
    if theta.size == 0:
        return dict.fromkeys(_NAMES, float("nan"))
    return dict(zip(_NAMES, _values(theta), strict=True))


_NAMES = (
    "geodesic", "chordal", "projection", "asimov", "binet_cauchy", "fubini_study", "martin", "procrustes",
    "spectral",
)  # fmt: skip


def _padded(theta: Floats, i: int, j: int, containing: bool) -> Floats:
    if min(i, j) != theta.size:
        raise ShapeError(
            f"Wrong number of principal angles: {theta.size} for i={i}, j={j}; there are min(i, j) of them"
        )
    return theta if containing else np.append(theta, np.full(abs(i - j), np.pi / 2))


def _values(theta: Floats) -> tuple[float, ...]:
    sines, cosines, halves = np.sin(theta), np.sin(np.pi / 2 - theta), np.sin(theta / 2)
    with np.errstate(divide="ignore"):  # log 0 = -inf: a right angle is infinitely far in Martin's metric
        # log of cos^2, from whichever of cosine and sine is the smaller
        logs = np.where(theta < np.pi / 4, np.log1p(-(np.minimum(sines, 0.9) ** 2)), 2 * np.log(cosines))
    binet_cauchy = np.sqrt(-np.expm1(logs.sum()))
    return (
        float(np.linalg.norm(theta)),
        float(np.linalg.norm(sines)),
        float(sines[-1]),
        float(theta[-1]),
        float(binet_cauchy),
        float(np.arctan2(binet_cauchy, cosines.prod())),
        float(np.sqrt(-logs.sum())),
        float(2 * np.linalg.norm(halves)),
        float(2 * halves[-1]),
    )
