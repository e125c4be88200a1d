"""What a method of merging is: several updates of one module in, the two factors of one update out.

A module in `subspace.geometry.mergers` declares one object ``METHOD`` and is found by being there.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from subspace.geometry import factored
from subspace.geometry.frobenius import frobenius
from subspace.geometry.spectrum import energy_rank

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from subspace.geometry.lapack import Floats

__all__ = ["Dense", "Factors", "Merged", "Merger", "Part", "Settings", "cut", "factors_of", "kept", "stacked"]


@dataclass(frozen=True, eq=False)
class Part:
    """One update that is merged, ``delta_W = scale * B @ A``, and its weight in the merge.

    Attributes
    ----------
    B : ndarray, shape (d_out, r)
    A : ndarray, shape (r, d_in)
    scale, weight : finite, of either sign
    number : of the adapter that it is of, from 0
    """

    B: Floats
    A: Floats
    scale: float = 1.0
    weight: float = 1.0
    number: int = 0

    @property
    def r(self) -> int:
        """Number of rows of A."""
        return int(self.A.shape[0])


@dataclass(frozen=True)
class Settings:
    """What a user may choose of a method; each method says which of these it heeds, and None is its default.

    Attributes
    ----------
    rank : largest rank of the merged factors
    energy : least share of the squared norm that they keep, in (0, 1]
    density : share of the entries that stay, in (0, 1]
    sign_method : "total" elects a sign by the sum of the entries, "frequency" by their number
    entries : "updates" for the entries of every delta_W, "factors" for those of every A and B
    inner : what merges the aligned blocks of KnOTS, "ties" or "sum"
    seed : of the random masks
    """

    rank: int | None = None
    energy: float | None = None
    density: float | None = None
    sign_method: str = "total"
    entries: str = "updates"
    inner: str = "ties"
    seed: int = 0


Factors: TypeAlias = "tuple[Floats, Floats]"  # B (d_out, k) and A (k, d_in), whose product is meant
Dense: TypeAlias = "NDArray[np.float32]"


@dataclass(frozen=True, eq=False)
class Merged:
    """A merged update ``B @ A``, and what it stands for.

    Attributes
    ----------
    B : ndarray, shape (d_out, k)
    A : ndarray, shape (k, d_in)
        k is 0 where the updates cancel.
    target : Factors or ndarray, shape (d_out, d_in)
        What the method gives before it is cut to a rank: the errors of the factors are taken from it.
    rest : Factors or None
        What was cut off of a target in factors, ``target - B @ A``; None for nothing.
    """

    B: Floats
    A: Floats
    target: Factors | Dense
    rest: Factors | None = None


@dataclass(frozen=True)
class Merger:
    """One method of merging.

    Attributes
    ----------
    name : as the user asks for it
    about : one line, for the help
    target : what the merged factors stand for, and so what their error is taken from, as a phrase
    merge : updates of one module, and settings -> the merged update; raises `SubspaceError`
    settings : names of the `Settings` that it heeds
    density : the density where none is given, None for a method without one
    linear : whether the target is the weighted sum of the updates
    invariant : whether the result is the same for ``(B G^-1, G A)`` as for ``(B, A)``, but for ``entries="factors"``
    """

    name: str
    about: str
    target: str
    merge: Callable[[Sequence[Part], Settings], Merged]
    settings: tuple[str, ...] = ()
    density: float | None = None
    linear: bool = False
    invariant: bool = True

    def merged(self, parts: Sequence[Part], settings: Settings) -> Merged:
        """Merge the updates of one module, by this method's own density where none is given."""
        given = settings if settings.density is not None else replace(settings, density=self.density)
        return self.merge(parts, given)


def stacked(parts: Sequence[Part], *, weighted: bool = True) -> Factors:
    """B (d_out, R) and A (R, d_in) of the sum of all updates, R the sum of their ranks; exact.

    Parameters
    ----------
    weighted : whether each counts with its weight

    Notes
    -----
    B and A of a part get the same norm, so that a part is not lost in the rounding of another whose factors are
    unequal.

    Examples
    --------
    >>> B, A = stacked([Part(np.eye(2, 1), np.ones((1, 2)), 2.0), Part(np.eye(2, 1), np.ones((1, 2)), 1.0, -1.0)])
    >>> B.shape, (B @ A).round(12)
    ((2, 2), array([[1., 1.],
           [0., 0.]]))
    """
    pairs = [_balanced(each, each.scale * (each.weight if weighted else 1.0)) for each in parts]
    return np.hstack([B for B, _ in pairs]), np.vstack([A for _, A in pairs])


def _balanced(part: Part, multiplier: float) -> Factors:
    norm_B, norm_A = frobenius(part.B), frobenius(part.A)
    size = math.sqrt(abs(multiplier))
    if not (norm_B and norm_A and size):
        return part.B * 0.0, part.A
    root_B, root_A = math.sqrt(norm_B), math.sqrt(norm_A)
    return part.B * (math.copysign(size, multiplier) / root_B * root_A), part.A * (size / root_A * root_B)


def kept(S: Floats, rank: int | None, energy: float | None) -> int:
    """How many of some descending singular values stay: at most `rank`, and no more than `energy` needs."""
    k = len(S) if rank is None else min(rank, len(S))
    return k if energy is None or not len(S) else min(k, int(energy_rank(S, energy)))


def factors_of(U: Floats, S: Floats, Vh: Floats) -> Factors:
    """B and A of equal size whose product is ``U @ diag(S) @ Vh``."""
    root = np.sqrt(S)
    return U * root, root[:, None] * Vh


def cut(target: Factors, rank: int | None, energy: float | None = None) -> Merged:
    """The best approximation of a product of a rank, or its own numerical rank, from a core of at most r x r.

    References
    ----------
    Eckart & Young 1936, Psychometrika 1:211.
    """
    U, S, Vh = factored.svd(*target)
    k = kept(S, rank, energy)
    rest = (U[:, k:] * S[k:], Vh[k:]) if k < len(S) else None
    return Merged(*factors_of(U[:, :k], S[:k], Vh[:k]), target, rest)
