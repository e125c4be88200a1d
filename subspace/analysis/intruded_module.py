"""Intruder dimensions of one module: its weight and update as the file has them, measured, as rows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from subspace.adapters.base.weight import BaseWeight
from subspace.adapters.update import DenseUpdate, LowRankUpdate, Update
from subspace.errors import ValueRangeError
from subspace.flags import Flag
from subspace.geometry import factored, lapack
from subspace.geometry.intruders import SIDES, Intrusion, exact_intrusion
from subspace.geometry.large_products import Summed
from subspace.geometry.largest_cosine import chance_largest_cosine
from subspace.geometry.spectrum import numerical_rank
from subspace.geometry.streamed_intruders import streamed_intrusion
from subspace.geometry.topk import leading
from subspace.results.intrusion import SWEEP, ModuleIntruders
from subspace.text import shown

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from subspace.analysis.against_base import Site

__all__ = ["Asked", "asked_for", "row_without_numbers", "rows_of"]

_DENSE = 1024  # smaller side up to which W's decomposition takes about a second
_LARGEST = 1e140  # of numbers whose squares are summed
_LEADING = 64  # directions of a dense delta_W that the fast route looks for the first scale with


class Asked(NamedTuple):
    """What is asked of every module; `keep_top` keeps the vectors of the first intruder in its row."""

    k: int
    epsilon: float
    sides: tuple[str, ...]
    exact: bool | None
    up_to: float
    keep_top: bool = False


class _Factors(NamedTuple):
    """An update as the file stores W: factors with the scale multiplied in, and a dense one's whole matrix."""

    B: NDArray[np.float64]
    A: NDArray[np.float64]
    D: NDArray[np.float64] | None = None


def asked_for(*, k: int, epsilon: float, side: str, exact: bool | None, up_to: float) -> Asked:
    """What the parameters of `intruders` ask for.

    Raises
    ------
    ValueRangeError : one is out of its range
    """
    if k < 1:
        raise ValueRangeError(f"k = {k} is too small: give `k` a whole number of at least 1")
    if not 0 < epsilon <= 1:
        raise ValueRangeError(f"Invalid threshold {epsilon}: give `epsilon` a number in (0, 1], such as 0.5")
    if side not in {*SIDES, "both"}:
        raise ValueRangeError(f"Unknown side {shown(repr(side))}; give `side` left, right or both")
    if not 0 <= up_to < float("inf"):
        raise ValueRangeError(
            f"Invalid multiple of the scale: {up_to}; give `up_to` a number of at least 0, such as 64"
        )
    return Asked(k, epsilon, SIDES if side == "both" else (side,), exact, up_to)


def rows_of(site: Site, *, asked: Asked) -> tuple[ModuleIntruders, ...]:
    """A row for each side that was asked for."""
    weight, update = site.weight, site.update
    if update.scale.value is None:
        return row_without_numbers(site, asked=asked, flag=Flag.SCALE_UNKNOWN)
    exact = min(weight.shape) <= _DENSE if asked.exact is None else asked.exact
    factors = _factors(update, exact=exact)
    if factors is None:
        return row_without_numbers(site, asked=asked, flag=Flag.OVERFLOW)
    turned = _Factors(factors.A.T, factors.B.T, None if factors.D is None else factors.D.T)
    stored = _measured(weight, turned if weight.transposed else factors, asked, exact=exact)
    if stored is None:
        return row_without_numbers(site, asked=asked, flag=Flag.BASE_ZERO)
    return tuple(_row(weight, update, stored, side, asked, exact=exact) for side in asked.sides)


def row_without_numbers(site: Site, *, asked: Asked, flag: Flag) -> tuple[ModuleIntruders, ...]:
    """Rows of a module that has no numbers, and the flag that says why."""
    none: dict[str, Any] = dict.fromkeys(
        ("sigma_delta_W", "intruders", "chance_max_cos", "s_star", "s_star_law")
    )
    common = {**_common(site.weight, site.update), **none, "flags": (*_flags(site.update), flag)}
    return tuple(ModuleIntruders(**common, side=side, route="none") for side in asked.sides)


def _factors(update: Update, *, exact: bool) -> _Factors | None:
    """The update, in the orientation of W; a dense one as its singular directions, all of them on the exact route.

    Both as ``U diag(S)`` and ``V.T``, so that no factor is far larger or smaller than the product. None where that is
    too large for its square.
    """
    scale = update.scale.value or 0.0
    if isinstance(update, LowRankUpdate):
        U, S, Vh = factored.svd(update.B, update.A)
        with np.errstate(over="ignore"):
            S = scale * S
        if not np.all(np.abs(S) < _LARGEST):
            return None
        return _of_triplets(U, S, Vh)
    with np.errstate(over="ignore"):
        D = scale * lapack.as_float64(update.matrix.load())
    lapack.refuse(D, name="delta_W")
    if np.abs(D).max(initial=0.0) >= _LARGEST:
        return None
    if exact:
        U, S, Vh = lapack.svd(D)
        rank = numerical_rank(S, longest=max(D.shape))
        return _of_triplets(U[:, :rank], S[:rank], Vh[:rank])
    found = leading(D, _LEADING, tol=1e-5)
    return _of_triplets(found.U, found.S, found.V.T, D)


def _of_triplets(U: Any, S: Any, Vh: Any, D: Any = None) -> _Factors:
    if S.size:
        return _Factors(U * S, Vh, D)
    return _Factors(np.zeros((len(U), 1)), np.zeros((1, Vh.shape[1])), D)


def _measured(weight: BaseWeight, update: _Factors, asked: Asked, *, exact: bool) -> Intrusion | None:
    """What the stored matrix shows, with sides as stored; None where it is zero."""
    sides = [_as_stored(side, weight) for side in asked.sides]
    common: dict[str, Any] = {"k": asked.k, "epsilon": asked.epsilon, "sides": sides, "up_to": asked.up_to}
    if exact:
        W = lapack.as_float64(weight.matrix())
        return exact_intrusion(W, update.B, update.A, **common) if W.any() else None
    W = weight.streamed()
    merged = None if update.D is None else Summed(W, update.D, 1.0)
    # thresholds near the level of isotropic directions would take the most work, and ask what nobody wants to know
    chance = chance_largest_cosine(min(weight.shape), min(weight.shape))
    others = [threshold for threshold in SWEEP if threshold > 2 * chance]
    found = streamed_intrusion(W, update.B, update.A, others=others, merged=merged, **common)
    return found if len(found.spectrum.leading) else None


def _as_stored(side: str, weight: BaseWeight) -> str:
    """A side of W in the orientation of the file."""
    return {"left": "right", "right": "left"}[side] if weight.transposed else side


def _row(
    weight: BaseWeight, update: Update, found: Intrusion, side: str, asked: Asked, *, exact: bool
) -> ModuleIntruders:
    own = found.sides[_as_stored(side, weight)]
    most = own.cosines.most
    numbers = [n for n, cos in enumerate(most) if cos < asked.epsilon]
    edge = min(asked.k, *weight.shape)
    return ModuleIntruders(
        **_common(weight, update),
        side=side,
        route="exact" if exact else "fast",
        sigma_delta_W=found.theta,
        sigma=_floats(found.merged.S),
        max_cos=_floats(most),
        max_cos_least=_floats(own.cosines.least),
        match=own.cosines.match,
        match_sigma=_floats(own.cosines.sigma),
        captured=_floats(own.captured),
        intruders=len(numbers),
        first_intruder=numbers[0] + 1 if numbers else None,
        lowest_cos=float(most.min()) if len(most) else None,
        chance_max_cos=chance_largest_cosine(min(weight.shape), weight.shape[0 if side == "left" else 1]),
        s_star=own.s_star,
        s_star_law=_law(found, edge),
        s_star_law_first=_law(found, 1),
        edge=f"just above sigma_{edge} of W, the least value among the {edge} leading ones",
        top=_top(weight, found, numbers) if asked.keep_top and numbers else None,
        flags=(*_flags(update), *_doubts(update, found, own, asked, exact=exact)),
    )


def _common(weight: BaseWeight, update: Update) -> dict[str, Any]:
    return {
        "module": update.module,
        "d_out": update.d_out,
        "d_in": update.d_in,
        "scale": update.scale.value,
        "base_key": weight.key,
        "orientation": weight.orientation,
    }


def _law(found: Intrusion, j: int) -> float | None:
    """Multiple of the update at which it reaches the threshold above W's j-th singular value."""
    bar = found.spectrum.threshold(j)
    return bar / found.theta if found.theta and np.isfinite(bar) else None


def _top(weight: BaseWeight, found: Intrusion, numbers: list[int]) -> Any:
    """u, sigma and v of the first intruder, u of the outputs."""
    n = numbers[0]
    u, v = found.merged.U[:, n], found.merged.V[:, n]
    return (v, float(found.merged.S[n]), u) if weight.transposed else (u, float(found.merged.S[n]), v)


def _flags(update: Update) -> tuple[Flag, ...]:
    return tuple(flag for flag in update.flags if flag is not Flag.DENSE)


def _doubts(update: Update, found: Intrusion, own: Any, asked: Asked, *, exact: bool) -> tuple[Flag, ...]:
    """What to know before reading the numbers."""
    doubts = []
    if not found.theta:
        doubts.append(Flag.UNTRAINED)
    elif asked.up_to and own.s_star is None:
        doubts.append(Flag.TOO_SMALL_TO_INTRUDE)
    if not exact and np.any((own.cosines.least < asked.epsilon) & (own.cosines.most >= asked.epsilon)):
        doubts.append(Flag.COSINE_UNSETTLED)
    if not exact and len(found.merged.S) and found.merged.residuals.max() > 1e-4:
        doubts.append(Flag.MERGED_UNSETTLED)
    if not exact and isinstance(update, DenseUpdate) and asked.up_to:
        doubts.append(Flag.SCALE_OF_LEADING)
    return tuple(doubts)


def _floats(values: Any) -> tuple[float, ...]:
    return tuple(float(value) for value in values)
