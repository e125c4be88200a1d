"""DARE's random entries, merged by the elected signs of TIES.

References
----------
Yu et al. 2024, arXiv 2311.03099; Yadav et al. 2023, arXiv 2306.01708. peft/utils/merge_utils.py 0.21, ``dare_ties``.
"""

from __future__ import annotations

from subspace.geometry.entrywise import by_entries
from subspace.geometry.merger import Merger

__all__ = ["METHOD"]

METHOD = Merger(
    name="dare_ties",
    about="DARE's random entries with the elected signs of TIES, as PEFT's dare_ties_svd",
    target="what DARE with TIES gives",
    merge=by_entries("random", elect=True),
    settings=("rank", "energy", "density", "sign_method", "entries", "seed"),
    density=0.5,
)
