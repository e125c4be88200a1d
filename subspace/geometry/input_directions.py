"""Where the directions that an update reads lie among the inputs: along their mean, and their leading directions."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from subspace.geometry.lapack import Floats
    from subspace.geometry.second_moment import SecondMoment

__all__ = ["DirectionInputs", "direction_inputs"]


class DirectionInputs(NamedTuple):
    """Directions v_1, ..., v_n of the inputs of a module, such as the right singular vectors of its delta_W.

    Attributes
    ----------
    along_mean : (n,) squared cosine of v_k with the mean input; NaN where that is zero
    along_top : (n, t) squared cosine of v_k with each of the t leading eigenvectors of C
    gain : (n,) ``v_k.T C v_k`` over the mean of that over all directions, ``tr(C) / d``: how many times as much as an
        isotropic direction it is given; NaN without inputs
    carried : (n,) share of the mean square of the update's output that passes through v_k; NaN where there is none
    """

    along_mean: Floats
    along_top: Floats
    gain: Floats
    carried: Floats


def direction_inputs(V: Any, S: Any, moment: SecondMoment, *, top: int = 8) -> DirectionInputs:
    """How much of each direction lies along the mean input and the leading input directions, and what it carries.

    Parameters
    ----------
    V : (d, n) orthonormal directions in the space of the inputs
    S : (n,) singular values of the update, by which outputs are weighted
    moment : of the inputs
    top : how many eigenvectors

    Notes
    -----
    An isotropic direction has a squared cosine of 1 / d with any one, and a gain of 1 in the mean. With the left
    singular vectors orthonormal, ``E||delta_W x||^2 = sum_k S_k^2 v_k.T C v_k``, so that the shares carried add to 1.

    Examples
    --------
    >>> from subspace.geometry.second_moment import SecondMoment
    >>> moment = SecondMoment(9, np.array([1.0, 0.0]), np.array([3.0, 1.0]), np.eye(2), 4.0)
    >>> direction_inputs(np.eye(2), np.array([1.0, 1.0]), moment, top=1)
    DirectionInputs(along_mean=array([1., 0.]), along_top=array([[1.],
           [0.]]), gain=array([1.5, 0.5]), carried=array([0.75, 0.25]))
    """
    V, S = np.asarray(V, dtype=np.float64), np.asarray(S, dtype=np.float64)
    length = float(np.linalg.norm(moment.mean))
    n = V.shape[1]
    along_mean = (moment.mean @ V / length) ** 2 if length > 0 else np.full(n, math.nan)
    given = moment.through(V)
    weighted = (S / S[:1].sum()) ** 2 * given if S.any() else np.zeros(n)
    total = float(weighted.sum())
    return DirectionInputs(
        along_mean=along_mean,
        along_top=(V.T @ moment.vectors[:, :top]) ** 2,
        gain=given * moment.d / moment.trace if moment.trace > 0 else np.full(n, math.nan),
        carried=weighted / total if total > 0 else np.full(n, math.nan),
    )
