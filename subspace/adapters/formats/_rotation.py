"""Rotations of a weight's inputs in blocks: orthogonal fine-tuning, as PEFT's OFT and BOFT parametrise it.

``W' = s * (W M^T)`` with ``M = M_N ... M_1`` and ``M_n = P_n blockdiag(R) P_n^T``; OFT has one factor, no permutation
and no s.

References
----------
Qiu et al., arXiv 2306.07280 (OFT); Liu et al., arXiv 2311.06243 (BOFT). huggingface/peft 0.21.2, tuners/oft/layer.py
``OFTRotationModule``, tuners/boft/layer.py ``BOFTLayer``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from subspace.errors import ShapeError
from subspace.geometry import lapack

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Rotation", "butterfly", "cayley", "neumann", "projected", "skew"]


@dataclass(frozen=True)
class Rotation:
    """How a weight is rotated.

    Attributes
    ----------
    blocks : -> (factors, blocks, b, b), the R of each factor
    shape : (factors, blocks, b)
    shared : whether the one block stands for as many as the weight needs
    scaling, outputs : -> (out,), and how many; None where the rows are not rescaled
    """

    blocks: Callable[[], NDArray[Any]]
    shape: tuple[int, int, int]
    dtype: str
    shared: bool = False
    scaling: Callable[[], NDArray[Any]] | None = None
    outputs: int | None = None

    @property
    def size(self) -> int:
        """Number of inputs, 0 where one block is shared by any number."""
        return 0 if self.shared else self.shape[1] * self.shape[2]

    def change(self) -> NDArray[Any]:
        """``R - I``, and ``s - 1``, in one column: what is known without the weight."""
        numbers = [(self.blocks() - np.eye(self.shape[2])).ravel()]
        if self.scaling is not None:
            numbers.append(self.scaling() - 1.0)
        return np.concatenate(numbers)

    def require(self, shape: tuple[int, int], where: str) -> None:
        """Raise `ShapeError` unless this is a rotation of a weight of that shape."""
        (outputs, inputs), b = shape, self.shape[2]
        if self.outputs not in {None, outputs}:
            raise ShapeError(
                f"each row of a weight must have its factor: got {self.outputs} for {outputs}, in {where}"
            )
        if (self.shared and inputs % b) or (not self.shared and self.size != inputs):
            raise ShapeError(
                f"the blocks of a rotation must cover the inputs: got {self.shape[1]} of {b} for {inputs}, in {where}"
            )

    def delta(self, W: NDArray[Any]) -> NDArray[Any]:
        """``s * (W M^T) - W`` for W (d_out, d_in) in float64."""
        n, d = W.shape
        factors, _, b = self.shape
        turned = W
        for i, R in enumerate(self.blocks()):
            order = butterfly(d, d // b >> i, b) if factors > 1 else np.arange(d)
            columns = np.empty_like(turned)
            # (W P): column order[k] of P x is k; blocks; and back
            columns[:, order] = turned
            made = np.einsum("okj,kij->oki", columns.reshape(n, -1, b), np.broadcast_to(R, (d // b, b, b)))
            turned = made.reshape(n, d)[:, order]
        change: NDArray[Any] = (turned if self.scaling is None else turned * self.scaling()[:, None]) - W
        return change


def skew(upper: NDArray[Any], b: int) -> NDArray[Any]:
    """Skew matrices (blocks, b, b) of their upper triangles (blocks, b (b - 1) / 2), row by row.

    Examples
    --------
    >>> skew(np.array([[2.0]]), 2)
    array([[[ 0.,  2.],
            [-2.,  0.]]])
    """
    Q = np.zeros((len(upper), b, b))
    rows, columns = np.triu_indices(b, 1)
    Q[:, rows, columns] = upper
    return Q - np.swapaxes(Q, 1, 2)


def cayley(Q: NDArray[Any]) -> NDArray[Any]:
    """``(I - Q) (I + Q)^-1`` of skew matrices: orthogonal ones."""
    unit = np.eye(Q.shape[-1])
    R: NDArray[Any] = (unit - Q) @ lapack.inverse(unit + Q)
    return R


def neumann(Q: NDArray[Any], terms: int) -> NDArray[Any]:
    """The series of the Cayley transform that PEFT takes for it: ``I + 2 Q + 2 Q^2 + ... + Q^(terms - 1)``.

    The sign of Q is the other one of `cayley`, and the last power has no 2, as there.
    """
    R: NDArray[Any] = np.eye(Q.shape[-1]) + np.zeros_like(Q)
    power = Q
    if terms > 1:
        R = R + 2.0 * Q
    if terms > 2:
        power = Q @ Q
        R = R + 2.0 * power
        for _ in range(3, terms - 1):
            power = power @ Q
            R = R + 2.0 * power
        R = R + power @ Q
    return R


def projected(Q: NDArray[Any], eps: float) -> NDArray[Any]:
    """Constrained OFT: each block no longer than ``eps / sqrt(blocks)`` in Frobenius norm."""
    longest = eps / np.sqrt(len(Q))
    norms = np.sqrt((Q * Q).sum(axis=(1, 2), keepdims=True))
    shorter: NDArray[Any] = Q * np.where(norms > longest, longest / np.maximum(norms, 1e-300), 1.0)
    return shorter


def butterfly(d: int, groups: int, b: int) -> NDArray[np.intp]:
    """The order in which a factor of BOFT takes the inputs: half blocks, the even ones of a group before the odd.

    Examples
    --------
    >>> butterfly(8, 1, 2)
    array([0, 2, 4, 6, 1, 3, 5, 7])
    """
    half = b // 2
    if half * 2 != b or groups < 1 or d % groups or (d // groups) % b:
        raise ShapeError(
            f"a butterfly must divide its inputs into even blocks: got {d} inputs, {groups} groups of blocks of {b}"
        )
    # (groups, pairs of half blocks, even or odd, half) with even before odd in each group
    order = np.arange(d).reshape(groups, -1, 2, half).swapaxes(1, 2)
    return order.reshape(-1)
