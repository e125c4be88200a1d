"""The rows of a comparison: one module of two adapters, on every side, with its start kept and removed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from subspace.adapters import Adapter, match_modules
from subspace.adapters.place import within
from subspace.adapters.update import LowRankUpdate
from subspace.analysis import naming_notes
from subspace.analysis.damage import damaged, damaged_places
from subspace.analysis.effects import Effect, effect_of
from subspace.analysis.frames import dimension, is_untrained, spanning
from subspace.errors import ValueRangeError, located
from subspace.flags import Flag
from subspace.geometry.agreement import Agreement, agreements
from subspace.results.module_comparison import ModuleComparison

if TYPE_CHECKING:
    from subspace.adapters import Update
    from subspace.geometry.frame import Frame

__all__ = ["Measured", "ModulePairs"]

_Pair: TypeAlias = "tuple[Update, Update]"
_Begun: TypeAlias = "tuple[Update | None, Update | None]"

# flags of an update that its row has too
_CARRIED = (Flag.DORA, Flag.FUSED, Flag.COMPOSED, Flag.BASE, Flag.DENSE, Flag.DEQUANTISED)


@dataclass(frozen=True, eq=False)
class Measured:
    """What was measured of one module.

    Attributes
    ----------
    rows : all sides, with the start kept and, where it is known, removed
    found : (side, init) -> agreement of the two spans, also of sides a and b that no row asks for
    effect : how alike the two updates are; None where that is not defined
    pair : the two updates
    damaged : paths of the files whose numbers of the module are not finite, so that it has no score
    """

    rows: tuple[ModuleComparison, ...]
    found: Mapping[tuple[str, str], Agreement]
    effect: Effect | None
    pair: _Pair
    damaged: tuple[str, ...] = ()


@dataclass(frozen=True)
class ModulePairs:
    """What stays the same over the modules of one comparison."""

    first: Adapter
    second: Adapter
    sides: tuple[str, ...]
    starts: tuple[Adapter | None, Adapter | None] = (None, None)
    directions: int | None = None

    def measured(self, name: str, other: str) -> Measured:
        """All sides of one module, and how alike the whole updates are."""
        pair = self.first[name], self.second[other]
        with located(lambda: within(name, damaged_places(self._sources(pair)))):
            begun = _start(self.starts[0], pair[0]), _start(self.starts[1], pair[1])
            try:
                return self._measured(pair, begun)
            except ValueRangeError:
                # looked for only now: most files are sound, and this reads every number once more
                bad = damaged(self._sources(pair, begun))
                if not bad:
                    raise
                return self._unscored(pair, begun, bad)

    def _measured(self, pair: _Pair, begun: _Begun) -> Measured:
        untrained = self._untrained(pair)
        reasons = {side: untrained or naming_notes.why_not(pair, side) for side in (*self.sides, "a", "b")}
        kept = self._agreements(pair, self._wanted(pair, reasons))
        comparable = not any(reasons[side] for side in "ab")
        effect = effect_of(pair, kept) if comparable else None
        rows = self._rows(pair, reasons, kept, "kept", effect)
        found = {(side, "kept"): each for side, each in kept.items()}
        if begun != (None, None):
            sides = [side for side in self.sides if not reasons[side]]
            removed = self._agreements(pair, sides, begun)
            found |= {(side, "removed"): each for side, each in removed.items()}
            # delta_W is the same, as B began at zero
            same = all(start is None or is_untrained(start) for start in begun)
            rows += self._rows(pair, reasons, removed, "removed", effect if same else None)
        return Measured(tuple(rows), found, effect, pair)

    def _unscored(self, pair: _Pair, begun: _Begun, bad: Sequence[str]) -> Measured:
        """The rows of a module with a number that is not finite: no side has a score."""
        reasons = dict.fromkeys(self.sides, (Flag.NOT_FINITE,))
        inits = ("kept",) if begun == (None, None) else ("kept", "removed")
        rows = [row for init in inits for row in self._rows(pair, reasons, {}, init, None)]
        return Measured(tuple(rows), {}, None, pair, tuple(bad))

    def _wanted(self, pair: _Pair, reasons: Mapping[str, tuple[Flag, ...]]) -> list[str]:
        """The sides that rows ask for, and of two factored updates both factors, which cost little more."""
        factored = all(isinstance(update, LowRankUpdate) for update in pair)
        sides = dict.fromkeys((*self.sides, *"ab") if factored else self.sides)
        return [side for side in sides if not reasons[side]]

    def _rows(
        self,
        pair: _Pair,
        reasons: Mapping[str, tuple[Flag, ...]],
        found: Mapping[str, Agreement],
        init: str,
        effect: Effect | None,
    ) -> list[ModuleComparison]:
        columns: dict[str, Any] = {} if effect is None else effect.columns()
        rows = [self._row(pair, side, init, found.get(side), reasons[side], columns) for side in self.sides]
        return rows if effect is not None else [_without_cosine(row) for row in rows]

    def _agreements(
        self, pair: _Pair, sides: Sequence[str], begun: Any = (None, None)
    ) -> dict[str, Agreement]:
        first, second = (
            spanning(update, sides, start=start, directions=self._directions(update))
            for update, start in zip(pair, begun, strict=True)
        )
        return agreements(first, second)

    def _row(
        self,
        pair: _Pair,
        side: str,
        init: str,
        found: Agreement | None,
        reasons: tuple[Flag, ...],
        columns: Mapping[str, Any],
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
            **columns,
        )

    def _untrained(self, pair: _Pair) -> tuple[Flag, ...]:
        flags = (Flag.UNTRAINED_FIRST, Flag.UNTRAINED_SECOND)
        return tuple(flag for flag, update in zip(flags, pair, strict=True) if is_untrained(update))

    def _sources(self, pair: _Pair, begun: _Begun = (None, None)) -> list[tuple[str, Update]]:
        """Everything that a module's numbers are read from, each with the path of its file."""
        found = [(self.first.path, pair[0]), (self.second.path, pair[1])]
        for start, update in zip(self.starts, begun, strict=True):
            if start is not None and update is not None:
                found.append((start.path, update))
        return found

    def _directions(self, update: Update) -> int | None:
        if self.directions is not None or Flag.BASE not in update.flags:
            return self.directions
        return max(1, -(-min(update.d_in, update.d_out) // 10))


def _without_cosine(row: ModuleComparison) -> ModuleComparison:
    """A row of updates that are not compared as wholes, with the flag for that where nothing else says it."""
    said = not row.phi.size or Flag.BASE in row.flags
    return row if said else replace(row, flags=(*row.flags, Flag.NO_COSINE))


def _start(start: Adapter | None, update: Update) -> Update | None:
    if start is None:
        return None
    pairs = match_modules([update.module], list(start)).pairs
    return start[pairs[0][1]] if pairs else None


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
