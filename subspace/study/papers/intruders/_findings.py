"""The claims of the paper on intruder dimensions, and what was found: every number is computed, and every verdict."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from statistics import median
from typing import Any

from subspace.geometry.rank_correlation import RankCorrelation, partial_spearman, spearman
from subspace.study.finding import Finding, Met
from subspace.study.papers.intruders import _rules
from subspace.study.papers.intruders._measured import LAMBDAS, Effect, Loss, Measures, Mitigation
from subspace.study.papers.intruders._planned import METHODS
from subspace.study.rules import judged

__all__ = ["correlations", "findings"]

_LORA = tuple(name for name, (rank, _) in METHODS.items() if rank)
_LOW = ("r1", "r8")
_SMALL = (
    "The base is small (d = 256 in place of 768 to 4096) and was trained for few steps on bytes, so the intruders are "
    "few and each weighs more."
)
_Effects = Mapping[str, Effect]


def findings(measures: Measures) -> tuple[Finding, ...]:
    """Return what was found, in the order of the paper."""
    return (
        _only_lora(measures),
        _by_rate(measures),
        _by_rank(measures),
        _forgets_less(measures),
        _forgetting(measures),
        _mitigated(measures),
    )


def _per_matrix(effect: Effect) -> float:
    return effect.intruders() / len(effect.matrices) if effect.matrices else 0.0


def _finding(
    key: str,
    claim: str,
    where: str,
    paper: str,
    rule: Any,
    met: Mapping[str, Met],
    why: str,
    figure: str,
    **more: Any,
) -> Finding:
    """A finding whose verdict is that of "here" unless a control meets the rule too."""
    controls = {name: each for name, each in met.items() if name != "here"}
    return Finding(
        key=key,
        claim=claim,
        where=where,
        paper=paper,
        here=met["here"],
        controls=controls,
        nulls=more.get("nulls", {}),
        inputs=more.get("inputs", ""),
        verdict=judged(met["here"].verdict, [each.verdict for each in controls.values()]),
        rule=rule.text,
        why=why,
        figure=figure,
    )


def _three(measures: Measures, met: Callable[[_Effects, bool], Met]) -> dict[str, Met]:
    """What a rule makes of the trained runs, of the barely trained ones, and of random updates."""
    return {
        "here": met(measures.trained, False),
        "barely": met(measures.trained, True),
        "random": met(measures.random, False),
    }


def _at_best(measures: Measures, effects: _Effects, barely: bool) -> dict[str, Effect]:
    """Each method at the learning rate of its lowest task loss."""
    return {name: effects[measures.best(name, barely=barely).name] for name in METHODS}


def _only_lora(measures: Measures) -> Finding:
    def met(effects: _Effects, barely: bool) -> Met:
        found = {name: _per_matrix(each) for name, each in _at_best(measures, effects, barely).items()}
        words = ", ".join(f"{name} {value:.2f}" for name, value in found.items())
        low = {name: found[name] for name in _LOW}
        return Met(_rules.ONLY_LORA(low, found["full"]), f"intruders per matrix: {words}", found)

    losses = _at_best(measures, measures.trained, False)
    words = ", ".join(f"{name} {each.task.loss:.2f}" for name, each in losses.items())
    return _finding(
        "only_lora",
        "LoRA has intruder dimensions, full fine-tuning of the same matrices has none or far fewer.",
        "section 4",
        "many in LoRA of low ranks and almost none in full fine-tuning, by its figures",
        _rules.ONLY_LORA,
        _three(measures, met),
        f"{_SMALL} A random update of the same singular values says how much of it the size and the rank alone "
        "explain.",
        "by-rate",
        inputs=f"Task losses there, in nats: {words}; the base has {measures.base[0]:.2f}. {_reach(measures)}",
    )


def _reach(measures: Measures) -> str:
    """By how much the updates that have no intruder are too small."""
    without = [
        (run.name, measures.trained[run.name].outgrown)
        for run in measures.plan.runs
        if not measures.trained[run.name].intruders() and not run.barely
    ]
    if not without:
        return "Every run has an intruder."
    words = ", ".join(f"{name} {ratio:.2f}" for name, ratio in without)
    return (
        "Runs without any intruder, with the largest singular value of delta_W over W's tenth, which it has to "
        f"outgrow: {words}."
    )


def _by_rate(measures: Measures) -> Finding:
    def met(effects: _Effects, barely: bool) -> Met:
        counts = {
            name: [effects[run.name].intruders() for run in measures.at(name, barely=barely)]
            for name in _LORA
        }
        words = ", ".join(f"{name} {' '.join(map(str, each))}" for name, each in counts.items())
        return Met(_rules.BY_RATE(counts), f"intruders by learning rate, the lowest first: {words}", counts)

    return _finding(
        "by_rate",
        "There are more intruder dimensions the larger the learning rate is.",
        "section 4",
        "by its figures, no number",
        _rules.BY_RATE,
        _three(measures, met),
        "A larger rate makes a larger update, and a random update of that size has more intruders as well: the "
        "claim is about size. The barely trained runs have one rate, so they cannot meet it.",
        "by-rate",
    )


def _by_rank(measures: Measures) -> Finding:
    names = ("r8", "r64-rs", "r64")

    def met(effects: _Effects, barely: bool) -> Met:
        best = _at_best(measures, effects, barely)
        found = {name: best[name].intruders() for name in names}
        words = ", ".join(f"{name} {value}" for name, value in found.items())
        return Met(_rules.BY_RANK(*found.values()), f"intruders: {words}", found)

    highest = (f"{name} {measures.trained[measures.at(name)[-1].name].intruders()}" for name in names)
    return _finding(
        "by_rank",
        "A high rank with a rank-stabilised scale has fewer intruder dimensions.",
        "section 4 and abstract of version 1",
        "r = 64 and more with alpha = 2 r close to full fine-tuning, by its figures",
        _rules.BY_RANK,
        _three(measures, met),
        "Here alpha / sqrt(64) is the scale 2, that of r = 8 with alpha = 16; alpha fixed gives r = 64 the scale 0.25, "
        "a smaller update at the same learning rate.",
        "by-rate",
        inputs=f"All at the highest learning rate: {', '.join(highest)}.",
    )


def _forgets_less(measures: Measures) -> Finding:
    def met(effects: _Effects, barely: bool) -> Met:
        found = {name: each.forgetting for name, each in _at_best(measures, effects, barely).items()}
        words = ", ".join(f"{name} {value:+.2f}" for name, value in found.items())
        verdict = _rules.FORGETS_LESS([found[name] for name in _LORA], found["full"])
        return Met(verdict, f"rise of the loss on the text of pre-training, in nats: {words}", found)

    return _finding(
        "forgets_less",
        "LoRA forgets less than full fine-tuning.",
        "abstract",
        "an extension of Biderman et al., arXiv 2405.09673",
        _rules.FORGETS_LESS,
        _three(measures, met),
        "Each method stands at its own best learning rate, and LoRA may have learned less of the task there; the task "
        "losses are in the table.",
        "forgetting",
    )


def correlations(measures: Measures, effects: _Effects) -> dict[str, RankCorrelation]:
    """Return the rank correlations with forgetting over all runs of one kind that are not barely trained."""
    found = [effects[run.name] for run in measures.plan.runs if not run.barely]
    counts, norms = [each.intruders() for each in found], [each.relative_norm for each in found]
    forgotten = [each.forgetting for each in found]
    return {
        "intruders": spearman(counts, forgotten),
        "norm": spearman(norms, forgotten),
        "intruders_given_norm": partial_spearman(counts, forgotten, norms),
    }


def _forgetting(measures: Measures) -> Finding:
    def met(effects: _Effects) -> Met:
        found = correlations(measures, effects)
        count, norm, given = found.values()
        words = (
            f"rho {count.rho:.2f} (p = {count.p:.2g}, {count.n} runs); of the norm of delta_W alone {norm.rho:.2f} "
            f"(p = {norm.p:.2g}); of intruders given the norm {given.rho:.2f} (p = {given.p:.2g})"
        )
        numbers = {name: each._asdict() for name, each in found.items()}
        return Met(_rules.FORGETTING(count.rho, count.p, norm.rho), words, numbers)

    return _finding(
        "forgetting",
        "The more intruder dimensions a run has, the more it forgets.",
        "section 5",
        "a strong rank correlation over learning rates",
        _rules.FORGETTING,
        {"here": met(measures.trained), "random": met(measures.random)},
        "Runs of several methods, ranks and rates are pooled. What makes the update larger makes both larger: whether "
        "the intruders say more than the norm does is the third correlation.",
        "forgetting",
    )


def _shares(
    some: list[Mitigation], losses: Callable[[Mitigation], Mapping[float, tuple[Loss, Loss]]]
) -> tuple[dict[float, float], dict[float, float], dict[float, float]]:
    """By lambda, medians over the runs: forgetting taken away, the least of that which is sure, and the task's cost."""
    relief, sure, cost = {}, {}, {}
    for by in LAMBDAS:
        pairs = [(each, *losses(each)[by]) for each in some]
        relief[by] = median(-text.difference / each.pretraining.difference for each, _, text in pairs)
        sure[by] = median(-text.high / each.pretraining.difference for each, _, text in pairs)
        cost[by] = median(task.difference / -each.task.difference for each, task, _ in pairs)
    return relief, sure, cost


def _mitigated(measures: Measures) -> Finding:
    some = [
        each
        for each in measures.mitigated.values()
        if each.matrices and each.pretraining.difference > 0 > each.task.difference
    ]

    def met(losses: Callable[[Mitigation], Mapping[float, tuple[Loss, Loss]]]) -> Met:
        relief, sure, cost = _shares(some, losses) if some else ({}, {}, {})
        words = "; ".join(
            f"lambda {by:g}: {100 * relief[by]:.0f} % of the forgetting gone, {100 * cost[by]:.0f} % of the gain lost"
            for by in relief
        )
        numbers = {"relief": relief, "relief_sure": sure, "cost": cost}
        return Met(_rules.MITIGATED(relief, sure, cost), words or "no run has an intruder", numbers)

    return _finding(
        "mitigated",
        "Scaling the top intruder of every matrix down takes away much of the forgetting at little cost on the task.",
        "section 6",
        "lambda of 0.3 to 0.9; less forgetting at a minimal drop of the task",
        _rules.MITIGATED,
        {"here": met(lambda each: each.weakened), "shrunk": met(lambda each: each.shrunk)},
        "The control shrinks every matrix's whole update to the norm that it has once its intruder is weakened: where "
        "that does as well, the size of the update is what mattered, and not its direction.",
        "mitigation",
    )
