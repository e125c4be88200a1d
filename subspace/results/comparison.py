"""The result of `compare`: how much the subspaces of two adapters agree, module by module."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from subspace.flags import Flag
from subspace.geometry import chance
from subspace.geometry.grassmann import distances
from subspace.results.cells import plain
from subspace.results.columns import column, derived, row
from subspace.results.comparison_headline import comparison_headline
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


@row
class ModuleComparison(Row):
    """One side of one module of two adapters.

    phi(i, j) compares the span of the leading i directions of the first adapter with that of the leading j of the
    second. Random spans are isotropic: independent and uniformly random, of the same dimensions.
    """

    first: str = column("Path of the first adapter", place="csv", default="")
    second: str = column("Path of the second adapter", place="csv", default="")
    module: str = column("Name of the module in the first adapter")
    second_module: str = column("Name of the module in the second adapter's file", place="record")
    side: str = column(
        "What is compared: a (rows of A), b (columns of B), left or right (singular vectors of delta_W)"
    )
    init: str = column(
        "Whether the start, the adapter before training, was kept or removed", usual="kept", default="kept"
    )
    d: int = column("Dimension of the space that the spans lie in", drop=4)
    r_first: int = column("Declared rank r in the first adapter", place="record")
    r_second: int = column("Declared rank r in the second adapter", place="record")
    rank_first: int | None = column("Numerical rank in the first adapter", label="rank 1st", drop=7)
    rank_second: int | None = column("Numerical rank in the second adapter", label="rank 2nd", drop=8)
    phi: NDArray[np.float64] = column(
        "phi(i, j) of every i and j (equation 4 of the LoRA paper): how much of the smaller span lies in the larger",
        range="[0, 1]",
        place="grid",
    )
    theta: NDArray[np.float64] = column(
        "Principal angles between the two whole spans, ascending",
        unit="radians",
        range="[0, pi/2]",
        place="json",
    )
    shared_p: NDArray[np.float64] = column(
        "p-value of sharing no more than k directions, for k = 0, 1, ..., against isotropic random spans; "
        "1e-300 stands for anything smaller",
        range="[0, 1]",
        place="json",
    )
    shared_p_holm: NDArray[np.float64] = column(
        "shared_p after Holm's correction over the modules of this side",
        range="[0, 1]",
        place="json",
        default_factory=lambda: np.zeros(0),
    )
    ties_first: tuple[int, ...] = column(
        "Every i whose top-i span in the first adapter is not determined, as two singular values nearly agree",
        place="json",
        default=(),
    )
    ties_second: tuple[int, ...] = column(
        "Every j whose top-j span in the second adapter is not determined, as two singular values nearly agree",
        place="json",
        default=(),
    )

    @property
    def forced(self) -> int:
        """How many directions any two spans of these dimensions share: i + j - d, where that is positive."""
        return max(0, sum(self.phi.shape) - self.d)

    @property
    @derived(label="phi(1,1)", range="[0, 1]")
    def phi_11(self) -> float:
        """phi(1, 1): squared cosine of the angle between the two leading directions; NaN without a score."""
        return float(self.phi[0, 0]) if self.phi.size else float("nan")

    @property
    @derived(label="phi(r,r')", range="[0, 1]")
    def phi_full(self) -> float:
        """Similarity of the two whole spans: 1 if one contains the other, 0 if orthogonal; NaN without a score."""
        return float(self.phi[-1, -1]) if self.phi.size else float("nan")

    @property
    @derived(label="random", range="[0, 1]")
    def chance_full(self) -> float:
        """Mean of phi_full over random spans of the same dimensions, max(i, j) / d."""
        if not self.phi.size:
            return float("nan")
        return chance.phi_mean(self.phi.shape[0], self.phi.shape[1], self.d)

    @property
    @derived(label="times random", drop=9)
    def times_chance(self) -> float:
        """phi_full as a multiple of its mean over random spans."""
        return self.phi_full / self.chance_full

    @property
    @derived(label="z", unit="standard deviations", drop=3)
    def z_full(self) -> float:
        """How far phi_full is above its mean over random spans; NaN where one span is the whole space."""
        if not self.phi.size or self.d in self.phi.shape:
            return float("nan")
        return chance.phi_z(self.phi_full, self.phi.shape[0], self.phi.shape[1], self.d)

    def chance_quantile(self, q: float) -> float:
        """Quantile of `phi_full` over isotropic random spans at probability `q`; NaN without a score."""
        if not self.phi.size:
            return float("nan")
        return float(chance.phi_quantile(q, self.phi.shape[0], self.phi.shape[1], self.d))

    @property
    def chance_grid(self) -> NDArray[np.float64]:
        """Mean of every cell of `phi` over random spans: max(i, j) / d."""
        i, j = (np.arange(1, n + 1) for n in self.phi.shape)
        return np.maximum.outer(i, j) / self.d

    shared_dim: int | None = column(
        "Shared dimension: how many principal directions agree beyond random spans, tested at `level` over all modules",
        label="shared dim",
        default=None,
    )

    @property
    @derived(label="p", range="[0, 1]", place="csv")
    def shared_p_1(self) -> float | None:
        """p-value of sharing no direction, after Holm's correction."""
        return float(self.shared_p_holm[0]) if self.shared_p_holm.size else None

    @property
    @derived(unit="radians", range="[0, pi/2]", place="csv")
    def theta_min(self) -> float | None:
        """Smallest principal angle."""
        return float(self.theta[0]) if self.theta.size else None

    @cached_property
    @derived(place="record")
    def distances(self) -> dict[str, float]:
        """Grassmann distances of the spans by name (Ye & Lim 2016, table 2), in CSV as distance_geodesic and so on."""
        return distances(self.theta)

    flags: tuple[Flag, ...] = column("What to know before reading the row, see the list of flags", default=())

    def document(self, *, grid: bool = False) -> dict[str, Any]:
        """Return the row as an object of strict JSON; with `grid`, phi(i, j) and its mean over random spans too."""
        document = super().document(grid=grid)
        return {**document, "chance": plain(self.chance_grid)} if grid else document

    def plot(
        self,
        ax: Axes | None = None,
        *,
        vmin: float = 0.0,
        vmax: float = 1.0,
        mask: Mask | None = None,
        colorbar: bool = True,
    ) -> Axes:
        """Draw phi(i, j) as a heatmap and return its axes; the keywords are those of `subspace.plots.heatmap`."""
        from subspace.plots import heatmap
        from subspace.plots.comparison_panels import panel_of

        return heatmap(panel_of(self), ax=ax, vmin=vmin, vmax=vmax, mask=mask, colorbar=colorbar)


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
