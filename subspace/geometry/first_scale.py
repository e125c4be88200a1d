"""The least scale at which something happens, by doubling and then halving the interval."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["first_scale"]

_FURTHER = 20  # halvings below `least`, where it happens even there


def first_scale(
    happens: Callable[[float], bool], *, least: float, most: float, tol: float = 0.01
) -> float | None:
    """The least scale from `least` to `most` at which it happens, within a share `tol`; None if it never does.

    Parameters
    ----------
    happens : function
        Asked at `most` halved again and again, from the smallest of these scales that is not below `least`; then
        between the first at which it happens and the one before.

    Notes
    -----
    What happens and ends again between two of the doubled scales is not seen.

    Examples
    --------
    >>> found = first_scale(lambda s: s > 3.0, least=0.1, most=64.0)
    >>> abs(found / 3 - 1) < 0.01, first_scale(lambda s: False, least=0.1, most=64.0)
    (True, None)
    """
    halvings = max(0, math.floor(math.log2(most / least))) if 0 < least < most else 0
    for n in range(halvings, -1, -1):
        high = math.ldexp(most, -n)
        if happens(high):
            break
    else:
        return None
    if n < halvings:
        return _between(happens, high / 2, high, tol)
    for _ in range(_FURTHER):  # it happens from the smallest on
        if not happens(high / 2):
            return _between(happens, high / 2, high, tol)
        high /= 2
    return high


def _between(happens: Callable[[float], bool], low: float, high: float, tol: float) -> float:
    """The scale where it begins, between one where it does not happen and one where it does."""
    while high / low - 1 > tol:
        middle = math.sqrt(low * high)
        low, high = (low, middle) if happens(middle) else (middle, high)
    return math.sqrt(low * high)
