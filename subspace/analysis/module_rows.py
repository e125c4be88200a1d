"""The rows of a comparison: one module of two adapters, on every side, with its start kept and removed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from subspace.adapters import Adapter, match_modules
from subspace.adapters.place import within
from subspace.analysis import naming_notes
from subspace.analysis.frames import dimension, is_untrained, spanning
from subspace.analysis.resolve import damaged
from subspace.errors import located
from subspace.flags import Flag
from subspace.geometry.agreement import Agreement, agreements
from subspace.results.module_comparison import ModuleComparison

if TYPE_CHECKING:
    from subspace.adapters import Update
    from subspace.geometry.frame import Frame

__all__ = ["ModulePairs"]

_Pair: TypeAlias = "tuple[Update, Update]"

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
        with located(lambda: within(name, self._damaged(pair))):
            untrained = self._untrained(pair)
            yield from self._rows(pair, untrained, (None, None))
            begun = tuple(_start(start, update) for start, update in zip(self.starts, pair, strict=True))
            if begun != (None, None):
                yield from self._rows(pair, untrained, begun, init="removed")

    def _rows(
        self, pair: _Pair, untrained: tuple[Flag, ...], begun: Any, init: str = "kept"
    ) -> Iterator[ModuleComparison]:
        reasons = {side: untrained or naming_notes.why_not(pair, side) for side in self.sides}
        found = self._agreements(pair, [side for side in self.sides if not reasons[side]], begun)
        for side in self.sides:
            row = self._row(pair, side, init, found.get(side), reasons[side])
            asked = side == "a" and init == "kept" and _agrees_almost(row)
            yield self._with_start_flag(row, pair) if asked else row

    def _agreements(
        self, pair: _Pair, sides: Sequence[str], begun: Any = (None, None)
    ) -> dict[str, Agreement]:
        first, second = (
            spanning(update, sides, start=start, directions=self._directions(update))
            for update, start in zip(pair, begun, strict=True)
        )
        return agreements(first, second)

    def _with_start_flag(self, row: ModuleComparison, pair: _Pair) -> ModuleComparison:
        """Flag an agreement of A that may be a start in common: A near 1 while B is not."""
        factored = not any({Flag.DENSE, Flag.COMPOSED} & set(update.flags) for update in pair)
        if not factored or naming_notes.why_not(pair, "b"):
            return row
        b = self._row(pair, "b", "kept", self._agreements(pair, ["b"])["b"], ())
        if not b.phi.size or b.phi_full > row.phi_full - _AS_NEAR:
            return row
        flag = Flag.SHARED_START if b.phi_full < _NEAR_CHANCE * b.chance_full else Flag.MAYBE_SHARED_START
        return replace(row, flags=(*row.flags, flag))

    def _row(
        self, pair: _Pair, side: str, init: str, found: Agreement | None, reasons: tuple[Flag, ...]
    ) -> ModuleComparison:
        """One row; without a score where nothing was compared, for `reasons`, or where a side has no direction."""
        scored = found is not None and found.phi.size > 0
        return ModuleComparison(
            first=self.first.path,
            second=self.second.path,
            module=pair[0].module,
            second_module=self.second.stored_names.get(pair[1].module, pair[1].module),
            side=side,
            d=dimension(pair[0], side),
            r_first=pair[0].r,
            r_second=pair[1].r,
            rank_first=found.first.k if found is not None and scored else None,
            rank_second=found.second.k if found is not None and scored else None,
            phi=found.phi if found is not None else np.zeros((0, 0)),
            theta=found.theta if found is not None else np.zeros(0),
            shared_p=found.shared_p if found is not None else np.zeros(0),
            ties_first=found.first.ties if found is not None and scored else (),
            ties_second=found.second.ties if found is not None and scored else (),
            flags=reasons if found is None else _flags(pair, found.first, found.second),
            init=init,
        )

    def _untrained(self, pair: _Pair) -> tuple[Flag, ...]:
        flags = (Flag.UNTRAINED_FIRST, Flag.UNTRAINED_SECOND)
        return tuple(flag for flag, update in zip(flags, pair, strict=True) if is_untrained(update))

    def _damaged(self, pair: _Pair) -> str:
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


def _agrees_almost(row: ModuleComparison) -> bool:
    return row.phi.size > 0 and row.phi_full >= _NEAR_ONE and row.chance_full <= _NEAR_ONE / 2


def _flags(pair: _Pair, first: Frame, second: Frame) -> tuple[Flag, ...]:
    nothing = [flag for flag, f in ((Flag.ZERO_FIRST, first), (Flag.ZERO_SECOND, second)) if f.k == 0]
    if nothing:
        return tuple(nothing)
    flags = [flag for flag in _CARRIED if any(flag in update.flags for update in pair)]
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
