"""One kind of module in all layers: phi(1, 1) between every two layers, and the test that the layer matters."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from subspace.geometry.permutation import layers_p

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from subspace.geometry.agreement import Agreement
    from subspace.geometry.frame import Frame
    from subspace.geometry.lapack import Floats

__all__ = ["Layers"]

Key: TypeAlias = tuple[str, str, str]  # module, side, init
_Directions: TypeAlias = "dict[str, tuple[NDArray[np.float32], ...]]"

_MOST = 1024  # layers whose similarities are all formed; what is more costs time linear in their number


class Layers:
    """Collects the leading directions of all modules of a kind, in float32: a few megabytes for a large model."""

    def __init__(self) -> None:
        self._found: dict[tuple[str, str, str, int], dict[str, tuple[NDArray[np.float32], ...]]] = (
            defaultdict(dict)
        )

    def add(self, kind: str, key: Key, found: Agreement) -> None:
        """Take in one side of a module."""
        module, side, init = key
        self._found[kind, side, init, found.first.d][module] = _leading(found.first), _leading(found.second)

    def off_diagonal(self) -> dict[Key, tuple[int, float]]:
        """Number and mean of phi(1, 1) of every module with the other layers, in both directions."""
        found: dict[Key, tuple[int, float]] = {}
        for (_, side, init, _), directions in self._found.items():
            n = 2 * (len(directions) - 1)
            if n:
                sums = _sums(directions).tolist()
                found.update(
                    {(m, side, init): (n, value / n) for m, value in zip(directions, sums, strict=True)}
                )
        return found

    def permuted(self, side: str, init: str) -> tuple[float | None, float | None]:
        """p-value of equal layers against permuted ones, and the least that it can be; None without several layers.

        The statistic is the mean phi(1, 1) over all kinds of modules that stand in the same number of layers, as most
        modules do; one permutation exchanges the layers of all of them.
        """
        matrices = self._matrices(side, init)
        if not matrices:
            return None, None
        modules = Counter({len(M): 0 for M in matrices})
        for M in matrices:
            modules[len(M)] += len(M)
        L = modules.most_common(1)[0][0]
        return layers_p(np.mean([M for M in matrices if len(M) == L], axis=0))

    def _matrices(self, side: str, init: str) -> list[Floats]:
        """phi(1, 1) between the first adapter's layers (rows) and the second's (columns), a matrix per kind.

        Of more than 1024 layers, which are the experts of a few, some that are evenly spaced stand for all.
        """
        return [
            _between(_spaced(directions))
            for (_, *where, _), directions in self._found.items()
            if where == [side, init] and len(directions) > 1
        ]


def _leading(frame: Frame) -> NDArray[np.float32]:
    return np.asarray(frame.X.T @ frame.C[:, 0], dtype=np.float32)


def _spaced(directions: _Directions) -> _Directions:
    """At most 1024 of the layers, evenly spaced."""
    if len(directions) <= _MOST:
        return directions
    kept = np.linspace(0, len(directions) - 1, _MOST).astype(int)
    modules = list(directions)
    return {modules[n]: directions[modules[n]] for n in kept.tolist()}


def _between(directions: _Directions) -> Floats:
    first, second = (np.stack(each) for each in zip(*directions.values(), strict=True))
    return np.asarray(np.minimum((first @ second.T).astype(np.float64) ** 2, 1.0))


def _sums(directions: _Directions) -> Floats:
    """Sum of phi(1, 1) of every layer with the others, in both directions.

    The sum of (u . v)^2 over all v is u^T (sum of v v^T) u, which takes time linear in the number of layers.
    """
    if len(directions) <= _MOST:
        M = _between(directions)
        return np.asarray(M.sum(axis=0) + M.sum(axis=1) - 2 * np.diag(M))
    first, second = (np.stack(each) for each in zip(*directions.values(), strict=True))
    same = np.einsum("nd,nd->n", first, second).astype(np.float64) ** 2
    return np.asarray(_squares(first, second) + _squares(second, first) - 2 * same)


def _squares(U: NDArray[np.float32], V: NDArray[np.float32]) -> Floats:
    """Sum of (u . v)^2 over all rows v of V, for every row u of U."""
    moment = V.T @ V
    parts = (U[n : n + _MOST] for n in range(0, len(U), _MOST))
    return np.concatenate([np.einsum("nd,nd->n", part @ moment, part, dtype=np.float64) for part in parts])
