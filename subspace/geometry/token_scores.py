"""How near directions are to the rows of an embedding, next to how near random directions come to any of them.

The score of a direction and a token is the cosine of the direction with the token's row, after the mean over all tokens
is taken off: what all tokens have in common names none of them. A direction has no sign, so that the largest absolute
value counts. Controls go through the same rows: ``p = (1 + #{controls whose largest |score| is as large}) / (n + 1)``,
for the largest over all tokens, which holds for every other token too (the maximum controls all of them together).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from subspace.geometry import lapack
from subspace.geometry.row_chunks import Rows

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from subspace.geometry.lapack import Floats

__all__ = ["Probe", "Scores", "probed"]

_PIECE = 1 << 20  # numbers of the rows that are in memory at a time


@dataclass(frozen=True, eq=False)
class Probe:
    """Directions that are compared with rows under one gain.

    Attributes
    ----------
    directions : (d, k) unit vectors
    controls : (d, n) unit vectors
    gain : (d,) factor of every channel of a row
    centre : whether the mean over the channels is taken off a row after the gain: logits do not depend on it where the
        last norm is a LayerNorm
    """

    directions: Floats
    controls: Floats
    gain: Floats
    centre: bool = False

    def effective(self) -> Floats:
        """Directions, then controls, with the gain taken over from the rows: (d, k + n), in float32."""
        both = np.hstack([self.directions, self.controls])
        if self.centre:
            both = both - both.mean(axis=0)
        found: Floats = (self.gain[:, None] * both).astype(np.float32)
        return found

    def sizes(self, X: Floats, squared: Floats) -> Floats:
        """Norms of rows (n, d) under the gain, from the rows and the squares of their numbers."""
        squares = squared @ self.gain**2
        if self.centre:
            squares -= (X @ self.gain) ** 2 / X.shape[1]
        return np.sqrt(np.maximum(squares, 0.0))


@dataclass(eq=False)
class Scores:
    """What the rows are to the directions of one probe.

    Attributes
    ----------
    ids : (k, most) the tokens with the largest absolute scores, the largest first
    scores : (k, most) their scores, with their sign
    controls : (n,) the largest absolute score of every control
    """

    ids: Any
    scores: Floats
    controls: Floats

    def p(self, n: int, among: Any = slice(None)) -> Floats:
        """p-values of the tokens of direction n against some controls: at least 1 / (controls + 1)."""
        controls = self.controls[among]
        reached = controls[None, :] >= np.abs(self.scores[n])[:, None]
        values: Floats = (1 + reached.sum(axis=1)) / (len(controls) + 1)
        return values


def probed(
    matrix: Any, probes: Sequence[Probe], *, norm: bool = False, centre: bool = False, most: int = 8
) -> list[Scores]:
    """The scores of all probes of one embedding, in two passes over its rows: one for the mean, one for the scores.

    Parameters
    ----------
    matrix : ndarray or RowReader, shape (tokens, d)
    norm : whether every row is divided by its root mean square first, as by the norm in front of a layer
    centre : whether the mean over its channels is taken off a row before that, as LayerNorm does
    most : how many tokens are kept for each direction

    Raises
    ------
    ValueRangeError : a number of the matrix is not finite

    Notes
    -----
    Rows that are zero have no score. Products are in float32, right to about 1e-6. Memory holds a piece of the rows,
    and the directions of one probe at a time besides those that are given.

    Examples
    --------
    >>> E = np.vstack([np.eye(3), -np.eye(3)])
    >>> found = probed(E, [Probe(np.eye(3)[:, :1], np.eye(3)[:, 1:], np.ones(3))], most=1)
    >>> found[0].scores, found[0].ids
    (array([[1.]]), array([[0]]))
    """
    total, tokens = np.zeros(matrix.shape[1]), 0
    for _, X, present in _pieces(matrix, norm, centre):
        total += X.sum(axis=0)
        tokens += int(present.sum())
    mean = total / max(1, tokens)
    found = [_empty(probe) for probe in probes]
    for start, rows, present in _pieces(matrix, norm, centre):
        X = np.where(present[:, None], rows - mean, 0.0)
        narrow, squared = X.astype(np.float32), X**2
        for probe, scores in zip(probes, found, strict=True):
            _add(scores, probe, start, narrow, probe.sizes(X, squared), most)
    return found


def _pieces(matrix: Any, norm: bool, centre: bool) -> Iterator[tuple[int, Floats, Any]]:
    """Start, normalised rows, and which of them are not zero."""
    rows = Rows(matrix)
    step = max(64, _PIECE // max(1, rows.shape[1]))
    for start in range(0, rows.shape[0], step):
        X = rows.read(start, min(start + step, rows.shape[0]))
        lapack.refuse(X, name=f"the embedding (from row {start})")
        present = np.any(X != 0, axis=1)
        if centre:
            X -= X.mean(axis=1, keepdims=True)
        if norm:
            size = np.sqrt(np.mean(X**2, axis=1, keepdims=True))
            np.divide(X, size, out=X, where=size > 0)
        yield start, X, present


def _empty(probe: Probe) -> Scores:
    k = probe.directions.shape[1]
    return Scores(np.zeros((k, 0), dtype=np.int64), np.zeros((k, 0)), np.zeros(probe.controls.shape[1]))


def _add(found: Scores, probe: Probe, start: int, narrow: Any, sizes: Floats, most: int) -> None:
    """Take in the rows from `start` on, in float32, and their norms under the gain."""
    k = probe.directions.shape[1]
    inverse = np.divide(1.0, sizes, out=np.zeros_like(sizes), where=sizes > 0)
    products = (narrow @ probe.effective()) * inverse[:, None]
    np.maximum(found.controls, np.abs(products[:, k:]).max(axis=0, initial=0.0), out=found.controls)
    scores = np.hstack([found.scores, products[:, :k].T])
    ids = np.hstack([found.ids, np.tile(np.arange(start, start + len(narrow)), (k, 1))])
    best = np.argsort(-np.abs(scores), axis=1, kind="stable")[:, :most]
    found.scores = np.take_along_axis(scores, best, axis=1)
    found.ids = np.take_along_axis(ids, best, axis=1)
