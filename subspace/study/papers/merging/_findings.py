"""What is found of every predictor; every number is computed, and every verdict."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from subspace.study.finding import Finding, Met
from subspace.study.papers.merging import _rules
from subspace.study.papers.merging._judged import Judged, Outcome
from subspace.study.papers.merging._predictors import NORMS, PREDICTORS
from subspace.study.rules import AGREES, DIFFERS, PARTLY, judged

__all__ = ["findings", "reliabilities"]

_WHAT = {
    "harm": "how far a merge raises the loss of a task",
    "transfer": "what the adapter of one task does for another",
}
_WHERE = {
    "harm": "sums of two adapters with weight 1; the rise of the loss as a share of what the task's own had gained",
    "transfer": "one adapter on another task; its gain as a share of what the task's own gains",
}
_WORDS = {AGREES: "it foretells", PARTLY: "no better than the norms", DIFFERS: "it fails"}


def findings(outcomes: Mapping[str, Outcome]) -> tuple[Finding, ...]:
    """Return one finding for each predictor of either outcome."""
    return tuple(_finding(outcome, name, found) for outcome, found in outcomes.items() for name in PREDICTORS)


def _finding(outcome: str, name: str, found: Outcome) -> Finding:
    predictor, own = PREDICTORS[name], found.by[name]
    rule = _rules.FORETELLS if name == NORMS else _rules.FORETELLS_BEYOND
    beyond = "" if name == NORMS else ", beyond the norms"
    return Finding(
        key=f"{outcome}_{name}",
        claim=f"{predictor.label[0].upper()}{predictor.label[1:]} foretells {_WHAT[outcome]}{beyond}: "
        f"{predictor.says}.",
        where=f"{predictor.source}; {_WHERE[outcome]}",
        paper="",
        here=Met(own.verdict, _says(own, name), _numbers(own, found)),
        controls={"shuffled": Met(own.noise, _shuffled(own))},
        nulls=_nulls(found, name),
        verdict=judged(own.verdict, [own.noise]),
        rule=rule.text,
        why=_why(own),
        figure=outcome,
    )


def _says(own: Judged, name: str) -> str:
    found = own.found
    if not found.n:
        return "no task gained anything that could be lost"
    words = _WORDS if name != NORMS else {**_WORDS, PARTLY: "not for every task"}
    return (
        f"{words.get(own.verdict, 'it cannot be told')}: Spearman {found.spearman:+.2f} (p {found.p:.3f}), within a "
        f"task {found.within:+.2f}, over {found.n} samples; error for a task left out {found.error:.3f}"
    )


def _nulls(found: Outcome, name: str) -> dict[str, str]:
    nulls = {"no predictor": f"error {found.nothing.error:.3f}"}
    if name != NORMS:
        own, norms = found.by[name].found, found.by[NORMS].found
        nulls["norms alone"] = (
            f"error {norms.error:.3f}, beaten for {100 * own.wins(norms):.0f} % of the tasks"
        )
    triples = found.by[name].triples
    if triples is not None and found.nothing_triples is not None:
        nulls["sums of three, by the fit to pairs"] = (
            f"error {triples.error:.3f}, no predictor {found.nothing_triples.error:.3f}"
        )
    return nulls


def _shuffled(own: Judged) -> str:
    agree, part = (own.shuffled.count(verdict) for verdict in (AGREES, PARTLY))
    return f"of {len(own.shuffled)} permutations of the tasks {agree} agree and {part} agree in part"


def _why(own: Judged) -> str:
    return (
        f"Kendall's tau is {own.found.kendall:+.2f}, and the error of a straight line {own.found.error_linear:.3f}. "
        "Eight tasks are few, and pairs that share a task are dependent, which the permutation of tasks respects."
    )


def _numbers(own: Judged, found: Outcome) -> dict[str, Any]:
    norms = found.by[NORMS].found
    return {
        "spearman": own.found.spearman,
        "kendall": own.found.kendall,
        "p": own.found.p,
        "within": own.found.within,
        "error": own.found.error,
        "error_linear": own.found.error_linear,
        "error_nothing": found.nothing.error,
        "error_norms": norms.error,
        "wins_norms": own.found.wins(norms),
        "error_triples": own.triples.error if own.triples else None,
        "n": own.found.n,
    }


def reliabilities(outcomes: Mapping[str, Outcome]) -> list[dict[str, Any]]:
    """Return the numbers that a forecast quotes, one row per predictor and outcome."""
    return [
        {
            "predictor": name,
            "label": PREDICTORS[name].label,
            "outcome": outcome,
            "verdict": judged(own.verdict, [own.noise]),
            **_numbers(own, found),
        }
        for outcome, found in outcomes.items()
        for name, own in found.by.items()
    ]
