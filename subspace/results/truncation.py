"""What was cut of an adapter: the result of `subspace.analysis.truncate`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from subspace.flags import Flag
from subspace.results.result import Result, plain
from subspace.text import counted, shown

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from subspace.adapters import Adapter

__all__ = ["ModuleTruncation", "Truncation"]


@dataclass(frozen=True, eq=False)
class ModuleTruncation:
    """One module before and after.

    Attributes
    ----------
    r_before, r_after : rank of the factors; never above the numerical rank once something is cut
    energy : share of ``||dW||_F^2`` that is kept
    error : ``||dW - dW_k||_F / ||dW||_F``, of the exact factors; None where delta_W is zero
    error_absolute : ``||dW - dW_k||_F``, with the scale; None where the scale is unknown
    S : singular values that are kept, of B @ A without the scale
    flags : "untrained", "dense", "unchanged"
    """

    module: str
    r_before: int
    r_after: int
    energy: float | None
    error: float | None
    error_absolute: float | None
    S: NDArray[np.float64]
    flags: tuple[Flag, ...] = ()

    def record(self) -> dict[str, Any]:
        """Return the numbers of one row, flat."""
        names = ("module", "r_before", "r_after", "energy", "error", "error_absolute")
        record: dict[str, Any] = plain({name: getattr(self, name) for name in names})
        return {**record, "flags": ";".join(self.flags)}


@dataclass(frozen=True, eq=False)
class Truncation(Result):
    """The cut `adapter`, in memory, and what was cut of each module."""

    path: str
    adapter: Adapter
    modules: tuple[ModuleTruncation, ...]
    notes: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return f"<Truncation of {self.headline()}>"

    def records(self) -> list[dict[str, Any]]:
        """Return one flat dictionary per module."""
        return [row.record() for row in self.modules]

    def headline(self) -> str:
        """Return the ranks before and after, and the largest error, in one sentence."""
        before, after = (sum(getattr(row, name) for row in self.modules) for name in ("r_before", "r_after"))
        errors = [row.error for row in self.modules if row.error is not None]
        worst = f"; relative error of delta_W at most {max(errors):.3g}" if errors else ""
        return (
            f"{shown(self.path, longest=1000)}: {counted(len(self.modules), 'module')}, sum of ranks {before} to "
            f"{after}{worst}"
        )
