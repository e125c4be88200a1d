"""Pairs of modules of another job, measured as the compared modules are, and their means."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from subspace.geometry import lapack
from subspace.geometry.frame import overlap
from subspace.geometry.grassmann import phi_grid
from subspace.results.nulls import Control

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from subspace.geometry.frame import Frame
    from subspace.geometry.lapack import Floats

__all__ = ["Crossed", "averaged", "crossed"]


class Crossed(NamedTuple):
    """One module of the first adapter and one of the second whose jobs differ.

    Attributes
    ----------
    phi : (i, j) grid, in float32: it is averaged over few pairs and drawn
    cos2 : (min(i, j),) squared principal cosines, descending
    d : dimension of the space
    """

    phi: NDArray[np.float32]
    cos2: Floats
    d: int


def crossed(first: Frame, second: Frame) -> Crossed:
    """Measure a pair of modules.

    Examples
    --------
    >>> from subspace.geometry.frame import row_frame
    >>> crossed(row_frame([[3.0, 0.0], [0.0, 1.0]]), row_frame([[0.0, 2.0]]))
    Crossed(phi=array([[0.],
           [1.]], dtype=float32), cos2=array([1.]), d=2)
    """
    G = overlap(first, second)
    small = G @ G.T if G.shape[0] <= G.shape[1] else G.T @ G
    cos2 = np.clip(lapack.eigvalsh(small), 0.0, 1.0)
    return Crossed(phi_grid(G).astype(np.float32), np.sort(cos2)[::-1], first.d)


def averaged(
    kind: str,
    pairs: Sequence[Crossed],
    shared: Sequence[int | None],
    *,
    leading: tuple[int, float] | None = None,
) -> Control:
    """The control that some pairs make.

    Parameters
    ----------
    shared : shared dimension of each pair, None where nothing could be tested
    leading : number and mean phi(1, 1) of more pairs than these, where it is known of more
    """
    tested = [n for n in shared if n is not None]
    n, phi_11 = leading or (len(pairs), fmean(float(pair.phi[0, 0]) for pair in pairs))
    return Control(
        kind=kind,
        pairs=n,
        phi_11=phi_11,
        phi_full=fmean(float(pair.phi[-1, -1]) for pair in pairs),
        shared_dim=fmean(tested) if tested else None,
    )
