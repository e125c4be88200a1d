"""Dimensions of two spans in R^d: what may be asked, and what they share by force."""

from __future__ import annotations

from subspace.errors import ValueRangeError

__all__ = ["free_dimensions", "require_dimensions"]


def free_dimensions(i: int, j: int, d: int) -> tuple[int, int, int]:
    """Return how many directions are shared by force, and the dimensions of the spans that are not."""
    forced = max(0, i + j - d)
    return (forced, d - j, d - i) if forced else (0, i, j)


def require_dimensions(i: int, j: int, d: int) -> None:
    """Raise ValueRangeError unless `i` and `j` are in 1..d."""
    if not (1 <= i <= d and 1 <= j <= d):
        raise ValueRangeError(f"i and j must lie in 1..d: got i={i}, j={j}, d={d}; cut them to the rank")
