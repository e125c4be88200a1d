"""The modules of a comparison that a preset draws."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from subspace.errors import InconclusiveError, ValueRangeError
from subspace.plots.comparison_panels import SIDES, of_side, panel_of, short_names
from subspace.plots.control_panels import control_panel_of, control_title, of_one_input
from subspace.plots.module_titles import endings, layer_of, layer_titles, without_layer
from subspace.text import listed

if TYPE_CHECKING:
    from subspace.plots.panel import Panel
    from subspace.results.comparison import Comparison
    from subspace.results.module_comparison import ModuleComparison

__all__ = ["Selection", "selected"]

_Q = re.compile(r"(?:^|[._\[])(?:q|query|q_proj|to_q|q_lin|q_attn|wq|w_q)(?:$|[._\]])", re.IGNORECASE)
_V = re.compile(r"(?:^|[._\[])(?:v|value|v_proj|to_v|v_lin|wv|w_v)(?:$|[._\]])", re.IGNORECASE)


@dataclass(frozen=True, eq=False)
class Selection:
    """Some modules of one side of a comparison, and how they are called on a figure.

    Attributes
    ----------
    rows : the modules, in the order of the comparison; each has a score
    names : short names of the first and the second adapter, for the axes
    titles : module -> e.g. "q_proj, layer 3", which no other module of that side has
    paths : module -> the shortest ending of its path that no other module of that side has
    others : module -> those that read the same input, by the ends of their names
    """

    rows: tuple[ModuleComparison, ...]
    names: tuple[str, str]
    titles: Mapping[str, str]
    paths: Mapping[str, str]
    others: Mapping[str, Sequence[str]]

    def panels(self) -> list[Panel]:
        """Return the heatmaps, titled by kind of module and layer: "q_proj, layer 3 (A)"."""
        return [
            panel_of(row, title=f"{self.titles[row.module]} ({SIDES[row.side]})", names=self.names)
            for row in self.rows
        ]

    def controls(self) -> list[Panel | None]:
        """Return the heatmaps of the modules' controls, None for a module without one."""
        return [self._control(row) for row in self.rows]

    def _control(self, row: ModuleComparison) -> Panel | None:
        kind = row.control_kind or ""
        title = control_title(kind, self.titles[row.module], self.others[row.module])
        return control_panel_of(row, title=f"{title} ({SIDES[row.side]})", names=self.names)

    def panels_by_path(self) -> list[Panel]:
        """Return the heatmaps, titled by the ending of the module's path: "3.self_attn.q_proj"."""
        return [panel_of(row, title=self.paths[row.module], names=self.names) for row in self.rows]

    def q_and_v(self) -> Selection:
        """Return the q and v modules where there are any, else those of the first two kinds."""
        kinds = list(dict.fromkeys(without_layer(row.module) for row in self.rows))
        chosen = [next(filter(pattern.search, kinds), None) for pattern in (_Q, _V)]
        wanted = [kind for kind in chosen if kind is not None] or kinds[:2]
        return self._only(row for kind in wanted for row in self.rows if without_layer(row.module) == kind)

    def at(self, layer: int | None) -> Selection:
        """Return the modules of a layer; None: of the middle one of those that have the most modules.

        Raises
        ------
        ValueRangeError
            If no module stands in that layer.
        """
        if layer is None:
            return self._numbered(self._middle_layer())
        numbers = [number for number in self._layers() if number is not None]
        if layer not in numbers:
            what = (
                f"it has layers {listed(numbers, most=12)}"
                if numbers
                else "its modules have no layer numbers"
            )
            raise ValueRangeError(f"There is no layer {layer} in this comparison; {what}")
        return self._numbered(layer)

    def over_layers(self, layer: int | None) -> list[Selection]:
        """Return the modules of four layers from first to last, as the paper's 1, 32, 64 and 96; or of one layer."""
        if layer is not None:
            return [self.at(layer)]
        layers = self._layers()
        n = len(layers)
        return [self._numbered(layers[k]) for k in sorted({0, (n - 1) // 3, 2 * (n - 1) // 3, n - 1})]

    def each_layer(self) -> list[Selection]:
        """Return the modules of every layer, in the order of their numbers, those without a number first."""
        return [self._numbered(layer) for layer in self._layers()]

    def exchanged(self) -> Selection:
        """Return the same with the first adapter and the second exchanged: phi(A, A', i, j) = phi(A', A, j, i)."""
        rows = tuple(_exchanged(row) for row in self.rows)
        return replace(
            self,
            rows=rows,
            names=self.names[::-1],
            titles={new.module: self.titles[old.module] for new, old in zip(rows, self.rows, strict=True)},
            paths={new.module: self.paths[old.module] for new, old in zip(rows, self.rows, strict=True)},
            others={new.module: self.others[old.module] for new, old in zip(rows, self.rows, strict=True)},
        )

    def _only(self, rows: Iterable[ModuleComparison]) -> Selection:
        return replace(self, rows=tuple(rows))

    def _numbered(self, layer: int | None) -> Selection:
        return self._only(row for row in self.rows if layer_of(row.module) == layer)

    def _layers(self) -> list[int | None]:
        found = {layer_of(row.module) for row in self.rows}
        return sorted(found, key=lambda layer: -1 if layer is None else layer)

    def _middle_layer(self) -> int | None:
        counts = Counter(layer_of(row.module) for row in self.rows)
        full = [layer for layer in self._layers() if counts[layer] == max(counts.values())]
        return full[len(full) // 2]


def selected(comparison: Comparison, side: str) -> Selection:
    """Return all modules of one side that have a score.

    Raises
    ------
    InconclusiveError
        If no module has a score.
    ValueRangeError
        If that side was not compared.
    """
    rows = [row for row in of_side(comparison, side) if row.init == "kept" and row.phi.size]
    if not rows:
        raise InconclusiveError(f"There is nothing to draw: no module has a score on side {side}")
    modules = [row.module for row in rows]
    return Selection(
        tuple(rows),
        short_names(comparison),
        dict(zip(modules, layer_titles(modules), strict=True)),
        dict(zip(modules, endings(modules), strict=True)),
        of_one_input(modules),
    )


def _exchanged(row: ModuleComparison) -> ModuleComparison:
    """Return what is drawn of a row with first and second exchanged."""
    return replace(
        row,
        phi=row.phi.T,
        phi_control_grid=None if row.phi_control_grid is None else row.phi_control_grid.T,
        module=row.second_module,
        second_module=row.module,
        r_first=row.r_second,
        r_second=row.r_first,
    )
