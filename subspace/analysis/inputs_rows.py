"""The rows of `inputs`, from the sums over the inputs of a model's layers."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from subspace.errors import located
from subspace.flags import Flag
from subspace.geometry.frobenius import frobenius
from subspace.geometry.second_moment import SecondMoment
from subspace.geometry.topk import leading
from subspace.results.inputs import Gradient, ModuleInputs
from subspace.text import shown

if TYPE_CHECKING:
    from subspace.training.input_reading import InputReading

__all__ = ["DIRECTIONS", "gradients_of", "rows_of"]

DIRECTIONS = 16  # of a gradient
_ENOUGH = 2  # tokens for each dimension, below which the smaller eigenvalues are mostly chance


def rows_of(
    reading: InputReading, kept: Callable[[int], int]
) -> tuple[dict[str, SecondMoment], list[ModuleInputs]]:
    """Second moments by the layer that was read, and a row for every layer, in the order of the model.

    Parameters
    ----------
    kept : dimension -> how many eigenpairs are kept
    """
    moments, rows = {}, {}
    gradients = {name: _norms(reading.gradient(name)) for name in reading.slopes}
    for site in reading.sites:
        first, total = site.modules[0], reading.sums[site.modules[0]]
        moment = None
        if total.tokens:
            with located(f"the inputs of {shown(first)}"):
                moment = moments[first] = total.moment(kept(site.d))
        for name in site.modules:
            padded = first in reading.padded
            rows[name] = _row(name, first, site.d, moment, gradients.get(name, (None, None)), padded=padded)
    return moments, [rows[name] for name in reading.targets]


def _norms(G: Any) -> tuple[float | None, float | None]:
    """Norm of a gradient, and the share of its square in the leading direction."""
    norm = frobenius(G)
    return norm, None if norm == 0 else (float(leading(G, 1).S[0]) / norm) ** 2


def _row(
    name: str,
    first: str,
    d: int,
    moment: SecondMoment | None,
    gradient: tuple[float | None, float | None],
    *,
    padded: bool,
) -> ModuleInputs:
    energy = None if moment is None else moment.trace
    numbers: dict[str, Any] = dict.fromkeys(
        ("mean_share", "top_share", "effective_dimension", "decay", "rest_share", "error_share")
    )
    if moment is not None and moment.trace > 0:
        numbers = {
            "mean_share": moment.mean_share,
            "top_share": float(moment.values[0]) / moment.trace,
            "effective_dimension": moment.effective_dimension,
            "decay": None if math.isnan(moment.decay) else moment.decay,
            "rest_share": moment.rest / moment.trace,
            "error_share": moment.missed / moment.trace,
        }
    flags: tuple[Flag, ...] = () if moment is not None else (Flag.NOT_CALLED,)
    if moment is not None and moment.tokens < _ENOUGH * d:
        flags += (Flag.FEW_TOKENS,)
    return ModuleInputs(
        module=name,
        read_with=first,
        tokens=0 if moment is None else moment.tokens,
        d=d,
        energy=energy,
        eigenpairs=0 if moment is None else moment.k,
        eigenvalues=np.zeros(0) if moment is None else moment.values,
        gradient_norm=gradient[0],
        gradient_top_share=gradient[1],
        flags=(*flags, Flag.PADDING_COUNTED) if padded else flags,
        **numbers,
    )


def gradients_of(reading: InputReading) -> dict[str, Gradient]:
    """Leading directions of the gradient by each layer's weight; of those that the loss does not depend on none."""
    found = {}
    for name in reading.slopes:
        G = reading.gradient(name)
        norm = frobenius(G)
        if norm > 0:
            top = leading(G / norm, min(DIRECTIONS, *G.shape))
            found[name] = Gradient(norm * top.S, top.U, top.V, norm)
    return found
