"""The rows of a comparison: one module of two adapters, on every side, with its start kept and removed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from subspace.adapters import Adapter, match_modules
from subspace.analysis import naming_notes
from subspace.analysis.frames import dimension, is_untrained, paired_frames
from subspace.analysis.resolve import damaged
from subspace.errors import located
from subspace.flags import Flag
from subspace.geometry import chance
from subspace.geometry.grassmann import phi_grid, principal_angles
from subspace.results.comparison import ModuleComparison
from subspace.text import shown

if TYPE_CHECKING:
    from subspace.adapters import Update
    from subspace.geometry.frame import Frame
    from subspace.geometry.lapack import Floats

__all__ = ["ModulePairs"]

# flags of an update that its row has too
_CARRIED = (Flag.DORA, Flag.FUSED, Flag.COMPOSED, Flag.BASE, Flag.DENSE)
_NEAR_ONE = 0.9  # phi of A above which a start in common is suspected
_AS_NEAR = 0.01  # B this close to A: the two adapters are one, whatever their start
_NEAR_CHANCE = 3.0  # times the level of random spans below which B says that nothing was learned in common


@dataclass(frozen=True)
class ModulePairs:
    """What stays the same over the modules of one comparison."""

    first: Adapter
    second: Adapter
    sides: tuple[str, ...]
    starts: tuple[Adapter | None, Adapter | None] = (None, None)
    directions: int | None = None

    def rows(self, name: str, other: str) -> Iterator[ModuleComparison]:
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
        reasons = {side: untrained or naming_notes.why_not(pair, side) for side in self.sides}
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
    if any({Flag.DENSE, Flag.COMPOSED} & set(update.flags) for update in pair) or naming_notes.why_not(
        pair, "b"
    ):
        return row
    b = _measured(pair, "b", paired_frames(pair, ["b"])["b"], "kept")
    if not b.phi.size or b.phi_full > row.phi_full - _AS_NEAR:
        return row
    flag = Flag.SHARED_START if b.phi_full < _NEAR_CHANCE * b.chance_full else Flag.MAYBE_SHARED_START
    return replace(row, flags=(*row.flags, flag))
