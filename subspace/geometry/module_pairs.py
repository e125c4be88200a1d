"""All pairs of many updates of one module: what was measured, and the overlap and distances that follow from it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from subspace.geometry.stacked_alignment import largest_z

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from subspace.geometry.lapack import Floats
    from subspace.geometry.stacked_spans import Side

__all__ = ["ModulePairs", "ratio"]


@dataclass(frozen=True, eq=False)
class ModulePairs:
    """All pairs of n and m updates of one module; row of the first, column of the second.

    Attributes
    ----------
    d : dict
        Dimension of the space of each side.
    k_first, k_second : dict
        Dimension of the span of every member on each side, shapes (n,) and (m,).
    energy : dict
        ``sum_k cos^2(theta_k)`` of the principal angles on each side, (n, m), in [0, min(k, k')].
    geodesics : dict
        ``||theta||_2`` of each side that it was asked for, (n, m); see `module_pairs`.
    cosine : ndarray, shape (n, m), or None
        Signed cosine of ``B @ A`` and ``B' @ A'``, scales left out; NaN where one of them is zero.
    norms_first, norms_second : ndarray, shapes (n,) and (m,)
        Frobenius norms of all ``B @ A``, scales left out: cosine times two of them is the inner product.
    z : ndarray, shape (n, m), or None
        `row_alignment` of all A's, in standard deviations.
    r_first, r_second : ndarray of int, shapes (n,) and (m,)
        Rows of every A.
    """

    d: dict[Side, int]
    k_first: dict[Side, NDArray[np.intp]]
    k_second: dict[Side, NDArray[np.intp]]
    energy: dict[Side, Floats]
    geodesics: dict[Side, Floats]
    norms_first: Floats
    norms_second: Floats
    r_first: NDArray[np.intp]
    r_second: NDArray[np.intp]
    cosine: Floats | None = None
    z: Floats | None = None

    @property
    def z_largest(self) -> Floats:
        """The largest z that the ranks of two A's can give, (n, m)."""
        return largest_z(self.r_first, self.r_second)

    @property
    def z_r(self) -> NDArray[np.intp]:
        """Rows compared with rows: the smaller rank, (n, m)."""
        found: NDArray[np.intp] = np.minimum.outer(self.r_first, self.r_second)
        return found

    def phi_full(self, side: Side) -> Floats:
        """Overlap phi of the whole spans, (n, m), in [0, 1]; NaN where one of them has no direction."""
        return ratio(self.energy[side], self._least(side))

    def chance(self, side: Side) -> Floats:
        """Mean of phi_full over isotropic random spans of these dimensions, ``max(k, k') / d``, exact."""
        most = np.maximum.outer(self.k_first[side], self.k_second[side]) / self.d[side]
        return np.where(self._least(side) > 0, most, np.nan)

    def chordal(self, side: Side) -> Floats:
        """``||sin(theta)||_2`` of the min(k, k') principal angles: 0 where one span contains the other."""
        p = self._least(side)
        return np.where(p > 0, np.sqrt(np.maximum(p - self.energy[side], 0.0)), np.nan)

    def projector(self, side: Side) -> Floats:
        """``||P - P'||_F`` of the orthogonal projectors, a metric between spans of any dimensions.

        It is ``sqrt(k + k' - 2 sum cos^2)`` (Basri, Hassner & Zelnik-Manor 2009): ``sqrt(2)`` times the chordal
        distance where k = k'.
        """
        square = np.add.outer(self.k_first[side], self.k_second[side]) - 2 * self.energy[side]
        return np.where(self._least(side) > 0, np.sqrt(np.maximum(square, 0.0)), np.nan)

    def geodesic(self, side: Side) -> Floats:
        """``||theta||_2`` of the min(k, k') principal angles, radians; NaN where one span has no direction."""
        return self.geodesics[side]

    def _least(self, side: Side) -> NDArray[np.intp]:
        found: NDArray[np.intp] = np.minimum.outer(self.k_first[side], self.k_second[side])
        return found


def ratio(energy: Floats, p: NDArray[np.intp]) -> Floats:
    """Share of p, at most 1; NaN where p is 0."""
    return np.where(p > 0, np.minimum(energy / np.maximum(p, 1), 1.0), np.nan)
