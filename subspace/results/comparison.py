"""The result of `compare`: how much the subspaces of two adapters agree, module by module."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from subspace.results.cells import plain
from subspace.results.comparison_headline import comparison_facts
from subspace.results.comparison_summary import ReferenceTest, Relation, SideSummary, WholeUpdate
from subspace.results.module_comparison import ModuleComparison
from subspace.results.result import Result, Row
from subspace.text import counted

if TYPE_CHECKING:
    from matplotlib.axes import Axes

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
    whole : how alike the two whole updates are; None where that is not defined
    sides : side -> what is known of all its modules together, with their starts kept
    relation : "same_adapter", "same_run" or "common_start" where the numbers show it, else None
    references : the tests against adapters of other tasks, one per measure
    inputs : which inputs of the modules were given, by path, model, data and their digests; None without
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
    whole: WholeUpdate | None = None
    sides: Mapping[str, SideSummary] = field(default_factory=dict)
    relation: Relation | None = None
    references: tuple[ReferenceTest, ...] = ()
    inputs: Mapping[str, Any] | None = None

    @property
    def cosine(self) -> float | None:
        """Signed cosine of the two whole updates; None where it is not defined."""
        return None if self.whole is None else self.whole.cosine

    def __repr__(self) -> str:
        facts = self.facts()
        return f"<Comparison of {counted(len(self.modules), 'row')}: {' '.join(dict.fromkeys((facts[0], facts[-1])))}>"

    def document(self, *, grid: bool = False) -> dict[str, Any]:
        """Return the JSON document ``subspace.compare/1``; with `grid`, the whole phi(i, j) of every module."""
        return {
            "schema": self.SCHEMA,
            "first": vars(self.first),
            "second": vars(self.second),
            "level": self.level,
            "headline": self.headline(),
            "whole": None if self.whole is None else plain(asdict(self.whole)),
            "relation": self.relation,
            "sides": {side: plain(asdict(summary)) for side, summary in self.sides.items()},
            "references": [plain(asdict(test)) for test in self.references],
            "inputs": self.inputs,
            "modules": [row.document(grid=grid) for row in self.modules],
            "only_first": list(self.only_first),
            "only_second": list(self.only_second),
            "notes": list(self.notes),
        }

    def headline(self) -> str:
        """Return how alike the two updates are, the facts of each side, and what may be concluded from them."""
        return " ".join(self.facts())

    def facts(self) -> tuple[str, ...]:
        """Return the sentences of the headline: the whole update, each side, and the conclusion."""
        return comparison_facts(self)

    def plot(
        self,
        ax: Axes | None = None,
        *,
        module: str | None = None,
        side: str | None = None,
        init: str | None = None,
        vmin: float | None = None,
        vmax: float | None = None,
        mask: Mask | None = None,
        colorbar: bool = True,
        relative: bool = False,
    ) -> Axes:
        """Draw phi(i, j) of one module and return its axes.

        Parameters
        ----------
        module, side, init : what to draw; the first with a score where they leave a choice
        vmin, vmax, mask, colorbar, relative : as in `subspace.plots.heatmap`

        Raises
        ------
        InconclusiveError : it has no score
        ValueRangeError : there is no such module, side or init
        """
        from subspace.plots import heatmap
        from subspace.plots.comparison_panels import one_row, panel_of, short_names

        panel = panel_of(one_row(self, module=module, side=side, init=init), names=short_names(self))
        return heatmap(panel, ax=ax, vmin=vmin, vmax=vmax, mask=mask, colorbar=colorbar, relative=relative)
