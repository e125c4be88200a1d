"""Frobenius norm whose squares never leave the range of the type."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

__all__ = ["frobenius"]


def frobenius(M: ArrayLike) -> float:
    """Return the root of the sum of the squares of all entries; infinite or NaN where that is not a number.

    Parameters
    ----------
    M : of any shape; empty has the norm 0

    Examples
    --------
    >>> frobenius([3e300, 4e300])
    5e+300
    >>> frobenius([[3e-200, 4e-200]])
    5e-200
    """
    values: Any = np.asarray(M)
    largest = float(np.abs(values).max(initial=0.0))
    if largest == 0.0 or not np.isfinite(largest):
        return largest
    # Python's product is infinite where it is too large, without a warning
    return largest * float(np.linalg.norm(values / largest))
