"""How far two families of spans agree: frames, overlap, phi(i, j), angles and the test of shared directions, at once.

What spans a space is given as rows of a matrix, as one side of a product, or as one side of a dense matrix.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeAlias

import numpy as np

from subspace.geometry.frame import Frame, overlap, product_frames, row_frame
from subspace.geometry.frame_pairs import row_frames
from subspace.geometry.gram import EPS
from subspace.geometry.grassmann import phi_grid, principal_angles
from subspace.geometry.significance import shared_dimension_p

if TYPE_CHECKING:
    from subspace.geometry.lapack import Floats

__all__ = ["Agreement", "Dense", "Product", "Rows", "Spanning", "agreements", "frames_of"]


class Rows(NamedTuple):
    """The row space of a matrix (r, d); `resolution` is the relative unit of its stored values."""

    M: Any
    resolution: float = EPS


class Product(NamedTuple):
    """The left or the right singular vectors of ``B @ A``, which is never formed."""

    B: Any
    A: Any
    side: Literal["left", "right"]
    resolution: float = EPS


class Dense(NamedTuple):
    """The left or the right singular vectors of a matrix: at most `k`, those above its `noise`."""

    M: Any
    side: Literal["left", "right"]
    k: int | None = None
    resolution: float = EPS
    noise: float | None = None


Spanning: TypeAlias = Rows | Product | Dense


@dataclass(frozen=True, eq=False)
class Agreement:
    """Two frames and how far their spans agree, computed when it is asked for.

    Attributes
    ----------
    first, second : the frames, of i and j directions in R^d
    G : (i, j) inner products of the directions
    """

    first: Frame
    second: Frame
    G: Floats

    @cached_property
    def phi(self) -> Floats:
        """(i, j), ``phi[m - 1, n - 1]`` compares the leading m with the leading n directions; (0, 0) without any."""
        return phi_grid(self.G) if self.G.size else np.zeros((0, 0))

    @cached_property
    def theta(self) -> Floats:
        """(min(i, j),) principal angles in radians, ascending."""
        return principal_angles(self.first, self.second, G=self.G) if self.G.size else np.zeros(0)

    @cached_property
    def shared_p(self) -> Floats:
        """(min(i, j),) p-value of at least k + 1 shared directions against isotropic random spans, k = 0, 1, ..."""
        if not self.G.size:
            return np.zeros(0)
        return shared_dimension_p(self.theta, self.first.k, self.second.k, self.first.d)


def agreements(first: Mapping[str, Spanning], second: Mapping[str, Spanning]) -> dict[str, Agreement]:
    """How far the spans of two families agree, name by name.

    Raises
    ------
    ShapeError : two spans of one name lie in spaces of different dimensions
    ValueRangeError : an entry is not finite

    Examples
    --------
    >>> found = agreements({"a": Rows([[3.0, 0.0], [0.0, 1.0]])}, {"a": Rows([[0.0, 2.0]])})["a"]
    >>> found.phi, found.theta
    (array([[0.],
           [1.]]), array([0.]))
    """
    found: dict[str, tuple[Frame, Frame, Floats]] = {}
    for name, one in first.items():
        other = second[name]
        if isinstance(one, Rows) and isinstance(other, Rows):
            found[name] = row_frames(one.M, other.M, resolutions=(one.resolution, other.resolution))
    rest = [name for name in first if name not in found]
    ones, others = (frames_of({name: family[name] for name in rest}) for family in (first, second))
    found |= {name: (ones[name], others[name], overlap(ones[name], others[name])) for name in rest}
    return {name: Agreement(*found[name]) for name in first}


def frames_of(family: Mapping[str, Spanning]) -> dict[str, Frame]:
    """The frame of every span, by descending singular value; both sides of one product are factored together.

    Examples
    --------
    >>> frames_of({"a": Rows([[0.0, 3.0]])})["a"].S
    array([3.])
    """
    products: dict[tuple[int, int], tuple[Frame, Frame]] = {}
    frames: dict[str, Frame] = {}
    for name, spanning in family.items():
        if isinstance(spanning, Rows):
            frames[name] = row_frame(spanning.M, resolution=spanning.resolution)
        elif isinstance(spanning, Product):
            key = id(spanning.B), id(spanning.A)
            if key not in products:
                products[key] = product_frames(spanning.B, spanning.A, resolution=spanning.resolution)
            frames[name] = products[key][spanning.side == "right"]
        else:
            from subspace.geometry.dense_frames import dense_frame

            frames[name] = dense_frame(
                spanning.M,
                side=spanning.side,
                k=spanning.k,
                resolution=spanning.resolution,
                noise=spanning.noise,
            )
    return frames
