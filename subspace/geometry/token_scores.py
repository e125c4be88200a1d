"""How near directions are to the rows of an embedding, next to how near random directions come to any of them.

The score of a direction and a token is the cosine of the direction with the token's row, after the mean over all tokens
is taken off: what all tokens have in common names none of them. A direction has no sign, so that the largest absolute
value counts. Controls go through the same rows: ``p = (1 + #{controls whose largest |score| is as large}) / (n + 1)``,
for the largest over all tokens, which holds for every other token too (the maximum controls all of them together).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from subspace.geometry.row_chunks import Rows

if TYPE_CHECKING:
    from collections.abc import Sequence

    from subspace.geometry.lapack import Floats

__all__ = ["Probe", "Scores", "probed", "row_mean"]

_STEP = 4096  # rows that are multiplied at a time, where a matrix is that long


@dataclass
class Scores:
    """What a pass over the rows finds for the directions of one probe.

    Attributes
    ----------
    ids : (k, most) the tokens with the largest absolute scores, the first the largest
    scores : (k, most) their scores, with their sign
    controls : (n,) the largest absolute score of every control
    """

    ids: Any
    scores: Floats
    controls: Floats

    def p(self, n: int) -> Floats:
        """p-values of the tokens of direction n against the controls: at least 1 / (controls + 1)."""
        reached = self.controls[None, :] >= np.abs(self.scores[n])[:, None]
        values: Floats = (1 + reached.sum(axis=1)) / (len(self.controls) + 1)
        return values


@dataclass
class Probe:
    """Directions that are compared with rows after one rule.

    Attributes
    ----------
    directions : (d, k) unit vectors
    controls : (d, n) unit vectors
    gain : (d,) factor of every channel of a row
    row_norm : whether a row is divided by its root mean square, as a norm in front of a layer does
    centre : whether the mean over the channels is taken off a row, as LayerNorm does: before the gain where it is in
        front of a layer, after it where it is the last one
    most : how many tokens are kept for each direction
    """

    directions: Floats
    controls: Floats
    gain: Floats
    row_norm: bool = True
    centre: bool = False
    most: int = 8
    _mean: Floats = field(init=False)

    def rows(self, E: Floats) -> Floats:
        """Rows (n, d) of the embedding as the probe's directions meet them, the mean over tokens still in."""
        X = E
        if self.row_norm:
            if self.centre:
                X = X - X.mean(axis=1, keepdims=True)
            size = np.sqrt(np.mean(X**2, axis=1, keepdims=True))
            return np.divide(X, size, out=np.zeros_like(X), where=size > 0) * self.gain
        X = X * self.gain
        return X - X.mean(axis=1, keepdims=True) if self.centre else X


def row_mean(matrix: Any, probes: Sequence[Probe]) -> None:
    """Set the mean over all rows of every probe, in one pass."""
    totals = [np.zeros(matrix.shape[1]) for _ in probes]
    for _, E in _pieces(matrix):
        for total, probe in zip(totals, probes, strict=True):
            total += probe.rows(E).sum(axis=0)
    for total, probe in zip(totals, probes, strict=True):
        probe._mean = total / max(1, matrix.shape[0])


def probed(matrix: Any, probes: Sequence[Probe]) -> list[Scores]:
    """The scores of all probes of one embedding, in two passes over its rows: one for the mean, one for the scores.

    Parameters
    ----------
    matrix : ndarray or RowReader, shape (tokens, d)

    Notes
    -----
    Rows that are zero have no score. Besides a piece of the rows, memory holds the directions alone.

    Examples
    --------
    >>> E = np.vstack([np.eye(3), -np.eye(3)])
    >>> probe = Probe(np.eye(3)[:, :1], np.eye(3)[:, 1:], np.ones(3), row_norm=False, most=1)
    >>> probed(E, [probe])[0].scores
    array([[1.]])
    """
    row_mean(matrix, probes)
    found = [_empty(probe) for probe in probes]
    for start, E in _pieces(matrix):
        for probe, scores in zip(probes, found, strict=True):
            _add(scores, probe, start, E)
    return found


def _pieces(matrix: Any) -> Any:
    """Start and rows in float64, in pieces of some thousands."""
    rows = Rows(matrix)
    for start in range(0, rows.shape[0], _STEP):
        yield start, rows.read(start, min(start + _STEP, rows.shape[0]))


def _empty(probe: Probe) -> Scores:
    k = probe.directions.shape[1]
    return Scores(
        np.zeros((k, 0), dtype=np.int64), np.zeros((k, 0)), np.zeros(probe.controls.shape[1])
    )


def _add(found: Scores, probe: Probe, start: int, E: Floats) -> None:
    """Take in the rows from `start` on."""
    present = np.any(E != 0, axis=1)
    Y = probe.rows(E) - probe._mean
    size = np.linalg.norm(Y, axis=1, keepdims=True)
    Y = np.divide(Y, size, out=np.zeros_like(Y), where=(size > 0) & present[:, None])
    if probe.controls.shape[1]:
        np.maximum(found.controls, np.abs(Y @ probe.controls).max(axis=0, initial=0.0), out=found.controls)
    scores = (Y @ probe.directions).T
    all_scores = np.hstack([found.scores, scores])
    ids = np.hstack([found.ids, np.tile(np.arange(start, start + len(E)), (len(scores), 1))])
    best = np.argsort(-np.abs(all_scores), axis=1, kind="stable")[:, : probe.most]
    found.scores = np.take_along_axis(all_scores, best, axis=1)
    found.ids = np.take_along_axis(ids, best, axis=1)
