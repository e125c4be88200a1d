"""The result of `amplify`: table 7 of the LoRA paper, per module and rank."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from subspace.flags import Flag
from subspace.results.columns import Column, column, columns_of, row
from subspace.results.nulls import ISOTROPIC
from subspace.results.result import Result, Row
from subspace.results.stored_columns import StoredColumns
from subspace.text import counted

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["Amplification", "ModuleAmplification", "RankAmplification"]


@row
class RankAmplification(Row):
    """The numbers of one module at one rank: one group of columns of table 7."""

    r: int = column("How many leading directions are taken")
    proj_delta_W: float | None = column(
        "||U^T W V||_F with the r leading left and right singular vectors U, V of delta_W: how much of W they carry",
        label="proj ΔW",
    )
    proj_W: float = column(
        "The same with W's own leading singular vectors, which no other r directions exceed", label="proj W"
    )
    proj_W_error: float = column(
        "Estimated relative error of proj_W, 0 where W was factored in full", label="proj W error", drop=2
    )
    null: str = column(
        "What proj_random, its sd and over_random are of: isotropic random directions",
        place="record",
        default=ISOTROPIC,
    )
    proj_random: float = column(
        "The same with isotropic random directions: root mean square, exact",
        label="proj isotropic",
        drop=15,
    )
    proj_random_sd: float = column(
        "Standard deviation of that projection over isotropic random directions, within about 3 %",
        label="isotropic sd",
        drop=1,
    )
    over_random: float | None = column("proj_delta_W as a multiple of proj_random", label="over isotropic")
    amplification: float | None = column(
        "Amplification factor ||delta_W||_F / proj_delta_W; None without a scale", label="amplification"
    )
    flags: tuple[Flag, ...] = column(
        "What to know before reading the numbers of this rank", place="json", default=()
    )


@row
class ModuleAmplification(StoredColumns):
    """Table 7 of one module: norms, and one `RankAmplification` per rank."""

    module: str = column("Name of the module")
    d_out: int = column("Rows of W", place="record")
    d_in: int = column("Columns of W", place="record")
    scale: float | None = column(
        "Factor between B A and delta_W; None where the file does not say it", place="record"
    )
    scale_source: str = column("Where the scale comes from", place="record")
    norm_W: float | None = column("Frobenius norm of the base weight W", label="norm W", drop=10)
    norm_delta_W: float | None = column("Frobenius norm of delta_W, the scale included", label="norm ΔW")
    base_key: str = column("Name of the base weight in its file", place="record")
    orientation: str = column("How the orientation of the base weight was decided", place="record")
    base_stored_as: str | None = column(
        "What the base weight is stored as, where its numbers were computed from codes and scales",
        place="record",
        absent=lambda row: row.base_stored_as is None,
        default=None,
    )
    norm_whole: float | None = column(
        "Frobenius norm of DoRA's whole change of the weight, magnitudes included",
        place="record",
        absent=lambda row: Flag.DORA not in row.flags,
        default=None,
    )
    ranks: tuple[RankAmplification, ...] = column("One object per rank", place="json")
    flags: tuple[Flag, ...] = column("What to know before reading the row, see the list of flags", default=())

    def document(self, *, grid: bool = False) -> dict[str, Any]:
        """Return the module as an object of strict JSON, its ranks as a list."""
        own = super().document(grid=grid)
        return {**own, "ranks": [rank.document() for rank in self.ranks]}

    def sortable(self) -> dict[str, Any]:
        """Return the values that rows can be sorted by; those of the ranks are those at the largest rank."""
        ranks = (
            self.ranks[-1].record()
            if self.ranks
            else dict.fromkeys(c.name for c in columns_of(RankAmplification))
        )
        return {**ranks, **self.record()}

    def rows(self) -> list[dict[str, Any]]:
        """Return one flat dictionary per rank."""
        own = self.record()
        del own["flags"]
        general = [flag for flag in self.flags if flag is not Flag.RANK_BELOW_WANTED]
        return [{**own, **rank.record(), "flags": ";".join([*general, *rank.flags])} for rank in self.ranks]


@dataclass(frozen=True, eq=False)
class Amplification(Result[ModuleAmplification]):
    """Table 7 for every module of an adapter that its base has.

    Attributes
    ----------
    base, delta : paths of the base weights and of the adapter
    modules : one row per module, each with its ranks
    missing : modules of the adapter that the base does not have
    notes : what to know before reading the numbers
    """

    SCHEMA: ClassVar[str] = "subspace.amplify/1"
    ROW: ClassVar[type[Row]] = ModuleAmplification

    base: str
    delta: str
    modules: tuple[ModuleAmplification, ...]
    missing: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return f"<Amplification of {counted(len(self.modules), 'module')}: {self.headline()}>"

    def records(self) -> list[dict[str, Any]]:
        """Return one flat dictionary per module and rank."""
        return [record for module in self.modules for record in module.rows()]

    def table_columns(self) -> list[Column]:
        """Return the columns of the short table: of a module, then of its ranks, then its flags."""
        module, *norms, flags = (each for each in columns_of(ModuleAmplification) if each.place == "table")
        r, *projections = (each for each in columns_of(RankAmplification) if each.place == "table")
        norms = [
            each for each in norms if not each.absent or any(not each.absent(row) for row in self.modules)
        ]
        return [module, r, *norms, *projections, flags]

    def document(self) -> dict[str, Any]:
        """Return the JSON document ``subspace.amplify/1``."""
        return {
            "schema": self.SCHEMA,
            "base": self.base,
            "delta": self.delta,
            "headline": self.headline(),
            "modules": [each.document() for each in self.modules],
            "missing": list(self.missing),
            "notes": list(self.notes),
        }

    def plot(self, ax: Axes | None = None) -> Axes:
        """Draw the projections of W at each module's largest rank, with W's own and isotropic ones; return the axes."""
        from subspace.plots import projections

        return projections(self, ax=ax)

    def headline(self) -> str:
        """Return the median factor and the median projection over random, at the largest rank asked for."""
        last = [module.ranks[-1] for module in self.modules if module.ranks]
        over = [rank.over_random for rank in last if rank.over_random is not None]
        factors = [rank.amplification for rank in last if rank.amplification is not None]
        if not over:
            return "No module has an amplification factor."
        carried = f"the directions of delta_W carry {np.median(over):.3g} times as much of W as isotropic random ones"
        factor = (
            f"the amplification factor is {np.median(factors):.3g}"
            if factors
            else "the amplification factor is unknown, since the scale is"
        )
        median = f" (medians over {counted(len(over), 'module')})" if len(over) > 1 else ""
        return f"At r = {_range([rank.r for rank in last])}, {factor}, and {carried}{median}."


def _range(ranks: list[int]) -> str:
    low, high = min(ranks), max(ranks)
    return str(low) if low == high else f"{low} to {high}"
