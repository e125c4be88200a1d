"""What each rule of rank says of one spectrum, and why, in words.

What is noise in a trained product? Of ``delta_W = B A`` only r singular values can be anything but zero, so the
``min(d_out, d_in) - r`` zeros are no noise: their median is zero, and every direction would stand above it. What noise
there is lies in the r x r core. Steps of the optimiser that no common direction explains fill B, which starts at zero,
with independent numbers; A, whose rows begin random and so nearly orthogonal and of one length, carries them into
delta_W as they are. In the basis of A's rows delta_W is then a low-rank signal and a white (d, r) matrix, which is
what Gavish and Donoho assume, with ``beta = r / d``: their median is that of the r values. If fewer than half of the
directions are signal, the rule is theirs; if more are, it takes signal for noise and cuts too much, and no rule that
reads the noise off the spectrum itself can tell.

A random product has no signal, and r values that are nearly alike: the rule "random" compares with that, for factors of
the same norms. Energy assumes nothing of noise: by Eckart and Young it bounds the relative error of delta_W by
``sqrt(1 - energy)``, which is why it is the default where nothing is tested.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np

from subspace.errors import ValueRangeError
from subspace.flags import Flag
from subspace.geometry.spectrum import energy_rank
from subspace.results.spectrum import ModuleSpectrum
from subspace.text import shown

__all__ = ["ENERGIES", "RULES", "Advice", "advice", "require_rule", "rule_name"]

ENERGIES = (0.5, 0.8, 0.9, 0.95, 0.99)  # of the candidates that are tested


class Advice(NamedTuple):
    """A rank, why, and what to know of it; None of a module without a spectrum."""

    rank: int | None
    why: str
    flags: tuple[Flag, ...] = ()


def _energy(row: ModuleSpectrum, energy: float) -> Advice:
    k = int(energy_rank(row.sigma, energy))
    who = "the first direction holds" if k == 1 else f"the first {k} directions hold"
    return Advice(k, f"{who} {100 * energy:g} % of ||delta_W||^2")


def _knee(row: ModuleSpectrum, energy: float) -> Advice:
    if row.knee is None:
        return Advice(row.rank, "log sigma has no knee", (Flag.NO_RULE,))
    return Advice(row.knee, f"log sigma has its knee behind direction {row.knee}")


def _gavish_donoho(row: ModuleSpectrum, energy: float) -> Advice:
    if row.gavish_donoho is None:
        return Advice(row.rank, "there is no threshold for so few directions", (Flag.NO_RULE,))
    return _above(
        row.gavish_donoho, "the optimal hard threshold for noise as strong as the median singular value"
    )


def _random(row: ModuleSpectrum, energy: float) -> Advice:
    if row.above_random is None:
        return Advice(row.rank, "random factors of its size say nothing about it", (Flag.NO_RULE,))
    return _above(
        row.above_random, f"what the largest of {row.null} of the same size exceeds in 5 % of draws"
    )


def _entropy(row: ModuleSpectrum, energy: float) -> Advice:
    size = row.entropy_rank or 1.0
    k = min(math.ceil(size - 1e-9), row.rank or 1)
    return Advice(k, f"the entropy of the singular values is that of {size:.3g} equal ones")


_BY_NAME: Mapping[str, Callable[[ModuleSpectrum, float], Advice]] = {
    "energy": _energy,
    "knee": _knee,
    "gavish-donoho": _gavish_donoho,
    "random": _random,
    "entropy": _entropy,
}
RULES = tuple(_BY_NAME)


def _above(count: int, what: str) -> Advice:
    if count == 0:
        return Advice(1, f"no singular value is above {what}", (Flag.LEAST_RANK,))
    are = "1 singular value is" if count == 1 else f"{count} singular values are"
    return Advice(count, f"{are} above {what}")


def advice(row: ModuleSpectrum, rule: str, energy: float) -> Advice:
    """What a rule of `RULES` advises for a module."""
    if not np.size(row.sigma):
        untrained = Flag.UNTRAINED in row.flags
        return Advice(None, "delta_W is zero" if untrained else "there is no spectrum")
    return _BY_NAME[rule](row, energy)


def rule_name(rule: str, energy: float) -> str:
    """A rule in words: of energy, with its share."""
    return f"energy {energy:g}" if rule == "energy" else rule


def require_rule(rule: str | None, energy: float, *, tested: bool) -> None:
    """Refuse a rule that there is not, and a share that is none.

    Raises
    ------
    ValueRangeError : either of these, or "tested" without a test
    """
    allowed = (*RULES, "tested")
    if rule is not None and rule not in allowed:
        raise ValueRangeError(
            f"Unknown rule of rank: {shown(repr(rule))}; give `rule` as one of {', '.join(allowed)}"
        )
    if rule == "tested" and not tested:
        raise ValueRangeError("Nothing to test ranks on: the rule tested needs `model` or `data`")
    if not 0 < energy <= 1:
        raise ValueRangeError(
            f"Invalid share of energy {energy}: give `energy` a number in (0, 1], such as 0.95 for 95 %"
        )
