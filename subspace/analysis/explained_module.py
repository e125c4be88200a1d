"""One module's leading directions: their sizes, and how much of each is in the inputs, the gradient and the heads."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from subspace.adapters.update import DenseUpdate, LowRankUpdate, Update
from subspace.analysis.frames import dense_noise, spanning
from subspace.flags import Flag
from subspace.geometry import lapack
from subspace.geometry.agreement import frames_of
from subspace.geometry.direction_shares import random_directions, span_shares
from subspace.geometry.frobenius import frobenius
from subspace.geometry.output_agreement import output_size
from subspace.geometry.rounding import float64_noise
from subspace.geometry.topk import leading
from subspace.results.explanation import DirectionExplanation

if TYPE_CHECKING:
    from subspace.geometry.lapack import Floats
    from subspace.geometry.second_moment import SecondMoment
    from subspace.results.inputs import Gradient

__all__ = [
    "Directions",
    "directions_of",
    "rows_of",
    "seed_of",
    "with_gradient",
    "with_inputs",
    "without_directions",
]

_CONTROLS = 64  # isotropic random directions, where delta_W has no others
_TRAILING_OF_DENSE = 8
_SETTLED = 1e-5
_DENSE_TOL, _DENSE_PASSES = 2e-7, 60


@dataclass(frozen=True)
class Directions:
    """Singular directions of delta_W, without its scale.

    Attributes
    ----------
    update : whose directions they are
    U, S, V : (d_out, n), (n,), (d_in, n), all of a low-rank delta_W and the first of a dense one
    k : how many of them are leading ones, which are explained
    norm : of delta_W
    matrix : a dense delta_W; None of a low-rank one, which U, S and V are the whole of
    flags : what is to be known of them
    ties : every i (from 1) such that rounding turns the i-th direction and the next into each other
    """

    update: Update
    U: Floats
    S: Floats
    V: Floats
    k: int
    norm: float
    matrix: Any = None
    flags: tuple[Flag, ...] = ()
    ties: tuple[int, ...] = ()

    @property
    def scale(self) -> float:
        """Factor of delta_W, 1 where it is unknown."""
        return 1.0 if self.update.scale.value is None else self.update.scale.value

    @property
    def control(self) -> str:
        """What the control directions are."""
        return "trailing" if len(self.S) > self.k else "isotropic"

    def controls(self) -> Floats:
        """Control directions (d_in, n): the trailing ones, else isotropic random ones."""
        if self.control == "trailing":
            return self.V[:, self.k :]
        return random_directions(self.update.d_in, _CONTROLS, seed=seed_of(self.update.module))


def seed_of(module: str) -> int:
    """A seed that is the same for a module in every run."""
    return zlib.crc32(module.encode("utf-8", "surrogatepass"))


def directions_of(update: Update, k: int) -> Directions | None:
    """The singular directions of a module; None where delta_W is zero.

    Raises
    ------
    ValueRangeError : a number is not finite
    """
    found = _low_rank(update, k) if isinstance(update, LowRankUpdate) else _dense(update, k)
    if found.k == 0:
        return None
    scale = update.scale.value
    if scale is None:
        return replace(found, flags=(*found.flags, Flag.SCALE_UNKNOWN))
    too_large = not np.isfinite(abs(scale) * found.norm)
    return replace(found, flags=(*found.flags, Flag.OVERFLOW)) if too_large else found


def _low_rank(update: LowRankUpdate, k: int) -> Directions:
    frames = frames_of(spanning(update, ["left", "right"]))  # of one product, so that their columns match
    left, S, V = frames["left"], frames["left"].S, frames["right"].vectors()
    low = (Flag.RANK_BELOW_WANTED,) if 0 < len(S) < min(k, update.r) else ()
    return Directions(
        update, left.vectors(), S, V, min(k, len(S)), frobenius(S), None, (*update.flags, *low), left.ties
    )


def _dense(update: DenseUpdate, k: int) -> Directions:
    M = lapack.as_float64(update.matrix.load())
    found = leading(M, min(k + _TRAILING_OF_DENSE, update.r), tol=_DENSE_TOL, max_passes=_DENSE_PASSES)
    noise = max(dense_noise(update, M), float64_noise(M.shape, found.S.max(initial=0.0)))
    n = int(np.count_nonzero(noise < found.S))
    flags = update.flags if found.error <= _SETTLED else (*update.flags, Flag.DIRECTIONS_ESTIMATED)
    return Directions(update, found.U[:, :n], found.S[:n], found.V[:, :n], min(k, n), found.norm, M, flags)


def without_directions(update: Update, *flags: Flag) -> DirectionExplanation:
    """The row of a module that has none."""
    return DirectionExplanation(
        module=update.module,
        k=0,
        d_in=update.d_in,
        d_out=update.d_out,
        rank=0 if Flag.UNTRAINED in flags else None,
        sigma=None,
        energy_share=None,
        flags=(*update.flags, *flags),
    )


def rows_of(found: Directions) -> list[DirectionExplanation]:
    """A row per leading direction, with its size alone."""
    update = found.update
    unit = found.S / found.norm
    with np.errstate(over="ignore", under="ignore"):
        sigma = abs(found.scale) * found.S
    return [
        DirectionExplanation(
            module=update.module,
            k=n + 1,
            d_in=update.d_in,
            d_out=update.d_out,
            rank=len(found.S),
            sigma=float(sigma[n]) if np.isfinite(sigma[n]) else None,
            energy_share=float(unit[n] ** 2),
            control=found.control,
            flags=(*found.flags, Flag.NEAR_TIE) if {n, n + 1} & set(found.ties) else found.flags,
        )
        for n in range(found.k)
    ]


def with_inputs(
    rows: Sequence[DirectionExplanation], found: Directions, moment: SecondMoment, most: int
) -> list[DirectionExplanation]:
    """The rows with what the module's inputs say of their directions."""
    V, d = found.V[:, : found.k], moment.d
    controls = found.controls()
    second, mean = _second(V, moment), (moment.mean @ V) ** 2
    total = _whole_output(found, moment)
    m = min(most, moment.k)
    Q = moment.vectors[:, :m]
    inside, inside_control = span_shares(V, Q), float(span_shares(controls, Q).mean())
    direction = _unit(moment.mean)
    along = None if direction is None else span_shares(V, direction)
    along_control = None if direction is None else float(span_shares(controls, direction).mean())
    constant_control = _mean_ratio((moment.mean @ controls) ** 2, _second(controls, moment))
    out = []
    for n, row in enumerate(rows):
        square = found.S[n] ** 2 * second[n]
        out.append(
            replace(
                row,
                **_sizes(found, square, found.S[n] ** 2 * mean[n]),
                output_share=_ratio(square, total),
                constant_share=_ratio(mean[n], second[n]),
                constant_isotropic=moment.mean_share,
                constant_control=constant_control,
                mean_share=None if along is None else float(along[n]),
                mean_isotropic=1 / d,
                mean_control=along_control,
                input_leading=m,
                input_share=float(inside[n]),
                input_isotropic=m / d,
                input_control=inside_control,
            )
        )
    return out


def _sizes(found: Directions, square: float, constant: float) -> dict[str, Any]:
    """Mean square and variance of what a direction adds; None without a scale, or beyond float64."""
    if found.update.scale.value is None:
        return {}
    with np.errstate(over="ignore"):
        whole, rest = found.scale**2 * square, found.scale**2 * max(square - constant, 0.0)
    return {"output_square": float(whole), "output_variance": float(rest)} if np.isfinite(whole) else {}


def _second(V: Floats, moment: SecondMoment) -> Floats:
    """``E[(v^T x)^2]`` of every column of V."""
    squares: Floats = np.maximum(np.diagonal(moment.inner(V.T, V.T)), 0.0)
    return squares


def _whole_output(found: Directions, moment: SecondMoment) -> float:
    """``E||delta_W x||^2``, without the scale."""
    if found.matrix is not None:
        return output_size([found.matrix], moment) ** 2
    return float(found.S**2 @ _second(found.V, moment))


def _unit(vector: Floats) -> Floats | None:
    """A vector of norm 1 as a column; None of zero."""
    norm = float(np.linalg.norm(vector))
    return vector[:, None] / norm if norm else None


def _ratio(part: float, whole: float) -> float | None:
    """A share, at most 1; None of nothing."""
    return min(1.0, float(part / whole)) if whole > 0 else None


def _mean_ratio(parts: Floats, wholes: Floats) -> float | None:
    shares = [_ratio(part, whole) for part, whole in zip(parts, wholes, strict=True)]
    known = [each for each in shares if each is not None]
    return sum(known) / len(known) if known else None


def with_gradient(
    rows: Sequence[DirectionExplanation], found: Directions, gradient: Gradient
) -> list[DirectionExplanation]:
    """The rows with how much of v is in the leading directions of the first gradient."""
    V = found.V[:, : found.k]
    d, m = gradient.V.shape
    inside = span_shares(V, gradient.V)
    control = float(span_shares(found.controls(), gradient.V).mean())
    return [
        replace(
            row,
            gradient_leading=m,
            gradient_share=float(inside[n]),
            gradient_isotropic=m / d,
            gradient_control=control,
        )
        for n, row in enumerate(rows)
    ]
