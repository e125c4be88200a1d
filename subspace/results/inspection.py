"""The result of `inspect`: what is in an adapter, module by module."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from subspace.adapters.format import Ignored
from subspace.flags import Flag
from subspace.results.result import Result, plain
from subspace.text import counted, shown

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["Inspection", "ModuleInspection"]


@dataclass(frozen=True, eq=False)
class ModuleInspection:
    """One module of an adapter; a number that does not exist is None, with a flag that says why.

    Attributes
    ----------
    r, d_in, d_out : declared rank and shape of delta_W
    alpha, scale, scale_source : delta_W = scale * B @ A
    norm_A, norm_B, norm_delta_W : Frobenius norms; that of delta_W includes the scale and is None without it
    S : singular values of B @ A (without the scale), descending
    norm_whole : of DoRA's whole change, magnitudes included, where the base was given
    rank, stable_rank, effective_rank : of delta_W
    kind : "linear", "conv" or "embedding"
    flags : e.g. "untrained", "scale_unknown", "not_finite", "rank_below_r", "dora"; of a module with "needs_base" only
        the change of the base weight is known, whose norm is norm_A (of columns) or norm_B (of rows), and d_in or
        d_out is 0 where the file does not say it
    """

    module: str
    r: int
    d_in: int
    d_out: int
    alpha: float | None
    scale: float | None
    scale_source: str
    norm_A: float | None
    norm_B: float | None
    norm_delta_W: float | None
    S: np.ndarray
    rank: int | None
    stable_rank: float | None
    effective_rank: float | None
    kind: str = "linear"
    flags: tuple[Flag, ...] = ()
    norm_whole: float | None = None

    def record(self) -> dict[str, Any]:
        """Return the numbers of one row, flat; norm_whole is among them for a DoRA."""
        names = [
            "module",
            "kind",
            "r",
            "d_in",
            "d_out",
            "alpha",
            "scale",
            "scale_source",
            "norm_A",
            "norm_B",
            "norm_delta_W",
            "rank",
            "stable_rank",
            "effective_rank",
        ]
        whole = {"norm_whole": self.norm_whole} if Flag.DORA in self.flags else {}
        numbers: dict[str, Any] = plain(
            {**{name: getattr(self, name) for name in names}, **whole, "flags": ";".join(self.flags)}
        )
        return numbers


@dataclass(frozen=True, eq=False)
class Inspection(Result):
    """An adapter, module by module, and an account of every other tensor of the file."""

    path: str
    format: str
    container: str
    sha256: str | None
    modules: tuple[ModuleInspection, ...]
    ignored: tuple[Ignored, ...] = ()
    unknown: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    parameters: int = 0

    def __repr__(self) -> str:
        return f"<Inspection of {self.headline()}>"

    def records(self) -> list[dict[str, Any]]:
        """Return one flat dictionary per module."""
        return [row.record() for row in self.modules]

    def columns(self) -> list[str]:
        """Columns of the short table."""
        return [
            "module",
            "r",
            "d_in",
            "d_out",
            "scale",
            "scale_source",
            "norm_A",
            "norm_B",
            "norm_delta_W",
            "rank",
            "stable_rank",
            "effective_rank",
            "flags",
        ]

    def plot(self, ax: Axes | None = None) -> Axes:
        """Draw the spectra of all modules and return the axes."""
        from subspace.plots import spectra

        return spectra(self, ax=ax)

    def totals(self) -> dict[str, Any]:
        """Return modules, stored parameters, ranks, the norm of the whole update, and how many are untrained."""
        norms = [row.norm_delta_W for row in self.modules]
        known = [norm for norm in norms if norm is not None]
        return {
            "modules": len(self.modules),
            "parameters": self.parameters,
            "ranks": sorted({row.r for row in self.modules}),
            "norm_delta_W": float(np.linalg.norm(known)) if known and len(known) == len(norms) else None,
            "untrained": sum(Flag.UNTRAINED in row.flags for row in self.modules),
        }

    def headline(self) -> str:
        """Return what the file is, in one sentence."""
        totals = self.totals()
        ranks = ", ".join(map(str, totals["ranks"]))
        kinds = Counter(row.kind for row in self.modules)
        what = ", ".join(f"{count} {kind}" for kind, count in kinds.items())
        untrained = f", {totals['untrained']} of them untrained" if totals["untrained"] else ""
        return (
            f"{shown(self.path, longest=1000)}: {self.format} in {self.container}, "
            f"{counted(totals['modules'], 'module')} ({what}){untrained}, r = {ranks}, "
            f"{totals['parameters']:,} parameters"
        )
