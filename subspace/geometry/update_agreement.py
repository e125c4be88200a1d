"""How alike two low-rank updates are: signed cosine, and the energy of each inside both spans of the other.

``delta_W = B @ A`` is never formed: in the frames of its factors it is a small core, ``U_b.T @ delta_W @ U_a``.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from subspace.geometry.agreement import Agreement
    from subspace.geometry.frame import Frame
    from subspace.geometry.lapack import Floats

__all__ = ["UpdateAgreement", "isotropic_cosine_sd", "isotropic_energy", "update_agreement"]


class UpdateAgreement(NamedTuple):
    """How alike two updates are.

    Attributes
    ----------
    cosine : ``<delta_W, delta_W'> / (||delta_W|| ||delta_W'||)`` in the Frobenius inner product, in [-1, 1]
    first_in_second : share of ``||delta_W||_F^2`` inside both spans of delta_W', in [0, 1]
    second_in_first : the same of delta_W' inside both spans of delta_W
    norm_first, norm_second : ``||B @ A||_F`` of both, without their scales
    """

    cosine: float
    first_in_second: float
    second_in_first: float
    norm_first: float
    norm_second: float


def update_agreement(a: Agreement, b: Agreement) -> UpdateAgreement:
    """How alike ``B @ A`` and ``B' @ A'`` are, from the frames of their factors; NaN where one of them is zero.

    Parameters
    ----------
    a : of the rows of A (r, d_in) and of A' (r', d_in)
    b : of the rows of B.T (r, d_out) and of B'.T (r', d_out)

    Notes
    -----
    With ``A = P_a S_a U_a.T`` and ``B.T = P_b S_b U_b.T`` the update is ``U_b N U_a.T``, ``N = S_b P_b.T P_a S_a``, so
    that every number is of products of at most r x r' cores.

    References
    ----------
    The spans are those of footnote 7 and section 7.2 of Hu et al., arXiv 2106.09685v2.

    Examples
    --------
    >>> from subspace.geometry.agreement import Rows, agreements
    >>> pair = [{"a": Rows(A), "b": Rows(B)} for A, B in (([[1.0, 0.0]], [[1.0, 0.0]]), ([[-1.0, 0.0]], [[1.0, 1.0]]))]
    >>> found = update_agreement(*agreements(*pair).values())
    >>> [round(float(each), 12) for each in found[:3]]
    [-0.707106781187, 0.5, 0.5]
    """
    (N, norm), (N_, norm_) = _core(a.first, b.first), _core(a.second, b.second)
    if not norm or not norm_:
        return UpdateAgreement(math.nan, math.nan, math.nan, norm, norm_)
    cross = b.G @ N_ @ a.G.T  # delta_W' in the frames of delta_W
    return UpdateAgreement(
        cosine=float(np.clip(np.vdot(N, cross), -1, 1)),
        first_in_second=min(1.0, float(np.linalg.norm(b.G.T @ N @ a.G)) ** 2),
        second_in_first=min(1.0, float(np.linalg.norm(cross)) ** 2),
        norm_first=norm,
        norm_second=norm_,
    )


def _core(a: Frame, b: Frame) -> tuple[Floats, float]:
    """The core of an update divided by its norm, and that norm."""
    assert a.P is not None and b.P is not None
    if not a.k or not b.k:
        return np.zeros((b.k, a.k)), 0.0
    # divided by the largest singular values, so that no square leaves the range of float64
    N = (b.S[:, None] / b.S[0] * b.P.T) @ (a.P * (a.S / a.S[0]))
    norm = float(np.linalg.norm(N))
    if not norm:
        return N, 0.0
    with np.errstate(over="ignore", under="ignore"):
        return N / norm, norm * float(b.S[0] * a.S[0])


def isotropic_cosine_sd(d_out: int, d_in: int) -> float:
    """Standard deviation of the cosine of two matrices of which one is isotropic, ``1 / sqrt(d_out d_in)``, exact.

    Notes
    -----
    ``E[<M, U X V.T>^2] = ||M||^2 ||X||^2 / (d_out d_in)`` for independent Haar-random U and V; the mean is 0.

    Examples
    --------
    >>> isotropic_cosine_sd(4, 4)
    0.25
    """
    return 1 / math.sqrt(d_out * d_in)


def isotropic_energy(k_out: int, k_in: int, d_out: int, d_in: int) -> float:
    """Mean share of a matrix inside isotropic spans of k_out and k_in dimensions, exact.

    Examples
    --------
    >>> isotropic_energy(64, 64, 256, 256)
    0.0625
    """
    return k_out * k_in / (d_out * d_in)
