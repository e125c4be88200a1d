"""What one adapted module learned: ``delta_W``, as factors that are read when asked for, or dense.

Layout, whatever the file's own: ``A`` is (r, d_in), ``B`` is (d_out, r), ``delta_W = scale * B @ A`` is
(d_out, d_in) as in ``nn.Linear`` (`h = W x`). A convolution is the matrix (out, in * kernel); an embedding is the
map from one-hot tokens, so d_in is the vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from subspace.errors import InconclusiveError
from subspace.flags import Flag
from subspace.text import shown

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["DenseUpdate", "Factor", "LowRankUpdate", "Scale", "Update"]

_RESOLUTION = {
    "float64": 2.0**-52,
    "float32": 2.0**-23,
    "float16": 2.0**-10,
    "bfloat16": 2.0**-7,
    "float8_e4m3fn": 2.0**-3,
    "float8_e5m2": 2.0**-2,
    "float8_e4m3fnuz": 2.0**-3,
    "float8_e5m2fnuz": 2.0**-2,
}


@dataclass(frozen=True)
class Factor:
    """A matrix of a file, its shape known, its values not read yet.

    `load` reads all of it, `part` some rows where they can be had alone. `stored` is the matrix that was rounded to
    `dtype`, where that is another: a difference carries the rounding of what it was taken of. `tensor_shape` is that
    of the tensor in the file, which a convolution has in four dimensions, where it is known.
    """

    shape: tuple[int, int]
    dtype: str
    load: Callable[[], NDArray[Any]]
    part: Callable[[int, int], NDArray[Any]] | None = None
    stored: Callable[[], NDArray[Any]] | None = None
    tensor_shape: tuple[int, ...] | None = None

    @property
    def resolution(self) -> float:
        """Relative spacing of the stored numbers, 2**-23 for float32."""
        return _RESOLUTION.get(self.dtype, 2.0**-23)

    @property
    def T(self) -> Factor:
        """The transposed matrix."""
        stored = self.stored
        turned = None if stored is None else lambda: stored().T
        return Factor((self.shape[1], self.shape[0]), self.dtype, lambda: self.load().T, stored=turned)

    def rows(self, start: int, stop: int) -> Factor:
        """Rows start to stop, as a matrix of its own."""
        return Factor((stop - start, self.shape[1]), self.dtype, lambda: self._rows(start, stop))

    def _rows(self, start: int, stop: int) -> NDArray[Any]:
        return self.load()[start:stop] if self.part is None else self.part(start, stop)

    def is_zero(self) -> bool:
        """Whether every number is exactly zero: the first row says no where there is something."""
        return not self._rows(0, 1).any() and not self.load().any()

    def every(self, step: int, start: int) -> Factor:
        """Columns start, start + step, ..., as a matrix of its own."""
        columns = len(range(start, self.shape[1], step))
        return Factor((self.shape[0], columns), self.dtype, lambda: self.load()[:, start::step])

    @classmethod
    def of(cls, matrix: NDArray[Any]) -> Factor:
        """A matrix that is in memory already."""
        return cls((matrix.shape[0], matrix.shape[1]), str(matrix.dtype), lambda: matrix)


@dataclass(frozen=True)
class Scale:
    """The factor between ``B @ A`` and ``delta_W`` with where it comes from; a value of None is unknown."""

    value: float | None
    source: str
    alpha: float | None = None


@dataclass(frozen=True)
class LowRankUpdate:
    """``delta_W = scale * B @ A`` of one module.

    Attributes
    ----------
    module : dotted path of the adapted layer
    A_factor, B_factor : (r, d_in) and (d_out, r), read on access of `A` and `B`
    scale : its value may be None: phi does not need it, amplification does
    kind : "linear", "conv" or "embedding"
    rows : the rows of the layer's weight that the update covers (a group of a fused layer), None for all
    fan_in_fan_out : what the adapter's configuration says about the base layer, None if nothing
    flags : what a reader should know, e.g. ("dora",)
    """

    module: str
    A_factor: Factor
    B_factor: Factor
    scale: Scale
    kind: str = "linear"
    rows: tuple[int, int] | None = None
    fan_in_fan_out: bool | None = None
    flags: tuple[Flag, ...] = ()

    @property
    def A(self) -> NDArray[Any]:
        """(r, d_in), widened to float32 or float64."""
        return self.A_factor.load()

    @property
    def B(self) -> NDArray[Any]:
        """(d_out, r), widened to float32 or float64."""
        return self.B_factor.load()

    @property
    def r(self) -> int:
        """Declared rank: the number of rows of A."""
        return self.A_factor.shape[0]

    @property
    def d_in(self) -> int:
        """Columns of delta_W."""
        return self.A_factor.shape[1]

    @property
    def d_out(self) -> int:
        """Rows of delta_W."""
        return self.B_factor.shape[0]

    def delta_W(self) -> NDArray[np.float64]:
        """``scale * B @ A``, (d_out, d_in): for checks and small layers; nothing in the package forms it."""
        scale = known(self.scale, self.module)
        return scale * (self.B.astype(np.float64) @ self.A.astype(np.float64))

    def scaled(self, scale: Scale) -> LowRankUpdate:
        """The same update under another scale."""
        return replace(self, scale=scale)


@dataclass(frozen=True)
class DenseUpdate:
    """``delta_W`` of one module as a full matrix: a saved delta, or a fine-tuned weight minus its base."""

    module: str
    matrix: Factor
    scale: Scale = Scale(1.0, "tensor")
    kind: str = "linear"
    rows: tuple[int, int] | None = None
    fan_in_fan_out: bool | None = None
    flags: tuple[Flag, ...] = (Flag.DENSE,)

    @property
    def r(self) -> int:
        """Largest rank that the shape allows."""
        return min(self.matrix.shape)

    @property
    def d_in(self) -> int:
        """Columns of delta_W."""
        return self.matrix.shape[1]

    @property
    def d_out(self) -> int:
        """Rows of delta_W."""
        return self.matrix.shape[0]

    def delta_W(self) -> NDArray[np.float64]:
        """(d_out, d_in) in float64."""
        return known(self.scale, self.module) * self.matrix.load().astype(np.float64)

    def scaled(self, scale: Scale) -> DenseUpdate:
        """The same update under another scale."""
        return replace(self, scale=scale)


Update: TypeAlias = LowRankUpdate | DenseUpdate


def known(scale: Scale, module: str) -> float:
    """The value of a scale that must be known.

    Raises
    ------
    InconclusiveError : the file does not say it
    """
    if scale.value is None:
        raise InconclusiveError(
            f"the scale of delta_W must be known: {scale.source}, in module {shown(module)}; give it with --scale"
        )
    return scale.value
