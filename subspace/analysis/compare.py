"""Did two adapters learn the same, module by module and as a whole, and how much of it do all adapters of a base share?

The signed cosine of the updates and their energy in each other's spans; ``phi(i, j)`` of the LoRA paper (arXiv
2106.09685v2, section 7.2 and appendix G) on any side of the update, with angles, distances and the shared dimension.
Each number stands next to isotropic random spans and matched controls.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeAlias

from subspace.adapters import Adapter, match_modules
from subspace.adapters.place import place
from subspace.analysis import naming_notes
from subspace.analysis.collected import Collected
from subspace.analysis.comparison_notes import comparison_notes, flag_notes_of
from subspace.analysis.controls import kinds_of
from subspace.analysis.damage import Damage
from subspace.analysis.frames import SIDES
from subspace.analysis.module_rows import ModulePairs
from subspace.analysis.reference_adapters import pairs_among, reference_tests
from subspace.analysis.resolve import per_side, starts, two_adapters
from subspace.errors import InconclusiveError, ValueRangeError
from subspace.results.comparison import Comparison, Side
from subspace.text import module_shown, shown

if TYPE_CHECKING:
    from subspace.adapters.naming.matching import Matched
    from subspace.analysis.by_inputs import ByInputs

__all__ = ["compare"]


def compare(
    first: Any,
    second: Any,
    *,
    side: str | Sequence[str] = "a",
    init: Any = None,
    level: float = 0.01,
    directions: int | None = None,
    controls: str = "all",
    control: Sequence[Any] = (),
    inputs: Any = None,
    base: Any = None,
    scale: float | tuple[float | None, float | None] | None = None,
    adapter_name: str | tuple[str | None, str | None] | None = None,
    enable_lora: Sequence[bool] | tuple[Sequence[bool] | None, Sequence[bool] | None] | None = None,
    layout: str | tuple[str | None, str | None] | None = None,
    rename: Mapping[str, str] | tuple[Mapping[str, str] | None, Mapping[str, str] | None] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Comparison:
    """Compare two adapters: how alike the updates are, phi(i, j), angles and shared dimension, each next to its nulls.

    Parameters
    ----------
    first, second : adapters as `load_adapter` takes them; one of them may be base weights (figure 8 of the paper)
    side : "a" (right singular vectors of A, the paper's choice), "b" (left ones of B), "left" or "right" (of
        delta_W), several of them, or "all"
    init : the adapter, or the two adapters, before training; subtracted, and both answers are given
    level : of the shared-dimension test, in (0, 1), over all modules of a side (Holm)
    directions : for base weights, how many leading directions; a tenth of the dimension by default
    controls : which matched controls to measure: "same-input" (modules that read the same input, such as q against v;
        sides a and right), "layers" (the same kind of module in other layers), "all" or "none"
    control : reference adapters, trained for other tasks on the same base, as `load_adapter` takes them; the pair is
        tested against them, read with the loading keywords of the first adapter
    inputs : of the modules, an `Inputs` or the file that `subspace inputs` wrote: how much of phi they explain (sides a
        and right), how alike the outputs of the updates are on them, and with `base` how large beside those of W
    base, scale, adapter_name, enable_lora, layout, rename : how both adapters are read, as `load_adapter` takes them; a
        tuple of two is one value for each. No number of a comparison depends on a scale.
    progress : called with (steps done, steps in all): modules, and pairs with reference adapters

    Returns
    -------
    Comparison
        One row per module and side, in the order of the first adapter's modules

    Raises
    ------
    InconclusiveError : no module in common, or every common module is untrained or holds a number that is not finite
    SubspaceError : an adapter cannot be read

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
        base=base,
        scale=scale,
        adapter_name=adapter_name,
        enable_lora=enable_lora,
        rename=rename,
        layout=layout,
    )
    one, other = two_adapters(first, second, loading)
    begun = starts(init, one, other)
    one, other, matched, begun = _matched(one, other, begun)
    pairs = ModulePairs(one, other, sides, begun, directions)
    by_inputs = _by_inputs(inputs, one, matched, base)
    collected = Collected([name for name, _ in matched.pairs], kinds_of(controls), sides)
    done = _Steps(progress, len(matched.pairs) + pairs_among(len(control)))
    for n in collected.in_order():
        measured = pairs.measured(*matched.pairs[n])
        collected.add(n, measured if by_inputs is None else by_inputs.measured(measured))
        one.release()
        other.release()
        done.step()
    result = _concluded(collected, one, other, matched, level, by_inputs)
    if not control:
        return result
    damage = Damage()
    tests = reference_tests(one, other, control, loading[0], step=done.step, damage=damage)
    notes = (*result.notes, *damage.notes(without=(one.path, other.path), consequence=_REFERENCE_LEFT_OUT))
    return replace(result, references=tests, notes=notes if tests else (*notes, _NO_REFERENCES))


_Starts: TypeAlias = tuple[Adapter | None, Adapter | None]


def _matched(one: Adapter, other: Adapter, begun: _Starts) -> tuple[Adapter, Adapter, Matched, _Starts]:
    """Two adapters, the pairs of their modules, and their starts; a fused layer is split where the other has parts."""
    matched = match_modules(list(one), list(other))
    if matched.only_first and matched.only_second:
        from subspace.adapters.naming.fused_parts import separated, split_like

        first = {name: one[name] for name in matched.only_first}
        second = {name: other[name] for name in matched.only_second}
        parts = separated(one, list(first), second), separated(other, list(second), first)
        if parts[0] is not one or parts[1] is not other:
            one, other = parts
            matched = match_modules(list(one), list(other))
            begun = (begun[0] and split_like(begun[0], one), begun[1] and split_like(begun[1], other))
    matched = naming_notes.settled(matched, one, other)
    return one, naming_notes.flagged(other, matched), matched, begun


_LEFT_OUT = "the cosine of the whole updates is of the other modules"
_REFERENCE_LEFT_OUT = "the tests against the reference adapters go without these modules in its pairs"
_NO_REFERENCES = "No test against the reference adapters: no cosine and no phi(1, 1) is defined for all pairs"


@dataclass
class _Steps:
    """Steps done of so many, passed on to whoever shows them."""

    progress: Callable[[int, int], None] | None
    total: int
    done: int = 0

    def step(self) -> None:
        """Count one."""
        self.done += 1
        if self.progress is not None:
            self.progress(self.done, self.total)


def _by_inputs(inputs: Any, one: Adapter, matched: Matched, base: Any) -> ByInputs | None:
    """What is added with inputs; None without."""
    modules = [name for name, _ in matched.pairs]
    if inputs is None or not modules:
        return None
    from subspace.adapters import load_base
    from subspace.analysis.by_inputs import ByInputs

    given = next((each for each in base if each is not None), None) if isinstance(base, tuple) else base
    return ByInputs(inputs, modules, None if given is None else load_base(given))


def _concluded(
    collected: Collected,
    one: Adapter,
    other: Adapter,
    matched: Matched,
    level: float,
    by_inputs: ByInputs | None = None,
) -> Comparison:
    """The comparison with its tests and notes; an answer that does not exist is an error."""
    tested, whole = collected.rows(level), collected.whole
    if by_inputs is not None:
        tested = by_inputs.tested(tested, level)
        whole = whole and replace(whole, cosine_functional=by_inputs.cosine())
    stored = other.stored_names
    result = Comparison(
        first=Side.of(one),
        second=Side.of(other),
        modules=tuple(tested),
        only_first=tuple(matched.only_first),
        only_second=tuple(stored.get(module, module) for module in matched.only_second),
        level=level,
        notes=(
            *comparison_notes(tested, one, other, matched),
            *collected.damage.notes(consequence=_LEFT_OUT if whole else ""),
            *(() if by_inputs is None else by_inputs.notes(tested)),
        ),
        whole=whole,
        sides=collected.sides(),
        relation=collected.relation,
        inputs=None if by_inputs is None else by_inputs.described(),
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
    return module_shown(next(iter(names), ""))


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
