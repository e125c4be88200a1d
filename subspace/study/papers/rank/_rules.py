"""The rules by which a verdict on advice about ranks follows from numbers, each with its text."""

from __future__ import annotations

from collections.abc import Mapping

from subspace.study.rules import AGREES, DIFFERS, PARTLY, UNTOLD, Rule

__all__ = ["ADVICE", "CUT_IS_AS_GOOD", "FEW_DIRECTIONS", "SMALL_RANK"]

_KEEPS = 0.95


def _small_rank(gains: Mapping[int, float], error: float) -> str:
    """By rank, by how much the loss falls; and how much two seeds differ."""
    best = max(gains.values())
    if best <= 0:
        return UNTOLD
    near = [rank for rank, gain in gains.items() if gain >= min(_KEEPS * best, best - error)]
    return AGREES if min(near) <= 1 else PARTLY if min(near) <= 8 else DIFFERS


def _few_directions(kept: Mapping[int, float], enough: int) -> str:
    """By rank, the share of the gain that the cut adapter keeps; and the rank from which no cut is worse."""
    if kept[8] >= _KEEPS and enough <= 8:
        return AGREES
    return PARTLY if kept[8] >= _KEEPS else DIFFERS


def _cut_is_as_good(cut: Mapping[int, float], native: Mapping[int, float]) -> str:
    better = [cut[rank] <= native[rank] for rank in native if rank < max(native)]
    return AGREES if all(better) else PARTLY if any(better) else DIFFERS


def _advice(lost: float, worse: float, mean: float, enough: float) -> str:
    """Share of the gain that is lost, whether the cut is worse, the mean rank, and the smallest enough."""
    if worse and lost > 1 - _KEEPS:
        return DIFFERS
    return AGREES if not worse and mean <= 2 * enough else PARTLY


SMALL_RANK = Rule(
    "Agrees if an adapter trained at r = 1 lowers the held-out loss by 95 % of what the best rank does, or by as "
    "much as the best less what two seeds of r = 64 differ; in part if one of r = 8 or less does; else it differs.",
    _small_rank,
)
FEW_DIRECTIONS = Rule(
    "Agrees if r = 64 cut to 8 keeps 95 % of what it gains in held-out loss, and no cut from 8 on is worse than "
    "the whole: surely (95 %, paired bootstrap) and by more than two seeds of r = 64 differ; in part if it keeps "
    "95 % and is worse; else it differs.",
    _few_directions,
)
CUT_IS_AS_GOOD = Rule(
    "Agrees if r = 64 cut to each smaller rank has a loss as low as the adapter that was trained at it; in part if "
    "at some rank; else it differs.",
    _cut_is_as_good,
)
ADVICE = Rule(
    "r = 64 with every module cut to the rank that the rule gives it. Agrees if the cut is not worse than the "
    "whole, surely (95 %, paired bootstrap) and by more than two seeds of r = 64 differ, and the mean rank is at "
    "most twice the smallest that is enough; in part if it is worse but keeps 95 % of the gain, or the rank is "
    "larger than that; else it differs.",
    _advice,
)
