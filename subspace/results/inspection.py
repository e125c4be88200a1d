"""The result of `inspect`: what is in an adapter, module by module."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from subspace.adapters.format import Ignored
from subspace.adapters.place import adapter_at
from subspace.flags import Flag
from subspace.geometry.frobenius import frobenius
from subspace.results.columns import column, row
from subspace.results.result import Result, Row

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["Inspection", "ModuleInspection"]


@row
class ModuleInspection(Row):
    """One module of an adapter; a number that does not exist is None, with a flag that says why."""

    path: str = column("Path of the adapter", place="csv", default="")
    module: str = column("Name of the module")
    kind: str = column('Kind of layer: "linear", "conv" or "embedding"', place="record", default="linear")
    r: int = column("Declared rank r, the number of rows of A")
    r_factors: int | None = column(
        "Rank of the trained factors of LoHa and LoKr, of which A and B are made; alpha is divided by it",
        place="record",
        absent=lambda row: row.r_factors is None,
        default=None,
    )
    d_in: int = column("Columns of delta_W; 0 where only the base knows them", drop=7)
    d_out: int = column("Rows of delta_W; 0 where only the base knows them", drop=8)
    alpha: float | None = column("lora_alpha, where the file says it", place="record")
    scale: float | None = column("Factor between B A and delta_W; None where the file does not say it")
    scale_source: str = column("Where the scale comes from", label="scale source", drop=9)
    norm_A: float | None = column(
        "Frobenius norm of A, or of what changes the columns of the base weight", drop=5
    )
    norm_B: float | None = column(
        "Frobenius norm of B, or of what changes the rows of the base weight", drop=6
    )
    norm_delta_W: float | None = column("Frobenius norm of delta_W, the scale included", label="norm ΔW")
    rank: int | None = column("Numerical rank of delta_W")
    stable_rank: float | None = column(
        "Stable rank of delta_W, ||delta_W||_F^2 / ||delta_W||_2^2", label="stable rank"
    )
    effective_rank: float | None = column(
        "Effective rank of delta_W, the exponential of the entropy of its normalised singular values",
        label="effective rank",
        drop=14,
    )
    norm_whole: float | None = column(
        "Frobenius norm of DoRA's whole change of the weight, magnitudes included, where the base was given",
        place="record",
        absent=lambda row: Flag.DORA not in row.flags,
        default=None,
    )
    S: np.ndarray = column(
        "Singular values of B A, without the scale, descending",
        place="grid",
        default_factory=lambda: np.zeros(0),
    )
    flags: tuple[Flag, ...] = column("What to know before reading the row, see the list of flags", default=())


@dataclass(frozen=True, eq=False)
class Inspection(Result[ModuleInspection]):
    """An adapter, module by module, and an account of every other tensor of the file.

    Attributes
    ----------
    path, format, container : the file, e.g. "peft" in "safetensors"
    sha256 : of the weights file in hexadecimal, None for tensors in memory
    modules : one row per module
    ignored : tensors that are known and not part of an update, each with why
    unknown : names of tensors that nothing explains
    notes : what to know before reading the numbers
    parameters : how many numbers the file holds for its updates
    """

    SCHEMA: ClassVar[str] = "subspace.inspect/1"
    ROW: ClassVar[type[Row]] = ModuleInspection

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

    def document(self) -> dict[str, Any]:
        """Return the JSON document ``subspace.inspect/1``."""
        return {
            "schema": self.SCHEMA,
            "path": self.path,
            "format": self.format,
            "container": self.container,
            "sha256": self.sha256,
            "headline": self.headline(),
            "modules": [each.document() for each in self.modules],
            "ignored": [{"key": item.key, "why": item.why, "role": item.role.value} for item in self.ignored],
            "unknown": list(self.unknown),
            "totals": self.totals(),
            "notes": list(self.notes),
        }

    def plot(self, ax: Axes | None = None) -> Axes:
        """Draw the spectra of all modules and return the axes."""
        from subspace.plots import spectra

        return spectra(self, ax=ax)

    def totals(self) -> dict[str, Any]:
        """Return modules, stored parameters, ranks, the norm of the whole update, and how many are untrained."""
        norms = [each.norm_delta_W for each in self.modules]
        return {
            "modules": len(self.modules),
            "parameters": self.parameters,
            "ranks": sorted({each.r for each in self.modules}),
            "norm_delta_W": _whole(norms),
            "untrained": sum(Flag.UNTRAINED in each.flags for each in self.modules),
        }

    def headline(self) -> str:
        """Return what the file is, in one sentence."""
        totals = self.totals()
        ranks = ", ".join(map(str, totals["ranks"]))
        kinds = Counter(each.kind for each in self.modules)
        of = " and ".join(f"{count} {kind}" for kind, count in kinds.items())
        untrained = f", {totals['untrained']} of them untrained" if totals["untrained"] else ""
        return (
            f"{adapter_at(self.path)} is an adapter in the format {self.format} ({self.container}) with "
            f"{of} module{'s' if totals['modules'] > 1 else ''}{untrained}, r = {ranks}, "
            f"and {totals['parameters']:,} parameters."
        )


def _whole(norms: Sequence[float | None]) -> float | None:
    """Norm of all modules together; None where one is not known, or it is too large for a number."""
    known = [norm for norm in norms if norm is not None]
    whole = frobenius(known) if known and len(known) == len(norms) else math.inf
    return whole if math.isfinite(whole) else None
