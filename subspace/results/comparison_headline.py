"""What a comparison found, in one sentence: how many directions are shared, in how many modules."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING

from subspace.text import counted

if TYPE_CHECKING:
    from subspace.results.module_comparison import ModuleComparison

__all__ = ["comparison_headline"]

_SIDES = {"a": "A", "b": "B", "left": "the left side of delta_W", "right": "the right side of delta_W"}


def comparison_headline(rows: Sequence[ModuleComparison], level: float) -> str:
    """How many directions are shared, per side: the paper's "a subspace of dimension 1" as a test at a level."""
    groups: dict[tuple[str, str], list[ModuleComparison]] = defaultdict(list)
    for row in rows:
        groups[row.side, row.init].append(row)
    sentence = "; ".join(_clause(side, init, members) for (side, init), members in groups.items())
    tested = any(row.shared_dim is not None for row in rows)
    suffix = f", beyond random spans (level {level:.3g}, Holm over modules)" if tested else ""
    return f"{sentence[:1].upper()}{sentence[1:]}{suffix}."


def _clause(side: str, init: str, rows: Sequence[ModuleComparison]) -> str:
    """What is shared on one side: "A shares 1 direction in 3 modules, of at most 8"."""
    scored = [each for each in rows if each.shared_dim is not None]
    what = _SIDES[side] + (", with the start removed," if init == "removed" else "")
    if not scored:
        if any(each.phi.size for each in rows):
            return f"{what} cannot be tested, since one of the spans is the whole space"
        return f"{what} has no score in any module"
    counts = Counter(each.shared_dim or 0 for each in scored)
    most = max(len(each.theta) for each in scored)
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    shares = [_share(n, times, len(scored)) for n, times in ordered]
    return f"{what} shares {_joined(shares)}, of at most {most}"


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
