"""Rotations of the inputs of a weight in blocks: orthogonal fine-tuning, as OFT and BOFT of PEFT parametrise it.

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
from subspace.text import counted

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Rotation", "butterfly", "cayley", "neumann", "projected", "skew"]


@dataclass(frozen=True)
class Rotation:
    """How a weight is rotated.

    Attributes
    ----------
    blocks : -> R of each factor, (factors, blocks, b, b)
    shape : (factors, blocks, b)
    dtype : that the numbers were stored in
    shared : whether one block is used for all inputs
    scaling, outputs : -> s (out,), and its length; None where rows are not rescaled
    """

    blocks: Callable[[], NDArray[Any]]
    shape: tuple[int, int, int]
    dtype: str
    shared: bool = False
    scaling: Callable[[], NDArray[Any]] | None = None
    outputs: int | None = None

    @property
    def size(self) -> int:
        """Number of inputs, 0 where one block is used for any number."""
        return 0 if self.shared else self.shape[1] * self.shape[2]

    def change(self) -> NDArray[Any]:
        """``R - I``, then ``s - 1``, in one vector: what is known without the weight."""
        numbers = [(self.blocks() - np.eye(self.shape[2])).ravel()]
        if self.scaling is not None:
            numbers.append(self.scaling() - 1.0)
        return np.concatenate(numbers)

    def require(self, shape: tuple[int, int], where: str) -> None:
        """Raise `ShapeError` unless a weight of that shape can be rotated so."""
        (outputs, inputs), b = shape, self.shape[2]
        if self.outputs not in {None, outputs}:
            raise ShapeError(
                f"The rescaling does not fit the base weight: {self.outputs} numbers for {outputs} rows, in {where}; "
                "give the base model that the adapter was trained on"
            )
        if (self.shared and inputs % b) or (not self.shared and self.size != inputs):
            raise ShapeError(
                f"The rotation does not fit the base weight: {counted(self.shape[1], 'block')} of {b} for {inputs} "
                f"inputs, in {where}; give the base model that the adapter was trained on"
            )

    def delta(self, W: NDArray[Any]) -> NDArray[Any]:
        """``s * (W M^T) - W`` for W (d_out, d_in) in float64."""
        n, d = W.shape
        factors, _, b = self.shape
        turned = W
        for i, R in enumerate(self.blocks()):
            order = butterfly(d, d // b >> i, b) if factors > 1 else np.arange(d)
            columns = np.empty_like(turned)
            # permute the columns, rotate them in blocks, permute them back
            columns[:, order] = turned
            rotated = np.einsum("okj,kij->oki", columns.reshape(n, -1, b), np.broadcast_to(R, (d // b, b, b)))
            turned = rotated.reshape(n, d)[:, order]
        change: NDArray[Any] = (turned if self.scaling is None else turned * self.scaling()[:, None]) - W
        return change


def skew(upper: NDArray[Any], b: int) -> NDArray[Any]:
    """Skew matrices (blocks, b, b) from their upper triangles (blocks, b (b - 1) / 2), row by row.

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
    """The Cayley transform ``(I - Q) (I + Q)^-1`` of skew matrices, which is orthogonal."""
    unit = np.eye(Q.shape[-1])
    R: NDArray[Any] = (unit - Q) @ lapack.inverse(unit + Q)
    return R


def neumann(Q: NDArray[Any], terms: int) -> NDArray[Any]:
    """The series that PEFT takes for the Cayley transform: ``I + 2 Q + 2 Q^2 + ... + Q^(terms - 1)``.

    As in PEFT, the sign of Q is opposite to that in `cayley`, and the last power has no factor 2.
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
    """Blocks of constrained OFT, shortened to a Frobenius norm of at most ``eps / sqrt(blocks)``."""
    longest = eps / np.sqrt(len(Q))
    norms = np.sqrt((Q * Q).sum(axis=(1, 2), keepdims=True))
    shorter: NDArray[Any] = Q * np.where(norms > longest, longest / np.maximum(norms, 1e-300), 1.0)
    return shorter


def butterfly(d: int, groups: int, b: int) -> NDArray[np.intp]:
    """The order of the inputs in a factor of BOFT: half blocks, in each group the even ones before the odd.

    Examples
    --------
    >>> butterfly(8, 1, 2)
    array([0, 2, 4, 6, 1, 3, 5, 7])
    """
    half = b // 2
    if half * 2 != b or groups < 1 or d % groups or (d // groups) % b:
        raise ShapeError(
            f"The butterfly of BOFT does not divide its inputs into even blocks: {d} inputs, "
            f"{counted(groups, 'group')} of blocks of {b}"
        )
    # (groups, pairs of half blocks, even or odd, half) with even before odd in each group
    order = np.arange(d).reshape(groups, -1, 2, half).swapaxes(1, 2)
    return order.reshape(-1)
