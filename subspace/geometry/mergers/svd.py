"""The best approximation of a rank of the weighted sum of the updates.

PEFT's ``combination_type="svd"`` is the same matrix from the SVD of a dense delta_W; here it comes from the stacked
factors, whose core has the sum of the ranks as its side.

References
----------
Eckart & Young 1936, Psychometrika 1:211. peft/tuners/lora/model.py 0.21, ``add_weighted_adapter``.
"""

from __future__ import annotations

from collections.abc import Sequence

from subspace.geometry.merger import Merged, Merger, Part, Settings, cut, stacked

__all__ = ["METHOD"]


def _merge(parts: Sequence[Part], settings: Settings) -> Merged:
    rank = settings.rank
    if rank is None and settings.energy is None:
        rank = max(each.r for each in parts)
    return cut(stacked(parts), rank, settings.energy)


METHOD = Merger(
    name="svd",
    about="the nearest matrix of rank --rank to that sum, as PEFT's svd",
    target="the weighted sum of the updates",
    merge=_merge,
    settings=("rank", "energy"),
    linear=True,
)
