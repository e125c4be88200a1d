"""What spans each of the four sides of an update, with its start removed where that is known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from subspace.adapters.update import DenseUpdate, Factor, LowRankUpdate, Update
from subspace.errors import InconclusiveError, ShapeError
from subspace.flags import Flag
from subspace.geometry.agreement import Dense, Product, Rows, Spanning
from subspace.geometry.frobenius import frobenius

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["SIDES", "dense_noise", "dimension", "is_untrained", "reads_input", "spanning"]

SIDES = ("a", "b", "left", "right")
_FACTORS = ("a", "b")
_WORDS: Mapping[str, Literal["left", "right"]] = {"a": "right", "b": "left", "left": "left", "right": "right"}


def dimension(update: Update, side: str) -> int:
    """Dimension of the space that a side of an update lives in: d_in for a and right, d_out for b and left."""
    return update.d_in if _WORDS[side] == "right" else update.d_out


def reads_input(side: str) -> bool:
    """Whether a side lies in the space of the module's inputs: a and right do, b and left in that of its outputs."""
    return _WORDS[side] == "right"


def is_untrained(update: Update) -> bool:
    """Whether delta_W is exactly zero because a factor (or the dense delta) is; such an update has no subspace."""
    if isinstance(update, LowRankUpdate):
        return update.B_factor.is_zero() or update.A_factor.is_zero()
    return update.matrix.is_zero()


def dense_noise(update: DenseUpdate, M: NDArray[Any], stored: NDArray[Any] | None = None) -> float:
    """Singular values of a dense update up to this are rounding of its numbers in the file, see `geometry.rounding`.

    `M` is the update's matrix, and `stored` that whose numbers were rounded, where it is another and has been read. A
    matrix that is computed in float64 from other numbers has no such rounding.
    """
    if update.matrix.numbers is not None:
        return 0.0
    from subspace.geometry.rounding import stored_noise

    if stored is None:
        stored = M if update.matrix.stored is None else update.matrix.stored()
    return stored_noise(stored, update.matrix.resolution)


def spanning(
    update: Update, sides: Sequence[str], *, start: Update | None = None, directions: int | None = None
) -> dict[str, Spanning]:
    """What spans each side of an update, for `subspace.geometry.agreement`.

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
    if isinstance(update, DenseUpdate):
        return _dense_sides(update, sides, start, directions)
    product = _product(update, start) if set(sides) - set(_FACTORS) else None
    found: dict[str, Spanning] = {}
    for side in sides:
        if product is None or side in _FACTORS:
            found[side] = Rows(*_factor(update, side, start))
        else:
            B, A, resolution = product
            found[side] = Product(B, A, _WORDS[side], resolution)
    return found


def _dense_sides(
    update: DenseUpdate, sides: Sequence[str], start: Update | None, directions: int | None
) -> dict[str, Spanning]:
    if start is not None:
        raise ShapeError("A dense delta_W has no start to subtract; leave `init` out")
    M = update.matrix.load()
    stored = M if update.matrix.stored is None else update.matrix.stored()
    resolution, noise = _unit(update.matrix, M, stored), dense_noise(update, M, stored)
    return {side: Dense(M, _WORDS[side], directions, resolution, noise) for side in sides}


def _factor(update: LowRankUpdate, side: str, start: Update | None) -> tuple[NDArray[Any], float]:
    """Rows that span a side, A or the columns of B, without those of the start, and the resolution of the stored."""
    factor = update.A_factor if side == "a" else update.B_factor
    M = stored = factor.load()
    if start is not None:
        begun = _checked(start, update)
        _require_trained(update)
        M = M - (begun.A if side == "a" else begun.B).astype(np.float64)
    return M if side == "a" else M.T, _unit(factor, M, stored)


def _product(update: LowRankUpdate, start: Update | None) -> tuple[NDArray[Any], NDArray[Any], float]:
    """B, A and the resolution of delta_W; a start that is not zero joins as factors: ``[B, -B_0] @ [A; A_0]``."""
    A, B = update.A, update.B
    resolution = max(_unit(update.A_factor, A), _unit(update.B_factor, B))
    if start is not None:
        start = _checked(start, update)
        if start.B.any():
            A, B = np.vstack([A, start.A]), np.hstack([B, -start.B])
    return B, A, resolution


def _unit(factor: Factor, M: NDArray[Any], stored: NDArray[Any] | None = None) -> float:
    """Relative unit of the numbers of `M` by their rounding in the file, which is that of `stored` where M is another.

    Numbers below the range of a type are spaced evenly. A matrix that is computed from others, such as a Kronecker
    product, takes over their rounding: it shifts singular values as much, and turns fewer directions.
    """
    unit, other = factor.resolution, stored if stored is not M else None
    size = frobenius(M) if other is not None or factor.smallest_step else 0.0
    if not 0 < size < np.inf:
        return unit
    if factor.numbers is None:
        unit = max(unit, float(factor.smallest_step * np.sqrt(M.size) / size))
    return unit if other is None else unit * frobenius(other) / size


def _require_trained(update: LowRankUpdate) -> None:
    """Factors that are made of several trained ones do not lose a start by a subtraction."""
    if Flag.COMPOSED in update.flags:
        raise InconclusiveError(
            "The start cannot be subtracted from an A and B that are made of several trained factors; compare `side` "
            "left or right"
        )


def _checked(start: Update, update: LowRankUpdate) -> LowRankUpdate:
    if isinstance(start, LowRankUpdate) and (start.r, start.d_in, start.d_out) == (
        update.r,
        update.d_in,
        update.d_out,
    ):
        return start
    raise ShapeError(
        f"The start has other shapes than the adapter, r = {start.r} and {update.r}; give the start of this very "
        "adapter as `init`"
    )
