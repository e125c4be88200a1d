"""The result of `truncate`: an adapter cut to lower ranks, and what was lost of each module."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from subspace.adapters.place import adapter_at
from subspace.flags import Flag
from subspace.results.columns import column, row
from subspace.results.result import Result, Row
from subspace.text import counted

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from subspace.adapters import Adapter

__all__ = ["ModuleTruncation", "Truncation"]


@row
class ModuleTruncation(Row):
    """One module before and after."""

    module: str = column("Name of the module")
    r_before: int = column("Rank of the factors that were read", label="r before")
    r_after: int = column(
        "Rank of the factors that are left, never above the numerical rank where something was cut",
        label="r after",
    )
    energy: float | None = column(
        "Share of ||delta_W||_F^2 that is kept by the factors as they are stored, 1 - ||dW - dW'||_F^2 / ||dW||_F^2; "
        "None where delta_W is zero",
        range="[0, 1]",
    )
    error: float | None = column(
        "Relative error ||dW - dW_k||_F / ||dW||_F of the exact factors; None where delta_W is zero",
        range="[0, 1]",
    )
    error_absolute: float | None = column(
        "||dW - dW_k||_F, the scale included; None where the scale is unknown", label="absolute error"
    )
    rounding: float | None = column(
        "Relative change of delta_W by rounding the factors to their stored type, once they are written",
        place="record",
        absent=lambda row: row.rounding is None,
        default=None,
    )
    S: NDArray[np.float64] = column("Singular values that are kept, of B A without the scale", place="grid")
    flags: tuple[Flag, ...] = column("What to know before reading the row, see the list of flags", default=())


@dataclass(frozen=True, eq=False)
class Truncation(Result[ModuleTruncation]):
    """An adapter of lower rank, in memory, and what was cut of each module.

    Attributes
    ----------
    path : of the adapter that was read
    adapter : what is left of it
    modules : one row per module
    notes : what to know before reading the numbers
    """

    SCHEMA: ClassVar[str] = "subspace.truncate/1"
    ROW: ClassVar[type[Row]] = ModuleTruncation

    path: str
    adapter: Adapter
    modules: tuple[ModuleTruncation, ...]
    notes: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return f"<Truncation of {self.headline()}>"

    def document(self) -> dict[str, Any]:
        """Return the JSON document ``subspace.truncate/1``, without what writing the adapter adds to it."""
        return {
            "schema": self.SCHEMA,
            "path": self.path,
            "headline": self.headline(),
            "modules": [each.document() for each in self.modules],
            "notes": list(self.notes),
        }

    def headline(self) -> str:
        """Return the ranks before and after, and the largest error, in one sentence."""
        before, after = (
            sum(getattr(each, name) for each in self.modules) for name in ("r_before", "r_after")
        )
        errors = [each.error for each in self.modules if each.error is not None]
        worst = f", with a relative error of delta_W of at most {max(errors):.3g}" if errors else ""
        return (
            f"{adapter_at(self.path)} is cut from {before} to {after} directions in "
            f"{counted(len(self.modules), 'module')}{worst}."
        )
