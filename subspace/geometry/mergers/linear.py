"""PEFT's ``linear``: A is a weighted sum of all A, and B of all B; their product is not the sum of the updates.

References
----------
peft/tuners/lora/model.py 0.21, ``_generalized_task_arithmetic_weighted_adapter``.
"""

from __future__ import annotations

from collections.abc import Sequence

from subspace.geometry.entrywise import in_factors
from subspace.geometry.merger import Merged, Merger, Part, Settings

__all__ = ["METHOD"]


def _merge(parts: Sequence[Part], settings: Settings) -> Merged:
    return in_factors(parts)


METHOD = Merger(
    name="linear",
    about="PEFT's linear: a sum of all A and one of all B, whose product is NOT the sum of the updates",
    target="the product of the summed factors",
    merge=_merge,
    invariant=False,
)
