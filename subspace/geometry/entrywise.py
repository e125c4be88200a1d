"""Updates merged by their entries: those of every delta_W, whose merge is cut to a rank, or those of every A and B."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from subspace.errors import ShapeError
from subspace.geometry import lapack
from subspace.geometry.entries import ArrayRows, combined
from subspace.geometry.merger import Factors, Merged, Part, Settings, factors_of, kept
from subspace.geometry.merging import Product
from subspace.geometry.topk import leading
from subspace.text import listed

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["best_factors", "by_entries", "in_factors"]

_TOL = 1e-5  # of the leading triplets of a large merged matrix
_NOISE = 2.0**-23  # the entries are computed in float32


def by_entries(keep: str, *, elect: bool) -> Callable[[Sequence[Part], Settings], Merged]:
    """The merge of a method that acts on entries.

    Parameters
    ----------
    keep : "largest" or "random" entries stay
    elect : whether the sign of every entry is elected

    Notes
    -----
    Of the entries of delta_W the merged matrix alone is held, in float32; every delta_W is computed a few rows at a
    time, three times over for the largest entries, once for random ones.
    """

    def merge(parts: Sequence[Part], settings: Settings) -> Merged:
        how: dict[str, Any] = {
            "density": settings.density,
            "elect": settings.sign_method if elect else None,
        }

        def seeds(side: int) -> list[tuple[int, ...]]:
            return [(settings.seed, each.number, side) for each in parts] if keep == "random" else []

        if settings.entries == "factors":
            return in_factors(parts, lambda Ms, ws, side: combined(Ms, ws, seeds=seeds(side), **how))
        sources = [Product(each.B, each.A, each.scale) for each in parts]
        weights = [each.weight for each in parts]
        M = combined(sources, weights, seeds=seeds(0), dtype=np.float32, **how)
        rank = settings.rank
        if rank is None and settings.energy is None:
            rank = max(each.r for each in parts)
        return Merged(*best_factors(M, rank, settings.energy), target=M)

    return merge


_Combine = Callable[[Sequence[ArrayRows], Sequence[float], int], "NDArray[Any]"]


def in_factors(parts: Sequence[Part], combine: _Combine | None = None) -> Merged:
    """All A merged into one and all B into one, each with the root of its weight and scale; PEFT's way.

    Parameters
    ----------
    combine : matrices, weights and side (0 for A, 1 for B) -> the merged matrix; by default their weighted sum

    Raises
    ------
    ShapeError : the ranks differ

    References
    ----------
    peft/tuners/lora/model.py 0.21, ``_generalized_task_arithmetic_weighted_adapter``.
    """
    ranks = sorted({each.r for each in parts})
    if len(ranks) > 1:
        raise ShapeError(
            f"Factors of different ranks ({listed(ranks, most=8)}) cannot be merged entry by entry; choose the "
            "`method` svd, or for one that acts on entries those of the updates"
        )
    sizes = [each.weight * each.scale for each in parts]
    roots = [math.sqrt(abs(size)) for size in sizes]
    # the sign goes to A alone, else two signs would cancel
    signed = [math.copysign(root, size) for root, size in zip(roots, sizes, strict=True)]
    merge = combine or _weighted_sum
    A = np.asarray(merge([ArrayRows(each.A) for each in parts], signed, 0), dtype=np.float64)
    B = np.asarray(merge([ArrayRows(each.B) for each in parts], roots, 1), dtype=np.float64)
    return Merged(B, A, target=(B, A))


def _weighted_sum(matrices: Sequence[ArrayRows], weights: Sequence[float], side: int) -> NDArray[Any]:
    whole = [each.rows(0, each.shape[0]) for each in matrices]
    return np.asarray(np.tensordot(weights, np.stack(whole), axes=1))


def best_factors(M: NDArray[np.float32], rank: int | None, energy: float | None) -> Factors:
    """B and A of the best approximation of a matrix: of a rank, or with a share of its squared norm.

    Notes
    -----
    With an energy all singular values are needed, and so the whole SVD; with a rank alone the leading ones, by block
    Krylov iteration where the matrix is large.
    """
    if energy is None and rank is not None and rank < min(M.shape):
        found = leading(M, rank, tol=_TOL)
        U, S, Vh = found.U, found.S, found.V.T
    else:
        U, S, Vh = lapack.svd(lapack.as_float64(M))
    S = S[_NOISE * math.sqrt(max(M.shape)) * S.max(initial=0.0) < S]
    k = kept(S, rank, energy)
    return factors_of(U[:, :k], S[:k], Vh[:k])
