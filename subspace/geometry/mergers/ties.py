"""TIES: the largest entries of every update stay, a sign is elected for each entry, those of that sign are averaged.

As PEFT does it, module by module: ``ties_svd`` on the entries of delta_W, ``ties`` on those of A and B. (The paper
trims over all modules together, and averages without weights.)

References
----------
Yadav et al. 2023, TIES-Merging, arXiv 2306.01708, section 3 and algorithm 1. peft/utils/merge_utils.py 0.21, ``ties``.
"""

from __future__ import annotations

from subspace.geometry.entrywise import by_entries
from subspace.geometry.merger import Merger

__all__ = ["METHOD"]

METHOD = Merger(
    name="ties",
    about="the largest entries of every update, averaged where they have the elected sign, as PEFT's ties_svd",
    target="what TIES gives",
    merge=by_entries("largest", elect=True),
    settings=("rank", "energy", "density", "sign_method", "entries"),
    density=0.2,
)
