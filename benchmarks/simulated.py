"""Adapters' A matrices as training leaves them: a random start plus a low-rank update in the span of the inputs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import made
import numpy as np

# rank of an update; one draw of A moves by about the ratio, since the ratio is that of the expected norms
UPDATE_RANK = 3

STARTS: dict[str, Callable[[np.random.Generator, tuple[int, ...]], np.ndarray]] = {
    "gaussian": lambda rng, shape: rng.standard_normal(shape) / np.sqrt(shape[-1]),
    # PEFT's default: Kaiming's uniform with a = sqrt(5)
    "uniform": lambda rng, shape: rng.uniform(-1, 1, shape) * np.sqrt(3 / shape[-1]),
    "orthogonal": lambda rng, shape: np.swapaxes(
        np.linalg.qr(rng.standard_normal((*shape[:-2], shape[-1], shape[-2])))[0], -1, -2
    ),
}


class Inputs(NamedTuple):
    """Covariance of a module's inputs: eigenvalues ``k ** -power``, and a mean with that share of the energy."""

    power: float = 0.0
    mean: float = 0.0

    def __str__(self) -> str:
        """Name as in the table."""
        spectrum = f"k^-{self.power:g}" if self.power else "isotropic"
        return f"{spectrum}, mean {100 * self.mean:.0f} %" if self.mean else spectrum


INPUTS = tuple(Inputs(power, mean) for power in (0, 0.5, 1, 2) for mean in (0, 0.3, 0.7))


def stored(A: np.ndarray, dtype: str) -> np.ndarray:
    """The numbers of `A` after a file of that type."""
    if dtype == "bfloat16":
        bits = made.narrowed(A, "bf16")
        return (bits.astype(np.uint32) << 16).view(np.float32).astype(np.float64)
    return A.astype(dtype).astype(np.float64)


class Module:
    """One module of one base model: dimension, and inputs that every adapter of it sees."""

    def __init__(self, d: int, inputs: Inputs, rng: np.random.Generator):
        variance = np.arange(1, d + 1.0) ** -inputs.power
        self.d, self.rng = d, rng
        self.sd = np.sqrt((1 - inputs.mean) * variance / variance.sum())
        direction = rng.standard_normal(d)
        self.mean = np.sqrt(inputs.mean) * direction / np.linalg.norm(direction)

    def start(self, *shape: int, kind: str = "gaussian") -> np.ndarray:
        """Rows of expected norm 1."""
        return STARTS[kind](self.rng, (*shape, self.d))

    def learned(self, start: np.ndarray, ratio: float) -> np.ndarray:
        """`start` after unrelated learning: moved by about `ratio` times its norm, within the span of the inputs."""
        rng = self.rng
        shape = (*start.shape[:-2], min(UPDATE_RANK, start.shape[-2]))
        inputs = (
            rng.standard_normal((*shape, self.d)) * self.sd + rng.standard_normal((*shape, 1)) * self.mean
        )
        weights = rng.standard_normal((*start.shape[:-1], shape[-1])) / np.sqrt(shape[-1])
        return start + ratio * weights @ inputs

    def adapters(
        self, n: int, r: int, ratio: float, *, kind: str = "gaussian", dtype: str = "float32"
    ) -> np.ndarray:
        """`n` of them, each with a start of its own, shape (n, r, d)."""
        return stored(self.learned(self.start(n, r, kind=kind), ratio), dtype)

    def common(
        self, n: int, ranks: Sequence[int], ratio: float, *, kind: str = "gaussian", dtype: str = "float32"
    ) -> list[np.ndarray]:
        """`n` pairs with a start in common (the first rows of it, of the smaller rank), two arrays (n, r, d)."""
        start = self.start(n, max(ranks), kind=kind)
        return [stored(self.learned(start[:, :r], ratio), dtype) for r in ranks]


def frames(A: np.ndarray) -> np.ndarray:
    """Orthonormal rows that span the same, shape (..., r, d)."""
    return np.swapaxes(np.linalg.qr(np.swapaxes(A, -1, -2))[0], -1, -2)


def largest_cos2(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Largest squared principal cosine of each pair, shape (n,)."""
    G = frames(first) @ np.swapaxes(frames(second), -1, -2)
    return np.minimum(np.linalg.svd(G, compute_uv=False)[..., 0] ** 2, 1.0)
