"""How the directions of a module, and all of its delta_W, are spread over attention heads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from subspace.geometry.direction_shares import block_shares, block_squares, largest_block, output_squares
from subspace.geometry.output_agreement import output_size
from subspace.results.explanation import DirectionExplanation, ModuleHeads

if TYPE_CHECKING:
    from subspace.adapters.base.heads import Heads
    from subspace.analysis.explained_module import Directions
    from subspace.geometry.lapack import Floats
    from subspace.geometry.second_moment import SecondMoment

__all__ = ["module_heads", "with_heads"]

_DRAWS = 999  # of updates with the same singular values
_MOST = 64  # singular values of which they are drawn


def with_heads(
    rows: Sequence[DirectionExplanation], found: Directions, heads: Heads
) -> list[DirectionExplanation]:
    """The rows with the share of their direction in every head, beside the largest share of isotropic ones."""
    vectors = found.V if heads.columns else found.U
    shares = block_shares(vectors[:, : found.k], heads.blocks)
    random = largest_block(len(heads.blocks), heads.size)
    out = []
    for n, row in enumerate(rows):
        most = int(np.argmax(shares[:, n]))
        share = float(shares[most, n])
        out.append(
            replace(
                row,
                head=heads.names[most],
                head_share=share,
                head_isotropic=float(random.mean()),
                head_p=float((1 + np.count_nonzero(random >= share)) / (len(random) + 1)),
                heads=tuple(map(float, shares[:, n])),
            )
        )
    return out


def module_heads(found: Directions, heads: Heads, moment: SecondMoment | None) -> ModuleHeads:
    """Squared norms of delta_W by head as shares, beside isotropic updates of the same singular values."""
    squares = _squares(found, heads)
    share = squares / found.norm**2
    largest = _random_largest(found, heads)
    return ModuleHeads(
        module=found.update.module,
        side="columns" if heads.columns else "rows",
        names=heads.names,
        share=tuple(map(float, share)),
        isotropic=1 / len(share),
        largest_isotropic=float(largest.mean()),
        largest_p=float((1 + np.count_nonzero(largest >= share.max())) / (_DRAWS + 1)),
        output=None if moment is None else _outputs(found, heads, moment),
    )


def _squares(found: Directions, heads: Heads) -> Floats:
    if found.matrix is None:
        return block_squares(found.V if heads.columns else found.U, found.S, heads.blocks)
    M = found.matrix.T if heads.columns else found.matrix
    return np.array([float(np.vdot(M[start:stop], M[start:stop])) for start, stop in heads.blocks])


def _random_largest(found: Directions, heads: Heads) -> Floats:
    """The largest share over heads of isotropic updates; what lies beyond the drawn directions counts as even."""
    weights = (found.S[:_MOST] / found.norm) ** 2
    rng = np.random.default_rng(0)
    energy = rng.gamma(heads.size / 2, size=(_DRAWS, len(heads.blocks), len(weights)))
    shares = (energy / energy.sum(axis=1, keepdims=True)) @ weights
    rest = max(0.0, 1 - float(weights.sum()))
    largest: Floats = shares.max(axis=1) + rest / len(heads.blocks)
    return largest


def _outputs(found: Directions, heads: Heads, moment: SecondMoment) -> tuple[float, ...] | None:
    """``E||delta_W_h x||^2`` of every head, the scale included; None without one."""
    if found.update.scale.value is None:
        return None
    if heads.columns:
        squares = _of_columns(found, heads, moment)
    elif found.matrix is None:
        squares = output_squares(found.U, found.S, found.V, heads.blocks, moment)
    else:
        squares = np.array(
            [output_size([found.matrix[start:stop]], moment) ** 2 for start, stop in heads.blocks]
        )
    return tuple(map(float, found.scale**2 * np.maximum(squares, 0.0)))


def _of_columns(found: Directions, heads: Heads, moment: SecondMoment) -> Floats:
    """What each head's inputs alone add: those of several heads may cancel, so that these do not add up."""
    squares = np.zeros(len(heads.blocks))
    whole = found.V * found.S if found.matrix is None else found.matrix.T
    for n, (start, stop) in enumerate(heads.blocks):
        part = np.zeros_like(whole)
        part[start:stop] = whole[start:stop]
        squares[n] = (
            np.trace(moment.inner(part.T, part.T))
            if found.matrix is None
            else (output_size([part.T], moment) ** 2)
        )
    return squares
