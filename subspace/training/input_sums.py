"""Sums over the inputs of a module, from which their second moment follows: in full, or sketched where d is large."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from subspace.geometry.second_moment import SecondMoment, leading_pairs, nystrom

__all__ = ["FullSum", "InputSum", "SketchedSum", "begun", "bytes_of"]

_PIECE = 2048  # tokens whose products are added up in float32
_BLOCKS = 4  # of columns: of a symmetric product only what is on and above the diagonal is computed
_WIDTH = 4  # columns of a sketch for each eigenpair that is wanted


class InputSum(Protocol):
    """Sums over tokens, which can be put down and taken up again.

    Attributes
    ----------
    tokens : how many there were
    """

    tokens: int

    def add(self, x: Tensor) -> None:
        """Take in inputs (tokens, d)."""

    def state(self) -> dict[str, Tensor]:
        """Return all sums by name."""

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Go on from sums that `state` gave."""

    def moment(self, k: int) -> SecondMoment:
        """Return the second moment with its k leading eigenpairs."""


def begun(d: int, k: int, *, full: int, place: torch.device) -> InputSum:
    """Return empty sums: of the whole d x d matrix up to d = `full`, of a sketch of 4 k columns beyond."""
    return FullSum(d, place) if d <= max(full, _WIDTH * k) else SketchedSum(d, _WIDTH * k, place)


def bytes_of(d: int, k: int, *, full: int) -> int:
    """Return how many bytes of memory the sums of `begun` take.

    Examples
    --------
    >>> bytes_of(1000, 64, full=4096), bytes_of(11008, 64, full=4096)
    (8016000, 45176840)
    """
    whole = d <= max(full, _WIDTH * k)
    return 8 * (d * d + 2 * d) if whole else 8 * (2 * d * _WIDTH * k + d + 1)


class FullSum:
    """Sums of x and of x x^T, after a fixed vector near their mean is taken off.

    What is taken off is added again in float64. Without it the products, which are of pieces of 2048 tokens and in
    float32, would lose to a large mean what is small beside it; the sums over pieces are in float64.
    """

    def __init__(self, d: int, place: torch.device) -> None:
        self.tokens, self._shift = 0, torch.zeros(d, dtype=torch.float32, device=place)
        self._sum = torch.zeros(d, dtype=torch.float64, device=place)
        self._products = torch.zeros(d, d, dtype=torch.float64, device=place)
        bounds = [d * n // _BLOCKS for n in range(_BLOCKS + 1)]
        self._bounds = [(a, b) for a, b in pairwise(bounds) if b > a]

    def add(self, x: Tensor) -> None:
        """Take in inputs (tokens, d)."""
        if not len(x):
            return
        if not self.tokens:
            self._shift = x.float().mean(0).nan_to_num(0.0, 0.0, 0.0).to(self._sum.device)
        for piece in x.split(_PIECE):
            y = piece.to(self._sum.device, torch.float32) - self._shift
            self._sum += y.sum(0, dtype=torch.float64)
            for start, stop in self._bounds:
                self._products[start:stop, start:] += y[:, start:stop].T @ y[:, start:]
            self.tokens += len(y)

    def state(self) -> dict[str, Tensor]:
        """Return all sums by name."""
        tokens = torch.tensor(self.tokens)
        return {"tokens": tokens, "shift": self._shift, "sum": self._sum, "products": self._products}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Go on from sums that `state` gave."""
        self.tokens = int(state["tokens"])
        for mine, name in ((self._shift, "shift"), (self._sum, "sum"), (self._products, "products")):
            mine.copy_(state[name])

    def moment(self, k: int) -> SecondMoment:
        """Return the second moment with its k leading eigenpairs."""
        C, mean = self.matrix(), self.mean()
        values, vectors = leading_pairs(C, min(k, len(C)))
        return SecondMoment(
            self.tokens, mean, values, vectors, float(C.trace()), float(np.einsum("ij,ij->", C, C))
        )

    def mean(self) -> np.ndarray:
        """Return the mean of the inputs, (d,)."""
        n = max(1, self.tokens)
        found: np.ndarray = self._shift.double().cpu().numpy() + self._sum.cpu().numpy() / n
        return found

    def matrix(self) -> np.ndarray:
        """Return C, (d, d)."""
        n = max(1, self.tokens)
        upper = self._products.cpu().numpy() / n
        shift, rest = self._shift.double().cpu().numpy(), self._sum.cpu().numpy() / n
        C: np.ndarray = np.triu(upper) + np.triu(upper, 1).T
        C += np.outer(shift, rest + shift)
        C += np.outer(rest, shift)
        return C


class SketchedSum:
    """Sums of x, of ||x||^2 and of x (x^T omega), with omega (d, l) Gaussian and the same in every run."""

    def __init__(self, d: int, width: int, place: torch.device) -> None:
        drawn = np.random.default_rng(d).standard_normal((d, width))
        self.tokens, self._omega = 0, torch.from_numpy(drawn).to(place)
        self._sum = torch.zeros(d, dtype=torch.float64, device=place)
        self._squares = torch.zeros((), dtype=torch.float64, device=place)
        self._seen = torch.zeros(d, width, dtype=torch.float64, device=place)

    def add(self, x: Tensor) -> None:
        """Take in inputs (tokens, d)."""
        for piece in x.split(_PIECE):
            y = piece.to(self._sum.device, torch.float64)
            self._sum += y.sum(0)
            self._squares += (y * y).sum()
            self._seen += y.T @ (y @ self._omega)
            self.tokens += len(y)

    def state(self) -> dict[str, Tensor]:
        """Return all sums by name."""
        tokens = torch.tensor(self.tokens)
        return {"tokens": tokens, "sum": self._sum, "squares": self._squares, "seen": self._seen}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Go on from sums that `state` gave."""
        self.tokens = int(state["tokens"])
        for mine, name in ((self._sum, "sum"), (self._squares, "squares"), (self._seen, "seen")):
            mine.copy_(state[name])

    def moment(self, k: int) -> SecondMoment:
        """Return the second moment with its k leading eigenpairs, from the sketch."""
        n = max(1, self.tokens)
        omega, seen = self._omega.cpu().numpy(), self._seen.cpu().numpy() / n
        values, vectors = nystrom(seen, omega, omega.shape[1])
        trace = float(self._squares) / n
        missed = max(0.0, trace - float(values.sum()))
        return SecondMoment(
            self.tokens, self._sum.cpu().numpy() / n, values[:k], vectors[:, :k], trace, None, missed
        )
