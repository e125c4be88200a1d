"""The columns of a question about base weights that say how much of an update is left in a stored type."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from subspace.results.columns import column
from subspace.results.result import Row

__all__ = ["StoredColumns"]

# columns that a question has only where a type was given
_of_store = partial(column, late=True, absent=lambda row: row.store is None, default=None)


@dataclass(frozen=True, eq=False, kw_only=True)
class StoredColumns(Row):
    """What a question adds with `store`; without it rows have no such columns."""

    store: str | None = _of_store(
        "Type that W + delta_W is rounded to; None where `store` was not given", place="record"
    )
    changed: float | None = _of_store(
        "Share of the entries of W that are then stored as another number, see `visibility`",
        range="[0, 1]",
        drop=1,
    )
    changed_random: float | None = _of_store(
        "The same, expected for isotropic random entries of the norm of delta_W",
        range="[0, 1]",
        place="record",
    )
    norm_left: float | None = _of_store(
        "Norm of what is then left of delta_W, relative to that of delta_W",
        label="norm left",
        range="[0, inf)",
        drop=1,
    )
    cosine: float | None = _of_store("Cosine of what is left and delta_W", range="[-1, 1]", place="record")
