"""One side of one module of two adapters: every number that `compare` has of it."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from subspace.flags import Flag
from subspace.geometry import chance
from subspace.geometry.grassmann import distances
from subspace.results.cells import plain
from subspace.results.columns import column, derived, row
from subspace.results.input_columns import InputColumns
from subspace.results.nulls import ISOTROPIC, Control

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from numpy.typing import NDArray

    from subspace.plots.drawn_panels import Mask

__all__ = ["ModuleComparison"]

_NAN = float("nan")


@row
class ModuleComparison(InputColumns):
    """One side of one module of two adapters.

    phi(i, j) compares the span of the leading i directions of the first adapter with that of the leading j of the
    second. Levels "isotropic" are of isotropic random spans: independent and uniformly random, of the same dimensions.
    Those of a control are of pairs of modules of these two adapters whose jobs differ.
    """

    matched_controls: tuple[Control, ...] = ()

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
    null: str = column(
        "What chance_full, times_chance, z_full and the p-values are against: isotropic random spans",
        place="record",
        default=ISOTROPIC,
    )
    d: int = column("Dimension of the space that the spans lie in", drop=3)
    r_first: int = column("Declared rank r in the first adapter", place="record")
    r_second: int = column("Declared rank r in the second adapter", place="record")
    rank_first: int | None = column("Numerical rank in the first adapter", label="rank 1st", drop=4)
    rank_second: int | None = column("Numerical rank in the second adapter", label="rank 2nd", drop=5)
    cosine: float | None = column(
        "Signed cosine of delta_W and delta_W', the whole updates; None where it is not defined",
        label="cosine ΔW",
        range="[-1, 1]",
        default=None,
    )
    cosine_isotropic_sd: float | None = column(
        "Standard deviation of the cosine of isotropic random updates, whose mean is 0",
        place="record",
        default=None,
    )
    energy_first_in_second: float | None = column(
        "Share of ||delta_W||_F^2 that lies inside both spans of delta_W'",
        range="[0, 1]",
        place="record",
        default=None,
    )
    energy_first_in_second_isotropic: float | None = column(
        "Mean of energy_first_in_second for isotropic random spans",
        range="[0, 1]",
        place="record",
        default=None,
    )
    energy_second_in_first: float | None = column(
        "Share of ||delta_W'||_F^2 that lies inside both spans of delta_W",
        range="[0, 1]",
        place="record",
        default=None,
    )
    energy_second_in_first_isotropic: float | None = column(
        "Mean of energy_second_in_first for isotropic random spans",
        range="[0, 1]",
        place="record",
        default=None,
    )
    phi: NDArray[np.float64] = column(
        "phi(i, j) of every i and j (equation 4 of the LoRA paper): how much of the smaller span lies in the larger",
        range="[0, 1]",
        place="grid",
    )
    phi_control_grid: NDArray[np.float64] | None = column(
        "Mean of phi(i, j) over the pairs of the control, of neighbouring layers for the layers control; None without "
        "a control of the same ranks",
        range="[0, 1]",
        place="grid",
        default=None,
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
        return float(self.phi[0, 0]) if self.phi.size else _NAN

    @property
    @derived(place="record", range="[0, 1]")
    def phi_11_isotropic(self) -> float:
        """Mean of phi(1, 1) over isotropic random spans, 1 / d."""
        return 1 / self.d if self.phi.size else _NAN

    @property
    @derived(label="control", range="[0, 1]")
    def phi_control(self) -> float | None:
        """Mean of phi(1, 1) over the pairs of the control; None without a control."""
        return None if self._matched is None else self._matched.phi_11

    @property
    @derived(range="[-1, 1]", drop=8)
    def excess(self) -> float | None:
        """phi(1, 1) minus that of the control: what the module shares beyond modules of another job."""
        return None if self.phi_control is None else self.phi_11 - self.phi_control

    @property
    @derived(label="phi(r,r')", range="[0, 1]")
    def phi_full(self) -> float:
        """Similarity of the two whole spans: 1 if one contains the other, 0 if orthogonal; NaN without a score."""
        return float(self.phi[-1, -1]) if self.phi.size else _NAN

    @property
    @derived(label="isotropic", range="[0, 1]")
    def chance_full(self) -> float:
        """Mean of phi_full over isotropic random spans of the same dimensions, max(i, j) / d."""
        if not self.phi.size:
            return _NAN
        return chance.phi_mean(self.phi.shape[0], self.phi.shape[1], self.d)

    @property
    @derived(label="times isotropic", drop=2)
    def times_chance(self) -> float:
        """phi_full as a multiple of its mean over isotropic random spans."""
        return self.phi_full / self.chance_full

    @property
    @derived(label="z isotropic", unit="standard deviations", drop=1)
    def z_full(self) -> float:
        """How far phi_full is above its mean over isotropic random spans; NaN where one span is the whole space."""
        if not self.phi.size or self.d in self.phi.shape:
            return _NAN
        return chance.phi_z(self.phi_full, self.phi.shape[0], self.phi.shape[1], self.d)

    @property
    @derived(place="record", range="[0, 1]")
    def phi_full_control(self) -> float | None:
        """Mean of phi_full over the pairs of the control; None without a control."""
        return None if self._matched is None else self._matched.phi_full

    def chance_quantile(self, q: float) -> float:
        """Quantile of `phi_full` over isotropic random spans at probability `q`; NaN without a score."""
        if not self.phi.size:
            return _NAN
        return float(chance.phi_quantile(q, self.phi.shape[0], self.phi.shape[1], self.d))

    @property
    def chance_grid(self) -> NDArray[np.float64]:
        """Mean of every cell of `phi` over isotropic random spans: max(i, j) / d."""
        i, j = (np.arange(1, n + 1) for n in self.phi.shape)
        return np.maximum.outer(i, j) / self.d

    shared_dim: int | None = column(
        "Shared dimension: how many principal directions agree beyond isotropic random spans, tested at `level` over "
        "all modules",
        label="shared dim",
        default=None,
    )

    @property
    @derived(label="control shared", drop=7)
    def shared_dim_control(self) -> float | None:
        """Mean shared dimension over the pairs of the control, each at `level` over the number of modules."""
        return None if self._matched is None else self._matched.shared_dim

    @property
    @derived(place="json")
    def control(self) -> dict[str, Any] | None:
        """Kind of the control, same_input or layers, and the number of its pairs; None without a control."""
        return None if not self.matched_controls else {"kind": self.control_kind, "pairs": self.control_pairs}

    @property
    @derived(place="csv")
    def control_kind(self) -> str | None:
        """Kind of the control: same_input (modules with the same input) or layers (the same kind, other layers)."""
        return None if self._matched is None else self._matched.kind

    @property
    @derived(place="csv")
    def control_pairs(self) -> int | None:
        """Number of pairs of modules that the control is the mean of."""
        return None if self._matched is None else self._matched.pairs

    @property
    @derived(place="json")
    def controls(self) -> list[dict[str, Any]]:
        """Every control of the module with its numbers; the first is the one in the other columns."""
        return [each._asdict() for each in self.matched_controls]

    @property
    def _matched(self) -> Control | None:
        return self.matched_controls[0] if self.matched_controls else None

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
        """Return the row as an object of strict JSON; with `grid`, phi(i, j) and its isotropic mean too."""
        document = super().document(grid=grid)
        return {**document, "chance": plain(self.chance_grid)} if grid else document

    def plot(
        self,
        ax: Axes | None = None,
        *,
        vmin: float | None = None,
        vmax: float | None = None,
        mask: Mask | None = None,
        colorbar: bool = True,
        relative: bool = False,
    ) -> Axes:
        """Draw phi(i, j) as a heatmap and return its axes; the keywords are those of `subspace.plots.heatmap`."""
        from subspace.plots import heatmap
        from subspace.plots.comparison_panels import panel_of

        return heatmap(
            panel_of(self), ax=ax, vmin=vmin, vmax=vmax, mask=mask, colorbar=colorbar, relative=relative
        )
