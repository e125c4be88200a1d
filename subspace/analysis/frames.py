"""The four sides of an update as frames, with its start removed where that is known."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from subspace.adapters.update import DenseUpdate, LowRankUpdate, Update
from subspace.errors import InconclusiveError, ShapeError
from subspace.flags import Flag
from subspace.geometry.frame import Frame, overlap, product_frames, row_frame
from subspace.geometry.frame_pairs import row_frames
from subspace.text import shown

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["SIDES", "dense_noise", "dimension", "frames", "is_untrained", "paired_frames"]

SIDES = ("a", "b", "left", "right")
_FACTORS = ("a", "b")
_INPUT = {"a": True, "right": True, "b": False, "left": False}


def dimension(update: Update, side: str) -> int:
    """Dimension of the space that a side of an update lives in: d_in for a and right, d_out for b and left."""
    return update.d_in if _INPUT[side] else update.d_out


def is_untrained(update: Update) -> bool:
    """Whether delta_W is exactly zero because a factor (or the dense delta) is; such an update has no subspace."""
    if isinstance(update, LowRankUpdate):
        return update.B_factor.is_zero() or update.A_factor.is_zero()
    return update.matrix.is_zero()


def dense_noise(update: DenseUpdate, M: NDArray[Any]) -> float:
    """Singular values of a dense update up to this are rounding of the stored numbers; `M` is the update's matrix."""
    from subspace.geometry.dense_frames import rounding_noise

    stored = update.matrix.stored
    return rounding_noise(M if stored is None else stored(), update.matrix.resolution)


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
        made = {side: _factor_frame(update, side, start) for side in sides if side in _FACTORS}
        made |= _product_sides(update, [s for s in sides if s not in _FACTORS], start)
        return {side: made[side] for side in sides}
    from subspace.geometry.dense_frames import dense_frame

    if start is not None:
        raise ShapeError(
            f"A dense delta_W has no start to subtract, in module {shown(update.module)}; leave `init` out"
        )
    M = update.matrix.load()
    words = {side: "right" if _INPUT[side] else "left" for side in sides}
    resolution, noise = update.matrix.resolution, dense_noise(update, M)
    made = {
        word: dense_frame(M, side=word, k=directions, resolution=resolution, noise=noise)
        for word in dict.fromkeys(words.values())
    }
    return {side: made[word] for side, word in words.items()}


def paired_frames(
    pair: tuple[Update, Update],
    sides: Sequence[str],
    *,
    starts: tuple[Update | None, Update | None] = (None, None),
    directions: tuple[int | None, int | None] = (None, None),
) -> dict[str, tuple[Frame, Frame, NDArray[np.float64]]]:
    """Frames of two updates and their overlap, per side; parameters as `frames`, one for each update."""
    first, second = pair
    made = {}
    if isinstance(first, LowRankUpdate) and isinstance(second, LowRankUpdate):
        for side in _FACTORS:
            if side in sides:
                rows, others = _factor(first, side, starts[0]), _factor(second, side, starts[1])
                made[side] = row_frames(rows[0], others[0], resolutions=(rows[1], others[1]))
    rest = [side for side in sides if side not in made]
    if rest:
        one = frames(first, rest, start=starts[0], directions=directions[0])
        other = frames(second, rest, start=starts[1], directions=directions[1])
        made |= {side: (one[side], other[side], overlap(one[side], other[side])) for side in rest}
    return made


def _factor_frame(update: LowRankUpdate, side: str, start: Update | None) -> Frame:
    rows, resolution = _factor(update, side, start)
    return row_frame(rows, resolution=resolution)


def _factor(update: LowRankUpdate, side: str, start: Update | None) -> tuple[NDArray[Any], float]:
    """Rows that span a side, A or the columns of B, without those of the start, and the resolution of the stored."""
    factor = update.A_factor if side == "a" else update.B_factor
    M = factor.load()
    if start is not None:
        begun = _checked(start, update)
        _require_trained(update)
        M = M - (begun.A if side == "a" else begun.B).astype(np.float64)
    return M if side == "a" else M.T, factor.resolution


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


def _require_trained(update: LowRankUpdate) -> None:
    """Factors that are made of several trained ones do not lose a start by a subtraction."""
    if Flag.COMPOSED in update.flags:
        raise InconclusiveError(
            f"The start cannot be subtracted in module {shown(update.module)}, whose A and B are made of several "
            "trained factors; compare `side` left or right"
        )


def _checked(start: Update, update: LowRankUpdate) -> LowRankUpdate:
    if isinstance(start, LowRankUpdate) and (start.r, start.d_in, start.d_out) == (
        update.r,
        update.d_in,
        update.d_out,
    ):
        return start
    raise ShapeError(
        f"The start has other shapes than the adapter (r = {start.r} and {update.r}), in module "
        f"{shown(update.module)}; give the start of this very adapter as `init`"
    )
