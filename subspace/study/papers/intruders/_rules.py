"""The rules by which a verdict on a claim of the paper follows from numbers, each with its text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

from subspace.study.rules import AGREES, DIFFERS, PARTLY, Rule

__all__ = ["BY_RANK", "BY_RATE", "FORGETS_LESS", "FORGETTING", "MITIGATED", "ONLY_LORA"]

_SMALL = 0.05  # p-value
_CHEAP, _MUCH = 0.1, 0.1  # of what the task gained; of what was forgotten


def _only_lora(lora: Mapping[str, float], full: float) -> str:
    """Intruders per matrix of the low ranks, and of full fine-tuning."""
    some = [each > 0 for each in lora.values()]
    if min(lora.values()) >= 0.1 and full <= min(lora.values()) / 10:
        return AGREES
    return PARTLY if any(some) and max(lora.values()) >= 2 * full else DIFFERS


def _by_rate(counts: Mapping[str, Sequence[float]]) -> str:
    """Of each kind of LoRA, the numbers from the lowest learning rate to the highest."""
    rising = [all(a <= b for a, b in pairwise(each)) and each[-1] > each[0] for each in counts.values()]
    share = sum(rising) / len(rising)
    return AGREES if share == 1 else PARTLY if share >= 0.5 else DIFFERS


def _by_rank(low: float, high: float, high_fixed: float) -> str:
    """R = 8, r = 64 with a rank-stabilised scale, and r = 64 without."""
    if high < low:
        return AGREES if high <= high_fixed else PARTLY
    return DIFFERS


def _forgetting(rho: float, p: float, rho_norm: float) -> str:
    if rho > 0 and p < _SMALL:
        return AGREES if rho > rho_norm else PARTLY
    return DIFFERS


def _mitigated(
    relief: Mapping[float, float], relief_high: Mapping[float, float], cost: Mapping[float, float]
) -> str:
    """By lambda: share of the forgetting that goes, how much is sure to, and share of the task's gain that is lost."""
    between = [by for by in relief if 0 < by < 1]
    sure = [by for by in between if relief_high[by] > 0]
    if any(relief[by] >= _MUCH and cost[by] <= _CHEAP for by in sure):
        return AGREES
    return PARTLY if any(relief[by] > cost[by] for by in sure) else DIFFERS


def _forgets_less(lora: Sequence[float], full: float) -> str:
    less = [each < full for each in lora]
    return AGREES if all(less) else PARTLY if any(less) else DIFFERS


ONLY_LORA = Rule(
    "Each method at the learning rate of its lowest task loss. Agrees if LoRA of r = 1 and of r = 8 has at least one "
    "intruder in ten matrices, and full fine-tuning at most a tenth as many as the fewer of the two; in part if one of "
    "them has at least twice as many as full fine-tuning; else it differs.",
    _only_lora,
)
BY_RATE = Rule(
    "Agrees if for every kind of LoRA the number of intruders never falls and in the end has risen from the lowest "
    "learning rate to the highest; in part if for half of the kinds or more; else it differs.",
    _by_rate,
)
BY_RANK = Rule(
    "Each method at the learning rate of its lowest task loss. Agrees if r = 64 with a rank-stabilised scale has fewer "
    "intruders than r = 8, and no more than r = 64 with alpha fixed; in part if fewer than r = 8 only; else it "
    "differs.",
    _by_rank,
)
FORGETS_LESS = Rule(
    "Each method at the learning rate of its lowest task loss. Agrees if LoRA of every kind forgets less than full "
    "fine-tuning; in part if one does; else it differs.",
    _forgets_less,
)
FORGETTING = Rule(
    "Agrees if the rank correlation of the number of intruders and forgetting over all runs is positive with a p-value "
    "below 0.05 and larger than that of the norm of delta_W and forgetting; in part if the norm alone orders the runs "
    "as well; else it differs.",
    _forgetting,
)
MITIGATED = Rule(
    "Agrees if some lambda between 0 and 1 surely (95 %) takes away part of the forgetting, at least a tenth of "
    "it, and at most a tenth of what the task had gained; in part if it surely takes away some, and a larger share "
    "of it than of the task's gain; else it differs. In the median over the runs at the highest learning rate that "
    "have intruders.",
    _mitigated,
)
