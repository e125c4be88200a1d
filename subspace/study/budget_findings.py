"""The claims of the paper's tables 5 and 6, on held-out loss, and what a full study found."""

from __future__ import annotations

from collections.abc import Mapping

from subspace.study import rules
from subspace.study.finding import Finding, Met
from subspace.study.measurements import Measures
from subspace.study.runs import RANKS

__all__ = ["best_budget", "small_ranks"]


def _between_seeds(measures: Measures) -> float | None:
    """How much two seeds of one rank differ in held-out loss."""
    gains = [measures.gain(name) for name in ("r64", "r64-seed1")]
    return None if None in gains else abs(gains[0] - gains[1])  # type: ignore[operator]


def _ranks(measures: Measures, prefix: str = "") -> Met:
    """What table 6's rule makes of the held-out losses of the runs whose names begin so."""
    gains = {
        measures.plan.run(prefix + name).rank: measures.gain(prefix + name)
        for name in RANKS
        if prefix + name in measures.runs and measures.plan.run(prefix + name).held_out
    }
    words = _words({f"r = {rank}": gain for rank, gain in gains.items()})
    return Met(rules.SMALL_RANKS(gains), words, {"gains": gains})


def _budget(measures: Measures, prefix: str = "") -> Met:
    """What table 5's rule makes of the held-out losses of the runs whose names begin so."""
    gains = {
        measures.plan.run(prefix + name).weights: measures.gain(prefix + name)
        for name in measures.plan.budget
    }
    words = _words({"+".join(weights): gain for weights, gain in gains.items()})
    return Met(rules.BEST_BUDGET(gains, _between_seeds(measures)), words, {"gains": gains})


def _words(gains: Mapping[str, float | None]) -> str:
    parts = (f"{what}: {'unknown' if gain is None else format(gain, '.3f')}" for what, gain in gains.items())
    return f"held-out loss lowered, in nats: {', '.join(parts)}"


def _nulls(measures: Measures) -> dict[str, str]:
    noise = _between_seeds(measures)
    return {
        "untrained": "0",
        "two seeds of r = 64": f"they differ by {'an unknown amount' if noise is None else format(noise, '.3f')}",
    }


def small_ranks(measures: Measures) -> Finding:
    """Return what a full study found on table 6: how far each rank lowers the held-out loss."""
    here, barely = (_ranks(measures, prefix) for prefix in ("", "barely-"))
    return Finding(
        key="small_ranks",
        claim="A rank as small as 1 suffices for q and v together.",
        where="section 7.2, table 6",
        paper="WikiSQL 73.4, 73.3, 73.7, 73.8, 73.5 % at r = 1, 2, 4, 8, 64",
        here=here,
        controls={"barely": barely},
        nulls=_nulls(measures),
        verdict=rules.judged(here.verdict, [barely.verdict]),
        rule=rules.SMALL_RANKS.text,
        why="The model and the text are different here, a loss takes the place of an accuracy, and each rank has one "
        "seed; a loss can separate what an accuracy cannot.",
        figure="table6",
    )


def best_budget(measures: Measures) -> Finding:
    """Return what a full study found on table 5: which modules use one budget of parameters best."""
    here, barely = (_budget(measures, prefix) for prefix in ("", "barely-"))
    return Finding(
        key="best_budget",
        claim="At one budget of parameters, adapting q and v together is best, and q or k alone is much worse.",
        where="section 7.1, table 5",
        paper="WikiSQL q 70.4, k 70.0, v 73.0, o 73.2, q+k 71.4, q+v 73.7, q+k+v+o 73.7 %",
        here=here,
        controls={"barely": barely},
        nulls=_nulls(measures),
        verdict=rules.judged(here.verdict, [barely.verdict]),
        rule=rules.BEST_BUDGET.text,
        why="The model and the text are different here, and each run has one seed: a difference below that of two "
        "seeds means nothing.",
        figure="table5",
    )
