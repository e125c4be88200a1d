"""Shared dimensions of many pairs of spans at one level, each p-value only as far as it decides."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeAlias

from subspace.geometry.chance import largest_root_p
from subspace.geometry.span_dimensions import free_dimensions

if TYPE_CHECKING:
    from subspace.geometry.lapack import Floats

__all__ = ["shared_dimensions"]

Spans: TypeAlias = "tuple[Floats, int, int, int]"


def shared_dimensions(pairs: Sequence[Spans], level: float) -> list[int | None]:
    """The shared dimension of every pair of spans; None where one of them is the whole space.

    Parameters
    ----------
    pairs : (cos2, i, j, d), all squared principal cosines, descending, and the dimensions of spans and space
    level : of the test of one pair

    Examples
    --------
    >>> import numpy as np
    >>> shared_dimensions([(np.array([0.99, 0.1]), 2, 2, 64), (np.array([1.0]), 1, 8, 8)], 0.01)
    [1, None]
    """
    return [_count(*pair, level) for pair in pairs]


def _count(cos2: Floats, i: int, j: int, d: int, level: float) -> int | None:
    if max(i, j) == d:
        return None
    forced, i, j = free_dimensions(i, j, d)
    for k, value in enumerate(cos2[forced:]):
        if largest_root_p(float(value), i - k, j - k, d - forced - k if k else d) > level:
            return k
    return len(cos2) - forced
