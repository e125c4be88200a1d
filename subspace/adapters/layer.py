"""A module as it is written to a file: factors in memory, the type they are stored in, the layer's kernel."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from subspace.adapters.update import LowRankUpdate
from subspace.checkpoints.narrowing import WRITTEN, narrow
from subspace.checkpoints.tensor_bytes import StoredTensor
from subspace.checkpoints.widening import widen
from subspace.errors import FormatError, InconclusiveError
from subspace.text import shown

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Layer", "alpha_of", "layer_of"]


@dataclass(frozen=True, eq=False)
class Layer:
    """``delta_W = scale * B @ A`` of one module, to be written.

    Attributes
    ----------
    module : dotted path in the adapter that was read
    A, B : (r, d_in) and (d_out, r), float32 or float64
    scale : None where it is unknown
    kind : "linear", "conv" or "embedding"
    kernel : dimensions of A's tensor after the first: (d_in,), or (in, kh, kw) of a convolution; None where the file
        that was read does not say
    dtypes : the types that A and B are stored in
    of : the modules of the adapter that was read, several where groups of a fused layer were joined
    groups : number of groups that are stacked as loralib stacks them
    """

    module: str
    A: NDArray[Any]
    B: NDArray[Any]
    scale: float | None
    kind: str
    kernel: tuple[int, ...] | None
    dtypes: tuple[str, str]
    of: tuple[str, ...]
    groups: int = 1

    @property
    def r(self) -> int:
        """Rank of one group, as the format declares it."""
        return int(self.B.shape[1])

    @property
    def known_scale(self) -> float:
        """The scale, for a format that stores or applies one.

        Raises
        ------
        InconclusiveError : it is unknown
        FormatError : it is 0, which formats take for "not given"
        """
        if self.scale is None:
            raise InconclusiveError(
                f"The format to be written needs the scale of delta_W, which is unknown{_of(self.module)}; give "
                "`scale` (alpha / r)"
            )
        if self.scale == 0:
            raise FormatError(
                f"A scale of 0 cannot be written, since a reader takes it for a missing one{_of(self.module)}; give "
                "`scale` (alpha / r)"
            )
        return self.scale

    def as_dtype(self, dtype: str) -> Layer:
        """The same layer, stored in another type; "keep" changes 8-bit floats only, to float16, which is exact."""
        kept = tuple(own if own in WRITTEN else "float16" for own in self.dtypes)
        return replace(self, dtypes=(kept[0], kept[1]) if dtype == "keep" else (dtype, dtype))

    def rounded(self) -> Layer:
        """The layer with its numbers rounded to the type they are stored in, as they will be read back.

        Raises
        ------
        ValueRangeError : a number is not finite, or too large for its type
        """
        A, B = (_rounded(M, dtype) for M, dtype in zip((self.A, self.B), self.dtypes, strict=True))
        return replace(self, A=A, B=B)

    def folded(self) -> Layer:
        """The same layer with the scale multiplied into B, and 1 in its place."""
        scale = self.known_scale
        if scale == 1:
            return self
        with np.errstate(over="ignore", under="ignore", invalid="ignore"):
            return replace(self, B=self.B.astype(np.float64) * scale, scale=1.0)

    def positive(self) -> Layer:
        """The same layer with the sign of the scale in B, for a format whose alpha is positive."""
        return self if self.known_scale > 0 else replace(self, B=-self.B, scale=-self.known_scale)

    def tensors(self) -> tuple[StoredTensor, StoredTensor]:
        """A and B as they are stored: (r, in, kh, kw) and (out, r, 1, 1) for a convolution."""
        A, B = (
            StoredTensor(narrow(M, dtype), dtype)
            for M, dtype in zip((self.A, self.B), self.dtypes, strict=True)
        )
        if self.kernel is None or len(self.kernel) == 1:
            return A, B
        ones = (1,) * (len(self.kernel) - 1)
        shapes = (A.raw.shape[0], *self.kernel), (*B.raw.shape, *ones)
        return A._replace(raw=A.raw.reshape(shapes[0])), B._replace(raw=B.raw.reshape(shapes[1]))


def layer_of(update: LowRankUpdate) -> Layer:
    """The layer of an update, whose factors are read."""
    return Layer(
        module=update.module,
        A=update.A,
        B=update.B,
        scale=update.scale.value,
        kind=update.kind,
        kernel=_kernel(update),
        dtypes=(update.A_factor.dtype, update.B_factor.dtype),
        of=(update.module,),
    )


def _kernel(update: LowRankUpdate) -> tuple[int, ...] | None:
    if update.kind != "conv":
        return (update.d_in,)
    shape = update.A_factor.tensor_shape
    known = shape is not None and len(shape) > 2 and math.prod(shape[1:]) == update.d_in
    return shape[1:] if shape is not None and known else None


def _rounded(M: NDArray[Any], dtype: str) -> NDArray[Any]:
    return widen(narrow(M, dtype), dtype)


def alpha_of(scale: float, r: int, *, rslora: bool = False) -> float:
    """The alpha for which ``alpha / r`` (or ``alpha / sqrt(r)``) is the scale, to the last bit where there is one.

    Examples
    --------
    >>> alpha_of(16 / 3, 3), alpha_of(2.0, 16, rslora=True)
    (16.0, 8.0)
    """
    divisor = math.sqrt(r) if rslora else r
    alpha = scale * divisor
    near = (float(round(alpha)), alpha, math.nextafter(alpha, math.inf), math.nextafter(alpha, -math.inf))
    return next((tried for tried in near if tried / divisor == scale), alpha)


def _of(module: str) -> str:
    return f", in module {shown(module)}" if module else ""
