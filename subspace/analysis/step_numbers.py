"""The updates of one module along a run as wholes: their norms, the cosine with the last, how far the factors moved."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from subspace.adapters.update import DenseUpdate, LowRankUpdate
from subspace.flags import Flag
from subspace.geometry.agreement import Agreement
from subspace.geometry.frame import overlap
from subspace.geometry.frobenius import frobenius
from subspace.geometry.update_agreement import update_agreement

if TYPE_CHECKING:
    from subspace.adapters import Update
    from subspace.geometry.frame import Frame
    from subspace.geometry.lapack import Floats

__all__ = ["Numbers", "StepNumbers"]


class Numbers(NamedTuple):
    """The updates of one module as wholes, a value for each checkpoint.

    Attributes
    ----------
    cosine : (T,) of delta_W and the last one, up to the signs of their scales; NaN where one is zero
    norm : (T,) of B A, without the scale
    scale : (T,) NaN where unknown
    moved : side -> (T,) distance of A (a) or B (b) from the start over the norm of that
    strength : (T, K) of B A along each singular direction of the last one, over the last; () of a dense update
    """

    cosine: Floats
    norm: Floats
    scale: Floats
    moved: Mapping[str, Floats]
    strength: Floats


@dataclass
class StepNumbers:
    """Collects them while the checkpoints go by; of the last update the factors, or the matrix, are held.

    Parameters
    ----------
    last : the update at the last checkpoint
    start : at the start, None where there is none
    steps : how many checkpoints there are
    """

    last: Update
    start: Update | None
    steps: int

    def __post_init__(self) -> None:
        self._values = {name: np.full(self.steps, np.nan) for name in ("cosine", "norm", "scale", "a", "b")}
        self._final: tuple[Frame, Frame] | None = None
        self._strength: Floats = np.zeros((self.steps, 0))
        self._triplets: tuple[Floats, Floats, Floats] | None = None
        self._matrix = (
            self.last.matrix.load().astype(np.float64) if isinstance(self.last, DenseUpdate) else None
        )
        self._begun = self._factors(self.start) if _trained_as_such(self.start) else None

    def begin(self, a: Frame | None, b: Frame | None) -> None:
        """Take the frames of A and B at the last checkpoint."""
        if not isinstance(self.last, LowRankUpdate) or a is None or b is None:
            return
        from subspace.geometry import factored

        self._final = a, b
        U, S, Vh = factored.svd(self.last.B, self.last.A)
        if len(S):
            self._triplets = U, S, Vh
            self._strength = np.full((self.steps, len(S)), np.nan)

    def add(self, n: int, update: Update, a: Frame | None, b: Frame | None) -> None:
        """Take in a checkpoint, with the frames of its A and B."""
        values = self._values
        values["scale"][n] = np.nan if update.scale.value is None else update.scale.value
        with np.errstate(
            over="ignore", under="ignore", invalid="ignore"
        ):  # a number that is not finite is none
            if isinstance(update, DenseUpdate):
                self._add_dense(n, update)
            else:
                self._add_product(n, update, a, b)

    def _add_product(self, n: int, update: LowRankUpdate, a: Frame | None, b: Frame | None) -> None:
        values = self._values
        if self._begun is not None and _trained_as_such(update):
            for side, M, M_0 in zip("ab", self._factors(update), self._begun, strict=True):
                size = frobenius(M_0)
                if M.shape == M_0.shape and 0 < size < np.inf:
                    values[side][n] = frobenius(M - M_0) / size
        if a is None or b is None or not (a.k and b.k):
            values["norm"][n] = 0.0 if update.B_factor.is_zero() or update.A_factor.is_zero() else np.nan
            self._strength[n] = values["norm"][n]  # zero, or not a number
            return
        if self._final is not None:
            pair = (
                Agreement(one, other, overlap(one, other))
                for one, other in zip((a, b), self._final, strict=True)
            )
            found = update_agreement(*pair)
            values["cosine"][n], values["norm"][n] = found.cosine, found.norm_first
        self._along(n, update)

    def _along(self, n: int, update: LowRankUpdate) -> None:
        if self._triplets is None:
            return
        U, S, Vh = self._triplets
        A, B = self._factors(update)
        self._strength[n] = np.einsum("rk,rk->k", B.T @ U, A @ Vh.T) / S

    def _add_dense(self, n: int, update: DenseUpdate) -> None:
        M, last = update.matrix.load().astype(np.float64), self._matrix
        self._values["norm"][n] = size = frobenius(M)
        if last is not None and 0 < size < np.inf and 0 < (whole := frobenius(last)) < np.inf:
            self._values["cosine"][n] = np.clip(np.vdot(M / size, last / whole), -1, 1)

    def found(self) -> Numbers:
        """All of them."""
        values = self._values
        moved = {side: values[side] for side in "ab" if np.isfinite(values[side]).any()}
        return Numbers(values["cosine"], values["norm"], values["scale"], moved, self._strength)

    @staticmethod
    def _factors(update: Update | None) -> tuple[Floats, Floats]:
        assert isinstance(update, LowRankUpdate)
        return update.A.astype(np.float64), update.B.astype(np.float64)


def _trained_as_such(update: Update | None) -> bool:
    return isinstance(update, LowRankUpdate) and Flag.COMPOSED not in update.flags
