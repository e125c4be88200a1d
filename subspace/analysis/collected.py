"""What is collected while the modules of a comparison go by, and what follows from all of them together."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING

from subspace.analysis.common_start import alignment_of, file_start, is_suspicious, relation_of, start_flags
from subspace.analysis.controls import Controls, Matched
from subspace.analysis.damage import Damage
from subspace.analysis.effects import Effect, whole_update
from subspace.analysis.multiple_testing import with_shared_dimensions
from subspace.results.comparison_summary import SideSummary

if TYPE_CHECKING:
    from subspace.analysis.controls import Kind
    from subspace.analysis.module_rows import Measured
    from subspace.geometry.row_alignment import Alignment
    from subspace.results.comparison_summary import Relation, Start, WholeUpdate
    from subspace.results.module_comparison import ModuleComparison

__all__ = ["Collected"]


class Collected:
    """Rows, effects, controls and alignments of the modules of one comparison.

    Parameters
    ----------
    modules : names of the modules
    kinds : the controls that are wanted
    sides : the sides that are compared
    """

    def __init__(self, modules: Sequence[str], kinds: Sequence[Kind], sides: Sequence[str]) -> None:
        self._controls = Controls(modules, kinds)
        self._sides = sides
        self._rows: dict[int, tuple[ModuleComparison, ...]] = {}
        self._effects: list[Effect | None] = []
        self._starts: dict[str, tuple[Alignment | None, bool]] = {}
        self.damage = Damage()

    def in_order(self) -> Iterator[int]:
        """Numbers of the modules in the order in which they should be added."""
        return self._controls.in_order()

    def add(self, n: int, measured: Measured) -> None:
        """Take in module number n; its matrices are let go as soon as no control needs them."""
        self._rows[n] = measured.rows
        self._effects.append(measured.effect)
        for row in measured.rows:
            if (row.side, row.init) in measured.found:
                self._controls.add(row.module, row.side, row.init, measured.found[row.side, row.init])
        module = measured.pair[0].module
        self.damage.add(module, measured.damaged)
        self._starts[module] = alignment_of(measured.pair, measured.found), is_suspicious(measured.found)

    def rows(self, level: float) -> list[ModuleComparison]:
        """All rows in the order of the modules, with their tests, controls and flags.

        Parameters
        ----------
        level : of the test of the shared dimension over the modules of a side
        """
        rows = with_shared_dimensions([row for n in sorted(self._rows) for row in self._rows[n]], level)
        matched = self._controls.matched(level / max(1, len(self._rows)))
        return [
            self._completed(row, matched.get((row.module, row.side, row.init), Matched())) for row in rows
        ]

    def _completed(self, row: ModuleComparison, matched: Matched) -> ModuleComparison:
        flags = row.flags
        if row.side == "a" and row.init == "kept" and row.phi.size and self.relation != "same_adapter":
            flags += start_flags(self._starts[row.module][0], self._start[0], self._starts[row.module][1])
        return replace(row, matched_controls=matched.controls, phi_control_grid=matched.grid, flags=flags)

    @cached_property
    def _start(self) -> tuple[Start, float | None]:
        return file_start([alignment for alignment, _ in self._starts.values()])

    @cached_property
    def whole(self) -> WholeUpdate | None:
        """How alike the two whole updates are."""
        return whole_update(self._effects)

    @cached_property
    def relation(self) -> Relation | None:
        """What makes the two adapters one, or two of one run, where the numbers show it."""
        return relation_of(self._start[0], self.whole)

    def sides(self) -> dict[str, SideSummary]:
        """What is known of each side of all modules together, with the starts kept."""
        return {side: self._side(side) for side in self._sides}

    def _side(self, side: str) -> SideSummary:
        start, z = self._start if side == "a" else (None, None)
        p, floor = self._controls.layers.permuted(side, "kept")
        return SideSummary(start, None if z is None or math.isnan(z) else z, p, floor)
