"""The result of `compare`: how much the subspaces of two adapters agree, module by module."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from subspace.results.cells import plain
from subspace.results.comparison_headline import comparison_headline
from subspace.results.module_comparison import ModuleComparison
from subspace.results.result import Result, Row
from subspace.text import counted

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from numpy.typing import NDArray

    from subspace.adapters import Adapter
    from subspace.plots.drawn_panels import Mask

__all__ = ["Comparison", "ModuleComparison", "Side"]


@dataclass(frozen=True)
class Side:
    """One of the two adapters that were compared: its path, format and number of modules."""

    path: str
    format: str
    modules: int

    @classmethod
    def of(cls, adapter: Adapter) -> Side:
        """Describe an adapter."""
        return cls(adapter.path, adapter.format, len(adapter))


@dataclass(frozen=True, eq=False)
class Comparison(Result[ModuleComparison]):
    """Two adapters compared: one row per module and side, and what could not be compared.

    Attributes
    ----------
    first, second : the two adapters
    modules : one row per module and side
    only_first, only_second : modules of one adapter that the other does not have
    level : of the test of the shared dimension, over the modules of a side
    notes : what to know before reading the numbers
    """

    SCHEMA: ClassVar[str] = "subspace.compare/1"
    ROW: ClassVar[type[Row]] = ModuleComparison
    KEYS: ClassVar[tuple[str, ...]] = ("module", "side", "init")

    first: Side
    second: Side
    modules: tuple[ModuleComparison, ...]
    only_first: tuple[str, ...] = ()
    only_second: tuple[str, ...] = ()
    level: float = 0.01
    notes: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return f"<Comparison of {counted(len(self.modules), 'row')}: {self.headline()}>"

    def document(self, *, grid: bool = False) -> dict[str, Any]:
        """Return the JSON document ``subspace.compare/1``; with `grid`, the whole phi(i, j) of every module."""
        return {
            "schema": self.SCHEMA,
            "first": vars(self.first),
            "second": vars(self.second),
            "level": self.level,
            "headline": self.headline(),
            "modules": [row.document(grid=grid) for row in self.modules],
            "only_first": list(self.only_first),
            "only_second": list(self.only_second),
            "notes": list(self.notes),
        }

    def headline(self) -> str:
        """Return how many directions are shared, per side: the paper's "a subspace of dimension 1" as a test."""
        return comparison_headline(self.modules, self.level)

    def plot(
        self,
        ax: Axes | None = None,
        *,
        module: str | None = None,
        side: str | None = None,
        init: str | None = None,
        vmin: float = 0.0,
        vmax: float = 1.0,
        mask: Mask | None = None,
        colorbar: bool = True,
    ) -> Axes:
        """Draw phi(i, j) of one module and return its axes.

        Parameters
        ----------
        module, side, init : what to draw; the first with a score where they leave a choice
        vmin, vmax, mask, colorbar : as in `subspace.plots.heatmap`

        Raises
        ------
        InconclusiveError : it has no score
        ValueRangeError : there is no such module, side or init
        """
        from subspace.plots import heatmap
        from subspace.plots.comparison_panels import one_row, panel_of, short_names

        panel = panel_of(one_row(self, module=module, side=side, init=init), names=short_names(self))
        return heatmap(panel, ax=ax, vmin=vmin, vmax=vmax, mask=mask, colorbar=colorbar)
