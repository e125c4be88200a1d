"""DARE: of every update random entries stay, divided by their share, and the weighted sum of what is left is taken.

As PEFT does it: ``dare_linear_svd`` on the entries of delta_W, ``dare_linear`` on those of A and B.

References
----------
Yu et al. 2024, arXiv 2311.03099, equation 2. peft/utils/merge_utils.py 0.21, ``dare_linear``.
"""

from __future__ import annotations

from subspace.geometry.entrywise import by_entries
from subspace.geometry.merger import Merger

__all__ = ["METHOD"]

METHOD = Merger(
    name="dare",
    about="random entries of every update, scaled up, summed, as PEFT's dare_linear_svd",
    target="what DARE gives",
    merge=by_entries("random", elect=False),
    settings=("rank", "energy", "density", "entries", "seed"),
    density=0.5,
)
