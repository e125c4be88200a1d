"""How many intruder dimensions each of several updates of one weight makes, W's decomposition computed once."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np

from subspace.geometry import lapack
from subspace.geometry.largest_cosine import among_all
from subspace.geometry.merged_frame import framed

if TYPE_CHECKING:
    from subspace.geometry.lapack import Floats

__all__ = ["intruder_counts"]


def intruder_counts(
    W: Any, updates: Iterable[tuple[Floats, Floats]], *, k: int, epsilon: float, side: str
) -> list[int]:
    """Number of the k leading singular vectors of ``W + B A`` whose |cos| with every one of W's is below `epsilon`.

    Parameters
    ----------
    W : array_like, shape (m, n)
        Not zero, with squares in the range of float64.
    updates : iterable of (B, A)
        Shapes (m, r) and (r, n), the scales multiplied in; r may differ.
    side : {"left", "right"}

    Notes
    -----
    The same numbers as `intruders.exact_intrusion` of each, at one SVD of W for all of them.

    References
    ----------
    Shuttleworth et al., arXiv 2410.21228, definition 3.1.

    Examples
    --------
    >>> W, b = np.diag([2.0, 1.0, 1.5, 1.2]), np.full((4, 1), 0.5)
    >>> intruder_counts(W, [(0 * b, b.T), (9 * b, b.T)], k=1, epsilon=0.7, side="left")
    [0, 1]
    """
    U, S, Vh = lapack.svd(W)
    counts = []
    for B, A in updates:
        lapack.refuse(B, name="B")
        lapack.refuse(A, name="A")
        merged = framed(U, S, Vh.T, B, A).merged(1.0, k)
        coordinates = (merged.U if side == "left" else merged.V)[: len(S)]
        counts.append(int(np.count_nonzero(among_all(coordinates, S).most < epsilon)))
    return counts
