"""How well one number foretells another over pairs of tasks: rank correlation, and the error for a task left out."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from subspace.geometry.monotone_fit import monotone_fit

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from subspace.geometry.lapack import Floats

__all__ = [
    "DRAWS",
    "SHUFFLES",
    "Foretold",
    "foretold",
    "left_out",
    "monotone",
    "p_values",
    "permutations",
    "permuted",
]

DRAWS = 999  # permutations of the tasks of a p-value
SHUFFLES = 99  # permutations of the tasks that a rule is asked of
_Fit: TypeAlias = "Callable[[Floats, Floats], Callable[[Floats], Floats]]"


@dataclass(frozen=True, eq=False)
class Foretold:
    """How well a predictor foretells an outcome.

    Attributes
    ----------
    spearman, kendall : rank correlations over ordered pairs of tasks
    p : of the Spearman correlation, two-sided, by permuting the tasks of the outcome
    within : mean over tasks of the Spearman correlation over the others that it is merged with
    error : mean absolute error, mean over tasks left out, of the monotone fit to all pairs without that task
    error_linear : the same of a linear fit
    errors : of the monotone fit, by the task left out
    predicted : of every sample, by the fit without the task whose loss it is; shape of the outcome
    n : number of samples
    """

    spearman: float
    kendall: float
    p: float
    within: float
    error: float
    error_linear: float
    errors: Floats
    predicted: Floats
    n: int

    def wins(self, other: Foretold) -> float:
        """Return the share of tasks left out for which the error is below that of another predictor."""
        return float(np.mean(self.errors < other.errors))


def foretold(x: Floats, y: Floats) -> Foretold:
    """How well x foretells y.

    Parameters
    ----------
    x, y : shape (copies, N, N), of the task whose loss is measured and the other one; NaN where there is no number. A
        constant x foretells the mean of the outcome.
    """
    known = np.isfinite(x) & np.isfinite(y)
    if known.sum() < 3:
        return _nothing(y)
    errors, predicted = left_out(x, y, monotone)
    return Foretold(
        spearman=_rho(x[known], y[known]),
        kendall=_kendall(x[known], y[known]),
        p=p_values(x, y, np.empty((0, x.shape[1]), dtype=np.int64))[0],
        within=_within(x, y),
        error=float(np.nanmean(errors)),
        error_linear=float(np.nanmean(left_out(x, y, linear)[0])),
        errors=errors,
        predicted=predicted,
        n=int(known.sum()),
    )


def _nothing(y: Floats) -> Foretold:
    nan = math.nan
    return Foretold(nan, nan, nan, nan, nan, nan, np.full(y.shape[1], nan), np.full(y.shape, nan), 0)


def left_out(x: Floats, y: Floats, fit: _Fit) -> tuple[Floats, Floats]:
    """Mean absolute errors by the task left out, and what is predicted where that is the task of the loss.

    Notes
    -----
    What is fitted has no sample in which the task takes part; what is predicted, every one in which it does.
    """
    N = x.shape[1]
    known = np.isfinite(x) & np.isfinite(y)
    errors, predicted = np.full(N, np.nan), np.full(y.shape, np.nan)
    for task in range(N):
        part = np.zeros_like(known)
        part[:, task, :] = part[:, :, task] = True
        train, test = known & ~part, known & part
        if train.sum() < 3 or not test.any():
            continue
        found = fit(x[train], y[train])
        errors[task] = np.mean(np.abs(found(x[test]) - y[test]))
        own = test.copy()
        own[:, np.arange(N) != task, :] = False
        predicted[own] = found(x[own])
    return errors, predicted


def monotone(x: Floats, y: Floats) -> Callable[[Floats], Floats]:
    """The monotone fit, rising or falling as the rank correlation says."""
    rho = _rho(x, y)
    if not math.isfinite(rho):
        mean = float(np.mean(y))
        return lambda at: np.full(np.shape(at), mean)
    return monotone_fit(x, y, falling=rho < 0)


def linear(x: Floats, y: Floats) -> Callable[[Floats], Floats]:
    """The least-squares line."""
    centred = x - x.mean()
    square = float(centred @ centred)
    slope = float(centred @ (y - y.mean())) / square if square > 0 else 0.0
    return lambda at: y.mean() + slope * (at - x.mean())


@cache
def permutations(N: int, draws: int, *, seed: int) -> NDArray[np.int64]:
    """Random permutations of N tasks, one a row, none the identity where there is another."""
    rng = np.random.default_rng(seed)
    found = [rng.permutation(N) for _ in range(2 * draws)]
    moved = [order for order in found if (order != np.arange(N)).any()]
    return np.array((moved + found)[:draws])


def permuted(y: Floats, order: NDArray[np.int64]) -> Floats:
    """The outcome with its tasks permuted."""
    moved: Floats = y[:, order][:, :, order]
    return moved


def p_values(x: Floats, y: Floats, orders: NDArray[np.int64]) -> tuple[float, Floats]:
    """Two-sided p of the Spearman correlation by permuting the tasks of y, and that of y permuted by each of `orders`.

    Notes
    -----
    The share of `DRAWS` random permutations, and of the one itself, with a correlation as large. Permuted outcomes have
    the same permutations, so that their p-values cost one product each.
    """
    known = np.isfinite(x) & np.isfinite(y)
    nothing = math.nan, np.full(len(orders), np.nan)
    if known.sum() < 3:
        return nothing
    rank_x, rank_y = (_ranked(each, known) for each in (x, y))
    if not rank_x.any() or not rank_y.any():
        return nothing
    N = x.shape[1]
    drawn = _agreements(rank_x, rank_y, permutations(N, DRAWS, seed=1))
    own, others = _agreements(rank_x, rank_y, np.arange(N)[None])[0], _agreements(rank_x, rank_y, orders)
    p = np.array([1 + np.sum(drawn >= each * (1 - 1e-9)) for each in (own, *others)]) / (1 + DRAWS)
    return float(p[0]), p[1:]


def _agreements(x: Floats, y: Floats, orders: NDArray[np.int64]) -> Floats:
    moved = y[:, orders[:, :, None], orders[:, None, :]]
    found: Floats = np.abs(np.einsum("cij,ckij->k", x, moved))
    return found


def _ranked(values: Floats, known: NDArray[np.bool_]) -> Floats:
    """Centred ranks of the known values, ties with their mean rank, in their places."""
    out = np.zeros_like(values)
    _, place, counts = np.unique(values[known], return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[place]
    out[known] = ranks - ranks.mean()
    return out


def _rho(x: Floats, y: Floats) -> float:
    every = np.ones(len(x), dtype=bool)
    a, b = _ranked(x, every), _ranked(y, every)
    size = float(np.linalg.norm(a) * np.linalg.norm(b))
    return float(a @ b) / size if size > 1e-9 else math.nan


def _kendall(x: Floats, y: Floats) -> float:
    """Kendall's tau-b, ties taken out of the norms; written out, as SciPy's statistics take long to import."""
    a, b = (np.sign(each[:, None] - each) for each in (x, y))
    size = math.sqrt(float(np.sum(a * a)) * float(np.sum(b * b)))
    return float(np.sum(a * b)) / size if size > 0 else math.nan


def _within(x: Floats, y: Floats) -> float:
    known = np.isfinite(x) & np.isfinite(y)
    rows = [
        _rho(x[copy, task][own], y[copy, task][own])
        for copy, task in np.ndindex(x.shape[:2])
        if (own := known[copy, task]).sum() >= 3
    ]
    finite = [rho for rho in rows if math.isfinite(rho)]
    return float(np.mean(finite)) if finite else math.nan
