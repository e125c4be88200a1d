"""KnOTS: the updates side by side have one SVD, ``[dW_1 ... dW_n] = U S [V_1.T ... V_n.T]``; their V are merged.

The merged update is ``U S V``: its factors are there already. Merged by a sum, it is the weighted sum of the updates.
The signs of U and V, which an SVD leaves free, are those for which the largest entry of every row of V.T is positive.

References
----------
Stoica et al. 2024, Model merging with SVD to tie the knots, arXiv 2410.19735, section 4.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from subspace.geometry import lapack
from subspace.geometry.entries import ArrayRows, combined
from subspace.geometry.merger import Merged, Merger, Part, Settings, cut, stacked
from subspace.geometry.rounding import float64_noise

__all__ = ["METHOD"]


def _merge(parts: Sequence[Part], settings: Settings) -> Merged:
    if settings.inner == "sum":  # U S (w_1 V_1.T + ...), which is the sum of the updates
        return cut(stacked(parts), settings.rank, settings.energy)
    B, blocks = _aligned(parts)
    A = combined(
        [ArrayRows(V) for V in blocks],
        [each.weight for each in parts],
        density=settings.density or 1.0,
        elect=settings.sign_method,
    )
    return cut((B, np.asarray(A, dtype=np.float64)), settings.rank, settings.energy)


def _aligned(parts: Sequence[Part]) -> tuple[np.ndarray, list[np.ndarray]]:
    """``U diag(S)`` (d_out, k) and each V.T (k, d_in), from cores: with ``B = Q R`` and ``A_i.T = Q_i R_i``."""
    B, _ = stacked(parts, weighted=False)
    Q, R = lapack.qr(B)
    rows = [lapack.qr(_row_factor(each).T) for each in parts]
    ends = np.cumsum([each.r for each in parts])
    cores = [R[:, end - each.r : end] @ R_i.T for each, end, (_, R_i) in zip(parts, ends, rows, strict=True)]
    U, S, Vh = lapack.svd(np.hstack(cores))
    k = int(np.count_nonzero(float64_noise((len(B), parts[0].A.shape[1]), S.max(initial=0.0)) < S))
    columns = np.split(Vh[:k], np.cumsum([core.shape[1] for core in cores])[:-1], axis=1)
    blocks = [V @ Q_i.T for V, (Q_i, _) in zip(columns, rows, strict=True)]
    signs = _signs(blocks)
    return (Q @ U[:, :k]) * (S[:k] * signs), [signs[:, None] * V for V in blocks]


def _signs(blocks: Sequence[np.ndarray]) -> np.ndarray:
    """Signs that make the largest entry of every row positive: an SVD leaves them free, and a tied vote heeds them."""
    whole = np.hstack(blocks)
    if not len(whole):
        return np.ones(0)
    largest = np.abs(whole).argmax(axis=1)
    return np.where(whole[np.arange(len(whole)), largest] < 0, -1.0, 1.0)


def _row_factor(part: Part) -> np.ndarray:
    """A of a part in the balance that `stacked` gives it."""
    return stacked([part], weighted=False)[1]


METHOD = Merger(
    name="knots",
    about="the updates side by side in one SVD, whose V blocks are merged by TIES, or by --inner sum",
    target="what KnOTS gives",
    merge=_merge,
    settings=("rank", "energy", "density", "sign_method", "inner"),
    density=0.2,
)
