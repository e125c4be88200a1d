"""All pairs of the members of a collection: what is known of them, as arrays."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from subspace.analysis.collection import Member
    from subspace.geometry.lapack import Floats
    from subspace.geometry.stacked_spans import Side

__all__ = ["AllPairs", "By", "SidePairs"]

By: TypeAlias = Literal["total", "layer", "module"]


@dataclass(frozen=True, eq=False)
class SidePairs:
    """One side of all pairs; every array has the shape (groups, pairs), and NaN where a pair has no number.

    Attributes
    ----------
    modules : ndarray of int
        Modules where both members have a direction on this side: the means below are over these.
    phi_full : ndarray
        Mean overlap of the whole spans, in [0, 1].
    chance : ndarray
        Mean of phi_full for isotropic random spans of the same dimensions, ``max(k, k') / d``, exact.
    phi_control : ndarray
        Mean of phi_full over the matched controls: each module of one member with its control modules of the other,
        both ways. The control modules are those of the same input, or the same kind in a neighbouring layer.
    chordal : ndarray
        Root mean square over modules of ``||sin(theta)||_2``, theta the min(k, k') principal angles.
    projector : ndarray
        Root mean square over modules of ``||P - P'||_F``, a metric for unequal ranks too.
    geodesic : ndarray or None
        Root mean square over modules of ``||theta||_2``, radians; None unless it was asked for.
    phi : dict
        (i, j) -> mean phi(i, j) over the modules where the first member has i directions and the second j; with every
        (i, j) there is (j, i).
    phi_chance : dict
        (i, j) -> mean of phi(i, j) for isotropic random spans, ``max(i, j) / d``.
    """

    modules: NDArray[np.int32]
    phi_full: Floats
    chance: Floats
    phi_control: Floats
    chordal: Floats
    projector: Floats
    geodesic: Floats | None
    phi: dict[tuple[int, int], Floats]
    phi_chance: dict[tuple[int, int], Floats]


@dataclass(frozen=True, eq=False)
class AllPairs:
    """What `all_pairs` found; arrays over pairs have the shape (groups, pairs), and NaN where a pair has no number.

    Attributes
    ----------
    members : tuple of Member
        In the order of the collection; a member is known by its number here.
    by : {"total", "layer", "module"}
    groups : tuple of str
        What the rows of the arrays are: ("total",), or the numbers of the layers as text ("" for modules without one),
        or the names of the modules.
    group_of : dict
        Module -> number of its group.
    control_kinds : dict
        Module -> kind of its controls on the sides a and right, "same_input" or "layers"; a module without any is left
        out. On the sides b and left they are always of "layers".
    first, second : ndarray of int, shape (pairs,)
        Numbers of the two members, ``first < second``, ascending by `first` and then by `second`. Of all pairs that is
        SciPy's condensed order, as `scipy.cluster.hierarchy.linkage` takes it; of those with a new member it leaves out
        the others.
    modules : ndarray of int
        Modules that both members have: the pair is compared on these.
    sides : dict
        Side -> `SidePairs`.
    cosine, cosine_isotropic_sd : ndarray or None
        Signed cosine of the updates of all modules of the group together, in [-1, 1], scales included, and its standard
        deviation for isotropic random updates, whose mean is 0. Where no scale of an adapter is known they count as
        equal; where only some are, its cosines are NaN.
    z, z_largest : ndarray or None
        Agreement of the rows of A number by number, in standard deviations over random row assignments, and the largest
        that these ranks can give, as `row_alignment.combined` combines them over modules.
    z_r : ndarray of int or None
        Rows compared with rows, in all modules of the group.
    """

    members: tuple[Member, ...]
    by: By
    groups: tuple[str, ...]
    group_of: dict[str, int]
    control_kinds: dict[str, str]
    first: NDArray[np.int32]
    second: NDArray[np.int32]
    modules: NDArray[np.int32]
    sides: dict[Side, SidePairs]
    cosine: Floats | None
    cosine_isotropic_sd: Floats | None
    z: Floats | None
    z_largest: Floats | None
    z_r: NDArray[np.int64] | None

    def __len__(self) -> int:
        """Return the number of pairs."""
        return len(self.first)

    def square(self, values: NDArray[Any], *, diagonal: float = np.nan) -> Floats:
        """Values of the pairs as symmetric matrices, shape (..., N, N); NaN for pairs that were not asked for.

        Parameters
        ----------
        values : ndarray, shape (..., pairs)
            Such as ``cosine[0]``, or a whole array of all groups.
        diagonal : float
            Value of a member with itself.
        """
        n = len(self.members)
        found = np.full((*values.shape[:-1], n, n), np.nan)
        found[..., self.first, self.second] = values
        found[..., self.second, self.first] = values
        found[..., np.arange(n), np.arange(n)] = diagonal
        return found
