"""The columns of a comparison that need the inputs of its modules: what those explain of phi, and what comes out."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from subspace.results.columns import column
from subspace.results.result import Row

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["InputColumns"]

# columns that a comparison without inputs does not have
_of_inputs = partial(column, late=True, absent=lambda row: not row.by_inputs, default=None)


@dataclass(frozen=True, eq=False, kw_only=True)
class InputColumns(Row):
    """What a comparison adds with inputs; without them rows have no such columns."""

    by_inputs: bool = False

    phi_11_inputs: float | None = _of_inputs(
        "Mean of phi(1, 1) that the inputs alone give: the leverages of both in the eigenbasis of their second moment; "
        "sides a and right",
        range="[0, 1]",
        place="record",
    )
    phi_full_inputs: float | None = _of_inputs(
        "Mean of phi_full that the inputs alone give, sum_k h_k h'_k / min(i, j) over the leverages h; sides a and "
        "right",
        label="inputs",
        range="[0, 1]",
    )
    signs_p: float | None = _of_inputs(
        "p-value of the largest principal cosine among 999 random signs of the coordinates in that eigenbasis (199 of "
        "more than 64 directions; None of more than 128)",
        label="p signs",
        range="[0, 1]",
        drop=6,
    )
    shared_p_inputs: NDArray[np.float64] | None = _of_inputs(  # noqa: RUF009 - a field
        "p-value of sharing no more than k directions, for k = 0, 1, ..., once the coordinates in that eigenbasis are "
        "divided by the root of their expected energy",
        range="[0, 1]",
        place="json",
    )
    shared_dim_inputs: int | None = _of_inputs(
        "Shared dimension beyond the inputs: how many directions agree after that whitening, tested at `level` over "
        "all modules",
        label="beyond inputs",
    )
    cosine_functional: float | None = _of_inputs(
        "Signed cosine of the outputs of both updates on these inputs, tr(dW C dW'^T) / (|dW|_C |dW'|_C)",
        label="cosine out",
        range="[-1, 1]",
    )
    output_change_first: float | None = _of_inputs(
        "Root mean square of ||delta_W x|| over the inputs, the scale included; None where the scale is unknown",
        place="record",
    )
    output_change_second: float | None = _of_inputs("The same of delta_W'", place="record")
    output_share_first: float | None = _of_inputs(
        "output_change_first over the root mean square of ||W x||; needs the base weights", place="record"
    )
    output_share_second: float | None = _of_inputs(
        "output_change_second over the root mean square of ||W x||; needs the base weights", place="record"
    )
    inputs_outside: float | None = _of_inputs(
        "Share of the input energy outside the stored eigenpairs, which is treated as flat",
        range="[0, 1]",
        place="record",
    )
