"""What a comparison found, for people: the size of the effect, a few facts per side, and what may be concluded."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from statistics import fmean, median
from typing import TYPE_CHECKING

from subspace.flags import Flag
from subspace.results.input_facts import explained, output_fact
from subspace.text import counted

if TYPE_CHECKING:
    from subspace.results.comparison import Comparison
    from subspace.results.module_comparison import ModuleComparison

__all__ = ["comparison_facts", "conclusion"]

_SIDES = {"a": "A", "b": "B", "left": "The left side of delta_W", "right": "The right side of delta_W"}
_STARTS = {
    "common": "the starts are common",
    "different": "the starts are different",
    "cannot_tell": "whether the starts are common cannot be told",
}
_CONTROLS = {"same_input": "modules with the same input", "layers": "the same modules of other layers"}
# Cosines measured between one text's adapter and others of one base: 0.75 and 0.69 for the same text, 0.60 for its
# words shuffled, 0.27 for other code, 0.08 and 0.10 for its characters shuffled and for uniform noise
_ALIKE, _UNRELATED = 0.5, 0.15
_BEYOND = 5.0  # standard deviations of isotropic updates below which a cosine is none


def comparison_facts(comparison: Comparison) -> tuple[str, ...]:
    """How alike the two updates are, the facts of each side, and what may be concluded: a sentence each."""
    groups = dict.fromkeys((row.side, row.init) for row in comparison.modules)
    sides = [_side(comparison, side, init) for side, init in groups]
    references = [_reference(comparison)]
    whole = (_whole(comparison), output_fact(comparison))
    return tuple(filter(None, (*whole, *sides, *references, conclusion(comparison))))


def _whole(comparison: Comparison) -> str:
    whole = comparison.whole
    if whole is None:
        return ""
    several = len(_cosines(comparison)) > 1
    finite = _of_finite(comparison)
    typical = f", {_short(_typical(comparison))} in the median module" if several else ""
    isotropic = f"(isotropic: 0 +- {whole.cosine_isotropic_sd:.1g})"
    facts = [
        f"{finite}{'t' if finite else 'T'}he updates have the cosine {_short(whole.cosine)}{typical} {isotropic}"
    ]
    if whole.energy_first_in_second is not None and whole.energy_first_in_second_isotropic is not None:
        facts.append(
            f"{_percent(whole.energy_first_in_second)} of the first lies inside both spans of the second "
            f"(isotropic: {_percent(whole.energy_first_in_second_isotropic)})"
        )
    return f"{'; '.join(facts)}."


def _of_finite(comparison: Comparison) -> str:
    """Of which modules the whole updates are, where some hold a number that is not finite."""
    bad = {row.module: Flag.NOT_FINITE in row.flags for row in comparison.modules if row.init == "kept"}
    good = len(bad) - sum(bad.values())
    return (
        f"Over the {good} of {counted(len(bad), 'module')} with finite numbers, " if any(bad.values()) else ""
    )


def _cosines(comparison: Comparison) -> list[float]:
    """The cosine of every module that has one."""
    found = {row.module: row.cosine for row in comparison.modules if row.init == "kept"}
    return [cosine for cosine in found.values() if cosine is not None]


def _typical(comparison: Comparison) -> float:
    return median(_cosines(comparison) or [float("nan")])


def _short(value: float) -> str:
    """Two decimals; never a rounded -0.00."""
    return f"{value:.2f}".replace("-0.00", "0.00")


def _percent(share: float) -> str:
    return f"{100 * share:.2g} %" if share < 0.995 else "100 %"


def _side(comparison: Comparison, side: str, init: str) -> str:
    """At most four facts: the start, the shared directions, those of the control, the excess with its p-value."""
    rows = [row for row in comparison.modules if (row.side, row.init) == (side, init)]
    what = _SIDES[side] + (", with the start removed" if init == "removed" else "")
    facts = [
        _start(comparison, side, init),
        _shared(rows, comparison.level),
        *_against_control(comparison, rows),
        *explained(rows, comparison.level),
    ]
    return f"{what}: {'; '.join(fact for fact in facts if fact)}."


def _start(comparison: Comparison, side: str, init: str) -> str:
    summary = comparison.sides.get(side)
    if summary is None or summary.start is None or init == "removed":
        return ""
    if any(Flag.BASE in row.flags for row in comparison.modules):
        return ""  # base weights have no start
    if summary.start_z is None:
        single = all(row.r_first == row.r_second == 1 for row in comparison.modules if row.side == side)
        return "a common start cannot be tested at r = 1" if single else _STARTS[summary.start]
    return f"{_STARTS[summary.start]} (row alignment z = {summary.start_z:.1f})"


def _shared(rows: Sequence[ModuleComparison], level: float) -> str:
    """Shared directions: the paper's "a subspace of dimension 1", as a test."""
    scored = [row for row in rows if row.shared_dim is not None]
    if not scored:
        if any(row.phi.size for row in rows):
            return "nothing can be tested, since one of the spans is the whole space"
        return "no module has a score"
    counts = Counter(row.shared_dim or 0 for row in scored)
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    shares = [_share(n, times, len(scored)) for n, times in ordered]
    most = max(len(row.theta) for row in scored)
    test = f"level {level:.3g}, Holm over modules"
    return f"{_joined(shares)} shared beyond isotropic random spans, of at most {most} ({test})"


def _share(n: int, times: int, total: int) -> str:
    """How many directions, in how many of all modules."""
    if n == 0:
        return (
            "no direction in any module"
            if times == total > 1
            else f"no direction in {_modules(times, total)}"
        )
    return f"{counted(n, 'direction')} in {_modules(times, total)}"


def _modules(n: int, total: int) -> str:
    if n == total:
        return {1: "the one module", 2: "both modules"}.get(total, f"all {total} modules")
    return counted(n, "module")


def _joined(parts: list[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


def _against_control(comparison: Comparison, rows: Sequence[ModuleComparison]) -> Iterator[str]:
    """What modules of another job share, and by how much phi(1, 1) exceeds theirs."""
    controlled = [row for row in rows if row.control_kind is not None and row.phi.size]
    if not controlled:
        return
    kind = Counter(row.control_kind for row in controlled).most_common(1)[0][0]
    controlled = [row for row in controlled if row.control_kind == kind]
    shared = [row.shared_dim_control for row in controlled if row.shared_dim_control is not None]
    if shared:
        yield f"{_CONTROLS[str(kind)]} share {fmean(shared):.2g} in the mean"
    excess = median(row.excess for row in controlled if row.excess is not None)
    phi = median(row.phi_11 for row in controlled)
    summary = comparison.sides.get(rows[0].side)
    p = ""
    if summary is not None and summary.layers_p is not None and rows[0].init == "kept":
        p = f" (layers permuted: p = {summary.layers_p:.2g}, at least {summary.layers_p_floor:.2g})"
    yield f"phi(1, 1) {_short(phi)} is {abs(excess):.2f} {'above' if excess >= 0 else 'below'} theirs{p}"


def _reference(comparison: Comparison) -> str:
    """Where the pair stands among pairs with adapters of other tasks."""
    if not comparison.references:
        return ""
    n = len(comparison.references[0].first_with_controls)
    facts = [f"{_MEASURES[test.measure]} p = {test.p:.2g}" for test in comparison.references]
    floor = comparison.references[0].p_floor
    return f"Against {counted(n, 'reference adapter')}: {', '.join(facts)} (at least {floor:.2g})."


def conclusion(comparison: Comparison) -> str:
    """What may and what may not be concluded, in one sentence or two."""
    if comparison.relation in _ONE:
        return _ONE[comparison.relation]
    start = _COMMON_START if comparison.relation == "common_start" else ""
    return f"{start}{_of_cosine(comparison)}"


def _of_cosine(comparison: Comparison) -> str:
    whole = comparison.whole
    if whole is None:
        uncompared = any(Flag.NO_COSINE in row.flags for row in comparison.modules)
        return _NO_COSINE if uncompared else ""
    least = max(_UNRELATED, min(_BEYOND * whole.cosine_isotropic_sd, 1.0))
    low, high = sorted((whole.cosine, _typical(comparison)), key=abs)
    if abs(high) < least:
        return _UNALIKE
    if high < 0:
        return "The updates point against each other: added, they partly cancel."
    if low < least:
        return (
            "The two learned something in common in a few modules only: see which ones have a large cosine."
        )
    what = "The two learned much of the same." if low >= _ALIKE else "The two learned in part the same."
    return what if comparison.references else f"{what} {_REFERENCES}"


_NO_COSINE = "How alike the two updates are is not defined here, so nothing is said of what they learned."
_UNALIKE = (
    "The updates hardly point the same way: nothing here shows that the two learned the same. Directions shared in A "
    "may be those that all adapters of these inputs share; two runs of one task can have a small cosine too."
)
_REFERENCES = "Only reference adapters (`control`) can tell whether adapters of other tasks come as near."
_COMMON_START = "The common start explains agreement of A, so judge by the cosine and by B. "
_ONE = {
    "same_adapter": "Both are one adapter, up to its scale and stored type, which says nothing about learning.",
    "same_run": "The start is common and the updates are nearly equal: checkpoints of one run, or one continues the "
    "other, or both an ancestor; the numbers cannot tell which.",
}
_MEASURES = {"cosine": "cosine", "phi_11_a": "phi(1, 1) of A", "phi_11_b": "phi(1, 1) of B"}
