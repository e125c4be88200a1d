"""The result of `align`: delta_W in the singular basis of W, module by module."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from subspace.flags import Flag
from subspace.results.columns import column, derived, row
from subspace.results.nulls import ISOTROPIC
from subspace.results.result import Result, Row
from subspace.results.stored_columns import StoredColumns

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["Alignment", "ModuleAlignment"]


@row
class ModuleAlignment(StoredColumns):
    """One module; all shares are of ||delta_W||_F^2."""

    module: str = column("Name of the module")
    d_out: int = column("Rows of W", place="record")
    d_in: int = column("Columns of W", place="record")
    scale: float | None = column(
        "Factor between B A and delta_W; None where the file does not say it", place="record"
    )
    scale_source: str = column("Where the scale comes from", place="record")
    norm_W: float | None = column("Frobenius norm of the base weight W", place="record", default=None)
    norm_delta_W: float | None = column(
        "Frobenius norm of delta_W, the scale included", place="record", default=None
    )
    norm_whole: float | None = column(
        "Frobenius norm of DoRA's whole change of the weight, magnitudes included",
        place="record",
        absent=lambda row: Flag.DORA not in row.flags,
        default=None,
    )
    k: int | None = column(
        "How many leading singular directions of W are taken; its rank where that is lower",
        drop=1,
        default=None,
    )
    null: str = column(
        "What the columns on chance are of: an update whose singular vectors are isotropic random frames",
        place="record",
        default=ISOTROPIC,
    )
    input_share: float | None = column(
        "Share of ||delta_W||^2 inside the span of W's k leading right singular vectors",
        label="input share",
        range="[0, 1]",
        default=None,
    )
    input_isotropic: float | None = column(
        "Mean of input_share for isotropic random updates, k / d_in", label="input isotropic", default=None
    )
    input_sd: float | None = column(
        "Standard deviation of input_share for isotropic random updates of the same spectrum; exact for A and B, and "
        "for a dense delta_W whose smaller side is at most 512",
        place="record",
        default=None,
    )
    output_share: float | None = column(
        "Share of ||delta_W||^2 inside the span of W's k leading left singular vectors",
        label="output share",
        range="[0, 1]",
        default=None,
    )
    output_isotropic: float | None = column(
        "Mean of output_share for isotropic random updates, k / d_out", label="output isotropic", default=None
    )
    output_sd: float | None = column(
        "Standard deviation of output_share, as input_sd", place="record", default=None
    )
    subspace_share: float | None = column(
        "Overlap with the principal subspace, which is inside both spans: ||U_k^T delta_W V_k||^2 / ||delta_W||^2",
        place="record",
        range="[0, 1]",
        default=None,
    )
    subspace_isotropic: float | None = column(
        "Mean of subspace_share for isotropic random updates, k^2 / (d_out d_in)",
        place="record",
        default=None,
    )
    reweighting: float | None = column(
        "Share of the diagonal of U^T delta_W V, U and V all singular vectors of W that were computed: what rescales "
        "W's singular values; the rest mixes its directions",
        range="[0, 1]",
        drop=10,
        default=None,
    )
    reweighting_isotropic: float | None = column(
        "Mean of reweighting for isotropic random updates, directions / (d_out d_in)",
        label="reweighting isotropic",
        drop=9,
        default=None,
    )
    directions: int | None = column(
        "How many singular directions of W were computed: all, or k of a large W",
        place="record",
        default=None,
    )
    spectral_shift: float | None = column(
        "||sigma(W + delta_W) - sigma(W)|| / ||sigma(W)|| over all singular values; of a large W a lower bound, from k "
        "values and the norm of the rest",
        label="spectral shift",
        drop=8,
        default=None,
    )
    spectral_shift_most: float | None = column(
        "Upper bound of the spectral shift: the same number, or ||delta_W|| / ||W|| for a large W",
        place="record",
        default=None,
    )
    input_rotation: float | None = column(
        "Angle between the spans of the k leading right singular vectors of W and of W + delta_W: that of the mean "
        "sin^2 of their principal angles",
        label="input rotation",
        unit="degrees",
        range="[0, 90]",
        drop=7,
        default=None,
    )
    input_rotation_isotropic: float | None = column(
        "input_rotation of isotropic random updates of the same spectrum: root mean square to first order, or of one "
        "draw where A and B are not small next to W's k-th singular value",
        label="input rotation isotropic",
        unit="degrees",
        drop=6,
        default=None,
    )
    output_rotation: float | None = column(
        "The angle of the spans of left singular vectors, as input_rotation",
        label="output rotation",
        unit="degrees",
        range="[0, 90]",
        drop=5,
        default=None,
    )
    output_rotation_isotropic: float | None = column(
        "output_rotation of isotropic random updates, as input_rotation_isotropic",
        label="output rotation isotropic",
        unit="degrees",
        drop=4,
        default=None,
    )
    rotation_most: float | None = column(
        "Wedin's bound of the largest principal angle of either side, ||delta_W|| over the gap; 90 says nothing",
        unit="degrees",
        place="record",
        default=None,
    )
    next_over_last: float | None = column(
        "Singular value k + 1 of W over value k; where it is near 1, the leading span is hardly determined",
        place="record",
        range="[0, 1]",
        default=None,
    )
    mask_overlap: float | None = column(
        "Of the entries of W that change when the sum is rounded to bfloat16, the share in the principal mask, where "
        "W's part of rank k is largest",
        label="mask overlap",
        range="[0, 1]",
        drop=3,
        default=None,
    )
    mask_gaussian: float | None = column(
        "Mean of mask_overlap for an update of independent normal entries of the same size",
        label="mask Gaussian",
        drop=2,
        default=None,
    )
    mask_share: float | None = column(
        "Share of all entries that the principal mask has: mask_overlap by chance, if rounding played no part",
        place="record",
        default=None,
    )
    changed_in_bf16: float | None = column(
        "Share of all entries of W that change when the sum is rounded to bfloat16",
        place="record",
        range="[0, 1]",
        default=None,
    )
    base_error: float | None = column(
        "Estimated relative error of the norm of W's leading part, 0 where W was factored in full",
        place="record",
        default=None,
    )
    base_key: str = column("Name of the base weight in its file", place="record")
    orientation: str = column("How the orientation of the base weight was decided", place="record")
    input_angles: Sequence[float] = column(
        "Principal angles between the spans of k right singular vectors, ascending",
        unit="degrees",
        place="json",
        default=(),
    )
    output_angles: Sequence[float] = column(
        "The same for left singular vectors", unit="degrees", place="json", default=()
    )
    curves: Mapping[str, Sequence[float]] = column(
        "Shares by number of leading directions i: input, output, subspace and reweighting, and the means and standard "
        "deviations of the first two for isotropic random updates",
        place="json",
        default_factory=dict,
    )
    flags: tuple[Flag, ...] = column("What to know before reading the row, see the list of flags", default=())

    @property
    @derived(place="record")
    def input_z(self) -> float | None:
        """Standard deviations of isotropic random updates by which input_share is above their mean."""
        return _deviations(self.input_share, self.input_isotropic, self.input_sd)

    @property
    @derived(place="record")
    def output_z(self) -> float | None:
        """Standard deviations of isotropic random updates by which output_share is above their mean."""
        return _deviations(self.output_share, self.output_isotropic, self.output_sd)


def _deviations(share: float | None, mean: float | None, sd: float | None) -> float | None:
    return None if share is None or mean is None or not sd else (share - mean) / sd


@dataclass(frozen=True, eq=False, repr=False)
class Alignment(Result[ModuleAlignment]):
    """delta_W in the singular basis of W, for every module of an adapter that its base has.

    Attributes
    ----------
    base, delta : paths of the base weights and of the adapter
    modules : one row per module
    missing : modules of the adapter that the base does not have
    notes : what to know before reading the numbers
    """

    SCHEMA: ClassVar[str] = "subspace.align/1"
    ROW: ClassVar[type[Row]] = ModuleAlignment

    base: str
    delta: str
    modules: tuple[ModuleAlignment, ...]
    missing: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def headline(self) -> str:
        """Return where delta_W lies in W's directions, how far it turns them, and where it changes entries."""
        return " ".join(self.facts())

    def facts(self) -> tuple[str, ...]:
        """Return what was found, a sentence each: shares, re-weighting, rotation, and the principal mask."""
        from subspace.results.alignment_facts import alignment_facts

        return alignment_facts(self.modules)

    def plot(self, ax: Axes | None = None) -> Axes:
        """Draw the share of delta_W in W's leading input and output directions, medians over modules; return the axes.

        Of several modules the bands are their quartiles.
        """
        from subspace.plots import alignment_curves

        return alignment_curves(self, ax=ax)
