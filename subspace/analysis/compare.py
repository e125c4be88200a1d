"""How much do two adapters' subspaces agree, module by module, and how much of it is chance?

``phi(i, j)`` of the LoRA paper (arXiv 2106.09685v2, section 7.2 and appendix G) on any side of the update, principal
angles, Grassmann distances, and the shared dimension: how many principal directions agree beyond random spans.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from subspace.adapters import Adapter, match_modules
from subspace.adapters.place import place
from subspace.analysis import naming_notes
from subspace.analysis.comparison_notes import comparison_notes, flag_notes_of
from subspace.analysis.frames import SIDES
from subspace.analysis.module_rows import ModulePairs
from subspace.analysis.multiple_testing import with_shared_dimensions
from subspace.analysis.resolve import per_side, starts, two_adapters
from subspace.errors import InconclusiveError, ValueRangeError
from subspace.results.comparison import Comparison, Side
from subspace.results.module_comparison import ModuleComparison
from subspace.text import shown

if TYPE_CHECKING:
    from subspace.adapters.naming.matching import Matched

__all__ = ["compare"]


def compare(
    first: Any,
    second: Any,
    *,
    side: str | Sequence[str] = "a",
    init: Any = None,
    level: float = 0.01,
    directions: int | None = None,
    base: Any = None,
    scale: float | tuple[float | None, float | None] | None = None,
    adapter_name: str | tuple[str | None, str | None] | None = None,
    enable_lora: Sequence[bool] | tuple[Sequence[bool] | None, Sequence[bool] | None] | None = None,
    rename: Mapping[str, str] | tuple[Mapping[str, str] | None, Mapping[str, str] | None] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Comparison:
    """Compare two adapters: phi(i, j), angles and shared dimension per module, each with the level of random spans.

    Parameters
    ----------
    first, second : adapters as `load_adapter` takes them; one of them may be base weights (figure 8 of the paper)
    side : "a" (right singular vectors of A, the paper's choice), "b" (left ones of B), "left" or "right" (of
        delta_W), several of them, or "all"
    init : the adapter, or the two adapters, before training; subtracted, and both answers are given
    level : of the shared-dimension test, in (0, 1), over all modules of a side (Holm)
    directions : for base weights, how many leading directions; a tenth of the dimension by default
    base, scale, adapter_name, enable_lora, rename : how both adapters are read, as `load_adapter` takes them; a tuple
        of two is one value for each. No number of a comparison depends on a scale.
    progress : called with (modules done, modules in all)

    Returns
    -------
    Comparison
        One row per module and side, in the order of the first adapter's modules

    Raises
    ------
    InconclusiveError : no module in common, or every common module is untrained
    SubspaceError : an adapter cannot be read, a factor holds a value that is not finite

    References
    ----------
    Hu et al., arXiv 2106.09685v2, equation 4 and appendix G.

    Examples
    --------
    >>> import numpy as np
    >>> A = np.diag([2.0, 1.0])
    >>> result = compare({"A": A, "B": np.ones((3, 2))}, {"A": 5 * A[:1], "B": np.ones((3, 1))})
    >>> result.modules[0].phi
    array([[1.],
           [1.]])
    """
    sides = _sides(side)
    _require_settings(level, directions)
    loading = per_side(
        base=base, scale=scale, adapter_name=adapter_name, enable_lora=enable_lora, rename=rename
    )
    one, other = two_adapters(first, second, loading)
    matched = match_modules(list(one), list(other))
    other = naming_notes.flagged(other, matched)
    pairs = ModulePairs(one, other, sides, starts(init, one, other), directions)
    rows: list[ModuleComparison] = []
    for done, (name, other_name) in enumerate(matched.pairs):
        rows += pairs.rows(name, other_name)
        one.release()
        other.release()
        if progress is not None:
            progress(done + 1, len(matched.pairs))
    return _concluded(rows, one, other, matched, level)


def _concluded(
    rows: list[ModuleComparison], one: Adapter, other: Adapter, matched: Matched, level: float
) -> Comparison:
    """The comparison with its tests and notes; an answer that does not exist is an error."""
    tested = with_shared_dimensions(rows, level)
    stored = other.stored_names
    result = Comparison(
        first=Side.of(one),
        second=Side.of(other),
        modules=tuple(tested),
        only_first=tuple(matched.only_first),
        only_second=tuple(stored.get(module, module) for module in matched.only_second),
        level=level,
        notes=comparison_notes(tested, one, other, matched),
    )
    _require_an_answer(result)
    return result


def _require_settings(level: float, directions: int | None) -> None:
    if not 0 < level < 1:
        raise ValueRangeError(
            f"Level {level} is not between 0 and 1; give `level` a significance level such as 0.01"
        )
    if directions is not None and directions < 1:
        raise ValueRangeError(
            f"{directions} directions are too few: give `directions` a number of at least 1, or none"
        )


def _sides(side: str | Sequence[str]) -> tuple[str, ...]:
    wanted = SIDES if side == "all" else (side,) if isinstance(side, str) else tuple(side)
    unknown = [word for word in wanted if word not in SIDES]
    if unknown or not wanted:
        raise ValueRangeError(
            f"Unknown side {shown(repr(unknown[0]))}: `side` is one of {', '.join(SIDES)} or all"
            if unknown
            else f"No side to compare: `side` is one of {', '.join(SIDES)} or all"
        )
    return tuple(dict.fromkeys(wanted))


def _first_of(names: Sequence[str]) -> str:
    return shown(next(iter(names), "")) or "a matrix without a name"


def _require_an_answer(result: Comparison) -> None:
    if any(row.phi.size for row in result.modules):
        return
    where = f"{place(result.first.path)} and {place(result.second.path)}"
    if not result.modules:
        raise InconclusiveError(
            f"No module in common between {where}: the first has {_first_of(result.only_first)}, the second has "
            f"{_first_of(result.only_second)}; if they are the same layers under other names, map them with `rename`"
        )
    # a row without a score has no flags but those that say why
    reason = next(iter([*flag_notes_of(result.modules), *reversed(result.notes)]), "")
    raise InconclusiveError(f"No common module has a score, in {where}; {reason[:1].lower()}{reason[1:]}")
