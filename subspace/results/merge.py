"""The result of `merge`: several adapters as one, and what became of each module."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from subspace.adapters.writers import require_place
from subspace.checkpoints.atomic_writing import one_writer, write_whole
from subspace.errors import InconclusiveError
from subspace.flags import Flag
from subspace.results.cells import plain
from subspace.results.columns import column, row
from subspace.results.expectation import expectation
from subspace.results.result import Result, Row
from subspace.text import counted

if TYPE_CHECKING:
    from subspace.adapters import Adapter
    from subspace.results.forecast import Forecast

__all__ = ["MergeInput", "Merging", "ModuleMerging", "Total"]

SUM = "the weighted sum of the updates"  # the target of methods that take it
_SAME = 1e-14  # what measuring a difference of nothing in float64 gives


def _only_forecast(row: ModuleMerging) -> bool:
    """Whether nothing was merged, so that there is nothing to measure."""
    return row.rank is None


@row
class ModuleMerging(Row):
    """One module of the merged adapter."""

    module: str = column("Name of the module in the merged adapter")
    adapters: int = column("Number of adapters that have the module", label="of", default=1)
    rank: int | None = column(
        "Rank of the written factors, 0 where the updates cancel and nothing is written",
        absent=_only_forecast,
        default=None,
    )
    error: float | None = column(
        "Relative error ||T - B A||_F / ||T||_F of the factors as they are stored, T what the method gives before it "
        "is cut to a rank; None where T is zero",
        range="[0, inf)",
        absent=_only_forecast,
        default=None,
    )
    energy: float | None = column(
        "Share of ||T||_F^2 that is kept by the factors as they are stored, 1 - error^2",
        range="[0, 1]",
        drop=4,
        absent=_only_forecast,
        default=None,
    )
    from_sum: float | None = column(
        "Relative distance ||D - B A||_F / ||D||_F of the stored factors from D, the weighted sum of the updates; None "
        "where D is zero",
        label="from sum",
        range="[0, inf)",
        absent=_only_forecast,
        default=None,
    )
    norm: float | None = column(
        "Frobenius norm of the stored B A", label="norm ΔW", drop=5, absent=_only_forecast, default=None
    )
    energy_ratio: float | None = column(
        "||sum of the weighted updates||_F^2 over the sum of their ||.||_F^2: 1 where they are orthogonal, above where "
        "they reinforce each other, below where they cancel",
        label="energy ratio",
        range="[0, inf)",
        default=None,
    )
    cosine: float | None = column(
        "Signed cosine of two weighted updates, the mean of all pairs; None with one",
        range="[-1, 1]",
        default=None,
    )
    cosine_functional: float | None = column(
        "The same cosine of their outputs on the measured inputs",
        label="cosine of outputs",
        range="[-1, 1]",
        absent=lambda row: row.cosine_functional is None,
        default=None,
    )
    overlap: float | None = column(
        "phi_full of the spans of two updates, the mean of both sides and of all pairs",
        range="[0, 1]",
        drop=2,
        default=None,
    )
    overlap_control: float | None = column(
        "The same of matched controls, pairs of modules whose jobs differ; None without any",
        label="overlap control",
        range="[0, 1]",
        drop=3,
        default=None,
    )
    weights: tuple[float, ...] = column(
        "Weights of the adapters that have the module", place="json", default=()
    )
    d_out: int = column("Rows of B", place="record", default=0)
    d_in: int = column("Columns of A", place="record", default=0)
    flags: tuple[Flag, ...] = column("What to know before reading the row, see the list of flags", default=())


@dataclass(frozen=True)
class MergeInput:
    """One adapter that was merged: its file, its weight, and how many of the modules it has."""

    path: str
    weight: float
    modules: int
    sha256: str | None = None


@dataclass(frozen=True)
class Total:
    """All modules together, each norm the root of the sum of the squared norms of the modules.

    Attributes
    ----------
    error : of the stored factors, relative to what the method gives
    from_sum : their relative distance from the weighted sum
    energy_ratio : of the sum, as in the rows
    norm : of the stored update
    parameters : numbers in the written factors
    """

    error: float | None
    from_sum: float | None
    energy_ratio: float | None
    norm: float
    parameters: int


@dataclass(frozen=True, eq=False, repr=False)
class Merging(Result[ModuleMerging]):
    """Several adapters merged into one, not written yet: `save` puts its files in place.

    Attributes
    ----------
    method, settings : how they were merged
    target : what the errors are taken from, as a phrase
    adapters : what was merged
    modules : one row per module
    total : all modules together
    adapter : what is written, in memory; None where nothing was merged (`dry_run`)
    format : of the files
    files : relative name -> content, "" the name of a single file
    forecast : what was to be expected, measured before merging; None where it was not, or no two updates meet
    notes : what to know before using the adapter
    """

    SCHEMA: ClassVar[str] = "subspace.merge/1"
    ROW: ClassVar[type[Row]] = ModuleMerging

    method: str
    settings: Mapping[str, Any]
    target: str
    adapters: tuple[MergeInput, ...]
    modules: tuple[ModuleMerging, ...]
    total: Total | None
    adapter: Adapter | None
    format: str
    files: Mapping[str, bytes]
    forecast: Forecast | None = None
    notes: tuple[str, ...] = ()

    def save(self, path: str | os.PathLike[str], *, overwrite: bool = False) -> list[Path]:
        """Write the adapter in one step: a directory for peft, else one file; return the paths of its files.

        With `overwrite`, files of other names in the directory, such as a README.md, stay.

        Raises
        ------
        FileError : `path` is one of the inputs, exists (unless `overwrite`), is of another kind, or cannot be written
        InconclusiveError : nothing was merged, since only the forecast was asked for
        """
        if self.adapter is None:
            raise InconclusiveError(
                "Nothing to save: only the forecast was made; merge without `forecast_only`"
            )
        where = Path(path)

        def check() -> None:
            for each in self.adapters:
                require_place(each.path, str(where), self.format, overwrite=overwrite)

        check()
        contents = {where / name if name else where: content for name, content in self.files.items()}
        with one_writer(where):
            check()
            write_whole(contents)
        return list(contents)

    def document(self) -> dict[str, Any]:
        """Return the JSON document ``subspace.merge/1``, without where the adapter was put."""
        return {
            "schema": self.SCHEMA,
            "method": self.method,
            "settings": dict(self.settings),
            "target": self.target,
            "format": self.format,
            "adapters": [asdict(each) for each in self.adapters],
            "headline": self.headline(),
            "forecast": None if self.forecast is None else self.forecast.document(),
            "total": None if self.total is None else plain(asdict(self.total)),
            "modules": [each.document() for each in self.modules],
            "notes": list(self.notes),
        }

    def expected(self) -> tuple[str, ...]:
        """Return what was to be expected before merging, and how far such forecasts can be trusted."""
        return () if self.forecast is None else expectation(self.forecast)

    def facts(self) -> tuple[str, ...]:
        """Return what was merged, and how near the stored factors are to what was wanted; else what to expect."""
        if self.total is None:
            return self.expected() or ("No two adapters change the same module.",)
        ranks = [each.rank for each in self.modules if each.rank]
        span = (
            f"rank {_span(ranks)} in {counted(len(ranks), 'module')}" if ranks else "no module that is shown"
        )
        said = f"{counted(len(self.adapters), 'adapter')} merged by {self.method} into one of {span}."
        return said, *self._distances(self.total)

    def headline(self) -> str:
        """Return what was merged, and how near the stored factors are to what was wanted; else what to expect."""
        return " ".join(self.facts())

    def _distances(self, total: Total) -> tuple[str, ...]:
        if total.error is None:
            return ()
        near = (
            "are exactly" if total.error < _SAME else f"differ by {100 * total.error:.2g} % of its norm from"
        )
        said = [f"Over all modules the stored factors {near} {self.target}."]
        if total.from_sum is not None and self.target != SUM:
            said.append(
                f"From the weighted sum of the updates they differ by {100 * total.from_sum:.2g} % of its norm."
            )
        return tuple(said)


def _span(numbers: Sequence[int]) -> str:
    low, high = min(numbers), max(numbers)
    return str(low) if low == high else f"{low} to {high}"
