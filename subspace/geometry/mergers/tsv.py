"""TSV-M: the singular vectors of all updates side by side, each side whitened, with their own singular values.

``U = [U_1 ... U_n]`` becomes the nearest matrix with orthonormal columns, ``P Q.T`` of ``U = P D Q.T`` (Procrustes), V
likewise; the merged update is ``U' diag(S_1 ... S_n) V'.T``. Directions that several updates have in common are there
once: then U' is the nearest partial isometry. Where all directions are more than the space has, every update keeps as
many of its own as fit, as in the paper.

References
----------
Gargiulo et al. 2024, Task singular vectors, arXiv 2412.00081, TSV-Merge. In core space: Panariello et al. 2025,
arXiv 2509.17786.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from subspace.geometry import factored, lapack
from subspace.geometry.merger import Factors, Merged, Merger, Part, Settings, cut, factors_of, stacked

__all__ = ["METHOD"]

_DEPENDENT = 1e-9  # singular values of stacked directions below this are those of directions that they share


def _merge(parts: Sequence[Part], settings: Settings) -> Merged:
    found = [factored.svd(*stacked([each])) for each in parts]
    return cut(_whitened(found, settings.rank), None)


def _whitened(found: Sequence[tuple[np.ndarray, np.ndarray, np.ndarray]], rank: int | None) -> Factors:
    room = min(len(found[0][0]), found[0][2].shape[1])
    room = min(room, rank or room)
    whole = sum(len(S) for _, S, _ in found)
    most = room if whole <= room else max(1, room // len(found))
    U = np.hstack([U[:, :most] for U, _, _ in found])
    S = np.concatenate([S[:most] for _, S, _ in found])
    V = np.vstack([Vh[:most] for _, _, Vh in found]).T
    return factors_of(_nearest_isometry(U), S, _nearest_isometry(V).T)


def _nearest_isometry(M: np.ndarray) -> np.ndarray:
    P, D, Qh = lapack.svd(M)
    k = int(np.count_nonzero(D > _DEPENDENT))
    whitened: np.ndarray = P[:, :k] @ Qh[:k]
    return whitened


METHOD = Merger(
    name="tsv",
    about="all singular vectors, made orthogonal to each other by Procrustes (TSV-M)",
    target="the sum with whitened singular vectors",
    merge=_merge,
    settings=("rank",),
)
