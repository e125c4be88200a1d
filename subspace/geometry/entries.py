"""Matrices merged entry by entry: what stays of each, which sign wins, and what becomes of those that stay.

The arithmetic is that of peft/utils/merge_utils.py 0.21; the matrices are read a few rows at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from subspace.geometry.largest_entries import threshold

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["ArrayRows", "RowSource", "combined"]

_CHUNK = 1 << 18  # numbers of one matrix that are held at once


class RowSource(Protocol):
    """A matrix that is read a few rows at a time, such as `subspace.geometry.merging.Product`."""

    shape: tuple[int, int]

    def rows(self, start: int, stop: int) -> NDArray[Any]:
        """Return rows start to stop."""


class ArrayRows:
    """A matrix in memory as a `RowSource`."""

    def __init__(self, M: NDArray[Any]) -> None:
        self._M, self.shape = M, (int(M.shape[0]), int(M.shape[1]))

    def rows(self, start: int, stop: int) -> NDArray[Any]:
        """Return rows start to stop."""
        return self._M[start:stop]


def combined(
    sources: Sequence[RowSource],
    weights: Sequence[float],
    *,
    density: float,
    seeds: Sequence[Sequence[int]] = (),
    elect: str | None = None,
    dtype: Any = np.float64,
) -> NDArray[Any]:
    """Several matrices of one shape merged into one, entry by entry.

    Parameters
    ----------
    sources : the matrices; only the result is held whole
    weights : of each
    density : share of the entries of each that stay, in (0, 1]
    seeds : of a random mask for each, whose entries are divided by `density` (DARE); the largest entries stay without
    elect : "total" or "frequency": the sign of the sum of the entries, or of the sum of their signs, wins, and the
        weighted entries that have it are averaged (TIES); the weighted sum of all without
    dtype : of the result

    Examples
    --------
    >>> first, second = ArrayRows(np.array([[4.0, 1.0]])), ArrayRows(np.array([[-1.0, 3.0]]))
    >>> combined([first, second], [1.0, 1.0], density=1.0, elect="total")
    array([[4., 2.]])
    """
    shape = sources[0].shape
    height = max(1, _CHUNK // max(1, shape[1]))
    bounds = [(start, min(start + height, shape[0])) for start in range(0, shape[0], height)]
    keep = [
        _sampled(density, seeds[n]) if seeds else _largest(source, density, bounds)
        for n, source in enumerate(sources)
    ]
    multiply = np.asarray(weights, dtype=np.float64)[:, None, None]
    out = np.empty(shape, dtype=dtype)
    for start, stop in bounds:
        stack = np.stack(
            [keeps(source.rows(start, stop)) for keeps, source in zip(keep, sources, strict=True)]
        )
        out[start:stop] = (
            (stack * multiply).sum(axis=0) if elect is None else _elected(stack, multiply, elect)
        )
    return out


_Keep = Callable[["NDArray[Any]"], "NDArray[np.float64]"]


def _largest(source: RowSource, density: float, bounds: Sequence[tuple[int, int]]) -> _Keep:
    """What keeps the largest entries; it is given all rows once, in order."""
    k = int(density * (source.shape[0] * source.shape[1]))
    if density >= 1:
        return lambda rows: rows.astype(np.float64)
    if k == 0:
        return lambda rows: np.zeros(rows.shape)

    def magnitudes() -> Iterator[NDArray[np.float32]]:
        return (np.abs(source.rows(start, stop)).astype(np.float32) for start, stop in bounds)

    least, ties = threshold(magnitudes, k)
    left = [ties]

    def keep(rows: NDArray[Any]) -> NDArray[np.float64]:
        size = np.abs(rows).astype(np.float32)
        mask = size > least
        equal = np.flatnonzero(size == least)[: left[0]]
        left[0] -= len(equal)
        mask.flat[equal] = True
        return np.where(mask, rows, 0.0).astype(np.float64)

    return keep


def _sampled(density: float, seed: Sequence[int]) -> _Keep:
    """What keeps random entries, divided by their share; the same ones however many rows it is given at once."""
    rng = np.random.default_rng(list(seed))

    def keep(rows: NDArray[Any]) -> NDArray[np.float64]:
        mask = rng.random(rows.shape) < density
        return np.where(mask, rows, 0.0).astype(np.float64) / density

    return keep


def _elected(stack: NDArray[np.float64], weights: NDArray[np.float64], elect: str) -> NDArray[np.float64]:
    """The mean of the weighted entries that have the winning sign; 0 where none has."""
    signs = np.sign(stack)
    wins = np.where((stack if elect == "total" else signs).sum(axis=0) >= 0, 1.0, -1.0)
    agree = signs == wins
    total: NDArray[np.float64] = (stack * weights * agree).sum(axis=0)
    mean: NDArray[np.float64] = total / np.maximum(agree.sum(axis=0), 1)
    return mean
