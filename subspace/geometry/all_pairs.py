"""Every pair of many updates of one module at once, by products of stacked rows in tiles: never a loop over pairs.

With U_m the orthonormal rows of member m, one product of the stacked rows holds every ``G = U_m @ U_n.T``. The sum of
squares of such a block is ``sum_k cos^2(theta_k)``, which phi and two distances are made of; weighted by the singular
values and times the block of the other side it is the inner product of the two updates.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from subspace.errors import ShapeError
from subspace.geometry import pair_blocks
from subspace.geometry.module_pairs import ModulePairs, ratio
from subspace.geometry.stacked_alignment import alignment_z

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from subspace.geometry.lapack import Floats
    from subspace.geometry.stacked_spans import Side, Spans, Stacked

__all__ = ["ModulePairs", "energies", "module_pairs", "phi_between", "phi_leading"]

_ROWS = 1024  # of a tile on each side: 4 MB of products in float32


def module_pairs(
    first: Stacked,
    second: Stacked | None = None,
    *,
    sides: Sequence[Side] = ("a", "b"),
    geodesic: Sequence[Side] = (),
    cosine: bool = True,
    z: bool = True,
) -> ModulePairs:
    """Overlap, distances, cosine and row alignment of all pairs of many updates of one module.

    Parameters
    ----------
    first : Stacked
        n members.
    second : Stacked, optional
        m members of the same module; without it the pairs are those of `first` with itself, which costs half.
    sides : sequence of {"a", "b", "left", "right"}
        Sides whose spans are compared.
    geodesic : sequence of sides
        Where the geodesic distance is wanted too: it takes the eigenvalues of a small matrix for each pair, several
        times the cost of all the rest.
    cosine : bool
        Whether the cosine of the updates is wanted, which takes both sides.
    z : bool
        Whether the alignment of the rows of A is wanted.

    Raises
    ------
    ShapeError
        If two updates have different dimensions.

    Notes
    -----
    The products of n members are ``n**2 r**2 d`` multiplications a side, in tiles of 1024 rows, in float32 unless the
    stack is of float64; beside the stacks and the (n, m) results memory is three tiles. Blocks are summed in float64.
    In float32 phi is within 1e-6 of the same in float64, the cosine within 2e-6, z within 1e-4; sines and angles below
    2e-3 are rounding (float64: 1e-13, 1e-13, 1e-12, and 1e-7). The order of all sums is fixed.

    Examples
    --------
    >>> from subspace.geometry.canonical import canonical
    >>> from subspace.geometry.stacked_spans import stacked
    >>> forms = [canonical([[1.0], [0.0]], [[1.0, 0.0]]), canonical([[-1.0], [0.0]], [[1.0, 1.0]])]
    >>> found = module_pairs(stacked(forms, precision="float64"))
    >>> found.phi_full("a").round(12)
    array([[1. , 0.5],
           [0.5, 1. ]])
    >>> found.cosine.round(6)
    array([[ 1.      , -0.707107],
           [-0.707107,  1.      ]])
    """
    other = first if second is None else second
    shape = len(first), len(other)
    names = dict.fromkeys([*sides, *geodesic])
    energy: dict[Side, Floats] = {side: np.zeros(shape) for side in names}
    angles: dict[Side, Floats] = {side: np.full(shape, np.nan) for side in geodesic}
    whole = np.zeros(shape) if cosine else None
    aligned = np.full(shape, np.nan) if z else None
    used: list[Side] = [*names, *(("left", "right") if cosine else ()), *(("a",) if z else ())]
    for tile in _tiles(first, other, used, same=second is None):
        for side in names:
            tile.put(energy[side], tile.energy(side))
        for side in geodesic:
            tile.put(angles[side], tile.geodesic(side))
        if whole is not None:
            tile.put(whole, tile.cosine())
        if aligned is not None:
            tile.put(aligned, tile.z())
    if whole is not None:
        whole = np.clip(np.where(np.multiply.outer(first.norms, other.norms) > 0, whole, np.nan), -1, 1)
    return ModulePairs(
        d={side: first.spans(side).d for side in names},
        k_first={side: first.spans(side).k for side in names},
        k_second={side: other.spans(side).k for side in names},
        energy=energy,
        geodesics=angles,
        norms_first=first.norms,
        norms_second=other.norms,
        r_first=first.r,
        r_second=other.r,
        cosine=whole,
        z=aligned,
    )


def phi_leading(first: Stacked, second: Stacked | None, side: Side, i: int, j: int) -> Floats:
    """phi(i, j) of all pairs, (n, m): the leading i directions of each first in the leading j of each second.

    Parameters
    ----------
    first, second : Stacked
        As for `module_pairs`.
    side : {"a", "b", "left", "right"}
    i, j : int
        At least 1. A member with fewer directions than are asked of it has NaN.

    Examples
    --------
    >>> from subspace.geometry.canonical import canonical
    >>> from subspace.geometry.stacked_spans import stacked
    >>> forms = [canonical(np.eye(2), np.diag(S)) for S in ([2.0, 1.0], [1.0, 2.0])]
    >>> phi_leading(stacked(forms), None, "a", 1, 1)
    array([[1., 0.],
           [0., 1.]])
    """
    one = first.leading(side, i)
    if second is None and i == j:
        return phi_between(one, None)
    return phi_between(one, (first if second is None else second).leading(side, j))


def phi_between(first: Spans, second: Spans | None = None) -> Floats:
    """Overlap phi of the whole spans of all pairs of two families, (n, m); NaN where one has no direction.

    The two may be of different modules, if these read or write spaces of one dimension.

    Raises
    ------
    ShapeError
        If the spans lie in spaces of different dimensions.
    """
    other = first if second is None else second
    return ratio(energies(first, second), np.minimum.outer(first.k, other.k))


def energies(first: Spans, second: Spans | None = None) -> Floats:
    """``sum_k cos^2(theta_k)`` of all pairs of spans, (n, m); of `first` with itself without a second.

    Raises
    ------
    ShapeError
        If the spans lie in spaces of different dimensions.
    """
    other = first if second is None else second
    if first.d != other.d:
        raise ShapeError(
            f"Spans of spaces of different dimensions: {first.d} and {other.d}; compare modules of the same shape"
        )
    found, same = np.zeros((len(first.k), len(other.k))), second is None
    rows, columns = (pair_blocks.pieces([spans.k], _ROWS) for spans in (first, other))
    for at in pair_blocks.tiles(rows, columns, same=same):
        one, two = first.part(at[0]), other.part(at[1])
        pair_blocks.put(found, at, pair_blocks.energy(one.X @ two.X.T, one, two), same=same)
    return found


@dataclass(frozen=True, eq=False)
class _Tile:
    """The products of some members with some others."""

    first: Stacked
    second: Stacked
    at: tuple[slice, slice]
    same: bool
    held: dict[tuple[int, int], tuple[Any, Spans, Spans]] = field(default_factory=dict)

    def put(self, whole: Floats, block: Floats) -> None:
        pair_blocks.put(whole, self.at, block, same=self.same)

    def product(self, side: Side) -> tuple[Any, Spans, Spans]:
        """The blocks G of a side and the spans that they are of; sides that are one share them."""
        one, two = self.first.spans(side), self.second.spans(side)
        key = id(one), id(two)
        if key not in self.held:
            one, two = one.part(self.at[0]), two.part(self.at[1])
            self.held[key] = one.X @ two.X.T, one, two  # a symmetric rank-k update where both are one
        return self.held[key]

    def energy(self, side: Side) -> Floats:
        return pair_blocks.energy(*self.product(side))

    def geodesic(self, side: Side) -> Floats:
        return pair_blocks.geodesic(*self.product(side))

    def cosine(self) -> Floats:
        left, one, two = self.product("left")
        weights = _shares(self.first, self.at[0]), _shares(self.second, self.at[1])
        return pair_blocks.inner(left, self.product("right")[0], (one, two), weights)

    def z(self) -> Floats:
        G = self.product("a")[0]
        return alignment_z(G, self.energy("a"), (self.first, self.at[0]), (self.second, self.at[1]))


def _tiles(first: Stacked, second: Stacked, sides: Sequence[Side], *, same: bool) -> Iterator[_Tile]:
    rows, columns = (
        pair_blocks.pieces([each.spans(side).k for side in sides], _ROWS) for each in (first, second)
    )
    for at in pair_blocks.tiles(rows, columns, same=same):
        yield _Tile(first, second, at, same)


def _shares(members: Stacked, part: slice) -> NDArray[Any]:
    starts = members.spans("right").starts
    begin, end, _ = part.indices(len(members))
    found: NDArray[Any] = members.shares[starts[begin] : starts[end]]
    return found
