"""What one adapted module learned: ``delta_W``, as two factors or as one matrix, read on access.

Shapes, whatever the layout of the file: ``A`` (r, d_in), ``B`` (d_out, r), ``delta_W = scale * B @ A`` (d_out, d_in)
as in ``nn.Linear`` (``h = W x``). A convolution is the matrix (out, in * kernel); an embedding maps one-hot tokens, so
its d_in is the size of the vocabulary.
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
_SMALLEST_STEP = {
    "float16": 2.0**-24,
    "float8_e4m3fn": 2.0**-9,
    "float8_e5m2": 2.0**-16,
    "float8_e4m3fnuz": 2.0**-10,
    "float8_e5m2fnuz": 2.0**-17,
}
NEEDS_BASE = "needs the base"  # source of the scale of an update that only the base weight defines


def _unwarned(read: Callable[..., NDArray[Any]]) -> Callable[..., NDArray[Any]]:
    """The same function without a warning of what it computes from numbers that are not finite, or too large."""

    def quiet(*rows: int) -> NDArray[Any]:
        with np.errstate(over="ignore", under="ignore", invalid="ignore"):
            return read(*rows)

    return quiet


@dataclass(frozen=True)
class Factor:
    """A matrix whose shape is known and whose numbers are read on access.

    Attributes
    ----------
    shape : of the matrix
    dtype : name of the type that its numbers were stored in, such as "bfloat16"
    load : reads the matrix, in float32 or float64
    part : reads rows start to stop, where they can be read alone
    stored : the matrix whose numbers were rounded to `dtype`, where it is another: a difference carries the rounding
        of the two matrices that it was taken of
    tensor_shape : of the tensor in the file, where it is known: a convolution has four dimensions there
    numbers : how many stored numbers the matrix is computed from in float64, where it is not itself stored
    """

    shape: tuple[int, int]
    dtype: str
    load: Callable[[], NDArray[Any]]
    part: Callable[[int, int], NDArray[Any]] | None = None
    stored: Callable[[], NDArray[Any]] | None = None
    tensor_shape: tuple[int, ...] | None = None
    numbers: int | None = None

    def __post_init__(self) -> None:
        # a product with NaN or Inf is a number that is not finite: it is found, and named, where the numbers are used
        object.__setattr__(self, "load", _unwarned(self.load))

    @property
    def resolution(self) -> float:
        """Relative spacing of numbers of `dtype`, 2**-23 for float32."""
        return _RESOLUTION.get(self.dtype, 2.0**-23)

    @property
    def smallest_step(self) -> float:
        """Spacing of the smallest numbers of `dtype`, where those are not far below any weight; else 0."""
        return _SMALLEST_STEP.get(self.dtype, 0.0)

    @property
    def T(self) -> Factor:
        """The transposed matrix."""
        stored = self.stored
        turned = None if stored is None else lambda: stored().T
        shape = self.shape[1], self.shape[0]
        return Factor(shape, self.dtype, lambda: self.load().T, stored=turned, numbers=self.numbers)

    def rows(self, start: int, stop: int) -> Factor:
        """Rows start to stop, as a matrix of its own."""
        shape = stop - start, self.shape[1]
        return Factor(shape, self.dtype, lambda: self._rows(start, stop), numbers=self.numbers)

    def _rows(self, start: int, stop: int) -> NDArray[Any]:
        if self.part is None:
            return self.load()[start:stop]
        return _unwarned(self.part)(start, stop)

    def is_zero(self) -> bool:
        """Whether every number is exactly zero."""
        # the first row alone is enough for a factor that was trained
        return not self._rows(0, 1).any() and not self.load().any()

    def every(self, step: int, start: int) -> Factor:
        """Columns start, start + step, ..., as a matrix of its own."""
        columns = len(range(start, self.shape[1], step))
        return Factor(
            (self.shape[0], columns), self.dtype, lambda: self.load()[:, start::step], numbers=self.numbers
        )

    @classmethod
    def of(cls, matrix: NDArray[Any]) -> Factor:
        """A matrix in memory as a factor."""
        return cls((matrix.shape[0], matrix.shape[1]), str(matrix.dtype), lambda: matrix)


@dataclass(frozen=True)
class Scale:
    """The multiplier of ``B @ A`` in ``delta_W``.

    Attributes
    ----------
    value : float or None
        The multiplier, alpha / r as a rule; None where it is unknown.
    source : str
        Where it comes from: "config alpha/r", "tensor", "given by the user", "unknown", ...
    alpha : float, optional
        The alpha that the file holds, where it holds one.
    r : int, optional
        The rank that alpha is divided by, where it is not that of A and B: of the trained factors of LoHa and LoKr.
    """

    value: float | None
    source: str
    alpha: float | None = None
    r: int | None = None


@dataclass(frozen=True)
class LowRankUpdate:
    """What one module learned, as two factors: ``delta_W = scale * B @ A``.

    Attributes
    ----------
    module : str
        Dotted path of the adapted layer; a group of a fused layer or an expert has its name in brackets, "qkv[q]".
    A_factor, B_factor : Factor
        A (r, d_in) and B (d_out, r), whose numbers are read on access of `A` and `B`.
    scale : Scale
        The multiplier; its value is None where it is unknown, which subspaces do not need and norms do.
    kind : str
        Kind of the layer: "linear" (default), "conv" or "embedding".
    rows : tuple of int, optional
        Rows (start, stop) of the layer's weight that the update covers, for a group of a fused layer; None for all.
    fan_in_fan_out : bool, optional
        Whether the adapter's configuration says that the base stores its weight (d_in, d_out); None if nothing.
    flags : tuple of Flag
        What to know before reading a number of the module.
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
        """``scale * B @ A`` (d_out, d_in) in float64; for checks and small layers, as nothing else forms it.

        Raises
        ------
        InconclusiveError : the scale is unknown
        """
        scale = known(self.scale, self.module)
        return scale * (self.B.astype(np.float64) @ self.A.astype(np.float64))

    def scaled(self, scale: Scale) -> LowRankUpdate:
        """The same update under another scale."""
        return replace(self, scale=scale)


@dataclass(frozen=True)
class DenseUpdate:
    """What one module learned, as a full matrix: a saved delta, or a fine-tuned weight minus that of its base.

    Attributes
    ----------
    module : str
        Dotted path of the layer.
    matrix : Factor
        The matrix (d_out, d_in), whose numbers are read or computed on access.
    scale : Scale
        Multiplier of the matrix, 1 by default.
    kind, rows, fan_in_fan_out, flags
        As in `LowRankUpdate`.
    """

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
        """The matrix times its scale (d_out, d_in), in float64.

        Raises
        ------
        InconclusiveError : the scale is unknown, or the matrix is defined by base weights that were not given
        """
        # read first: where the base is missing, that is what to say
        with np.errstate(
            over="ignore", invalid="ignore"
        ):  # refused by the finite check, which names the module
            return self.matrix.load().astype(np.float64) * known(self.scale, self.module)

    def scaled(self, scale: Scale) -> DenseUpdate:
        """The same update under another scale."""
        return replace(self, scale=scale)


Update: TypeAlias = LowRankUpdate | DenseUpdate


def known(scale: Scale, module: str) -> float:
    """The value of a scale.

    Raises
    ------
    InconclusiveError : it is unknown
    """
    if scale.source == NEEDS_BASE:
        raise InconclusiveError(
            f"No base weights: delta_W needs the base weight, in module {shown(module)}; give the weights of the base "
            "model as `base`"
        )
    if scale.value is None:
        raise InconclusiveError(
            f"The scale of delta_W is unknown, in module {shown(module)}; give `scale` (alpha / r)"
        )
    return scale.value
