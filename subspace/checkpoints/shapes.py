"""Shapes that a file may declare and an array can have."""

from __future__ import annotations

import math
from collections.abc import Sequence

__all__ = ["LARGEST", "MOST_DIMENSIONS", "is_possible"]

LARGEST = 2**63  # a dimension is below it
MOST_DIMENSIONS = 32  # what every NumPy can hold


def is_possible(shape: Sequence[int]) -> bool:
    """Whether an array can have a shape: an empty one too only if its other sizes have a product that fits.

    Examples
    --------
    >>> is_possible((0, 2**40)), is_possible((0, 2**40, 2**40))
    (True, False)
    """
    return len(shape) <= MOST_DIMENSIONS and math.prod(n for n in shape if n) < LARGEST // 16
