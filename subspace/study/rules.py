"""The rules by which a verdict follows from numbers, each with its text, which is shown with the verdict.

A rule knows the numbers and nothing else, so that no verdict can be written down beforehand.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import mean, median
from typing import Any

__all__ = [
    "AGREES",
    "AMPLIFIES_MOST_AT_LOW_RANK",
    "BEST_BUDGET",
    "CONTAINED",
    "CORRELATED",
    "DIFFERS",
    "HIGHER_IN_Q",
    "NOISE",
    "NOT_EMPHASISED",
    "NOT_THE_TOP",
    "PARTLY",
    "SEEDS_AGREE",
    "SMALL_RANKS",
    "UNTOLD",
    "VERDICTS",
    "Rule",
    "judged",
]

AGREES, PARTLY, DIFFERS, UNTOLD = "agrees", "agrees in part", "differs", "cannot be told"
# a rule never says it: it is what becomes of "agrees" where a control meets the rule as well
NOISE = "holds, but so does noise"
VERDICTS = (AGREES, PARTLY, NOISE, DIFFERS, UNTOLD)

Numbers = Sequence[float]


@dataclass(frozen=True)
class Rule:
    """A rule in words, and the same as a function of numbers."""

    text: str
    decide: Callable[..., str]

    def __call__(self, *numbers: Any) -> str:
        """Return a verdict; "cannot be told" where a number that the rule needs does not exist."""
        return self.decide(*numbers) if all(_exists(each) for each in numbers) else UNTOLD


def _exists(value: Any) -> bool:
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, Sequence):
        return bool(value) and all(_exists(each) for each in value)
    return value is not None and math.isfinite(value)


def judged(here: str, controls: Iterable[str]) -> str:
    """Return the verdict on a claim from what the rule says here and of every control.

    Examples
    --------
    >>> judged(AGREES, [DIFFERS, AGREES]), judged(AGREES, [PARTLY]), judged(PARTLY, [PARTLY]), judged(DIFFERS, [AGREES])
    ('holds, but so does noise', 'agrees', 'holds, but so does noise', 'differs')
    """
    as_good = {AGREES: (AGREES,), PARTLY: (AGREES, PARTLY)}.get(here, ())
    return NOISE if any(verdict in as_good for verdict in controls) else here


def _share(hits: Sequence[bool]) -> float:
    return sum(hits) / len(hits)


def _graded(full: bool, part: bool) -> str:
    return AGREES if full else PARTLY if part else DIFFERS


def _contained(phi_11: Numbers, excess: Numbers, dims: Numbers) -> str:
    sharing = [n >= 1 for n in dims]
    few = median(phi_11) > 0.5 and median(dims) <= 2
    return _graded(
        all(sharing) and few and median(excess) >= 0.2, _share(sharing) >= 0.5 and median(excess) >= 0.1
    )


def _higher_in_q(q: Numbers, v: Numbers, q_removed: Numbers, v_removed: Numbers) -> str:
    if mean(q) == mean(v):
        return UNTOLD
    mostly = [
        _share([a > b for a, b in zip(*pair, strict=True)]) for pair in ((q, v), (q_removed, v_removed))
    ]
    return _graded(min(mostly) >= 0.75, mean(q) > mean(v))


def _seeds_agree(dims: Numbers, excess: Numbers, random: Numbers) -> str:
    sharing = [n >= 1 for n in dims]
    return _graded(
        all(sharing) and not any(random) and median(excess) >= 0.2,
        _share(sharing) >= 0.5 and median(excess) >= 0.1,
    )


def _correlated(low: Numbers, high: Numbers) -> str:
    """Both are (projection - that of random directions) / its standard deviation, per module."""
    shares = [_share([z > 2 for z in each]) for each in (low, high)]
    return _graded(min(shares) >= 0.75, max(shares) >= 0.5)


def _not_emphasised(low: Numbers, high: Numbers, over_low: Numbers, over_high: Numbers) -> str:
    if max(median(over_low), median(over_high)) < 1.1:
        return UNTOLD
    middle = [median(low), median(high)]
    return _graded(max(middle) < 0.5, min(middle) < 0.5)


def _amplifies_most_at_low_rank(low: Numbers, high: Numbers) -> str:
    falls = _share([a > b for a, b in zip(low, high, strict=True)])
    return _graded(median(low) > 2 and falls >= 0.75, falls > 0.5)


def _not_the_top(phi: Numbers, isotropic: Numbers) -> str:
    times = median(phi) / median(isotropic)
    return _graded(times <= 2, times <= 4)


def _small_ranks(gains: Mapping[int, float]) -> str:
    best = max(gains.values())
    if best <= 0:
        return UNTOLD
    small = max(gain for rank, gain in gains.items() if rank <= 4)
    return _graded(gains[1] >= 0.95 * best, small >= 0.95 * best)


def _best_budget(gains: Mapping[str, float], noise: float) -> str:
    best = max(gains.values())
    if best <= 0:
        return UNTOLD
    near = gains["qv"] >= best - noise
    return _graded(near, gains["qv"] > max(gains["q"], gains["k"], gains["qk"]))


CONTAINED = Rule(
    "Agrees if phi(1, 1) is above 0.5 and at least 0.2 above that of the same-input control (q of the one against v of "
    "the other, and v against q), and 1 or 2 directions are shared, all in the median over modules, and every module "
    "shares one; in part if half of the modules or more share one and the excess over the control is at least 0.1; "
    "else it differs. Modules too narrow for the test do not count.",
    _contained,
)
HIGHER_IN_Q = Rule(
    "Agrees if q shares more directions than v in three quarters of the layers or more, with the start of A kept and "
    "with it removed; in part if q shares more in the mean with the start kept, as the paper measures; else it "
    "differs. Cannot be told if those means are equal, or d is too small for the test.",
    _higher_in_q,
)
SEEDS_AGREE = Rule(
    "Agrees if every module shares a direction and no random pair does, and phi(1, 1) is in the median at least 0.2 "
    "above that of the same-input control; in part if half of the modules or more share one and the excess is at least "
    "0.1; else it differs. Cannot be told if d is too small for the test.",
    _seeds_agree,
)
CORRELATED = Rule(
    "Agrees if the projection is more than two standard deviations above that on random directions in three quarters "
    "of the modules, at both ranks; in part if in half of them at one rank; else it differs.",
    _correlated,
)
NOT_EMPHASISED = Rule(
    "Agrees if the projection on delta_W's directions is below half of that on W's own, in the median at both ranks; "
    "in part if at one of them; else it differs. Cannot be told if it is below 1.1 times that on random directions at "
    "both, since W does not emphasise those either.",
    _not_emphasised,
)
AMPLIFIES_MOST_AT_LOW_RANK = Rule(
    "Agrees if the factor at the low rank is above 2 in the median and above that at r = 64 in three quarters of the "
    "modules; in part if above it in more than half; else it differs.",
    _amplifies_most_at_low_rank,
)
NOT_THE_TOP = Rule(
    "Agrees if phi of W's top tenth and delta_W's top four directions is at most twice that of isotropic random "
    "spans (the paper: 0.2 against 0.1), in the median over modules; in part if at most four times; else it differs.",
    _not_the_top,
)
SMALL_RANKS = Rule(
    "Agrees if r = 1 gains at least 95 % of what the best rank gains in held-out loss; in part if r = 2 or 4 does; "
    "else it differs.",
    _small_ranks,
)
BEST_BUDGET = Rule(
    "Agrees if q and v gain the most in held-out loss, or less than the best by no more than two seeds differ; in "
    "part if they gain more than q, k, and q and k; else it differs.",
    _best_budget,
)
