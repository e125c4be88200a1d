"""The result of `visibility`: how much of an update is left when it is merged and stored, per module and in total."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, ClassVar

from subspace.flags import Flag
from subspace.results.columns import column, row
from subspace.results.nulls import ISOTROPIC
from subspace.results.result import Result, Row
from subspace.text import counted, listed, shown

__all__ = ["ModuleVisibility", "Visibility", "in_total", "percent"]


@row
class ModuleVisibility(Row):
    """What is left of one module's delta_W when the sum is rounded to the stored type: D = round(W + delta_W) - W."""

    module: str = column("Name of the module")
    d_out: int = column("Rows of W", place="record")
    d_in: int = column("Columns of W", place="record")
    scale: float | None = column(
        "Factor between B A and delta_W; None where the file does not say it", place="record"
    )
    scale_source: str = column("Where the scale comes from", place="record")
    base_key: str = column("Name of the base weight in its file", place="record")
    base_dtype: str = column("Type that the base stores its weight in", place="record")
    store: str = column("Type that W + delta_W is rounded to")
    norm_delta_W: float | None = column(
        "Frobenius norm of delta_W, the scale included, of DoRA that of its whole change",
        label="norm ΔW",
        drop=4,
    )
    changed: float | None = column(
        "Share of the entries of W that are stored as another number", range="[0, 1]"
    )
    null: str = column(
        "What changed_random and the chances of phi are of: isotropic random entries, and directions",
        place="record",
        default=ISOTROPIC,
    )
    changed_random: float | None = column(
        "The same, expected for isotropic random entries of the norm of delta_W",
        label="changed isotropic",
        range="[0, 1]",
        drop=3,
    )
    norm_left: float | None = column(
        "Norm of what is left, D, relative to that of delta_W; rounding up can bring it above 1",
        label="norm left",
        range="[0, inf)",
    )
    cosine: float | None = column("Cosine of D and delta_W; None where nothing is left", range="[-1, 1]")
    r: int | None = column("How many leading directions phi compares", drop=2, default=None)
    phi_left: float | None = column(
        "phi of the leading r left singular directions of D and of delta_W",
        label="phi left",
        range="[0, 1]",
        drop=1,
        default=None,
    )
    phi_right: float | None = column(
        "phi of their leading r right singular directions",
        label="phi right",
        range="[0, 1]",
        drop=1,
        default=None,
    )
    chance_left: float | None = column(
        "Mean of phi_left for isotropic random directions", place="record", range="[0, 1]", default=None
    )
    chance_right: float | None = column(
        "Mean of phi_right for isotropic random directions", place="record", range="[0, 1]", default=None
    )
    infinite: int = column(
        "Entries that became infinite, too large for the stored type", place="record", default=0
    )
    flags: tuple[Flag, ...] = column("What to know before reading the row, see the list of flags", default=())


@dataclass(frozen=True, eq=False, repr=False)
class Visibility(Result[ModuleVisibility]):
    """How much of an update is left when it is merged into its base and stored.

    Attributes
    ----------
    base, delta : paths of the base weights and of the adapter
    changed, norm_left, cosine : of all modules together, as of one; None where none has numbers
    modules : one row per module
    missing : modules of the adapter that the base does not have
    notes : what to know before reading the numbers
    """

    SCHEMA: ClassVar[str] = "subspace.visibility/1"
    ROW: ClassVar[type[Row]] = ModuleVisibility

    base: str
    delta: str
    changed: float | None
    norm_left: float | None
    cosine: float | None
    modules: tuple[ModuleVisibility, ...]
    missing: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def headline(self) -> str:
        """Return the share of entries that change, norm and cosine of what is left, and where the cosine is lowest."""
        counted_rows = [each for each in self.modules if each.norm_left is not None]
        if not counted_rows or self.changed is None:
            return "Of no module it is known how much of delta_W is left."
        types = listed(dict.fromkeys(each.store for each in counted_rows))
        total = f" (over {counted(len(counted_rows), 'module')} together)" if len(counted_rows) > 1 else ""
        if self.cosine is None:
            return (
                f"Merging and rounding to {types} changes no entry of W: nothing of delta_W is left{total}."
            )
        norm = percent(self.norm_left or 0.0)
        return (
            f"Merging and rounding to {types} changes {percent(self.changed)} of the entries of W; what is left of "
            f"delta_W has {norm} of its norm and a cosine of {self.cosine:.3g} with it{total}."
            f"{_lowest(counted_rows)}"
        )


def _lowest(rows: list[ModuleVisibility]) -> str:
    """In which of several modules the cosine is lowest, as a sentence."""
    having = [(each.cosine, each.module) for each in rows if each.cosine is not None]
    if len(rows) < 2 or not having:
        return ""
    cosine, module = min(having)
    nothing = len(rows) - len(having)
    end = f"; nothing is left in {counted(nothing, 'module')}" if nothing else ""
    return f" The lowest cosine is {cosine:.3g}, in {shown(module)}{end}."


def percent(share: float) -> str:
    """A share as text, in which only 0 and 1 themselves are called so.

    Examples
    --------
    >>> percent(0.123), percent(1e-5), percent(0.99999), percent(1.0)
    ('12.3 %', '0.001 %', 'almost 100 %', '100 %')
    """
    text = f"{100 * share:.3g}" if share < 10 else f"{100 * share:.0f}"
    return "almost 100 %" if text == "100" and share < 1 else f"{text} %"


def in_total(rows: Iterable[ModuleVisibility]) -> dict[str, Any]:
    """Return changed, norm_left and cosine of all rows that have numbers, taken together as one update; else None.

    Examples
    --------
    >>> in_total([])
    {'changed': None, 'norm_left': None, 'cosine': None}
    """
    entries, changed, delta, left, inner = 0, 0.0, 0.0, 0.0, 0.0
    for each in rows:
        if each.norm_left is None or each.norm_delta_W is None or each.changed is None:
            continue
        size = each.d_out * each.d_in
        entries, changed = entries + size, changed + each.changed * size
        norm_left = each.norm_left * each.norm_delta_W
        delta, left = delta + each.norm_delta_W**2, left + norm_left**2
        inner += (each.cosine or 0.0) * norm_left * each.norm_delta_W
    if not entries or not delta:
        return {"changed": None, "norm_left": None, "cosine": None}
    cosine = inner / math.sqrt(delta) / math.sqrt(left) if left else None
    return {"changed": changed / entries, "norm_left": math.sqrt(left / delta), "cosine": cosine}
