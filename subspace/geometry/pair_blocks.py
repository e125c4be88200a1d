"""Sums over the blocks of a product of stacked rows, one block for each pair of members."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from subspace.geometry import lapack

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from subspace.geometry.lapack import Floats
    from subspace.geometry.stacked_spans import Spans

__all__ = ["dots", "energy", "geodesic", "inner", "pieces", "put", "tiles"]

_FEW = 32  # rows that are summed in the type of the product: more would lose digits in float32


def pieces(sizes: Sequence[NDArray[np.intp]], most: int) -> list[slice]:
    """Neighbouring members together, as many as have `most` rows in the largest of their stacks, at least one.

    Parameters
    ----------
    sizes : rows of every member in each stack

    Examples
    --------
    >>> pieces([np.array([4, 4, 4])], 8)
    [slice(0, 2, None), slice(2, 3, None)]
    """
    found, begin, held = [], 0, np.zeros(len(sizes), dtype=np.intp)
    rows = np.stack(sizes, axis=1)
    for n, each in enumerate(rows):
        if n > begin and (held + each).max() > most:
            found.append(slice(begin, n))
            begin, held = n, np.zeros_like(held)
        held = held + each
    return [*found, slice(begin, len(rows))] if len(rows) else []


def tiles(rows: Sequence[slice], columns: Sequence[slice], *, same: bool) -> Iterator[tuple[slice, slice]]:
    """Every piece of the rows with every piece of the columns; of equal families those on and above the diagonal."""
    for n, row in enumerate(rows):
        for column in columns[n:] if same else columns:
            yield row, column


def put(whole: NDArray[Any], at: tuple[slice, slice], block: NDArray[Any], *, same: bool) -> None:
    """Write a block where it belongs, and where families are equal its mirror image."""
    whole[at] = block
    if same:
        whole[at[::-1]] = block.T


def energy(G: NDArray[Any], first: Spans, second: Spans) -> Floats:
    """Sum of squares of every block, (n, m), in float64."""
    return dots(G, G, first, second)


def dots(G: NDArray[Any], H: NDArray[Any], first: Spans, second: Spans) -> Floats:
    """Inner product of every block of G with that of H, (n, m), in float64."""
    return _summed(_over_rows(G, H, first), second)


def _over_rows(G: NDArray[Any], H: NDArray[Any], spans: Spans) -> NDArray[Any]:
    """Sum of the products over the rows of each member, (n, columns)."""
    k = spans.k
    if k.size and k.min() == k.max() and 0 < k[0] <= _FEW:
        blocks = (each.reshape(len(k), k[0], -1) for each in (G, H))
        equal: NDArray[Any] = np.einsum("irc,irc->ic", *blocks)
        return equal
    found = np.zeros((len(k), G.shape[1]))
    for n, band in enumerate(spans.bands()):
        for begin in range(band.start, band.stop, _FEW):
            part = slice(begin, min(begin + _FEW, band.stop))
            found[n] += np.einsum("rc,rc->c", G[part], H[part])
    return found


def inner(
    left: NDArray[Any], right: NDArray[Any], spans: tuple[Spans, Spans], weights: tuple[Any, Any]
) -> Floats:
    """``sum_pq w_p w'_q left[p, q] right[p, q]`` of every block, (n, m), in float64."""
    found = np.empty((len(spans[0].k), left.shape[1]))
    for row, band in zip(found, spans[0].bands(), strict=True):
        row[:] = weights[0][band] @ (left[band] * right[band])
    found *= weights[1]
    return _summed(found, spans[1])


def _summed(columns: NDArray[Any], spans: Spans) -> Floats:
    """Sum over the columns of each member; 0 for one that has none."""
    found = np.zeros((len(columns), len(spans.k)))
    some = spans.k > 0
    if some.any():
        found[:, some] = np.add.reduceat(columns.astype(np.float64), spans.starts[:-1][some], axis=1)
    return found


def geodesic(G: NDArray[Any], first: Spans, second: Spans) -> Floats:
    """``||theta||_2`` of every block, (n, m), from the eigenvalues of a Gram matrix; NaN without a direction."""
    found = np.full((len(first.k), len(second.k)), np.nan)
    for k in np.unique(first.k[first.k > 0]).tolist():
        for k_second in np.unique(second.k[second.k > 0]).tolist():
            rows, columns = np.flatnonzero(first.k == k), np.flatnonzero(second.k == k_second)
            blocks = _blocks(G, first.starts[rows], second.starts[columns], k, k_second)
            found[np.ix_(rows, columns)] = _angles(blocks)
    return found


def _blocks(
    G: NDArray[Any], rows: NDArray[np.intp], columns: NDArray[np.intp], k: int, k_second: int
) -> Floats:
    """The blocks of one shape, (n, m, k, k'), in float64."""
    at = (rows[:, None] + np.arange(k)).ravel(), (columns[:, None] + np.arange(k_second)).ravel()
    part = G[np.ix_(*at)].reshape(len(rows), k, len(columns), k_second)
    found: Floats = part.transpose(0, 2, 1, 3).astype(np.float64)
    return found


def _angles(blocks: Floats) -> Floats:
    other = blocks.swapaxes(-1, -2)
    small = blocks @ other if blocks.shape[-2] <= blocks.shape[-1] else other @ blocks
    cos2 = np.clip(lapack.eigvalsh(small), 0.0, 1.0)
    theta = np.arctan2(np.sqrt(1 - cos2), np.sqrt(cos2))
    lengths: Floats = np.sqrt(np.sum(theta**2, axis=-1))
    return lengths
