"""Dimensions of two spans in R^d: their range, and the directions that any two such spans share."""

from __future__ import annotations

from subspace.errors import ValueRangeError

__all__ = ["free_dimensions", "require_dimensions"]


def free_dimensions(i: int, j: int, d: int) -> tuple[int, int, int]:
    """Number of directions that any two such spans share, and the dimensions of the two spans without them."""
    forced = max(0, i + j - d)
    return (forced, d - j, d - i) if forced else (0, i, j)


def require_dimensions(i: int, j: int, d: int) -> None:
    """Raise ValueRangeError unless `i` and `j` are in 1..d."""
    if not (1 <= i <= d and 1 <= j <= d):
        raise ValueRangeError(
            f"Dimension of a span outside 1..d: i={i}, j={j}, d={d}; cut i and j to the rank"
        )
