"""The weighted sum of the updates, exact, as the factors one after another: rank ``r_1 + r_2 + ...``.

References
----------
peft/tuners/lora/model.py 0.21, ``add_weighted_adapter`` with ``combination_type="cat"``.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from subspace.geometry.merger import Merged, Merger, Part, Settings

__all__ = ["METHOD"]


def _merge(parts: Sequence[Part], settings: Settings) -> Merged:
    B = np.hstack([each.B for each in parts])
    A = np.vstack([each.weight * each.scale * each.A for each in parts])
    return Merged(B, A, target=(B, A))


METHOD = Merger(
    name="cat",
    about="the same sum as the factors one after another, of rank r1 + r2 + ..., as PEFT's cat",
    target="the weighted sum of the updates",
    merge=_merge,
    linear=True,
)
