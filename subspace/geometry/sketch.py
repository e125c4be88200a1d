"""One pass over a large matrix for its norm, a good start of an iteration, and its fourth moment."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from subspace.geometry import lapack

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from subspace.geometry.lapack import Floats
    from subspace.geometry.row_chunks import Rows

__all__ = ["Sketch"]

_STRAY = 0.1  # share of a start that is plain Gaussian, so that it misses no direction


class Sketch:
    """Chunks of rows of `W` with random signs, added up in `size` buckets: ``B (size, n)`` with mean ``B.T B = W.T W``.

    Parameters
    ----------
    rows : Rows
        The matrix `W`, (m, n).
    size : int
        Number of buckets; rounded up to whole chunks.
    rng : numpy.random.Generator

    References
    ----------
    Charikar, Chen & Farach-Colton 2002, Finding frequent items in data streams; Clarkson & Woodruff 2013, STOC.
    """

    def __init__(self, rows: Rows, size: int, rng: np.random.Generator) -> None:
        self.rows = rows
        self.squares = 0.0  # ||W||_F^2
        self._B = np.zeros((0, rows.shape[1]), dtype=np.float32)
        with np.errstate(all="ignore"):  # the sum of squares shows what left the range of float32
            for number, (_, _, chunk) in enumerate(rows.chunks()):
                self._add(number, chunk, size, rng)
                self.squares += _squares(chunk)

    def _add(self, number: int, chunk: NDArray[np.float32], size: int, rng: np.random.Generator) -> None:
        if number == 0:
            self._repeat = -(-size // len(chunk))
            self._B = np.zeros((self._repeat * len(chunk), chunk.shape[1]), dtype=np.float32)
            self._height = len(chunk)
        first = number % self._repeat * self._height
        bucket = self._B[first : first + len(chunk)]
        # two rows of one bucket come from two chunks, so a sign for each chunk makes their product vanish
        (np.add if rng.random() < 0.5 else np.subtract)(bucket, chunk, out=bucket)

    def start(
        self, b: int, rng: np.random.Generator, *, without: NDArray[np.float32] | None = None
    ) -> Floats:
        """Return a start of `b` columns, shape (n, b): the leading directions of the sketch, slightly perturbed.

        `without` are orthonormal rows (s, n) that the sketch is projected off.
        """
        n = self._B.shape[1]
        B = self._B if without is None else self._B - (self._B @ without.T) @ without
        values, P = lapack.eigh(B @ B.T)
        P = P[:, :b][:, values[:b] > 0]
        stray = rng.standard_normal((n, b))
        if P.shape[1] == 0:
            return stray
        leading = B.T @ P.astype(np.float32)
        stray[:, : P.shape[1]] *= _STRAY / np.sqrt(n)
        stray[:, : P.shape[1]] += leading / np.linalg.norm(leading, axis=0)
        return stray

    def fourth_moment(self, S: Floats, V: Floats) -> float:
        """Estimate ``tr((W.T W)^2)`` given the leading singular values (k,) and right vectors (n, k).

        The leading part is summed. The rest is ``sum (w_t . w_u)^2`` over pairs of rows with that part taken
        out: different rows from different buckets, a row with itself from the mean square of the rows.
        """
        narrow = V.astype(np.float32)
        rest = self._B - (self._B @ narrow) @ narrow.T
        K = (rest @ rest.T).astype(np.float64)
        size = len(K)
        pairs = (np.sum(K**2) - np.sum(K.diagonal() ** 2)) * size / max(1, size - 1)
        own = max(0.0, self.squares - float(np.sum(S**2))) ** 2 / self.rows.shape[0]
        return float(np.sum(S**4) + pairs + own)


def _squares(chunk: NDArray[np.float32]) -> float:
    # a few rows at a time, since one long sum in float32 loses the sixth digit
    step = max(1, (1 << 15) // max(1, chunk.shape[1]))
    parts = (chunk[start : start + step] for start in range(0, len(chunk), step))
    return sum(float(np.vdot(part, part)) for part in parts)
