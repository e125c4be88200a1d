"""The smallest LoRA training there is: linear layers that learn an update, by Adam, in NumPy.

It needs no model and no data and takes a second, yet the factors are really trained: A from a Gaussian start, B from
zero, on minibatches of noisy examples. The update to be learned is known exactly, so that an analysis can be checked.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

__all__ = ["Lesson", "trained"]

_BETAS, _EPSILON = (0.9, 0.999), 1e-8


@dataclass(frozen=True)
class Lesson:
    """One linear layer ``h = W x`` and the update that it is to learn.

    Attributes
    ----------
    W : (d_out, d_in), of a power-law spectrum
    target : (d_out, d_in), what an ideal delta_W would be
    noise : standard deviation of the noise on the examples' outputs
    """

    W: Floats
    target: Floats
    noise: float = 1.0

    @classmethod
    def planted(cls, d_out: int, d_in: int, *, strengths: tuple[float, ...], seed: int) -> Lesson:
        """Return a lesson whose target amplifies directions that W has and does not emphasise.

        Parameters
        ----------
        d_out, d_in : of W
        strengths : singular values of the target, the first the largest
        seed : of W and of the target's directions
        """
        rng = np.random.default_rng(seed)
        n = min(d_out, d_in)
        U, V = _orthonormal(rng, d_out, n), _orthonormal(rng, d_in, n)
        sigma = 10.0 / np.sqrt(1.0 + np.arange(n))
        quiet = n // 4 + np.arange(len(strengths))
        W = (U * sigma) @ V.T
        target = (U[:, quiet] * np.asarray(strengths)) @ V[:, quiet].T
        return cls(W, target)


def trained(
    lesson: Lesson, r: int, *, alpha: float = 16.0, seed: int = 0, steps: int = 200, lr: float = 0.03
) -> tuple[Floats, Floats, Floats]:
    """Return an update trained on a lesson: A (r, d_in), B (d_out, r), and the start A_0 of A.

    Parameters
    ----------
    lesson : what is to be learned
    r, alpha : delta_W = alpha / r * B @ A
    seed : of the start and of the examples
    steps, lr : number of Adam's steps, with batches of 64 examples, and their learning rate

    Notes
    -----
    The loss is half the mean squared error against ``(W + target) x + noise``, of which W drops out.

    References
    ----------
    Hu et al., arXiv 2106.09685v2, section 4.1 (Gaussian A, zero B, alpha / r); Kingma & Ba, arXiv 1412.6980 (Adam).

    Examples
    --------
    >>> lesson = Lesson.planted(8, 8, strengths=(5.0,), seed=0)
    >>> A, B, A_0 = trained(lesson, 2, alpha=2.0)
    >>> bool(np.linalg.norm(B @ A - lesson.target) < 0.3 * np.linalg.norm(lesson.target))
    True
    """
    d_out, d_in = lesson.target.shape
    rng = np.random.default_rng([seed, r, d_out, d_in])
    A_0 = rng.standard_normal((r, d_in)) / np.sqrt(d_in)
    A, B, s = A_0.copy(), np.zeros((d_out, r)), alpha / r
    adam_A, adam_B = _Adam(A, lr), _Adam(B, lr)
    for step in range(steps):
        x = rng.standard_normal((d_in, 64))
        error = s * (B @ (A @ x)) - lesson.target @ x - lesson.noise * rng.standard_normal((d_out, 64))
        grad_A, grad_B = s * (B.T @ error) @ x.T / 64, s * error @ (A @ x).T / 64
        decay = 1.0 - step / steps
        adam_A.step(grad_A, decay)
        adam_B.step(grad_B, decay)
    return A, B, A_0


class _Adam:
    """Adam's moments for one array, which it changes in place."""

    def __init__(self, parameter: Floats, lr: float) -> None:
        self.parameter, self.lr, self.t = parameter, lr, 0
        self.m, self.v = np.zeros_like(parameter), np.zeros_like(parameter)

    def step(self, gradient: Floats, decay: float) -> None:
        self.t += 1
        first, second = _BETAS
        self.m += (1 - first) * (gradient - self.m)
        self.v += (1 - second) * (gradient**2 - self.v)
        m, v = self.m / (1 - first**self.t), self.v / (1 - second**self.t)
        self.parameter -= self.lr * decay * m / (np.sqrt(v) + _EPSILON)


def _orthonormal(rng: np.random.Generator, d: int, k: int) -> Floats:
    from subspace.geometry import lapack

    return lapack.qr(rng.standard_normal((d, k)))[0]
