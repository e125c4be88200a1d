"""What an update of lower rank keeps of another once its factors are stored, and the rank that keeps enough."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from subspace.adapters.layer import layer_of
from subspace.adapters.update import LowRankUpdate
from subspace.geometry import factored
from subspace.geometry.frobenius import frobenius
from subspace.geometry.spectrum import energy_rank

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["CHUNK", "Kept", "distance", "enough", "kept_of", "kept_of_matrix"]

CHUNK = 256  # rows of a dense delta_W that are compared at once
_ROUNDING = 1e-12  # of a share that is computed in float64


class Kept(NamedTuple):
    """What is left of ``||dW||_F^2`` in the stored ``dW'``.

    Attributes
    ----------
    share : ``1 - ||dW - dW'||_F^2 / ||dW||_F^2``, not below 0
    size : ``||dW'||_F^2 / ||dW||_F^2``, which equals the share but for what rounding adds along dW'
    """

    share: float
    size: float

    def reaches(self, energy: float) -> bool:
        """Whether both are at least the energy, but for rounding of float64."""
        return min(self) >= energy * (1 - _ROUNDING)


def kept_of(update: LowRankUpdate, low: LowRankUpdate, dtype: str) -> Kept:
    """What `low` keeps of an update, once its factors are stored in a type, "keep" for that of each.

    Raises
    ------
    ValueRangeError : a number is too large for its type
    """
    B, A = _stored(low, dtype)
    if np.array_equal(B, update.B) and np.array_equal(A, update.A):
        return Kept(1.0, 1.0)
    rest = factored.norm(np.hstack([update.B, -B]), np.vstack([update.A, A]))
    return _kept(factored.norm(update.B, update.A), rest, factored.norm(B, A))


def kept_of_matrix(M: NDArray[Any], low: LowRankUpdate, dtype: str) -> Kept:
    """What `low` keeps of a matrix, as `kept_of`."""
    B, A = _stored(low, dtype)
    nothing = np.zeros((M.shape[0], 1)), np.zeros((1, M.shape[1]))
    return _kept(distance(M, *nothing), distance(M, B, A), factored.norm(B, A))


def enough(S: NDArray[np.float64], energy: float, kept: Callable[[int], Kept]) -> tuple[int, Kept]:
    """Least rank whose stored factors keep a share of the energy, and what they keep; the full rank where none does.

    Parameters
    ----------
    S : singular values above rounding, at least one
    kept : rank -> what its stored factors keep
    """
    k = int(energy_rank(S, energy))
    found = kept(k)
    while k < len(S) and not found.reaches(energy):
        lost_by_rounding = float(np.sum((S[:k] / S[0]) ** 2) / np.sum((S / S[0]) ** 2)) - min(found)
        # where rounding alone loses too much, no rank below the full one is better
        k = len(S) if lost_by_rounding > 1 - energy else k + 1
        found = kept(k)
    return k, found


def distance(M: NDArray[Any], P: NDArray[Any], Q: NDArray[Any]) -> float:
    """``||M - P Q||_F``, some rows at a time."""
    rests = (
        frobenius(M[start : start + CHUNK] - P[start : start + CHUNK] @ Q)
        for start in range(0, len(M), CHUNK)
    )
    return frobenius(np.array(list(rests)))


def _stored(low: LowRankUpdate, dtype: str) -> tuple[NDArray[Any], NDArray[Any]]:
    layer = layer_of(low).as_dtype(dtype).rounded()
    return layer.B.astype(np.float64), layer.A.astype(np.float64)


def _kept(whole: float, rest: float, size: float) -> Kept:
    if whole == 0:
        return Kept(1.0, 1.0)
    return Kept(max(0.0, 1 - (rest / whole) ** 2), (size / whole) ** 2)
