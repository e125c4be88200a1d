"""What rules of thumb advise as a rank, from the singular values of one delta_W."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from subspace.geometry.rank_rules import hard_threshold, knee
from subspace.geometry.spectrum import effective_rank, energy_rank, participation_ratio, stable_rank

if TYPE_CHECKING:
    from subspace.geometry.lapack import Floats

__all__ = ["RULES", "RankRule"]


@dataclass(frozen=True)
class RankRule:
    """A rule of thumb.

    Attributes
    ----------
    says : what it advises, in words
    source : where it is from
    rank : (singular values, shape of delta_W) -> rank, at least 1; None where the rule has no answer
    """

    says: str
    source: str
    rank: Callable[[Floats, tuple[int, int]], int | None]


def _up(measure: Callable[[Floats], float], S: Floats, shape: tuple[int, int]) -> int | None:
    value = measure(S)
    return None if math.isnan(value) else max(1, math.ceil(value - 1e-9))


def _energy(share: float) -> RankRule:
    return RankRule(
        f"the first directions that hold {100 * share:.0f} % of the energy of delta_W",
        "a customary threshold",
        partial(_up, lambda S: energy_rank(S, share)),
    )


def _knee(S: Floats, shape: tuple[int, int]) -> int | None:
    return knee(S) or None


def _hard_threshold(S: Floats, shape: tuple[int, int]) -> int | None:
    """Values above the threshold of the r x d matrix that they are all values of."""
    return max(1, int(np.count_nonzero(hard_threshold(S, (len(S), max(shape))) < S)))


RULES: Mapping[str, RankRule] = {
    "energy 90 %": _energy(0.9),
    "energy 95 %": _energy(0.95),
    "energy 99 %": _energy(0.99),
    "stable rank": RankRule(
        "the stable rank, ||delta_W||_F^2 / ||delta_W||_2^2, rounded up",
        "a customary measure",
        partial(_up, stable_rank),
    ),
    "entropy rank": RankRule(
        "the effective rank, exp(entropy of the singular values), rounded up",
        "Roy & Vetterli 2007",
        partial(_up, effective_rank),
    ),
    "participation": RankRule(
        "the participation ratio of the squared singular values, rounded up",
        "a customary measure",
        partial(_up, participation_ratio),
    ),
    "knee": RankRule(
        "the directions before the knee of the logarithms of the singular values",
        "Satopää et al. 2011",
        _knee,
    ),
    "Gavish-Donoho": RankRule(
        "the singular values above the optimal hard threshold for noise of unknown strength in an r x d matrix, a "
        "multiple of their median",
        "Gavish & Donoho 2014",
        _hard_threshold,
    ),
}
