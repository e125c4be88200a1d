"""W and delta_W added and rounded to the type that W is stored in, a chunk of rows at a time.

The convention is that of a careful merge: W as it is stored, delta_W computed in float32, added in float32, and the sum
rounded once. (PEFT 0.21's ``get_delta_weight`` returns delta_W in the type of its factors: if they are in bfloat16, it
is rounded once more beforehand. Those of a bfloat16 model are in float32 by default, and then PEFT merges as here.)

For int8, W is rounded to its grid first, and ``W + delta_W`` with the largest absolute value of its own row. So an
entry may keep its code and yet stand for a slightly different number; it has not changed, and D has the difference.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from subspace.errors import ShapeError
from subspace.geometry import lapack
from subspace.geometry.row_chunks import reader
from subspace.geometry.stored_types import Grid, Int8Grid, grid

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from subspace.geometry.lapack import Floats

__all__ = ["Chunk", "Merge", "Product"]

_CHUNK = 1 << 18  # numbers in a chunk, as in `row_chunks`


@dataclass(frozen=True)
class Chunk:
    """Rows of W and of the merged weight as stored, what is stored of each, and delta_W."""

    W: NDArray[np.float32]
    codes: NDArray[Any]
    delta_W: NDArray[np.float32]
    merged: NDArray[np.float32]
    merged_codes: NDArray[Any]


class Product:
    """``scale * B @ A``, computed in float32 a few rows at a time.

    Parameters
    ----------
    B : array_like, shape (m, r)
    A : array_like, shape (r, n)
    scale : float

    Examples
    --------
    >>> Product([[1.0], [2.0]], [[3.0, 4.0]], 0.5).rows(1, 2)
    array([[3., 4.]], dtype=float32)
    """

    def __init__(self, B: Any, A: Any, scale: float = 1.0) -> None:
        B, A = scale * lapack.as_float64(B, name="B"), lapack.as_float64(A, name="A")
        # one factor may be as small as the other is large: each alone need not be in the range of float32
        shift = (_exponent(B) - _exponent(A)) // 2
        with np.errstate(over="ignore", under="ignore"):
            self._B = np.ldexp(B, -shift).astype(np.float32)
            self._A = np.ascontiguousarray(np.ldexp(A, shift).astype(np.float32))
        self.shape = (self._B.shape[0], self._A.shape[1])

    @property
    def T(self) -> Product:
        """The transposed product."""
        return Product(self._A.T, self._B.T)

    def rows(self, start: int, stop: int, out: Any = None) -> NDArray[np.float32]:
        """Rows start to stop, in `out` where one is given."""
        with np.errstate(over="ignore", under="ignore", invalid="ignore"):
            return np.asarray(np.matmul(self._B[start:stop], self._A, out=out))


def _exponent(M: Floats) -> int:
    return int(np.frexp(np.abs(M).max(initial=0.0))[1])


class Merge:
    """W, delta_W, and what is stored of their sum, a chunk of rows at a time; the rows of a `RowReader` are those of D.

    Parameters
    ----------
    W : ndarray or RowReader, shape (m, n)
    delta_W : ndarray or RowReader, shape (m, n)
        Such as a `Product`.
    stored : str
        A type in `STORED`.
    outputs_are_columns : bool
        Whether both are given as (d_in, d_out), as Conv1D layers are stored: int8 has a scale per output.

    Raises
    ------
    ShapeError
        If the shapes differ, or one is no matrix of real numbers.
    """

    def __init__(self, W: Any, delta_W: Any, stored: str, *, outputs_are_columns: bool = False) -> None:
        if tuple(W.shape) != tuple(delta_W.shape):
            raise ShapeError(
                f"W and delta_W cannot be added: shapes {tuple(W.shape)} and {tuple(delta_W.shape)}; check that both "
                "belong to the same module"
            )
        self.shape, self.stored = (int(W.shape[0]), int(W.shape[1])), stored
        self._W, self._delta = (each.rows if hasattr(each, "rows") else reader(each) for each in (W, delta_W))
        self._buffers: list[NDArray[np.float32]] = []
        self.before: Grid = grid(stored)
        self.after: Grid = self.before
        if stored == "int8" and outputs_are_columns:
            self.before = Int8Grid(self._peaks(merged=False))
            self.after = Int8Grid(self._peaks(merged=True))

    def chunks(self) -> Iterator[tuple[int, int]]:
        """Starts and stops of chunks of rows."""
        height = max(16, _CHUNK // max(1, self.shape[1]))
        for start in range(0, self.shape[0], height):
            yield start, min(start + height, self.shape[0])

    def at(self, start: int, stop: int) -> Chunk:
        """What is stored before and after, and delta_W, in buffers that the next call overwrites.

        Raises
        ------
        ValueRangeError
            If a number of W or of delta_W is not finite.
        """
        W, delta_W = self._read(start, stop)
        codes = self.before.round(W)
        merged = self._buffer(2, stop - start)
        with np.errstate(over="ignore"):  # what is too large becomes infinite, and is counted
            np.add(W, delta_W, out=merged)
        return Chunk(W, codes, delta_W, merged, self.after.round(merged))

    def rows(self, start: int, stop: int, out: Any = None) -> NDArray[Any]:
        """Rows start to stop of D."""
        chunk = self.at(start, stop)
        return np.asarray(np.subtract(chunk.merged, chunk.W, out=out))

    def _read(self, start: int, stop: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        found = []
        for number, (read, name) in enumerate(((self._W, "W"), (self._delta, "delta_W"))):
            buffer = self._buffer(number, stop - start)
            with np.errstate(over="ignore", under="ignore", invalid="ignore"):
                rows = read(start, stop, out=buffer)
            lapack.refuse(rows, name=f"{name} (from row {start})")
            if rows is not buffer:  # an array's own numbers, which must stay
                np.copyto(buffer, rows, casting="same_kind")
            found.append(buffer)
        return found[0], found[1]

    def _buffer(self, number: int, rows: int) -> NDArray[np.float32]:
        while len(self._buffers) <= number or len(self._buffers[number]) < rows:
            del self._buffers[number:]
            self._buffers.append(np.empty((rows, self.shape[1]), dtype=np.float32))
        return self._buffers[number][:rows]

    def _peaks(self, *, merged: bool) -> NDArray[np.float32]:
        """Largest absolute value of each column of W, or of what is stored of W, with delta_W added."""
        peaks = np.zeros(self.shape[1], dtype=np.float32)
        for start, stop in self.chunks():
            W, delta_W = self._read(start, stop)
            if merged:
                self.before.round(W)
                W += delta_W
            np.maximum(peaks, np.abs(W).max(axis=0, initial=0.0), out=peaks)
        return peaks
