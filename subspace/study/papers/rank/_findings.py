"""What measured losses say of ranks and of the rules of thumb for them; every number is computed, and every verdict."""

from __future__ import annotations

import math
from collections.abc import Mapping

from subspace.study.finding import Finding, Met
from subspace.study.papers.rank import _rules
from subspace.study.papers.rank._advice import RULES
from subspace.study.papers.rank._measured import Advised, Measures, Sweep
from subspace.study.papers.rank._planned import WHOLE
from subspace.study.rules import judged

__all__ = ["findings"]

_HERE = "The model and the text are small here, and each rank has one seed unless the study is full."


def findings(measures: Measures) -> tuple[Finding, ...]:
    """Return the findings on ranks, and one on each rule of thumb."""
    advice = (_advice(measures, name) for name in RULES)
    return (_small_rank(measures), _few_directions(measures), _cut_is_as_good(measures), *advice)


def _small_rank(measures: Measures) -> Finding:
    base, error = measures.here.base, abs(measures.between_seeds.difference)
    gains = {rank: base - each.loss for rank, each in measures.native.items()}
    words = ", ".join(f"r = {rank}: {gain:.3f}" for rank, gain in gains.items())
    here = Met(_rules.SMALL_RANK(gains, error), f"held-out loss lowered, in nats: {words}", {"gains": gains})
    return Finding(
        key="small_rank",
        claim="A rank as small as 1 suffices for q and v together.",
        where="Hu et al., arXiv 2106.09685, section 7.2, table 6",
        paper="WikiSQL 73.4, 73.3, 73.7, 73.8, 73.5 % at r = 1, 2, 4, 8, 64",
        here=here,
        nulls={"untrained": "0", "two seeds of r = 64": f"they differ by {error:.3f}"},
        verdict=here.verdict,
        rule=_rules.SMALL_RANK.text,
        why=f"{_HERE} A loss can separate what an accuracy cannot.",
        figure="loss",
    )


def _few_directions(measures: Measures) -> Finding:
    def met(sweep: Sweep) -> Met:
        kept = {rank: sweep.kept(each.loss) for rank, each in sweep.cut.items()}
        words = ", ".join(f"{rank}: {100 * share:.0f} %" for rank, share in kept.items())
        gains = (
            f"share of the gain that is kept at rank {words}"
            if sweep.base > sweep.whole and not any(map(math.isnan, kept.values()))
            else "it gains nothing that could be kept"
        )
        says = f"{gains}; {_enough(sweep)}"
        return Met(_rules.FEW_DIRECTIONS(kept, sweep.enough), says, {"kept": kept, "enough": sweep.enough})

    here, other = (met(measures.sweeps[name]) for name in WHOLE)
    controls = {"barely": met(measures.sweeps["barely-r64"]), "random": met(measures.sweeps["random"])}
    return Finding(
        key="few_directions",
        claim="What r = 64 learns is in its top directions, and the others are mostly noise.",
        where="Hu et al., arXiv 2106.09685, section 7.2",
        paper="by figures 3 and 4, no loss was measured",
        here=here,
        controls=controls,
        nulls={"the other seed": f"{other.verdict}; {other.says}"},
        verdict=judged(here.verdict, [each.verdict for each in controls.values()]),
        rule=_rules.FEW_DIRECTIONS.text,
        why="The paper concluded it from the directions that two adapters share; here they are cut off and the loss is "
        "measured. A random adapter gains nothing, so that nothing of it can be kept.",
        figure="loss",
    )


def _cut_is_as_good(measures: Measures) -> Finding:
    cut = {rank: each.loss for rank, each in measures.here.cut.items()}
    native = {rank: each.loss for rank, each in measures.native.items()}
    words = ", ".join(f"{rank}: {cut[rank]:.3f} and {native[rank]:.3f}" for rank in native)
    here = Met(
        _rules.CUT_IS_AS_GOOD(cut, native), f"loss of r = 64 cut and of the adapter trained at rank {words}"
    )
    return Finding(
        key="cut_is_as_good",
        claim="Training at a high rank and cutting is as good as training at the low rank.",
        where="a practice, after Eckart & Young 1936",
        paper="no number",
        here=here,
        nulls={"two seeds of r = 64": f"they differ by {abs(measures.between_seeds.difference):.3f}"},
        verdict=here.verdict,
        rule=_rules.CUT_IS_AS_GOOD.text,
        why="The best approximation of delta_W in norm need not be the best in loss, and an adapter that is trained at "
        "the low rank can use it as it likes.",
        figure="loss",
    )


def _advice(measures: Measures, name: str) -> Finding:
    rule = RULES[name]
    here, other, barely, random = (
        _met(measures.sweeps[run], name) for run in (*WHOLE, "barely-r64", "random")
    )
    return Finding(
        key=name.replace(" ", "_").replace("%", "percent").lower(),
        claim=f"{name[0].upper()}{name[1:]} advises a rank that is enough and not too large: {rule.says}.",
        where=rule.source,
        paper="no loss was measured",
        here=here,
        controls={"random": random},
        nulls={
            "the other seed": f"{other.verdict}; {other.says}",
            "barely trained": f"{barely.verdict}; {barely.says}",
        },
        verdict=judged(here.verdict, [random.verdict]),
        rule=_rules.ADVICE.text,
        why="A rule knows the singular values alone, not how much each direction does to the loss; the rank that is "
        f"enough is known to within the measured ranks, {', '.join(map(str, measures.native))}.",
        figure="loss",
    )


def _met(sweep: Sweep, name: str) -> Met:
    advised = sweep.advised[name]
    lost = 1 - sweep.kept(advised.cut.loss)
    numbers = {
        "lost": lost,
        "worse": advised.cut.worse(sweep.error),
        "mean_rank": advised.mean,
        "enough": sweep.enough,
        "ranks": dict(advised.ranks),
    }
    verdict = _rules.ADVICE(lost, advised.cut.worse(sweep.error), advised.mean, sweep.enough)
    return Met(verdict, _says(advised, sweep, lost), numbers)


def _says(advised: Advised, sweep: Sweep, lost: float) -> str:
    ranks: Mapping[str, int] = advised.ranks
    unanswered = (
        f" (no answer for {advised.unanswered} of {len(ranks)} modules)" if advised.unanswered else ""
    )
    share = "" if math.isnan(lost) else f", {100 * lost:.1f} % of the gain lost"
    change = f"{advised.cut.difference:+.4f} ({advised.cut.low:+.4f} to {advised.cut.high:+.4f})"
    return (
        f"ranks {min(ranks.values())} to {max(ranks.values())}, mean {advised.mean:.1f}{unanswered}; the loss "
        f"changes by {change} nats{share}; {_enough(sweep)}"
    )


def _enough(sweep: Sweep) -> str:
    return (
        f"rank {sweep.enough} would be enough within what two seeds differ by, {sweep.indistinguishable} to show no "
        "difference at all"
    )
