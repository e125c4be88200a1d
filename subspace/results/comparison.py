"""The result of a comparison."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from subspace.adapters import Adapter
from subspace.geometry import chance
from subspace.geometry.grassmann import distances
from subspace.results.result import Result, plain
from subspace.text import counted

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from numpy.typing import NDArray

    from subspace.plots.drawn_panels import Mask

__all__ = ["Comparison", "ModuleComparison", "Side"]

_NAMES = {"a": "A", "b": "B", "left": "delta_W, left", "right": "delta_W, right"}


@dataclass(frozen=True)
class Side:
    """Which adapter stood on one side: its path, format and number of modules."""

    path: str
    format: str
    modules: int

    @classmethod
    def of(cls, adapter: Adapter) -> Side:
        """Describe an adapter."""
        return cls(adapter.path, adapter.format, len(adapter))


@dataclass(frozen=True, eq=False)
class ModuleComparison:
    """One side of one module of two adapters.

    Attributes
    ----------
    module, second_module : its name in the first and in the second adapter
    side : "a", "b", "left" or "right"
    d : dimension of the space
    r_first, r_second : declared ranks
    rank_first, rank_second : numerical ranks; None where there is no score
    phi : (rank_first, rank_second), ``phi[i - 1, j - 1]`` as in equation 4 of the paper
    theta : principal angles in radians, ascending, (min of the ranks,)
    shared_p : p-value of "at least k + 1 directions are shared", one per angle
    shared_p_holm : the same after Holm's correction over the modules of this side
    shared_dim : how many directions are shared at the level of the comparison, not counting those that are shared
        by force; None where one span is the whole space
    ties_first, ties_second : every i whose top-i span the stored data do not determine
    init : "kept", or "removed" if a known start was subtracted
    flags : e.g. "untrained_first", "shared_start", "near_tie_first"
    """

    module: str
    second_module: str
    side: str
    d: int
    r_first: int
    r_second: int
    rank_first: int | None
    rank_second: int | None
    phi: NDArray[np.float64]
    theta: NDArray[np.float64]
    shared_p: NDArray[np.float64]
    shared_p_holm: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))
    shared_dim: int | None = None
    ties_first: tuple[int, ...] = ()
    ties_second: tuple[int, ...] = ()
    init: str = "kept"
    flags: tuple[str, ...] = ()

    @property
    def forced(self) -> int:
        """How many directions any two spans of these dimensions share: i + j - d, where that is positive."""
        return max(0, sum(self.phi.shape) - self.d)

    @property
    def phi_11(self) -> float:
        """Similarity of the two leading directions; NaN without a score."""
        return float(self.phi[0, 0]) if self.phi.size else float("nan")

    @property
    def phi_full(self) -> float:
        """Similarity of the two whole spans; NaN without a score."""
        return float(self.phi[-1, -1]) if self.phi.size else float("nan")

    @property
    def chance_full(self) -> float:
        """Mean of `phi_full` over random spans of the same dimensions."""
        if not self.phi.size:
            return float("nan")
        return chance.phi_mean(self.phi.shape[0], self.phi.shape[1], self.d)

    @property
    def z_full(self) -> float:
        """`phi_full` in standard deviations from chance; NaN where random spans cannot vary."""
        if not self.phi.size or self.d in self.phi.shape:
            return float("nan")
        return chance.phi_z(self.phi_full, self.phi.shape[0], self.phi.shape[1], self.d)

    def chance_quantile(self, q: float) -> float:
        """Quantile of `phi_full` over random spans of the same dimensions at probability `q`; NaN without a score."""
        if not self.phi.size:
            return float("nan")
        return float(chance.phi_quantile(q, self.phi.shape[0], self.phi.shape[1], self.d))

    @property
    def times_chance(self) -> float:
        """`phi_full` over its chance level."""
        return self.phi_full / self.chance_full

    @property
    def chance_grid(self) -> NDArray[np.float64]:
        """Chance level of every cell of `phi`: max(i, j) / d."""
        i, j = (np.arange(1, n + 1) for n in self.phi.shape)
        return np.maximum.outer(i, j) / self.d

    @cached_property
    def distances(self) -> dict[str, float]:
        """Grassmann distances of the spans by name (Ye & Lim 2016, table 2), over min(rank) angles; NaN without any."""
        return distances(self.theta)

    def record(self) -> dict[str, Any]:
        """Return the numbers of one row, flat."""
        numbers: dict[str, Any] = plain(
            {
                "module": self.module,
                "side": self.side,
                "init": self.init,
                "d": self.d,
                "r_first": self.r_first,
                "r_second": self.r_second,
                "rank_first": self.rank_first,
                "rank_second": self.rank_second,
                "phi_11": self.phi_11,
                "phi_full": self.phi_full,
                "chance_full": self.chance_full,
                "times_chance": self.times_chance,
                "z_full": self.z_full,
                "shared_dim": self.shared_dim,
                "shared_p_1": float(self.shared_p_holm[0]) if self.shared_p_holm.size else None,
                "theta_min": float(self.theta[0]) if self.theta.size else None,
                **{f"distance_{name}": value for name, value in self.distances.items()},
                "flags": ";".join(self.flags),
            }
        )
        return numbers

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
class Comparison(Result):
    """Two adapters compared: one row per module and side, what could not be compared, and what to know.

    `level` is that of the shared dimension, over the modules of a side.
    """

    first: Side
    second: Side
    modules: tuple[ModuleComparison, ...]
    only_first: tuple[str, ...] = ()
    only_second: tuple[str, ...] = ()
    level: float = 0.01
    notes: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return f"<Comparison of {len(self.modules)} rows: {self.headline()}>"

    def records(self) -> list[dict[str, Any]]:
        """Return one flat dictionary per module and side."""
        return [row.record() for row in self.modules]

    def columns(self) -> list[str]:
        """Columns of the short table."""
        wanted = [
            "module",
            "side",
            "init",
            "d",
            "rank_first",
            "rank_second",
            "phi_11",
            "phi_full",
            "chance_full",
            "times_chance",
            "z_full",
            "shared_dim",
            "flags",
        ]
        if all(row.init == "kept" for row in self.modules):
            wanted.remove("init")
        return wanted

    def headline(self) -> str:
        """Return how many directions are shared, per side: the paper's "a subspace of dimension 1" as a test."""
        groups: dict[tuple[str, str], list[ModuleComparison]] = {}
        for row in self.modules:
            groups.setdefault((row.side, row.init), []).append(row)
        sentences = [_shared(side, init, rows) for (side, init), rows in groups.items()]
        return f"Shared dimension at the {self.level:.3g} level, Holm over modules: {'; '.join(sentences)}."

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


def _shared(side: str, init: str, rows: list[ModuleComparison]) -> str:
    scored = [row for row in rows if row.shared_dim is not None]
    what = _NAMES[side] + (" with the start removed" if init == "removed" else "")
    if not scored:
        whole = any(row.phi.size for row in rows)
        return f"of {what} not testable, since a span is the whole space" if whole else f"of {what} no score"
    counts = Counter(row.shared_dim for row in scored)
    most = max(len(row.theta) for row in scored)
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    told = ", ".join(f"{dim} in {_modules(n, len(scored))}" for dim, n in ordered)
    return f"of {what} {told} (at most {most})"


def _modules(n: int, total: int) -> str:
    if n == total:
        return "the one module" if total == 1 else f"all {total} modules"
    return counted(n, "module")
