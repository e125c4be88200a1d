"""Factors of matrices that are built from smaller ones: Kronecker and element-wise products, Tucker convolutions.

Each is exactly a product ``P @ Q``, whose factors are computed on access, in float64, so that a matrix is not formed
where its factors are smaller:

- ``kron(P1 Q1, P2 Q2) = kron(P1, P2) kron(Q1, Q2)``, of rank k1 k2;
- ``(P1 Q1) * (P2 Q2) = B A`` with the row-wise Khatri-Rao product ``B`` of P1 and P2 and the column-wise one ``A`` of
  Q1 and Q2, of rank at most k1 k2.

References
----------
Horn & Johnson, Topics in Matrix Analysis (1991), lemma 4.2.10 (Kronecker) and section 5.1 (element-wise products).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from subspace.adapters.update import DenseUpdate, Factor, LowRankUpdate, Scale, Update
from subspace.flags import Flag
from subspace.text import counted

__all__ = ["Built", "Product", "dense_note", "hadamard", "kronecker", "tucker", "update", "whole"]


class Product(NamedTuple):
    """A matrix ``P @ Q``: P (n, k) and Q (k, m)."""

    P: Factor
    Q: Factor


class Built(NamedTuple):
    """A matrix as a product of factors, and as a function that forms it."""

    factors: Product
    load: Callable[[], NDArray[Any]]


def whole(M: Factor) -> Product:
    """A full matrix (n, m) as a product with the identity on its smaller side.

    Examples
    --------
    >>> P, Q = whole(Factor.of(np.ones((2, 3))))
    >>> P.shape, Q.shape
    ((2, 2), (2, 3))
    """
    n, m = M.shape
    k = min(n, m)
    unit = Factor((k, k), M.dtype, lambda: np.eye(k, dtype=np.float32), numbers=0)
    return Product(unit, M) if n <= m else Product(M, unit)


def kronecker(first: Product, second: Product) -> Built:
    """``kron(first, second)``.

    Examples
    --------
    >>> ones = Product(Factor.of(np.ones((2, 1))), Factor.of(np.ones((1, 2))))
    >>> built = kronecker(ones, whole(Factor.of(np.array([[1.0, 2.0]]))))
    >>> built.factors.P.load() @ built.factors.Q.load()
    array([[1., 2., 1., 2.],
           [1., 2., 1., 2.]])
    """
    dtype, numbers = _coarsest(first, second), _numbers(*first, *second)
    (n1, k1), (n2, k2) = first.P.shape, second.P.shape
    m1, m2 = first.Q.shape[1], second.Q.shape[1]
    return Built(
        Product(
            Factor((n1 * n2, k1 * k2), dtype, lambda: np.kron(*_wide(first.P, second.P)), numbers=numbers),
            Factor((k1 * k2, m1 * m2), dtype, lambda: np.kron(*_wide(first.Q, second.Q)), numbers=numbers),
        ),
        lambda: np.kron(_product(first), _product(second)),
    )


def hadamard(first: Product, second: Product) -> Built:
    """The element-wise product of two matrices (n, m).

    Examples
    --------
    >>> twos = Product(Factor.of(np.full((2, 1), 2.0)), Factor.of(np.ones((1, 2))))
    >>> built = hadamard(twos, Product(Factor.of(np.eye(2)), Factor.of(np.eye(2))))
    >>> built.factors.P.load() @ built.factors.Q.load()
    array([[2., 0.],
           [0., 2.]])
    """
    dtype, numbers = _coarsest(first, second), _numbers(*first, *second)
    (n, k1), k2, m = first.P.shape, second.P.shape[1], first.Q.shape[1]

    def rows() -> NDArray[Any]:
        one, other = _wide(first.P, second.P)
        return (one[:, :, None] * other[:, None, :]).reshape(n, k1 * k2)

    def columns() -> NDArray[Any]:
        one, other = _wide(first.Q, second.Q)
        return (one[:, None, :] * other[None, :, :]).reshape(k1 * k2, m)

    return Built(
        Product(
            Factor((n, k1 * k2), dtype, rows, numbers=numbers),
            Factor((k1 * k2, m), dtype, columns, numbers=numbers),
        ),
        lambda: _product(first) * _product(second),
    )


def tucker(core: Factor, rows: Factor, r: int) -> Factor:
    """A convolution's core (r, r, kernel) applied to `rows` (r, d): a matrix (r, d * kernel).

    `core` is flattened to (r, r * kernel), and its second index is contracted.

    References
    ----------
    KohakuBlueleaf/LyCORIS 4.1, lycoris/functional/general.py: ``rebuild_tucker``.
    """
    n, kernel = core.shape[0], core.shape[1] // r

    def load() -> NDArray[Any]:
        wide, outer = _wide(core, rows)
        product: NDArray[Any] = np.einsum("mnk,nj->mjk", wide.reshape(n, r, kernel), outer)
        return product.reshape(n, -1)

    dtype = max(core, rows, key=_resolution).dtype
    return Factor((n, rows.shape[1] * kernel), dtype, load, numbers=_numbers(core, rows))


def update(
    module: str, built: Built, scale: Scale, *, kind: str = "linear", flags: Sequence[Flag] = ()
) -> Update:
    """The update of a module: low-rank with the flag "composed" where factors are smaller, else dense."""
    P, Q = built.factors
    shape = P.shape[0], Q.shape[1]
    if P.shape[1] * sum(shape) < shape[0] * shape[1]:
        return LowRankUpdate(module, Q, P, scale, kind=kind, flags=(Flag.COMPOSED, *flags))
    matrix = Factor(shape, P.dtype, built.load, numbers=P.numbers)
    return DenseUpdate(module, matrix, scale, kind=kind, flags=(Flag.DENSE, *flags))


def dense_note(updates: Sequence[Update]) -> tuple[str, ...]:
    """The note that updates are formed as matrices, with the size of the largest; nothing where none is.

    Examples
    --------
    >>> dense_note([DenseUpdate("q", Factor.of(np.ones((1000, 500))))])
    ('A dense delta_W is formed in 1 of 1 module, at most 1000 x 500 (4 MB)',)
    """
    dense = [u for u in updates if isinstance(u, DenseUpdate)]
    if not dense:
        return ()
    largest = max(dense, key=lambda u: u.d_out * u.d_in)
    return (
        f"A dense delta_W is formed in {len(dense)} of {counted(len(updates), 'module')}, at most "
        f"{largest.d_out} x {largest.d_in} ({largest.d_out * largest.d_in * 8 / 1e6:.3g} MB)",
    )


def _product(product: Product) -> NDArray[Any]:
    P, Q = _wide(*product)
    # what is not finite is found where the numbers are used
    with np.errstate(invalid="ignore", over="ignore"):
        return np.asarray(P @ Q)


def _wide(*factors: Factor) -> tuple[NDArray[np.float64], ...]:
    """The matrices in float64, in which a product has the rank that it has."""
    return tuple(factor.load().astype(np.float64) for factor in factors)


def _numbers(*factors: Factor) -> int:
    """How many stored numbers factors are computed from."""
    return sum(f.shape[0] * f.shape[1] if f.numbers is None else f.numbers for f in factors)


def _coarsest(first: Product, second: Product) -> str:
    """The type of the four factors whose numbers lie furthest apart."""
    return max((*first, *second), key=_resolution).dtype


def _resolution(factor: Factor) -> float:
    return factor.resolution
