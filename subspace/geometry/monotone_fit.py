"""The best monotone function of one variable: least squares by pooling adjacent violators.

References
----------
Ayer et al. 1955, Ann. Math. Stat. 26:641; Barlow et al. 1972, Statistical Inference under Order Restrictions, 1.2.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from subspace.errors import ShapeError

if TYPE_CHECKING:
    from subspace.geometry.lapack import Floats

__all__ = ["monotone_fit"]


def monotone_fit(x: Any, y: Any, *, falling: bool = False) -> Callable[[Any], Floats]:
    """The function that no other monotone one beats in squared error, between values of x linear, beyond them flat.

    Parameters
    ----------
    x, y : array_like, shape (n,)
        Finite, n at least 1; equal values of x get one value.
    falling : bool
        Whether it falls with x in place of rising.

    Raises
    ------
    ShapeError
        If the shapes differ or are not (n,).

    Examples
    --------
    >>> fit = monotone_fit([1, 2, 3], [0.0, 4.0, 2.0])
    >>> fit([0, 1, 2, 3, 9])
    array([0., 0., 3., 3., 3.])
    """
    x, y = (np.asarray(each, dtype=np.float64) for each in (x, y))
    if x.ndim != 1 or x.shape != y.shape or not len(x):
        raise ShapeError(
            f"Not two rows of as many numbers: shapes {x.shape} and {y.shape}; give one y for each x"
        )
    places, group, counts = np.unique(x, return_inverse=True, return_counts=True)
    sign = -1.0 if falling else 1.0
    values = sign * np.bincount(group, weights=y) / counts
    fitted = sign * _pooled(values.tolist(), counts.tolist())
    return lambda at: np.asarray(np.interp(at, places, fitted), dtype=np.float64)


def _pooled(values: list[float], weights: list[float]) -> Floats:
    """Rising block means, each as often as its block has values."""
    means: list[float] = []
    sizes: list[float] = []
    lengths: list[int] = []
    for value, weight in zip(values, weights, strict=True):
        means.append(value)
        sizes.append(weight)
        lengths.append(1)
        while len(means) > 1 and means[-2] >= means[-1]:
            last, size, length = means.pop(), sizes.pop(), lengths.pop()
            means[-1] = (means[-1] * sizes[-1] + last * size) / (sizes[-1] + size)
            sizes[-1] += size
            lengths[-1] += length
    return np.repeat(means, lengths)
