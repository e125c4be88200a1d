"""The claims of the paper's tables 5 and 6, on held-out loss, and what a full study found."""

from __future__ import annotations

from collections.abc import Sequence

from subspace.study import rules
from subspace.study.finding import Finding, Met
from subspace.study.measurements import Measures
from subspace.study.runs import RANKS

__all__ = ["best_budget", "small_ranks"]


def _noise(measures: Measures) -> float | None:
    """How much two seeds of one rank differ in held-out loss."""
    gains = [measures.gain(name) for name in ("r64", "r64-seed1")]
    return None if None in gains else abs(gains[0] - gains[1])  # type: ignore[operator]


def _gains(measures: Measures, names: Sequence[str]) -> str:
    parts = []
    for name in names:
        run, gain = measures.plan.run(name), measures.gain(name)
        what = f"r = {run.rank}" if names == RANKS else f"{'+'.join(run.weights)}"
        parts.append(f"{what}: {'unknown' if gain is None else format(gain, '.3f')}")
    return f"held-out loss lowered, in nats: {', '.join(parts)}"


def small_ranks(measures: Measures) -> Finding:
    """Return what a full study found on table 6: how far each rank lowers the held-out loss."""
    gains = {run.rank: measures.gain(run.name) for run in measures.plan.runs if run.name in RANKS}
    noise, verdict = _noise(measures), rules.SMALL_RANKS(gains)
    return Finding(
        key="small_ranks",
        claim="A rank as small as 1 suffices for q and v together.",
        where="section 7.2, table 6",
        paper="WikiSQL 73.4, 73.3, 73.7, 73.8, 73.5 % at r = 1, 2, 4, 8, 64",
        here=Met(verdict, _gains(measures, RANKS), {"gains": gains, "between_seeds": noise}),
        isotropic=f"0 untrained; two seeds of r = 64 differ by {_number(noise)}",
        verdict=verdict,
        rule=rules.SMALL_RANKS.text,
        why="The model and the text are different here, a loss takes the place of an accuracy, and each rank has one "
        "seed; a loss can separate what an accuracy cannot.",
        figure="table6",
    )


def _number(value: float | None) -> str:
    return "an unknown amount" if value is None else f"{value:.3f}"


def best_budget(measures: Measures) -> Finding:
    """Return what a full study found on table 5: which modules use one budget of parameters best."""
    gains = {
        run.weights: measures.gain(run.name) for run in measures.plan.runs if run.name in measures.plan.budget
    }
    noise = _noise(measures)
    verdict = rules.BEST_BUDGET(gains, noise)
    return Finding(
        key="best_budget",
        claim="At one budget of parameters, adapting q and v together is best, and q or k alone is much worse.",
        where="section 7.1, table 5",
        paper="WikiSQL q 70.4, k 70.0, v 73.0, o 73.2, q+k 71.4, q+v 73.7, q+k+v+o 73.7 %",
        here=Met(verdict, _gains(measures, measures.plan.budget), {"gains": gains, "between_seeds": noise}),
        isotropic=f"0 untrained; two seeds of r = 64 differ by {_number(noise)}",
        verdict=verdict,
        rule=rules.BEST_BUDGET.text,
        why="The model and the text are different here, and each run has one seed: a difference below that of two "
        "seeds means nothing.",
        figure="table5",
    )
