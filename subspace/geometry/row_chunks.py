"""A large matrix read in chunks of rows, all through one float32 buffer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from subspace.errors import ShapeError
from subspace.geometry import lapack

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

__all__ = ["RowReader", "Rows", "reader"]

_CHUNK = 1 << 18  # numbers in a chunk: 1 MB of float32, half of a second-level cache


class RowReader(Protocol):
    """What a matrix must offer to be read in chunks."""

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""

    def rows(self, start: int, stop: int, out: Any = None) -> NDArray[Any]:
        """Return rows start to stop as floats, in `out` where one is given."""


class Rows:
    """A matrix divided by a power of two, in chunks of rows in float32.

    Parameters
    ----------
    W : ndarray or RowReader, shape (d_out, d_in)
    exponent : int
        The chunks are those of ``W / 2**exponent``.

    Raises
    ------
    ShapeError
        If `W` is not a matrix of real numbers.
    """

    def __init__(self, W: Any, *, exponent: int = 0) -> None:
        self._read = W.rows if hasattr(W, "rows") else reader(W)
        self.shape = (int(W.shape[0]), int(W.shape[1]))
        self.exponent = exponent
        height = max(16, min(self.shape[0], _CHUNK // max(1, self.shape[1])))
        self._height = height
        self._wide: NDArray[np.float64] | None = None
        self._buffer = np.empty((height, self.shape[1]), dtype=np.float32)

    def chunks(self) -> Iterator[tuple[int, int, NDArray[np.float32]]]:
        """Yield start, stop and the rows between; the next chunk overwrites the array."""
        for start in range(0, self.shape[0], self._height):
            stop = min(start + self._height, self.shape[0])
            yield start, stop, self._chunk(start, stop)

    def wide_chunks(self) -> Iterator[tuple[int, int, NDArray[np.float64]]]:
        """The same as `chunks` in float64: not rounded to float32, and scaled alike."""
        for start in range(0, self.shape[0], self._height):
            stop = min(start + self._height, self.shape[0])
            wide = self.wide(start, stop)
            yield start, stop, wide if self.exponent == 0 else np.ldexp(wide, -self.exponent, out=wide)

    def _chunk(self, start: int, stop: int) -> NDArray[np.float32]:
        narrow = self._buffer[: stop - start]
        if self.exponent == 0:
            with np.errstate(over="ignore", invalid="ignore"):  # seen by the caller in the sum of squares
                return np.asarray(self._read(start, stop, out=narrow))
        wide = self.wide(start, stop)
        with np.errstate(under="ignore"):
            np.copyto(narrow, np.ldexp(wide, -self.exponent, out=wide), casting="same_kind")
        return narrow

    def wide(self, start: int, stop: int) -> NDArray[np.float64]:
        """Rows start to stop, not scaled, in a float64 buffer that the next call overwrites."""
        if self._wide is None:
            self._wide = np.empty(self._buffer.shape)
        out = self._wide[: stop - start]
        np.copyto(out, self._read(start, stop, out=out))
        return out

    def read(self, start: int, stop: int) -> NDArray[np.float64]:
        """Rows start to stop, not scaled, as a float64 array of their own."""
        rows = np.empty((stop - start, self.shape[1]))
        np.copyto(rows, self._read(start, stop, out=rows))
        return rows

    def dense(self) -> NDArray[np.float64]:
        """Return the whole matrix in float64, not scaled."""
        full = np.empty(self.shape)
        for start in range(0, self.shape[0], self._height):
            stop = min(start + self._height, self.shape[0])
            full[start:stop] = self.wide(start, stop)
        return full

    def peak(self) -> float:
        """Largest absolute value; raises the error that names the first number that is not finite."""
        largest = 0.0
        for start in range(0, self.shape[0], self._height):
            wide = self.wide(start, min(start + self._height, self.shape[0]))
            lapack.refuse(wide, name=f"a weight matrix (from row {start})")
            largest = max(largest, float(np.abs(wide).max(initial=0.0)))
        return largest

    def scaled(self) -> Rows:
        """Return the same matrix with the exponent that brings its largest value to about 1."""
        scaled = object.__new__(Rows)
        scaled.__dict__.update(self.__dict__)
        scaled.exponent = int(np.frexp(self.peak())[1])
        return scaled


def reader(W: Any) -> Any:
    """The `rows` method that an array lacks: it returns a view if the types agree, else a copy in `out`."""
    if W.ndim != 2 or W.dtype.kind not in "fiu":
        raise ShapeError(f"Not a matrix of real numbers: W has shape {W.shape} and dtype {W.dtype}")

    def rows(start: int, stop: int, out: Any = None) -> NDArray[Any]:
        part: NDArray[Any] = W[start:stop]
        if out is None or (part.dtype == out.dtype and part.flags.c_contiguous):
            return part
        np.copyto(out, part, casting="same_kind" if part.dtype.kind == "f" else "unsafe")
        return np.asarray(out)

    return rows
