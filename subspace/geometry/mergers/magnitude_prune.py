"""The weighted sum of the largest entries of every update.

References
----------
peft/utils/merge_utils.py 0.21, ``magnitude_prune``.
"""

from __future__ import annotations

from subspace.geometry.entrywise import by_entries
from subspace.geometry.merger import Merger

__all__ = ["METHOD"]

METHOD = Merger(
    name="magnitude_prune",
    about="the largest entries of every update, summed, as PEFT's magnitude_prune_svd",
    target="the sum of the largest entries",
    merge=by_entries("largest", elect=False),
    settings=("rank", "energy", "density", "entries"),
    density=0.2,
)
