"""Many adapters of one base, module by module in canonical form, from wherever they are kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from subspace.geometry.canonical import Canonical

__all__ = ["Collection", "Member"]


@dataclass(frozen=True)
class Member:
    """One adapter of a collection.

    Attributes
    ----------
    path : of the file, as it is shown
    sha256 : of the file of weights in hexadecimal; None for tensors in memory
    step : optimiser step that a checkpoint was saved at, where its folder or its configuration says so
    """

    path: str
    sha256: str | None = None
    step: int | None = None


class Collection(Protocol):
    """N adapters whose modules have one name each, whatever their files call them.

    Another process can unpickle it: it opens the files again.
    """

    @property
    def members(self) -> Sequence[Member]:
        """The adapters; a member is known by its number, from 0."""

    @property
    def modules(self) -> Sequence[str]:
        """The modules that any member has, in natural order."""

    def holders(self, module: str) -> Sequence[int]:
        """Return the numbers of the members that have a module, ascending."""

    def scales(self, module: str) -> NDArray[np.float64]:
        """Return the scale of the module in each of its holders; NaN where it is unknown."""

    def forms(self, module: str, numbers: Sequence[int]) -> list[Canonical]:
        """Return the canonical form of a module in some of its holders, read when it is asked for."""
