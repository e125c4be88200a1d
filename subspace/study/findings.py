"""The claims of the paper's section 7 and what a study found; every number is computed, and so is every verdict."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from statistics import median
from typing import Any

from subspace.flags import Flag
from subspace.study import rules
from subspace.study.budget_findings import best_budget, small_ranks
from subspace.study.finding import Finding
from subspace.study.measurements import Measures, ranked, rows_of

__all__ = ["findings", "spread"]


def findings(measures: Measures) -> tuple[Finding, ...]:
    """Return the findings in the paper's order; those on tables 5 and 6 only for a full study."""
    questions: Sequence[Callable[[Measures], Finding]] = (
        _contained, _higher_in_q, _seeds_agree, _correlated, _not_emphasised, _amplifies, _not_the_top,
    )  # fmt: skip
    full = (small_ranks, best_budget) if measures.plan.full else ()
    return tuple(find(measures) for find in (*questions, *full))


def spread(values: Sequence[float], digits: str = ".2f") -> str:
    """Return a median with the least and the greatest value; one number where all are the same.

    Examples
    --------
    >>> spread([1.0, 2.0, 4.0])
    '2.00 (1.00 to 4.00)'
    >>> spread([])
    'none'
    """
    if not values:
        return "none"
    low, middle, high = (format(each, digits) for each in (min(values), median(values), max(values)))
    return middle if low == high else f"{middle} ({low} to {high})"


def _dims(comparison: Any, side: str = "a", init: str = "kept") -> list[int]:
    """Shared dimensions where the test can find any; see `Flag.BLIND`."""
    rows = rows_of(comparison, side, init)
    return [row.shared_dim for row in rows if row.shared_dim is not None and _testable(row)]


def _testable(row: Any) -> bool:
    return Flag.BLIND not in row.flags


def _shared(dims: Sequence[int]) -> str:
    return spread(dims, ".3g") if dims else "cannot be tested, since d is too small"


def _d(measures: Measures) -> int:
    return rows_of(measures.ranks)[0].d if rows_of(measures.ranks) else 0


def _contained(measures: Measures) -> Finding:
    rows = rows_of(measures.ranks)
    phi, dims = [row.phi_11 for row in rows], _dims(measures.ranks)
    removed, random = _dims(measures.ranks, init="removed"), _dims(measures.random)
    d = _d(measures)
    return Finding(
        key="contained",
        claim="The top direction of r = 8 is in r = 64, and little else is: they share a subspace of dimension 1.",
        where="section 7.2, figure 3",
        paper="phi(1, 1) above 0.5; 1 dimension shared",
        here=f"phi(1, 1) {spread(phi)}; directions shared: {_shared(dims)}, "
        f"with the start removed {_shared(removed)}",
        chance=f"phi(1, 1) {_per(1, d)}; directions shared by random matrices: {_shared(random)}",
        verdict=rules.CONTAINED(phi, dims),
        rule=rules.CONTAINED.text,
        why=f"With d = {d}, and not 12288, the trained directions are a larger part of the space, so more of them "
        "stand out from the random start of A. The paper counts by eye what is tested here module by module.",
        figure="fig3",
        numbers={"phi_11": phi, "shared": dims, "shared_start_removed": removed, "random": random},
    )


def _per(n: int, d: int) -> str:
    return f"{n / d:.3f}" if d else "none"


def _by_layer(measures: Measures, init: str) -> tuple[list[int], list[int]]:
    """Shared dimensions of q and of v, in the layers that have both."""
    found: dict[str, dict[str, int]] = {}
    for row in rows_of(measures.seeds, "a", init):
        letter, layer = measures.kind(row.module)
        if row.shared_dim is not None and _testable(row):
            found.setdefault(layer, {})[letter] = row.shared_dim
    both = [layer for layer in found.values() if {"q", "v"} <= set(layer)]
    return [layer["q"] for layer in both], [layer["v"] for layer in both]


def _higher_in_q(measures: Measures) -> Finding:
    q, v = _by_layer(measures, "kept")
    q_removed, v_removed = _by_layer(measures, "removed")
    random = _dims(measures.random)
    return Finding(
        key="higher_in_q",
        claim="delta_W_q has a higher intrinsic rank than delta_W_v: two seeds share more directions in q.",
        where="section 7.2, figure 4",
        paper="by eye, no number",
        here=f"directions shared by two seeds of r = 64: q {_shared(q)}, v {_shared(v)}; with the start "
        f"removed q {_shared(q_removed)}, v {_shared(v_removed)}",
        chance=f"random matrices: {_shared(random)}",
        verdict=rules.HIGHER_IN_Q(q, v, q_removed, v_removed),
        rule=rules.HIGHER_IN_Q.text,
        why="Where the start of A is kept, as in the paper, a direction shows only once it outgrows that start. "
        "With the start removed the order of q and v can change, so the claim is about sizes as much as about ranks.",
        figure="fig4",
        numbers={
            "q": q,
            "v": v,
            "q_start_removed": q_removed,
            "v_start_removed": v_removed,
            "random": random,
        },
    )


def _seeds_agree(measures: Measures) -> Finding:
    rows, random_rows = rows_of(measures.seeds), rows_of(measures.random)
    dims, random = _dims(measures.seeds), _dims(measures.random)
    phi = [row.phi_11 for row in rows]
    full, b = [row.phi_full for row in rows], _dims(measures.seeds, "b")
    return Finding(
        key="seeds_agree",
        claim="Two runs of r = 64 from different seeds share leading directions; two random matrices share none.",
        where="section 7.2, figure 4",
        paper="by eye: bright corner against a dark panel",
        here=f"directions shared: in A {_shared(dims)}, in B {_shared(b)}; phi(1, 1) {spread(phi)}; "
        f"phi(64, 64) {spread(full)}",
        chance=f"random matrices: directions shared {_shared(random)}; phi(1, 1) "
        f"{spread([row.phi_11 for row in random_rows], '.3f')}; phi(64, 64) "
        f"{spread([row.phi_full for row in random_rows])}",
        verdict=rules.SEEDS_AGREE(dims, random),
        rule=rules.SEEDS_AGREE.text,
        why=f"64 of {_d(measures)} directions agree to {_per(64, _d(measures))} by chance, and to 0.005 in the "
        "paper's 12288: the dark part of the figure is lighter here for that reason alone.",
        figure="fig4",
        numbers={"shared": dims, "random": random, "shared_B": b, "phi_11": phi, "phi_full": full},
    )


def _pair(measures: Measures, value: Callable[[Any, Any], Any]) -> tuple[list[Any], list[Any]]:
    """A value per module of the low rank and of r = 64, in the modules that have both."""
    names = measures.plan.lowest.name, "r64"
    low, high = (
        {module.module: value(module, rank) for module, rank in ranked(measures.amplified[name])}
        for name in names
    )
    both = [m for m in low if low[m] is not None and high.get(m) is not None]
    return [low[m] for m in both], [high[m] for m in both]


def _z(module: Any, rank: Any) -> float | None:
    return (rank.proj_delta_W - rank.proj_random) / rank.proj_random_sd if rank.proj_random_sd > 0 else None


def _over_random(measures: Measures) -> tuple[list[Any], list[Any]]:
    return _pair(measures, lambda module, rank: rank.over_random)


def _correlated(measures: Measures) -> Finding:
    low, high = _pair(measures, _z)
    over_low, over_high = _over_random(measures)
    r = measures.plan.lowest.rank
    return Finding(
        key="correlated",
        claim="delta_W has a stronger correlation with W than a random matrix has.",
        where="section 7.3, table 7",
        paper="projection over random: 0.32 / 0.02 = 16 at r = 4, 1.90 / 0.33 = 5.8 at r = 64",
        here=f"projection over random: {spread(over_low)} at r = {r}, {spread(over_high)} at r = 64; in standard "
        f"deviations {spread(low, '.3g')} and {spread(high, '.3g')}",
        chance="1, and 0 standard deviations",
        verdict=rules.CORRELATED(low, high),
        rule=rules.CORRELATED.text,
        why=f"The ratio is at most d / r, which is {_d(measures) // 64} at r = 64 here and 192 in the paper: a "
        "smaller d leaves less room above chance.",
        figure="table7",
        numbers={"z_low": low, "z_64": high, "over_random_low": over_low, "over_random_64": over_high},
    )


def _not_emphasised(measures: Measures) -> Finding:
    low, high = _pair(measures, lambda module, rank: rank.proj_delta_W / rank.proj_W)
    chance_low, chance_high = _pair(measures, lambda module, rank: rank.proj_random / rank.proj_W)
    r = measures.plan.lowest.rank
    return Finding(
        key="not_emphasised",
        claim="delta_W amplifies directions that W does not emphasise, not W's own top directions.",
        where="section 7.3, table 7",
        paper="projection over that on W's own directions: 0.32 / 21.67 = 0.015 at r = 4, "
        "1.90 / 37.71 = 0.05 at r = 64",
        here=f"{spread(low)} at r = {r}, {spread(high)} at r = 64",
        chance=f"{spread(chance_low)} at r = {r}, {spread(chance_high)} at r = 64 (random directions; the paper's "
        "0.001 and 0.009)",
        verdict=rules.NOT_EMPHASISED(low, high, *_over_random(measures)),
        rule=rules.NOT_EMPHASISED.text,
        why="In a small model r directions are a larger part of W: even random ones carry a good share, so the ratio "
        "cannot be as small as the paper's. Compare it with chance.",
        figure="table7",
        numbers={"low": low, "r64": high, "chance_low": chance_low, "chance_64": chance_high},
    )


def _amplifies(measures: Measures) -> Finding:
    low, high = _pair(measures, lambda module, rank: rank.amplification)
    random_low, random_high = _pair(
        measures, lambda module, rank: module.norm_delta_W / rank.proj_random if rank.proj_random else None
    )
    r = measures.plan.lowest.rank
    return Finding(
        key="amplifies",
        claim="The amplification factor is large, and larger at a small rank.",
        where="section 7.3, table 7",
        paper="21.5 at r = 4, 1.9 at r = 64",
        here=f"{spread(low)} at r = {r}, {spread(high)} at r = 64",
        chance=f"{spread(random_low)} at r = {r}, {spread(random_high)} at r = 64 for random directions (the paper's "
        "345 and 10.8): chance is larger, not smaller",
        verdict=rules.AMPLIFIES_MOST_AT_LOW_RANK(low, high, *_over_random(measures)),
        rule=rules.AMPLIFIES_MOST_AT_LOW_RANK.text,
        why="The factor is linear in the size of delta_W, which grows with the length of training and with alpha, and "
        f"its denominator grows with r / d: {_per(64, _d(measures))} at r = 64 here, 0.005 in the paper.",
        figure="table7",
        numbers={"low": low, "r64": high, "random_low": random_low, "random_64": random_high},
    )


def _not_the_top(measures: Measures) -> Finding:
    phi, chance = [], []
    for row in rows_of(measures.against_base[measures.plan.lowest.name]):
        i, j = row.phi.shape[0], min(4, row.phi.shape[1])
        phi.append(float(row.phi[i - 1, j - 1]))
        chance.append(max(i, j) / row.d)
    return Finding(
        key="not_the_top",
        claim="delta_W does not contain the top singular directions of W.",
        where="appendix H.3, figure 8",
        paper="phi of W's top 10 % and delta_W's top 4 barely exceeds 0.2 (chance 0.1)",
        here=f"phi {spread(phi)} at r = {measures.plan.lowest.rank}",
        chance=spread(chance, ".3f"),
        verdict=rules.NOT_THE_TOP(phi, chance),
        rule=rules.NOT_THE_TOP.text,
        why="The inputs of a small model's first layers may lie in a small subspace, which then holds both W's top "
        "directions and the gradient's. The paper shows one layer in the middle of 96.",
        figure="fig8",
        numbers={"phi": phi, "chance": chance},
    )
