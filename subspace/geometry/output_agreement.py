"""How alike the outputs of two updates are on the inputs of their module, from the second moment of those.

``E[<delta_W x, delta_W' x>] = tr(delta_W C delta_W'.T)``: of factors only ``A C A'.T`` and r x r' matrices are needed.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from subspace.geometry.frobenius import frobenius

if TYPE_CHECKING:
    from subspace.geometry.lapack import Floats
    from subspace.geometry.second_moment import SecondMoment

__all__ = ["OutputAgreement", "dense_output_agreement", "output_agreement", "output_size"]


class OutputAgreement(NamedTuple):
    """Two updates on the inputs of their module.

    Attributes
    ----------
    cosine : of their outputs, in [-1, 1]; NaN where one has none
    first, second : root mean square of the norm of their outputs
    """

    cosine: float
    first: float
    second: float


def output_agreement(first: Any, second: Any, moment: SecondMoment) -> OutputAgreement:
    """How alike the outputs of ``B @ A`` and ``B' @ A'`` are.

    Parameters
    ----------
    first, second : pairs B (d_out, r), A (r, d_in), of finite numbers
    moment : of the inputs

    Examples
    --------
    >>> from subspace.geometry.second_moment import SecondMoment
    >>> moment = SecondMoment(9, np.zeros(2), np.array([4.0, 1.0]), np.eye(2), 5.0)
    >>> B = np.ones((1, 1))
    >>> output_agreement((B, np.array([[1.0, 0.0]])), (B, np.array([[-1.0, 0.0]])), moment)
    OutputAgreement(cosine=-1.0, first=2.0, second=2.0)
    """
    (B, A, size), (B_, A_, size_) = _unit(*first), _unit(*second)

    def inner(left: tuple[Floats, Floats], right: tuple[Floats, Floats]) -> float:
        return float(np.vdot(left[0].T @ right[0], moment.inner(left[1], right[1])))

    one, other = (B, A), (B_, A_)
    return _agreement(inner(one, other), inner(one, one), inner(other, other), (size, size_))


def _unit(B: Any, A: Any) -> tuple[Floats, Floats, float]:
    """Factors of norm 1, or zero, and the product of their norms."""
    wide = [np.asarray(each, dtype=np.float64) for each in (B, A)]
    norms = [frobenius(each) for each in wide]
    B, A = (each / norm if norm else each for each, norm in zip(wide, norms, strict=True))
    return B, A, math.prod(norms)


def _agreement(inner: float, first: float, second: float, sizes: tuple[float, float]) -> OutputAgreement:
    one, other = math.sqrt(max(first, 0.0)), math.sqrt(max(second, 0.0))
    cosine = float(np.clip(inner / one / other, -1, 1)) if one and other else math.nan
    return OutputAgreement(cosine, one * sizes[0], other * sizes[1])


def dense_output_agreement(first: Floats, second: Floats, moment: SecondMoment) -> OutputAgreement:
    """The same of two matrices (d_out, d_in)."""
    sizes = frobenius(first), frobenius(second)
    one, other = (M / size if size else M for M, size in zip((first, second), sizes, strict=True))

    def inner(left: Floats, right: Floats) -> float:
        inside = np.einsum(
            "ik,ik,k->", left @ moment.vectors, right @ moment.vectors, moment.values - moment.floor
        )
        return float(inside) + moment.floor * float(np.vdot(left, right))

    return _agreement(inner(one, other), inner(one, one), inner(other, other), sizes)


def output_size(rows: Any, moment: SecondMoment) -> float:
    """Root mean square of ``||W x||``, W read in pieces of rows: an iterable of (rows, d_in)."""
    total = 0.0
    for part in rows:
        wide = np.asarray(part, dtype=np.float64)
        inside = np.sum((wide @ moment.vectors) ** 2, axis=0)
        total += float(inside @ (moment.values - moment.floor)) + moment.floor * float(np.vdot(wide, wide))
    return math.sqrt(max(total, 0.0))
