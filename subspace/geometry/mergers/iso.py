"""Iso-C: the weighted sum of the updates with all its singular values replaced by their mean.

The mean is over the directions that the sum has, its numerical rank: those of the core space. Over all of
``min(d_out, d_in)``, as for full fine-tunes, nearly all would be directions that no update has.

References
----------
Marczak et al. 2025, No task left behind: isotropic model merging, arXiv 2502.04959, section 4 (Iso-C). In core space:
Panariello et al. 2025, arXiv 2509.17786.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from subspace.geometry import factored
from subspace.geometry.merger import Merged, Merger, Part, Settings, factors_of, kept, stacked

__all__ = ["METHOD"]


def _merge(parts: Sequence[Part], settings: Settings) -> Merged:
    U, S, Vh = factored.svd(*stacked(parts))
    k = kept(S, settings.rank, settings.energy)
    flat = np.full(k, S[:k].mean() if k else 0.0)
    B, A = factors_of(U[:, :k], flat, Vh[:k])
    return Merged(B, A, target=(B, A))


METHOD = Merger(
    name="iso",
    about="the sum with all its singular values replaced by their mean (Iso-C)",
    target="the sum with a flat spectrum",
    merge=_merge,
    settings=("rank", "energy"),
)
