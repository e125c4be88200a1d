"""What a user of a comparison must be told, from the flags of its rows."""

from __future__ import annotations

from collections.abc import Sequence

from subspace.results.comparison import ModuleComparison
from subspace.text import counted, shown

__all__ = ["remarks"]

# flags -> what is said, {} being how many comparisons or modules have one of them
_OF_COMPARISONS = (
    (
        {"untrained_first", "untrained_second"},
        "{} without a score: delta_W is exactly zero (untrained) on one side or both",
    ),
    ({"shape_differs"}, "{} without a score: the module has another shape in the other adapter"),
    (
        {"zero_first", "zero_second"},
        "{} without a score: no direction stands above the rounding of the numbers",
    ),
    (
        {"blind"},
        "in {} the two spans fill so much of the space that even a direction shared to cos^2 0.99 would not stand out "
        "from chance: a shared dimension of 0 says nothing there",
    ),
)
_OF_MODULES = (
    (
        {"shared_start"},
        "in {} A agrees almost perfectly while B is at chance: the two runs began from one random start; read side "
        "b, or remove the start with --init",
    ),
    (
        {"maybe_shared_start"},
        "in {} A agrees almost perfectly and B less so: part of it may be a start in common; read side b, or remove "
        "the start with --init",
    ),
)
_COMPOSED = (
    "in {} of side a or b the factors are made of several trained ones (LoHa, LoKr, VeRA), not a trained A and B: "
    "read side left or right"
)


def remarks(
    rows: Sequence[ModuleComparison], only_first: Sequence[str], only_second: Sequence[str]
) -> tuple[str, ...]:
    """Return one sentence for each thing to know, with how often it happened; nothing for what did not happen.

    Parameters
    ----------
    rows : of the comparison
    only_first, only_second : modules of one adapter that the other does not have
    """
    told = [_left_over("first", only_first), _left_over("second", only_second)]
    told += [_said(text, _count(rows, flags), "comparison") for flags, text in _OF_COMPARISONS]
    told.append(
        _said(_COMPOSED, _count([r for r in rows if r.side in ("a", "b")], {"composed"}), "comparison")
    )
    told += [_said(text, _count(rows, flags), "module") for flags, text in _OF_MODULES]
    return tuple(filter(None, told))


def _left_over(which: str, names: Sequence[str]) -> str:
    if not names:
        return ""
    listed = shown(", ".join(names[:3])) + (", ..." if len(names) > 3 else "")
    return f"{counted(len(names), 'module')} only in the {which}, not compared: {listed}"


def _count(rows: Sequence[ModuleComparison], flags: set[str]) -> int:
    return sum(bool(flags & set(row.flags)) for row in rows)


def _said(text: str, n: int, noun: str) -> str:
    return text.format(counted(n, noun)) if n else ""
