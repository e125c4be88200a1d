"""How large a rank-one update has to be before it is among the leading directions of a matrix.

For W + theta u v^T with u, v independent of W, a singular value leaves the bulk of W's, and takes u and v along, once
theta is above ``theta_bar = D(b)^(-1/2)``, b being the upper edge of the bulk and D the D-transform of its values.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from subspace.errors import ValueRangeError

if TYPE_CHECKING:
    from subspace.geometry.lapack import Floats

__all__ = ["d_transform", "threshold"]


def d_transform(b: float, values: Floats, weights: Floats, *, n: int, m: int) -> float:
    """``D(b) = [n^-1 sum b/(b^2 - s_i^2)] [m^-1 (sum b/(b^2 - s_i^2) + (m - n)/b)]``.

    Parameters
    ----------
    b : float
        Above every value.
    values, weights : ndarray, shape (p,)
        Singular values of the bulk, and how many of them each stands for: ones, or the weights of a quadrature.
    n, m : int
        The smaller and the larger side of the matrix.

    References
    ----------
    Benaych-Georges & Nadakuditi 2012, J. Multivariate Anal. 111:120, equation 4.

    Examples
    --------
    No bulk at all: D = 1 / b^2, since what is added is all there is.

    >>> d_transform(2.0, np.zeros(3), np.ones(3), n=3, m=5)
    0.25
    """
    if not values.max(initial=0.0) < b:
        raise ValueRangeError(
            f"The D-transform exists above all values only: {values.max()} is not below {b}"
        )
    total = float(np.sum(weights * b / (b * b - values * values)))
    return (total / n) * ((total + (m - n) / b) / m)


def threshold(b: float, values: Floats, weights: Floats, *, n: int, m: int) -> float:
    """``theta_bar = D(b)^(-1/2)``, the least size of an update that stands out; parameters as `d_transform`.

    Examples
    --------
    >>> threshold(2.0, np.zeros(3), np.ones(3), n=3, m=5)
    2.0
    """
    return 1 / math.sqrt(d_transform(b, values, weights, n=n, m=m))
