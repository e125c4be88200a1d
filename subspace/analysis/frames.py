"""The four sides of an update as frames, with its start removed where that is known."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from subspace.adapters.update import LowRankUpdate, Update
from subspace.errors import ShapeError, shown
from subspace.geometry.dense import dense_frame
from subspace.geometry.frame import Frame, product_frames, row_frame

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["SIDES", "dimension", "frames", "is_untrained"]

SIDES = ("a", "b", "left", "right")
_INPUT = {"a": True, "right": True, "b": False, "left": False}


def dimension(update: Update, side: str) -> int:
    """Dimension of the space that a side of an update lives in: d_in for a and right, d_out for b and left."""
    return update.d_in if _INPUT[side] else update.d_out


def is_untrained(update: Update) -> bool:
    """Whether delta_W is exactly zero because a factor (or the dense delta) is; such an update has no subspace."""
    if isinstance(update, LowRankUpdate):
        return _is_zero(update.B) or _is_zero(update.A)
    return _is_zero(update.matrix.load())


def _is_zero(matrix: NDArray[Any]) -> bool:
    return not matrix[:16].any() and not matrix.any()


def frames(
    update: Update, sides: Sequence[str], *, start: Update | None = None, directions: int | None = None
) -> dict[str, Frame]:
    """Frames of an update, one per side asked for.

    Parameters
    ----------
    sides : of `SIDES`: "a" the right singular vectors of A, "b" the left ones of B, "left" and "right" those of
        delta_W. A dense update has no factors: its "a" is its "right", its "b" its "left".
    start : the same module before training; its factors are subtracted
    directions : for a dense update, how many at most

    References
    ----------
    Hu et al., arXiv 2106.09685v2, section 7.2 and footnote 7.
    """
    if isinstance(update, LowRankUpdate):
        made = _factor_sides(update, [s for s in sides if s in ("a", "b")], start)
        made |= _product_sides(update, [s for s in sides if s in ("left", "right")], start)
        return {side: made[side] for side in sides}
    M = update.matrix.load()
    words = {side: "right" if _INPUT[side] else "left" for side in sides}
    made = {
        word: dense_frame(M, side=word, k=directions, resolution=update.matrix.resolution)
        for word in dict.fromkeys(words.values())
    }
    return {side: made[word] for side, word in words.items()}


def _factor_sides(update: LowRankUpdate, sides: Sequence[str], start: Update | None) -> dict[str, Frame]:
    made = {}
    if "a" in sides:
        A = update.A if start is None else update.A - _checked(start, update).A.astype(np.float64)
        made["a"] = row_frame(A, resolution=update.A_factor.resolution)
    if "b" in sides:
        B = update.B if start is None else update.B - _checked(start, update).B.astype(np.float64)
        made["b"] = row_frame(B.T, resolution=update.B_factor.resolution)
    return made


def _product_sides(update: LowRankUpdate, sides: Sequence[str], start: Update | None) -> dict[str, Frame]:
    """Sides of delta_W; a start that is not zero joins as factors: ``[B, -B_0] @ [A; A_0]``."""
    if not sides:
        return {}
    A, B = update.A, update.B
    if start is not None:
        start = _checked(start, update)
        if start.B.any():
            A, B = np.vstack([A, start.A]), np.hstack([B, -start.B])
    resolution = max(update.A_factor.resolution, update.B_factor.resolution)
    left, right = product_frames(B, A, resolution=resolution)
    return {"left": left, "right": right}


def _checked(start: Update, update: LowRankUpdate) -> LowRankUpdate:
    if isinstance(start, LowRankUpdate) and (start.r, start.d_in, start.d_out) == (
        update.r,
        update.d_in,
        update.d_out,
    ):
        return start
    raise ShapeError(
        f"a start must have the shapes of the adapter: got r = {start.r} and {update.r}, "
        f"in module {shown(update.module)}; give the start of this adapter with --init"
    )
