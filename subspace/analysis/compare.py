"""How much do two adapters' subspaces agree, module by module, and how much of it is chance?

``phi(i, j)`` of the LoRA paper (arXiv 2106.09685v2, section 7.2 and appendix G) on any side of the update, principal
angles, Grassmann distances, and the shared dimension: how many principal directions agree beyond chance.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from subspace.adapters import Adapter, match_modules
from subspace.analysis import naming_notes as spelled
from subspace.analysis.frames import SIDES, dimension, is_untrained, paired_frames
from subspace.analysis.multiple_testing import with_shared_dimensions
from subspace.analysis.remarks import remarks
from subspace.analysis.resolve import as_pair, damaged, starts
from subspace.errors import InconclusiveError, ValueRangeError, located
from subspace.flags import Flag
from subspace.geometry import chance
from subspace.geometry.grassmann import phi_grid, principal_angles
from subspace.results.comparison import Comparison, ModuleComparison, Side
from subspace.text import shown

if TYPE_CHECKING:
    from subspace.adapters import Update
    from subspace.geometry.frame import Frame
    from subspace.geometry.lapack import Floats

__all__ = ["compare"]

# flags of an update that its row has too
_CARRIED = (Flag.DORA, Flag.FUSED, Flag.COMPOSED, Flag.BASE, Flag.DENSE)
_NEAR_ONE = 0.9  # phi of A above which a start in common is suspected
_AS_NEAR = 0.01  # B this close to A: the two adapters are one, whatever their start
_NEAR_CHANCE = 3.0  # times chance below which B says that nothing was learned in common


def compare(
    first: Any,
    second: Any,
    *,
    side: str | Sequence[str] = "a",
    init: Any = None,
    level: float = 0.01,
    directions: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Comparison:
    """Compare two adapters: phi(i, j), angles and shared dimension per module, each beside chance.

    Parameters
    ----------
    first, second : adapters as `load_adapter` takes them; one of them may be base weights (figure 8 of the paper)
    side : "a" (right singular vectors of A, the paper's choice), "b" (left ones of B), "left" or "right" (of
        delta_W), several of them, or "all"
    init : the adapter, or the two adapters, before training; subtracted, and both answers are given
    level : of the shared-dimension test, over all modules of a side (Holm)
    directions : for a dense side, how many leading directions; a tenth of the dimension by default
    progress : called with (modules done, modules in all)

    Returns
    -------
    Comparison

    Raises
    ------
    InconclusiveError : no module in common, or every common module is untrained
    SubspaceError : an adapter cannot be read, a factor holds a value that is not finite

    References
    ----------
    Hu et al., arXiv 2106.09685v2, equation 4 and appendix G.

    Examples
    --------
    >>> A = np.diag([2.0, 1.0])
    >>> result = compare({"A": A, "B": np.ones((3, 2))}, {"A": 5 * A[:1], "B": np.ones((3, 1))})
    >>> result.modules[0].phi
    array([[1.],
           [1.]])
    """
    sides = _sides(side)
    if not 0 < level < 1:
        raise ValueRangeError(f"the level of a test must lie between 0 and 1: got {level}")
    if directions is not None and directions < 1:
        raise ValueRangeError(
            f"directions must be at least 1: got {directions}; leave it out for a tenth of d"
        )
    one, other = as_pair(first, second)
    matched = match_modules(list(one), list(other))
    other = spelled.flagged(other, matched)
    job = _Job(one, other, sides, starts(init, one, other), directions)
    rows: list[ModuleComparison] = []
    for done, (name, other_name) in enumerate(matched.pairs):
        rows += job.module(name, other_name)
        one.release()
        other.release()
        if progress is not None:
            progress(done + 1, len(matched.pairs))
    tested = with_shared_dimensions(rows, level)
    result = Comparison(
        first=Side.of(one),
        second=Side.of(other),
        modules=tuple(tested),
        only_first=tuple(matched.only_first),
        only_second=tuple(matched.only_second),
        level=level,
        notes=spelled.notes(matched) + remarks(tested, matched.only_first, matched.only_second),
    )
    _require_an_answer(result)
    return result


def _sides(side: str | Sequence[str]) -> tuple[str, ...]:
    wanted = SIDES if side == "all" else (side,) if isinstance(side, str) else tuple(side)
    for word in wanted:
        if word not in SIDES:
            raise ValueRangeError(f"a side must be one of {', '.join(SIDES)} or all: got {shown(word)}")
    if not wanted:
        raise ValueRangeError(f"a side must be one of {', '.join(SIDES)} or all: got none")
    return tuple(dict.fromkeys(wanted))


@dataclass(frozen=True)
class _Job:
    """What stays the same over the modules of one comparison."""

    first: Adapter
    second: Adapter
    sides: tuple[str, ...]
    starts: tuple[Adapter | None, Adapter | None] = (None, None)
    directions: int | None = None

    def module(self, name: str, other: str) -> Iterator[ModuleComparison]:
        """All sides of one module, with the start kept and, where it is known, removed."""
        pair = self.first[name], self.second[other]
        with located(lambda: f"module {shown(name)} of {self._damaged(pair)}"):
            untrained = self._untrained(pair)
            yield from self._rows(pair, untrained, (None, None))
            begun = tuple(_start(start, update) for start, update in zip(self.starts, pair, strict=True))
            if begun != (None, None):
                yield from self._rows(pair, untrained, begun, init="removed")

    def _rows(
        self, pair: Any, untrained: tuple[Flag, ...], begun: Any, init: str = "kept"
    ) -> Iterator[ModuleComparison]:
        reasons = {side: untrained or spelled.why_not(pair, side) for side in self.sides}
        sides = [side for side in self.sides if not reasons[side]]
        directions = (self._directions(pair[0]), self._directions(pair[1]))
        made = paired_frames(pair, sides, starts=begun, directions=directions)
        for side in self.sides:
            if side in sides:
                row = _measured(pair, side, made[side], init)
                yield _with_start_flag(row, pair) if side == "a" and init == "kept" else row
            else:
                yield _unmeasured(pair, side, reasons[side], init)

    def _untrained(self, pair: tuple[Update, Update]) -> tuple[Flag, ...]:
        flags = (Flag.UNTRAINED_FIRST, Flag.UNTRAINED_SECOND)
        return tuple(flag for flag, update in zip(flags, pair, strict=True) if is_untrained(update))

    def _damaged(self, pair: tuple[Update, Update]) -> str:
        return damaged([(self.first.path, pair[0]), (self.second.path, pair[1])])

    def _directions(self, update: Update) -> int | None:
        if self.directions is not None or Flag.BASE not in update.flags:
            return self.directions
        return max(1, -(-min(update.d_in, update.d_out) // 10))


def _start(start: Adapter | None, update: Update) -> Update | None:
    if start is None:
        return None
    pairs = match_modules([update.module], list(start)).pairs
    return start[pairs[0][1]] if pairs else None


def _measured(
    pair: tuple[Update, Update], side: str, made: tuple[Frame, Frame, Floats], init: str
) -> ModuleComparison:
    first, second, G = made
    if first.k == 0 or second.k == 0:
        flags = [flag for flag, f in ((Flag.ZERO_FIRST, first), (Flag.ZERO_SECOND, second)) if f.k == 0]
        return _unmeasured(pair, side, tuple(flags), init)
    theta = principal_angles(first, second, G=G)
    return ModuleComparison(
        module=pair[0].module,
        second_module=pair[1].module,
        side=side,
        d=first.d,
        r_first=pair[0].r,
        r_second=pair[1].r,
        rank_first=first.k,
        rank_second=second.k,
        phi=phi_grid(G),
        theta=theta,
        shared_p=chance.shared_dimension_p(np.cos(theta) ** 2, first.k, second.k, first.d),
        ties_first=first.ties,
        ties_second=second.ties,
        flags=_flags(pair, first, second),
        init=init,
    )


def _flags(pair: tuple[Update, Update], first: Frame, second: Frame) -> tuple[Flag, ...]:
    flags = [
        flag
        for flag in (Flag.DORA, Flag.FUSED, Flag.COMPOSED, Flag.BASE, Flag.DENSE)
        if any(flag in u.flags for u in pair)
    ]
    for update, frame, tie, below in (
        (pair[0], first, Flag.NEAR_TIE_FIRST, Flag.RANK_BELOW_R_FIRST),
        (pair[1], second, Flag.NEAR_TIE_SECOND, Flag.RANK_BELOW_R_SECOND),
    ):
        if frame.ties:
            flags.append(tie)
        if frame.k < update.r and Flag.DENSE not in update.flags:
            flags.append(below)
    if first.d in (first.k, second.k):
        flags.append(Flag.WHOLE_SPACE)
    elif first.k + second.k > first.d:
        flags.append(Flag.FORCED_OVERLAP)
    return tuple(flags)


def _unmeasured(
    pair: tuple[Update, Update], side: str, flags: tuple[Flag, ...], init: str
) -> ModuleComparison:
    empty = np.zeros((0, 0))
    return ModuleComparison(
        module=pair[0].module,
        second_module=pair[1].module,
        side=side,
        d=dimension(pair[0], side),
        r_first=pair[0].r,
        r_second=pair[1].r,
        rank_first=None,
        rank_second=None,
        phi=empty,
        theta=np.zeros(0),
        shared_p=np.zeros(0),
        flags=flags,
        init=init,
    )


def _with_start_flag(row: ModuleComparison, pair: tuple[Update, Update]) -> ModuleComparison:
    """Flag an agreement of A that may be a start in common: A near 1 while B is not."""
    if not row.phi.size or row.phi_full < _NEAR_ONE or row.chance_full > _NEAR_ONE / 2:
        return row
    if any({Flag.DENSE, Flag.COMPOSED} & set(update.flags) for update in pair) or spelled.why_not(pair, "b"):
        return row
    b = _measured(pair, "b", paired_frames(pair, ["b"])["b"], "kept")
    if not b.phi.size or b.phi_full > row.phi_full - _AS_NEAR:
        return row
    flag = Flag.SHARED_START if b.phi_full < _NEAR_CHANCE * b.chance_full else Flag.MAYBE_SHARED_START
    return replace(row, flags=(*row.flags, flag))


def _first_of(names: Sequence[str]) -> str:
    return shown(next(iter(names), "")) or "a matrix without a name"


def _require_an_answer(result: Comparison) -> None:
    if any(row.phi.size for row in result.modules):
        return
    where = f"{shown(result.first.path)} and {shown(result.second.path)}"
    if not result.modules:
        raise InconclusiveError(
            f"two adapters must have a module in common: got none, in {where}; first names "
            f"{_first_of(result.only_first)} and {_first_of(result.only_second)}"
        )
    raise InconclusiveError(
        f"at least one common module must have a score: got none, in {where}; {result.notes[-1]}"
    )
