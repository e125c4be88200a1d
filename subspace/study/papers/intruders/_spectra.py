"""The leading singular directions of W + delta_W against all of W's, by dense SVDs: for small models.

References
----------
Shuttleworth et al., arXiv 2410.21228, algorithm 1 (left singular vectors).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from subspace.adapters.update import Factor, LowRankUpdate, Scale, Update
from subspace.geometry import factored, lapack

if TYPE_CHECKING:
    from subspace.adapters import Adapter, BaseWeights
    from subspace.geometry.lapack import Floats

__all__ = ["EPSILON", "EPSILONS", "Base", "K", "Leading", "random_update"]

K = 10  # leading directions of W + delta_W that are looked at
EPSILON = 0.5
EPSILONS = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)


@dataclass(frozen=True, eq=False)
class Leading:
    """The K leading directions of one matrix with its update.

    Attributes
    ----------
    module : the layer
    cosines : of each, the largest absolute cosine with a singular vector of W
    U, S, V : its triplets: (d_out, K), (K,) and (d_in, K)
    norm_W, norm_delta_W : Frobenius norms
    S_delta : singular values of delta_W
    edge : W's K-th singular value, which a direction has to outgrow to be among the leading
    """

    module: str
    cosines: Floats
    U: Floats
    S: Floats
    V: Floats
    norm_W: float
    norm_delta_W: float
    S_delta: Floats
    edge: float

    def intruders(self, epsilon: float = EPSILON) -> int:
        """Return how many of the directions are intruders: all their cosines are below epsilon."""
        return int(np.count_nonzero(self.cosines < epsilon))

    def top_intruder(self, epsilon: float = EPSILON) -> int | None:
        """Return the place, from 0, of the largest of them; None where there is none."""
        places = np.flatnonzero(self.cosines < epsilon)
        return int(places[0]) if len(places) else None

    def weakened(self, by: float) -> LowRankUpdate | None:
        """Return the update ``(by - 1) u sigma v^T`` that leaves `by` of the top intruder; None without one."""
        j = self.top_intruder()
        if j is None:
            return None
        A, B = self.V[:, j][None, :], ((by - 1) * self.S[j] * self.U[:, j])[:, None]
        return LowRankUpdate(self.module, Factor.of(A), Factor.of(B), Scale(1.0, "computed"))


class Base:
    """The base's matrices with their left singular vectors, which are computed once."""

    def __init__(self, weights: BaseWeights) -> None:
        self.weights = weights
        self._known: dict[str, tuple[Floats, Floats, Floats]] = {}

    def leading(self, adapter: Adapter) -> Iterator[Leading]:
        """Yield what each matrix looks like with its update, of those that the adapter changes."""
        for module, update in adapter.items():
            delta = update.delta_W()
            if delta.any():
                yield _leading(module, delta, _singular_values(update, delta), *self._matrix(adapter, module))
            adapter.release()

    def _matrix(self, adapter: Adapter, module: str) -> tuple[Floats, Floats, Floats]:
        """W, its left singular vectors and its singular values."""
        if module not in self._known:
            weight = self.weights.weight(adapter[module])
            assert weight is not None  # the adapter was trained on this base
            W = weight.matrix(np.float64)
            W = np.ascontiguousarray(W.T if weight.transposed else W)
            U, S, _ = lapack.svd(W)
            self._known[module] = W, U, S
        return self._known[module]


def _leading(module: str, delta: Floats, S_delta: Floats, W: Floats, U: Floats, S: Floats) -> Leading:
    Y, merged, V = _top(W + delta)
    return Leading(
        module=module,
        cosines=np.abs(U.T @ Y).max(axis=0),
        U=Y,
        S=merged,
        V=V,
        norm_W=float(np.linalg.norm(W)),
        norm_delta_W=float(np.linalg.norm(delta)),
        S_delta=S_delta,
        edge=float(S[len(merged) - 1]),
    )


def _top(M: Floats) -> tuple[Floats, Floats, Floats]:
    """The K leading triplets, from the smaller Gram matrix: of the leading ones that is exact enough, and cheaper."""
    tall = M.shape[0] > M.shape[1]
    squares, vectors = lapack.eigh(M.T @ M if tall else M @ M.T)
    order = np.argsort(squares)[::-1][:K]
    S, near = np.sqrt(np.maximum(squares[order], 0.0)), vectors[:, order]
    far = (M if tall else M.T) @ near / np.where(S > 0, S, 1.0)
    return (far, S, near) if tall else (near, S, far)


def _singular_values(update: Update, delta: Floats) -> Floats:
    if isinstance(update, LowRankUpdate):
        return factored.singular_values(update.B, update.A) * abs(update.scale.value or 0.0)
    return lapack.singular_values(delta)


def random_update(found: Leading, shape: tuple[int, int], rng: np.random.Generator) -> LowRankUpdate:
    """Return an update with the singular values of a trained one and isotropic random directions."""
    S = found.S_delta[found.S_delta > 1e-9 * found.S_delta[0]]
    B, A = (lapack.qr(rng.standard_normal((d, len(S))))[0] for d in shape)
    return LowRankUpdate(found.module, Factor.of(A.T), Factor.of(B * S), Scale(1.0, "computed"))
