"""How alike two spans are beyond what the inputs of their module explain: leverage, sign flips, whitening.

The rows of a trained A lie in the span of its inputs, so that two adapters that learned unrelated things from the same
inputs overlap more than isotropic random spans. Here the second moment C of the inputs is known, and with it the
coordinates along which both have more energy. What lies outside its stored eigenpairs is treated as flat.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from subspace.geometry import lapack
from subspace.geometry.agreement import Rows, agreements
from subspace.geometry.frame import Frame, overlap
from subspace.geometry.significance import shared_dimension_p

if TYPE_CHECKING:
    from subspace.geometry.lapack import Floats
    from subspace.geometry.second_moment import Coordinates, SecondMoment

__all__ = ["DRAWS", "FEWER", "InputChance", "input_chance", "leverage_overlap", "sign_flip_p", "whitened_p"]

DRAWS, FEWER = 999, 199
_SMALL, _MOST = 64, 128  # directions: with more of them fewer signs are drawn, and with still more none
_BATCH = 1 << 20  # numbers of drawn matrices at a time: 8 MB
_ROUNDING = 1e-12
_RATIOS = np.concatenate(
    [[0.0], np.logspace(-4, 8, 121)]
)  # of learned to started energy along the first eigenvector


class InputChance(NamedTuple):
    """What the inputs of a module explain of the overlap of two spans.

    Attributes
    ----------
    phi_11, phi_full : mean of phi(1, 1) and of phi of the whole spans over random signs of all coordinates
    signs_p : p-value of the largest principal cosine among those of 999 random signs, of 199 where a span has more than
        64 directions; NaN, as it would cost too much, where one has more than 128
    shared_p : (min(i, j),) p-values of further shared directions after whitening, as of `shared_dimension_p`
    """

    phi_11: float
    phi_full: float
    signs_p: float
    shared_p: Floats


def input_chance(first: Frame, second: Frame, moment: SecondMoment, *, seed: int = 0) -> InputChance:
    """What the inputs explain of the overlap of two frames.

    Parameters
    ----------
    first, second : of i and j directions in the space of the inputs, at least one each
    moment : of the inputs
    seed : of the random signs
    """
    one, other = (moment.coordinates(frame.vectors().T) for frame in (first, second))
    m = moment.d - moment.k
    return InputChance(
        phi_11=leverage_overlap(_first(one), _first(other), m),
        phi_full=leverage_overlap(one, other, m) / min(first.k, second.k),
        signs_p=_affordable_p(one, other, m, G=overlap(first, second), seed=seed),
        shared_p=whitened_p((one, first.S), (other, second.S), moment),
    )


def _affordable_p(one: Coordinates, other: Coordinates, m: int, *, G: Floats, seed: int) -> float:
    most = max(G.shape)
    if most > _MOST:
        return math.nan
    return sign_flip_p(one, other, m, G=G, draws=DRAWS if most <= _SMALL else FEWER, seed=seed)


def _first(coordinates: Coordinates) -> Coordinates:
    outside = None if coordinates.outside is None else coordinates.outside[:1]
    return type(coordinates)(coordinates.inside[:1], outside)


def leverage_overlap(one: Coordinates, other: Coordinates, m: int) -> float:
    """Mean of ``||U.T D U'||_F^2`` over independent random signs D of the coordinates: ``sum_k h_k h'_k``.

    Parameters
    ----------
    one, other : coordinates of i and of j orthonormal directions
    m : how many coordinates are outside, where both have leverages spread evenly

    Notes
    -----
    ``h_k`` is the leverage of coordinate k, ``||Q_k^T U||^2``. Flat leverages give ``i j / d``, as isotropic spans do.

    Examples
    --------
    >>> from subspace.geometry.second_moment import Coordinates
    >>> flat = Coordinates(np.full((1, 4), 0.5), None)
    >>> leverage_overlap(flat, flat, 0)
    0.25
    """
    (h, rest), (h_, rest_) = _leverages(one), _leverages(other)
    return float(h @ h_) + (rest * rest_ / m if m else 0.0)


def _leverages(each: Coordinates) -> tuple[Floats, float]:
    """Leverage of every coordinate inside, and the sum of those outside."""
    outside = 0.0 if each.outside is None else float(np.vdot(each.outside, each.outside))
    return np.sum(each.inside**2, axis=0), outside


def sign_flip_p(
    one: Coordinates, other: Coordinates, m: int, *, G: Floats, draws: int = DRAWS, seed: int = 0
) -> float:
    """p-value of the largest principal cosine of two spans among those after random signs of the coordinates.

    Parameters
    ----------
    one, other : coordinates of i and of j orthonormal directions
    m : how many coordinates are outside, where the flips are a random rotation
    G : (i, j) inner products of the directions
    draws : how many random signs
    seed : of them

    Returns
    -------
    float
        ``(1 + number at least as large) / (draws + 1)``

    Notes
    -----
    Exact if the coordinates of one span are as likely with either sign, each by itself: for a start that is isotropic
    plus what was learned from inputs with independent coordinates. Simulated sizes of a nominal 5 %: 2.5 to 8 %, see
    benchmarks/calibration.csv.
    """
    rng = np.random.default_rng(seed)
    one, other, m = _determined(one, other, m)
    i, j = len(one.inside), len(other.inside)
    products = (one.inside.T[:, :, None] * other.inside.T[:, None, :]).reshape(-1, i * j)
    roots = (
        None if one.outside is None or other.outside is None else (_root(one.outside), _root(other.outside))
    )
    least = float(lapack.singular_values(G)[0]) * (1 - _ROUNDING)
    count, step = 0, max(1, _BATCH // max(1, i * j, len(products)))
    for begin in range(0, draws, step):
        n = min(step, draws - begin)
        signs = rng.integers(0, 2, (n, len(products))) * 2.0 - 1.0
        flipped = (signs @ products).reshape(n, i, j)
        if roots is not None:
            flipped = flipped + roots[0] @ _corners(n, i, j, m, rng) @ roots[1].T
        small = flipped @ np.swapaxes(flipped, 1, 2) if i <= j else np.swapaxes(flipped, 1, 2) @ flipped
        count += int(np.count_nonzero(lapack.eigvalsh(small)[:, 0] >= least**2))
    return (1 + count) / (draws + 1)


def _determined(one: Coordinates, other: Coordinates, m: int) -> tuple[Coordinates, Coordinates, int]:
    """Coordinates in which a space outside that is too small for random rotations is some more with signs."""
    if one.outside is None or other.outside is None or m >= len(one.inside) + len(other.inside):
        return one, other, m
    kind, both = type(one), np.vstack([one.outside, other.outside])
    basis = lapack.svd(both)[2][:m]
    first = kind(np.hstack([one.inside, one.outside @ basis.T]), None)
    return first, kind(np.hstack([other.inside, other.outside @ basis.T]), None), 0


def _root(rows: Floats) -> Floats:
    """L with ``L @ L.T = rows @ rows.T``."""
    values, P = lapack.eigh(rows @ rows.T)
    return P * np.sqrt(np.maximum(values, 0.0))


def _corners(n: int, i: int, j: int, m: int, rng: np.random.Generator) -> Floats:
    """The i x j corners of n Haar-random orthogonal matrices of m >= i + j rows, by Bartlett factors."""
    X = rng.standard_normal((n, i, j))
    T = np.tril(rng.standard_normal((n, j, j)), -1)
    T[:, np.arange(j), np.arange(j)] = np.sqrt(rng.chisquare(m - i - np.arange(j), (n, j)))
    L = lapack.cholesky(np.swapaxes(X, 1, 2) @ X + T @ np.swapaxes(T, 1, 2))
    assert L is not None  # a sum of squares of m - i >= j rows
    found: Floats = X @ np.swapaxes(lapack.inverse(L), 1, 2)
    return found


def whitened_p(
    first: tuple[Coordinates, Floats], second: tuple[Coordinates, Floats], moment: SecondMoment
) -> Floats:
    """p-values of further shared directions once every coordinate is divided by what its energy should be.

    Parameters
    ----------
    first, second : coordinates of the directions of a matrix, and its singular values
    moment : of the inputs

    Notes
    -----
    Coordinate k is divided by ``sqrt(a + b lambda_k)``: a start that is isotropic, and learning from the inputs. a
    and b are those that make the pooled energy of both matrices, each of norm 1, the likeliest for independent
    Gaussian coordinates. Then the isotropic test is made. Simulated sizes of a nominal 5 %: 3 to 9 %, see
    benchmarks/calibration.csv.
    """
    energies = [_energies(coordinates, S) for coordinates, S in (first, second)]
    factors = _whitening(energies[0][0] + energies[1][0], energies[0][1] + energies[1][1], moment)
    rows = [Rows(coordinates.scaled(*factors)) for coordinates, _ in (first, second)]
    found = agreements({"a": rows[0]}, {"a": rows[1]})["a"]
    return shared_dimension_p(found.theta, found.first.k, found.second.k, moment.d)


def _energies(coordinates: Coordinates, S: Floats) -> tuple[Floats, float]:
    """Energy of a matrix of norm 1 along every coordinate inside, and of all outside."""
    weights = (S / S[0]) ** 2
    weights = weights / weights.sum()
    outside = coordinates.outside
    rest = 0.0 if outside is None else float(weights @ np.sum(outside**2, axis=1))
    return weights @ coordinates.inside**2, rest


def _whitening(inside: Floats, outside: float, moment: SecondMoment) -> tuple[Floats, float]:
    """Factors ``1 / sqrt(a + b lambda)`` of every coordinate inside and of those outside, up to a common one."""
    top, m = float(moment.values[0]), moment.d - moment.k
    if top <= 0:
        return np.ones(moment.k), 1.0
    values, floor = moment.values / top, moment.floor / top

    def cost(t: float) -> float:
        v, v_rest = 1 + t * values, 1 + t * floor
        mean = (float(np.sum(inside / v)) + outside / v_rest) / moment.d
        return float(np.sum(np.log(v))) + m * float(np.log(v_rest)) + moment.d * float(np.log(mean))

    best = min(_RATIOS, key=cost)
    t = min(best * np.logspace(-0.1, 0.1, 21), key=cost)
    return 1 / np.sqrt(1 + t * values), float(1 / np.sqrt(1 + t * floor))
