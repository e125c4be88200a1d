"""The leading singular values of one base weight."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from subspace.flags import Flag
    from subspace.geometry.lapack import Floats

__all__ = ["BaseSpectrum"]


@dataclass(frozen=True, eq=False)
class BaseSpectrum:
    """Norm and leading singular values of one W; no norm where a number is not finite.

    Attributes
    ----------
    module : name of the module
    key : name of the weight in its file
    S : (k,) descending
    norm : Frobenius norm
    flags : what to know of the weight
    """

    module: str
    key: str
    S: Floats
    norm: float | None
    flags: tuple[Flag, ...] = ()
