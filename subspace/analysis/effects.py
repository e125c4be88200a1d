"""How alike two updates are, module by module and as a whole: signed cosine, and the energy inside both spans."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from subspace.adapters.update import DenseUpdate, LowRankUpdate, Update
from subspace.flags import Flag
from subspace.geometry import lapack
from subspace.geometry.frobenius import frobenius
from subspace.geometry.update_agreement import (
    UpdateAgreement,
    isotropic_cosine_sd,
    isotropic_energy,
    update_agreement,
)
from subspace.results.comparison_summary import WholeUpdate

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from subspace.geometry.agreement import Agreement
    from subspace.geometry.frame import Frame

__all__ = ["Effect", "effect_of", "whole_update"]

_LEAST = 1e-100  # norms whose products stay in the range of float64 lie between it and its inverse
_Pair: TypeAlias = tuple[Update, Update]


@dataclass(frozen=True)
class Effect:
    """How alike two updates of one module are, with the isotropic levels and the signed norms of both.

    Attributes
    ----------
    agreement : without the scales
    cosine_isotropic_sd, first_isotropic, second_isotropic : of the cosine and of the two energies; the energies have
        none where no spans were computed
    scales : of both updates, None where unknown
    """

    agreement: UpdateAgreement
    cosine_isotropic_sd: float
    first_isotropic: float | None
    second_isotropic: float | None
    scales: tuple[float | None, float | None]

    @property
    def cosine(self) -> float:
        """Signed cosine; an unknown scale counts as positive."""
        negative = sum(scale is not None and scale < 0 for scale in self.scales)
        return -self.agreement.cosine if negative == 1 else self.agreement.cosine

    def columns(self) -> dict[str, Any]:
        """The columns of a row; what is not a number is None."""
        found = {
            "cosine": self.cosine,
            "cosine_isotropic_sd": self.cosine_isotropic_sd,
            "energy_first_in_second": self.agreement.first_in_second,
            "energy_first_in_second_isotropic": self.first_isotropic,
            "energy_second_in_first": self.agreement.second_in_first,
            "energy_second_in_first_isotropic": self.second_isotropic,
        }
        return {name: None if value is None or math.isnan(value) else value for name, value in found.items()}


def effect_of(pair: _Pair, found: Mapping[str, Agreement]) -> Effect | None:
    """How alike two updates are; None where one of them is a base weight or has no direction.

    Parameters
    ----------
    pair : two updates of the same shape
    found : side -> agreement; of two factored updates both "a" and "b"
    """
    if any(Flag.BASE in update.flags for update in pair):
        return None
    if isinstance(pair[0], LowRankUpdate) and isinstance(pair[1], LowRankUpdate):
        if not found["a"].phi.size or not found["b"].phi.size:
            return None
        agreement = update_agreement(found["a"], found["b"])
    else:
        agreement = _of_dense(pair, found)
    d_out, d_in = pair[0].d_out, pair[0].d_in
    levels: list[float | None] = [None, None]
    if not math.isnan(agreement.first_in_second):
        left, right = _spans(found)
        sizes = [(b.k, a.k) for b, a in zip(left, right, strict=True)]
        levels = [isotropic_energy(*size, d_out, d_in) for size in reversed(sizes)]
    scales = pair[0].scale.value, pair[1].scale.value
    return Effect(agreement, isotropic_cosine_sd(d_out, d_in), levels[0], levels[1], scales)


def _spans(found: Mapping[str, Agreement]) -> tuple[tuple[Frame, Frame], tuple[Frame, Frame]]:
    """The frames of both updates on the output side and on the input side."""
    b, a = found.get("b") or found["left"], found.get("a") or found["right"]
    return (b.first, b.second), (a.first, a.second)


def _of_dense(pair: _Pair, found: Mapping[str, Agreement]) -> UpdateAgreement:
    """By the matrices themselves; energies only where the spans of both sides were computed."""
    matrices = [_matrix(update) for update in pair]
    norms = [frobenius(M) for M in matrices]
    for M, norm in zip(matrices, norms, strict=True):
        if not math.isfinite(norm):
            lapack.refuse(M, name="delta_W")
    if not all(norms):
        return UpdateAgreement(math.nan, math.nan, math.nan, *norms)
    units = [M if _LEAST < norm < 1 / _LEAST else M / norm for M, norm in zip(matrices, norms, strict=True)]
    sizes = [norm if M is unit else 1.0 for M, unit, norm in zip(matrices, units, norms, strict=True)]
    cosine = float(np.clip(np.vdot(*units) / sizes[0] / sizes[1], -1, 1))
    inside = [math.nan, math.nan]
    if {"a", "right"} & set(found) and {"b", "left"} & set(found):
        left, right = _spans(found)
        for n, (M, norm) in enumerate(zip(units, sizes, strict=True)):
            U, V = left[1 - n].vectors(), right[1 - n].vectors()
            inside[n] = min(1.0, (float(np.linalg.norm(U.T @ M @ V)) / norm) ** 2)
    return UpdateAgreement(cosine, inside[0], inside[1], norms[0], norms[1])


def _matrix(update: Update) -> NDArray[np.float64]:
    """delta_W without its scale."""
    if isinstance(update, DenseUpdate):
        return update.matrix.load().astype(np.float64)
    with np.errstate(invalid="ignore"):  # a product with NaN or Inf is refused by its norm
        return np.asarray(update.B.astype(np.float64) @ update.A.astype(np.float64))


def whole_update(effects: Sequence[Effect | None]) -> WholeUpdate | None:
    """The cosine and the energies of all compared modules together; None where that is not defined.

    Parameters
    ----------
    effects : of every module, None where it has none

    Notes
    -----
    Where no scale of an adapter is known they count as equal, as one alpha and one rank make them; where only some are,
    the whole is not defined.
    """
    known = [effect for effect in effects if effect is not None and not math.isnan(effect.agreement.cosine)]
    sides = [_signed_norms(known, n) for n in (0, 1)]
    if not known or any(norms is None for norms in sides):
        return None
    s, s_ = (_unit(np.asarray(norms)) for norms in sides)
    if s is None or s_ is None:
        return None
    weights = s * s_
    cosines, sds = (
        np.array([e.agreement.cosine for e in known]),
        np.array([e.cosine_isotropic_sd for e in known]),
    )
    shares = [s**2, s_**2]
    return WholeUpdate(
        cosine=float(weights @ cosines),
        cosine_isotropic_sd=float(np.linalg.norm(weights * sds)),
        energy_first_in_second=_mean(shares[0], [e.agreement.first_in_second for e in known]),
        energy_first_in_second_isotropic=_mean(shares[0], [e.first_isotropic for e in known]),
        energy_second_in_first=_mean(shares[1], [e.agreement.second_in_first for e in known]),
        energy_second_in_first_isotropic=_mean(shares[1], [e.second_isotropic for e in known]),
    )


def _unit(v: NDArray[np.float64]) -> NDArray[np.float64] | None:
    """A vector divided by its length; None where that is zero or not finite."""
    largest = float(np.abs(v).max(initial=0.0))
    if not 0 < largest < math.inf:
        return None
    v = v / largest
    return v / float(np.linalg.norm(v))


def _signed_norms(effects: Sequence[Effect], n: int) -> list[float] | None:
    """Scale times norm of every update of one adapter."""
    scales = [effect.scales[n] for effect in effects]
    if any(scale is None for scale in scales) and any(scale is not None for scale in scales):
        return None
    norms = [(e.agreement.norm_first, e.agreement.norm_second)[n] for e in effects]
    return [norm * (1.0 if scale is None else scale) for norm, scale in zip(norms, scales, strict=True)]


def _mean(weights: NDArray[np.float64], values: Sequence[float | None]) -> float | None:
    if any(value is None or math.isnan(value) for value in values):
        return None
    return float(weights @ np.array(values, dtype=np.float64))
