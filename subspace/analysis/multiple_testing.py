"""The shared dimension of every module, with Holm's correction over the modules of a side."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from subspace.flags import Flag
from subspace.geometry import chance
from subspace.results.module_comparison import ModuleComparison

__all__ = ["holm_by_step", "leading_below", "with_shared_dimensions"]

_SEEN = 0.99  # squared cosine of a direction that a test should see


def with_shared_dimensions(rows: Sequence[ModuleComparison], level: float) -> list[ModuleComparison]:
    """Rows with `shared_p_holm` and `shared_dim` filled in.

    The family of a correction is one step (the k-th tested direction) of one side over all modules, so that the
    probability that any module claims a k-th shared direction that is not there is at most `level`, however the
    modules depend on each other. No p-value is below `chance.P_FLOOR`. Directions that are
    shared by force (i + j > d) are neither tested nor counted; where one span is the whole space nothing is. A row in
    which the test would not find a direction whose squared cosine is 0.99 has the flag `Flag.BLIND`.
    """
    families: dict[tuple[str, str], list[int]] = defaultdict(list)
    for n, row in enumerate(rows):
        if row.phi.size:
            families[row.side, row.init].append(n)
    out = list(rows)
    for members in families.values():
        tested = [rows[n].shared_p[rows[n].forced :] for n in members]
        for n, p in zip(members, holm_by_step(tested), strict=True):
            holm = np.concatenate([rows[n].shared_p[: rows[n].forced], p])
            blind = (Flag.BLIND,) if _is_blind(rows[n], level) else ()
            out[n] = replace(
                rows[n],
                shared_p_holm=holm,
                shared_dim=leading_below(p, level),
                flags=(*rows[n].flags, *blind),
            )
    return out


def _is_blind(row: ModuleComparison, level: float) -> bool:
    """Whether isotropic random spans of these dimensions are so near that hardly anything would stand out."""
    i, j = row.phi.shape
    return chance.largest_root_p(_SEEN, i, j, row.d) > level


def holm_by_step(p_values: list[np.ndarray]) -> list[np.ndarray]:
    """p-values of the steps of several modules, each step corrected over the modules, not decreasing in a module."""
    adjusted = [np.array(p, dtype=float) for p in p_values]
    for step in range(max((len(p) for p in p_values), default=0)):
        members = [n for n, p in enumerate(p_values) if len(p) > step and not np.isnan(p[step])]
        for n, value in zip(members, chance.holm([float(p_values[n][step]) for n in members]), strict=True):
            adjusted[n][step] = value
    return [np.maximum.accumulate(p) for p in adjusted]


def leading_below(p: np.ndarray, level: float) -> int | None:
    """How many pass before the first that does not; None where there was nothing to test."""
    if not p.size or np.isnan(p).all():
        return None
    return int(np.count_nonzero(np.logical_and.accumulate(p <= level)))
