"""The least scale at which something happens, by steps and then bisection."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["first_scale"]

_STEP = math.sqrt(2)
_FURTHER = 40  # steps below `least`, where it happens even there


def first_scale(
    happens: Callable[[float], bool], *, least: float, most: float, tol: float = 0.01
) -> float | None:
    """The least scale from `least` to `most` at which it happens, within a share `tol`; None if it never does.

    Parameters
    ----------
    happens : function
        Asked at `least`, at scales sqrt(2) apart from there, and at `most`; then between the first of them at which it
        happens and the one before.

    Notes
    -----
    What happens and ends again between two of these scales is not seen.

    Examples
    --------
    >>> found = first_scale(lambda s: s > 3.0, least=0.1, most=64.0)
    >>> abs(found / 3 - 1) < 0.01, first_scale(lambda s: False, least=0.1, most=64.0)
    (True, None)
    """
    tried = [most]
    if 0 < least < most:
        steps = math.ceil(math.log(most / least, _STEP) - 1e-9)
        tried = [*(least * _STEP**n for n in range(steps)), most]
    n = next((n for n, s in enumerate(tried) if happens(s)), None)
    if n is None:
        return None
    high = tried[n]
    if n:
        return _between(happens, tried[n - 1], high, tol)
    for _ in range(_FURTHER):  # it happens from the smallest on
        if not happens(high / _STEP):
            return _between(happens, high / _STEP, high, tol)
        high /= _STEP
    return high


def _between(happens: Callable[[float], bool], low: float, high: float, tol: float) -> float:
    """The scale where it begins, between one where it does not happen and one where it does."""
    while high / low - 1 > tol:
        middle = math.sqrt(low * high)
        low, high = (low, middle) if happens(middle) else (middle, high)
    return math.sqrt(low * high)
