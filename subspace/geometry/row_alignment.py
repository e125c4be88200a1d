"""Did two A matrices begin at one random start? Whether row k of one still resembles row k of the other.

Row k of A is parameter k's. Under a shared start row k of both A's agrees, in part, for as long as learning has not
overwritten it; learning from different starts has no reason to align the row numbers, whatever it learns. So the row
numbers of the second A are permuted at random, and the agreement is measured in standard deviations of that.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from subspace.errors import ShapeError
from subspace.geometry import lapack

if TYPE_CHECKING:
    from collections.abc import Iterable

    from subspace.geometry.lapack import Floats

__all__ = [
    "Alignment",
    "combined",
    "common_bound",
    "row_alignment",
    "row_alignment_of",
    "start_verdict",
    "whitened_alignment",
]

_CUT = 1e-10  # eigenvalues of a Gram matrix below this share of the largest are rounding
_NOTHING = 1e-20  # sum of squares of a matrix of cosines that is rounding
_COMMON, _DIFFERENT, _ENOUGH = 5.0, 2.0, 7.0


class Alignment(NamedTuple):
    """Agreement of the rows of two A matrices, number by number.

    Attributes
    ----------
    z : float
        In standard deviations over random row assignments, in [-largest, largest]: mean 0, variance 1 for different
        starts. NaN where there is nothing to permute or nothing to compare: r = 1 in both, a zero matrix, orthogonal
        row spaces.
    largest : float
        The greatest z that these ranks can give; ``r - 1`` for equal ranks, reached by equal starts that stay put.
    r : int
        Rows compared with rows: the smaller rank, or its sum over the modules that were combined.
    """

    z: float
    largest: float
    r: int


def row_alignment(A_first: Any, A_second: Any) -> Alignment:
    """Agreement of row k of one A with row k of the other, in standard deviations over random row assignments.

    Parameters
    ----------
    A_first, A_second : array_like, shapes (r, d) and (r', d)
        Of unequal ranks, the r rows of the smaller are compared with the first r of the larger: one generator fills
        those first, and the default bound of the uniform start depends on `d` alone.

    Returns
    -------
    Alignment

    Raises
    ------
    ShapeError
        If they are not matrices with the same number of columns.
    ValueRangeError
        If an entry is not finite.

    Notes
    -----
    The rows are orthonormalised symmetrically first (Löwdin: ``(A A.T)^(-1/2) A``, the orthonormal rows nearest to
    those of A), so that each direction of the row space has the same weight: a strong common direction of the inputs,
    which dominates plain cosines of rows, is then one of r. With C the (r, r') products of those rows,
    ``z = (tr C - E tr) / sd``. For equal ranks ``E tr = r mean(C)`` and ``sd**2 = sum(D**2) / (r - 1)``, D being C
    doubly centred, both exact; of unequal ranks C has zero rows appended, which turns permutations into injections.
    The greatest z is ``sqrt(min(r, r' - 1) * (r' - 1))``, by the inequality of Cauchy and Schwarz.

    Simulated: a shared start, each A moved by 35, 104, 173 % of its norm by an update of rank 3 or r in the span of its
    inputs (r = 8, d = 64 to 4096). The mean of z is at least 6.8, 6.0, 5.1 for isotropic, k^-1 and k^-2 inputs and
    mean directions with up to 70 % of their energy; moved by 400 %, 2.7 to 5.4. With plain cosines it falls to 2.5 at
    173 %; with their leading principal pair taken out to 2.1; with the leading direction of the stacked rows taken out
    to 4.0 (r = 8), or to 23 of 63 (r = 64, where this z is above 59). Taking the leading pair out of the
    orthonormalised rows as well only costs: 0.5 at r = 8, and most of z at r = 2.
    Different starts give mean 0 and variance 1 exactly, since all numberings of the rows are then equally likely under
    any optimiser that treats rows alike; see `start_verdict` for the tails.

    References
    ----------
    Löwdin 1950, J. Chem. Phys. 18:365. Hoeffding 1951, Ann. Math. Statist. 22:558, for the moments.

    Examples
    --------
    >>> row_alignment(np.eye(4, 9), 2 * np.eye(4, 9))
    Alignment(z=3.0, largest=3.0, r=4)
    """
    first, second = lapack.as_float64(A_first, name="A"), lapack.as_float64(A_second, name="A")
    if first.ndim != 2 or second.ndim != 2 or first.shape[1] != second.shape[1]:
        raise ShapeError(
            f"Two A matrices of different input dimensions: shapes {first.shape} and {second.shape}; "
            "compare modules of the same shape"
        )
    first, second = _scaled(first), _scaled(second)
    return row_alignment_of(first @ first.T, first @ second.T, second @ second.T)


def _scaled(A: Floats) -> Floats:
    """`A` with its largest entry near 1, so that no square leaves the range of float64."""
    lapack.refuse(A, name="A")
    return np.ldexp(A, -int(np.frexp(np.abs(A).max(initial=0.0))[1]))


def row_alignment_of(K11: Any, K12: Any, K22: Any) -> Alignment:
    """`row_alignment` of two matrices from the products of their rows alone, in O(r'^3).

    Parameters
    ----------
    K11 : array_like, shape (r, r)
        ``A_first @ A_first.T``.
    K12 : array_like, shape (r, r')
        ``A_first @ A_second.T``.
    K22 : array_like, shape (r', r')
        ``A_second @ A_second.T``.

    Raises
    ------
    ShapeError
        If the shapes do not fit together.
    ValueRangeError
        If an entry is not finite.

    Notes
    -----
    Directions whose singular value is below 1e-5 of the largest are left out. A caller that has the singular vectors
    of both, ``A = P S Vh``, needs no decomposition: `whitened_alignment` of ``P @ Vh @ Vh'.T @ P'.T``.

    Examples
    --------
    >>> row_alignment_of(np.eye(3), np.eye(3), np.eye(3)).z
    2.0
    """
    K11, K12, K22 = (lapack.as_float64(K, name="a block of products") for K in (K11, K12, K22))
    r, r_other = len(K11), len(K22)
    if (K11.shape, K12.shape, K22.shape) != ((r, r), (r, r_other), (r_other, r_other)):
        raise ShapeError(
            f"Products of rows that do not fit together: shapes {K11.shape}, {K12.shape}, {K22.shape}; "
            "give (r, r), (r, r') and (r', r')"
        )
    lapack.refuse(K12, name="a block of products")
    return whitened_alignment(_root_inverse(K11) @ K12 @ _root_inverse(K22))


def _root_inverse(K: Floats) -> Floats:
    values, P = lapack.eigh(K)
    kept = values > _CUT * max(float(values[0]), 0.0)
    P = P[:, kept]
    return (P / np.sqrt(values[kept])) @ P.T


def whitened_alignment(C: Any) -> Alignment:
    """`row_alignment` from the products of the orthonormalised rows.

    Parameters
    ----------
    C : array_like, shape (r, r')

    Examples
    --------
    >>> whitened_alignment([[0.0, 0.5], [0.5, 0.0]])
    Alignment(z=-1.0, largest=1.0, r=2)
    """
    C = lapack.as_float64(C, name="the matrix of products")
    C = C if C.shape[0] <= C.shape[1] else C.T
    r, most = C.shape
    largest = math.sqrt(min(r, most - 1) * (most - 1))
    padded = np.zeros((most, most))
    padded[:r] = C
    D = padded - padded.mean(axis=0) - padded.mean(axis=1)[:, None] + padded.mean()
    squares = float(np.sum(D**2))
    if most == 1 or squares < _NOTHING:
        return Alignment(math.nan, largest, r)
    return Alignment(float(np.trace(D)) / math.sqrt(squares / (most - 1)), largest, r)


def combined(alignments: Iterable[Alignment]) -> Alignment:
    """Alignment over several modules: the sum of z over the square root of how many can be tested, `largest` likewise.

    Parameters
    ----------
    alignments : iterable of Alignment
        Of modules that have an A of their own; an A that several modules share counts once.

    Returns
    -------
    Alignment
        z NaN, and `largest` and `r` zero, where no module can be tested.

    Notes
    -----
    Under different starts still of mean 0 and variance 1. A start that only some modules share is diluted: one of
    unequal ranks usually agrees in the first module alone, since the first random numbers that differ in count put
    the generators out of step.

    Examples
    --------
    >>> combined([Alignment(3.0, 3.0, 4)] * 4 + [Alignment(math.nan, 0.0, 1)])
    Alignment(z=6.0, largest=6.0, r=16)
    """
    tested = [one for one in alignments if not math.isnan(one.z)]
    if not tested:
        return Alignment(math.nan, 0.0, 0)
    z, largest, r = (sum(values) for values in zip(*tested, strict=True))
    return Alignment(z / math.sqrt(len(tested)), largest / math.sqrt(len(tested)), int(r))


def common_bound(largest: float, r: int) -> float:
    """The z from which `start_verdict` says "common", of an `Alignment` with these fields.

    Examples
    --------
    >>> common_bound(7.0, 8), common_bound(63.0, 8)
    (5.0, 31.5)
    """
    return max(_COMMON, largest * math.sqrt(2 / r))


def start_verdict(alignment: Alignment) -> Literal["common", "different", "cannot_tell"]:
    """Whether two A's, of a module or of files (`combined`), began at one random start.

    Parameters
    ----------
    alignment : Alignment

    Returns
    -------
    str
        "common": z is at least 5 and at least ``largest * sqrt(2 / r)``. "different": z is below 2 although ranks and
        modules are enough to show a start, `largest` being 7 or more: different starts, or one that learning has
        overwritten. "cannot_tell": all else, such as one module of r = 4.

    Notes
    -----
    The second bound, ``sqrt(2 (r' - 1))`` for a module, is what two accidents give: if all that two adapters have in
    common sits in one row of each, then those rows have the same number once in r', and z is ``sqrt(r' - 1)``.

    Simulated for r = 2 to 64, d = 8 to 4096 and inputs as in `row_alignment`: of 16 000 pairs of modules with different
    starts none was called common, and of those large enough 98 % different, as were 97 % of files of 12 modules, which
    is the 2.3 % beyond z = 2. Of modules with a start in common and moved by 35 to 173 % none was called different; at
    r = 8 and more at least 94 % were called common, and all files of 12 at r = 4 and more (d >= 64). Two rows give a
    sign: 25 modules of r = 2 can tell, if all agree, and 12 cannot. ``|z| > 1.96`` in 5 % of different starts.

    Examples
    --------
    >>> start_verdict(Alignment(6.5, 7.0, 8)), start_verdict(Alignment(-0.4, 7.0, 8))
    ('common', 'different')
    >>> start_verdict(Alignment(3.0, 3.0, 4))
    'cannot_tell'
    """
    z, largest, r = alignment
    if math.isnan(z):
        return "cannot_tell"
    if z >= common_bound(largest, r):
        return "common"
    return "different" if z < _DIFFERENT and largest >= _ENOUGH else "cannot_tell"
