"""Bootstrap: how far a measure of some examples is known, from the same examples drawn again with replacement.

A measure is a function of sums over examples, such as a loss (the sum of the losses over the number of tokens). Several
measures, or several models, of one draw are paired: what the draw does to all of them alike cancels in a difference.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from subspace.errors import ValueRangeError

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

__all__ = ["interval", "resampled_sums"]

_CELLS = 4_000_000  # of one block of draws


def resampled_sums(
    columns: Any,
    *,
    value: Callable[[NDArray[np.float64]], NDArray[np.float64]] = lambda sums: sums,
    resamples: int = 10_000,
    seed: int = 0,
) -> NDArray[np.float64]:
    """Return the sums of the columns over n examples drawn with replacement, once for each resample.

    Parameters
    ----------
    columns : array_like, shape (n, k)
        What each example adds to each sum.
    value : callable, keyword-only
        What is returned in place of the sums: (draws, k) sums -> (draws, m) values, for some draws at a time.
    resamples : int, keyword-only
        How many draws, at least 1.
    seed : int, keyword-only
        Draws of equal `n`, `resamples` and `seed` are the same.

    Returns
    -------
    (resamples, k) array, or (resamples, m)

    Raises
    ------
    ValueRangeError
        If there are no examples, or no resamples.

    Notes
    -----
    O(resamples * n * k) in blocks: a draw is how often each example occurs, and its sums are a product of matrices.

    Examples
    --------
    >>> resampled_sums([[2.0], [2.0], [2.0]], resamples=2).tolist()
    [[6.0], [6.0]]
    """
    values = np.asarray(columns, dtype=np.float64)
    n = len(values)
    if n < 1 or resamples < 1:
        raise ValueRangeError(
            f"Nothing to resample: {n} examples and {resamples} resamples; both must be at least 1"
        )
    rng = np.random.default_rng(seed)
    block = max(1, _CELLS // max(n, values.shape[1]))
    sizes = [min(block, resamples - begin) for begin in range(0, resamples, block)]
    return np.concatenate([value(_counts(rng, size, n) @ values) for size in sizes])


def _counts(rng: np.random.Generator, draws: int, n: int) -> NDArray[np.float64]:
    """(draws, n): how often each example occurs in each draw."""
    drawn = rng.integers(0, n, size=(draws, n)) + n * np.arange(draws)[:, None]
    return np.bincount(drawn.ravel(), minlength=draws * n).reshape(draws, n).astype(np.float64)


def interval(samples: Any, n: int, *, level: float = 0.95) -> tuple[float, float]:
    """Return the lower and upper end of the expanded percentile interval of a measure.

    Parameters
    ----------
    samples : array_like, shape (resamples,)
        The measure in each resample; those that are not finite are left out.
    n : int
        Number of examples; below 2, and where no sample is finite, both ends are NaN.
    level : float, keyword-only
        Share of data sets in whose interval the true value lies, in (0, 1).

    Notes
    -----
    The plain percentile interval of a mean is too short by ``sqrt((n - 1) / n)``, and takes the normal distribution
    where Student's is right; the percentiles are moved outwards by both.

    References
    ----------
    Hesterberg 2015, The American Statistician 69:371, section 5.3 (expanded percentile interval).

    Examples
    --------
    >>> low, high = interval(np.linspace(0, 1, 1001), 10**6)
    >>> round(low, 3), round(high, 3)
    (0.025, 0.975)
    """
    values = np.asarray(samples, dtype=np.float64)
    values = values[np.isfinite(values)]
    if n < 2 or not len(values):
        return math.nan, math.nan
    from scipy.special import ndtr, stdtrit

    tail = float(ndtr(math.sqrt(n / (n - 1)) * stdtrit(n - 1, (1 - level) / 2)))
    low, high = np.quantile(values, [tail, 1 - tail])
    return float(low), float(high)
