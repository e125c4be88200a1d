"""The weighted sum of the updates, exact, at its numerical rank."""

from __future__ import annotations

from collections.abc import Sequence

from subspace.geometry.merger import Merged, Merger, Part, Settings, cut, stacked

__all__ = ["METHOD"]


def _merge(parts: Sequence[Part], settings: Settings) -> Merged:
    return cut(stacked(parts), None)


METHOD = Merger(
    name="sum",
    about="the weighted sum of the updates, exact, at its own rank",
    target="the weighted sum of the updates",
    merge=_merge,
    linear=True,
)
