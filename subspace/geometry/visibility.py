"""How much of delta_W is left when it is added to W and the sum is rounded to the type that W is stored in.

What is left is ``D = round(W + delta_W) - W``. The convention is that of a careful merge: W as it is stored, delta_W
computed in float32, added in float32, and the sum rounded once. (PEFT's ``merge`` computes delta_W in the type of its
factors and adds in the type of W; with a bfloat16 adapter that rounds delta_W once more beforehand.)

An entry of delta_W below half the distance of neighbouring numbers at W's entry leaves it as it was: bfloat16 has 8
significant bits, so that nothing below W's own size times 2**-9 counts at all. Entries above are rounded up or down, so
that a large part of the entries can vanish while the norm hardly falls.

For int8, W is rounded to its grid first, and ``W + delta_W`` with the largest absolute value of its own row. So an entry
may keep its code and yet stand for a slightly different number; such an entry has not changed, and D has the difference.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from subspace.errors import ShapeError
from subspace.geometry import lapack
from subspace.geometry.row_chunks import reader
from subspace.geometry.stored_types import ChangedByChance, Grid, Int8Grid, grid
from subspace.geometry.topk import Leading, leading

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from subspace.geometry.lapack import Floats

__all__ = ["Merge", "Product", "Visibility", "left_of", "visibility"]

_CHUNK = 1 << 18  # numbers in a chunk, as in `row_chunks`
_PIECE = 1 << 15  # numbers that are widened to float64 at once
_TOL, _PASSES = 1e-5, 20  # of the directions of what is left, whose rounding has a flat spectrum


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

    def at(self, start: int, stop: int) -> _Chunk:
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
        return _Chunk(W, codes, delta_W, merged, self.after.round(merged))

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


@dataclass(frozen=True)
class _Chunk:
    W: NDArray[np.float32]
    codes: NDArray[Any]
    delta_W: NDArray[np.float32]
    merged: NDArray[np.float32]
    merged_codes: NDArray[Any]


@dataclass(frozen=True)
class Visibility:
    """What is left of delta_W, in numbers that add up over matrices.

    Attributes
    ----------
    entries : int
        Number of entries of W.
    changed : int
        How many of them are stored as another number.
    changed_isotropic : float
        How many would change on average for a delta_W of isotropic random entries of the same norm.
    infinite : int
        How many became infinite, since the type has no number as large.
    delta_squares, left_squares : float
        ``||delta_W||_F^2`` and ``||D||_F^2``.
    inner : float
        ``<D, delta_W>``.
    """

    entries: int
    changed: int
    changed_isotropic: float
    infinite: int
    delta_squares: float
    left_squares: float
    inner: float

    @property
    def norm_left(self) -> float:
        """``||D|| / ||delta_W||``; NaN where either does not exist."""
        return math.sqrt(self.left_squares / self.delta_squares) if self._exists(1) else math.nan

    @property
    def cosine(self) -> float:
        """Cosine of D and delta_W; NaN where nothing is left."""
        if not self._exists(self.left_squares):
            return math.nan
        return min(1.0, max(-1.0, self.inner / math.sqrt(self.left_squares) / math.sqrt(self.delta_squares)))

    def _exists(self, left: float) -> bool:
        return not self.infinite and self.delta_squares > 0 and left > 0

    def __add__(self, other: Visibility) -> Visibility:
        return Visibility(*(mine + theirs for mine, theirs in zip(_values(self), _values(other), strict=True)))


def _values(found: Visibility) -> tuple[Any, ...]:
    return tuple(vars(found).values())


def visibility(merge: Merge) -> Visibility:
    """What is left of delta_W in one pass over W.

    Raises
    ------
    ValueRangeError
        If a number of W or of delta_W is not finite.

    Notes
    -----
    Costs about ten passes over W in cache, no more than one over the file; three chunks are in memory. The sums are in
    float64. `changed_isotropic` takes the entries for independent Gaussian ones of variance ``||delta_W||^2 / (m n)``,
    which differs from a random direction of the m * n entries by a share of ``1 / (m n)``.

    Examples
    --------
    Of two equal changes of 1/256 one is half the distance of bfloat16's neighbours of 1 and rounds to even; the other is
    exact next to 1/2.

    >>> W, delta_W = np.array([[1.0, 0.5]]), np.full((1, 2), 2.0**-8)
    >>> found = visibility(Merge(W, delta_W, "bfloat16"))
    >>> found.changed, round(found.norm_left, 4), round(found.cosine, 4)
    (1, 0.7071, 0.7071)
    """
    total, chance = _Sums(), ChangedByChance(merge.stored)
    for start, stop in merge.chunks():
        chunk = merge.at(start, stop)
        chance.add(chunk.W, chunk.codes, merge.before)
        total.add(chunk)
    entries = merge.shape[0] * merge.shape[1]
    deviation = math.sqrt(total.delta / entries) if entries else 0.0
    return Visibility(
        entries, total.changed, chance.expected(deviation), total.infinite, total.delta, total.left, total.inner
    )


@dataclass
class _Sums:
    changed: int = 0
    infinite: int = 0
    delta: float = 0.0
    left: float = 0.0
    inner: float = 0.0
    _pieces: list[Floats] = field(default_factory=lambda: [np.empty(_PIECE), np.empty(_PIECE)])

    def add(self, chunk: _Chunk) -> None:
        self.changed += int(np.count_nonzero(chunk.codes != chunk.merged_codes))
        self.infinite += int(np.count_nonzero(np.isinf(chunk.merged)))
        before, after, delta_W = chunk.W.ravel(), chunk.merged.ravel(), chunk.delta_W.ravel()
        with np.errstate(invalid="ignore", over="ignore"):  # of infinite numbers, which are counted
            for start in range(0, len(before), _PIECE):
                part = slice(start, start + _PIECE)
                self._add(before[part], after[part], delta_W[part])

    def _add(self, before: Any, after: Any, delta_W: Any) -> None:
        left, delta = (each[: len(before)] for each in self._pieces)
        np.subtract(after, before, out=left, dtype=np.float64)
        np.copyto(delta, delta_W)
        self.delta += float(delta @ delta)
        self.left += float(left @ left)
        self.inner += float(left @ delta)


def left_of(merge: Merge, k: int) -> Leading:
    """The leading `k` singular triplets of D, by one Krylov iteration over rows that are computed as they are read.

    Notes
    -----
    Where little of delta_W is left, D is rounding in single entries, whose spectrum is flat: its leading directions are
    then determined by little, and `error` is large after the 20 passes that are allowed.
    """
    return leading(merge, k, tol=_TOL, max_passes=_PASSES)
