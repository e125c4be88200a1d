"""The one door: finite first, descending, a second driver where the first gives up."""

import numpy as np
import oracles
import pytest

from subspace.errors import ShapeError, ValueRangeError
from subspace.geometry import lapack

CALLS = [
    lapack.svd,
    lapack.singular_values,
    lapack.eigh,
    lapack.eigvalsh,
    lapack.qr,
    lapack.cholesky,
    lapack.inverse,
]


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("bad", [np.inf, -np.inf, np.nan])
def test_not_finite_is_refused_before_lapack_can_hang(call, bad):
    M = np.eye(4)
    M[2, 1] = bad
    with pytest.raises(ValueRangeError, match=r"Not a finite number: .* at \(2, 1\)"):
        call(M)


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("M", [np.zeros(3), np.eye(2, dtype=complex), np.array([["a", "b"]]), np.eye(2) > 0])
def test_what_is_no_real_matrix_is_refused(call, M):
    with pytest.raises(ShapeError, match=r"Not a matrix: .*\(3,\)|Not real numbers: .*dtype"):
        call(M)


def test_svd_reconstructs_and_descends():
    M = np.random.default_rng(0).standard_normal((3, 5, 4))
    U, S, Vh = lapack.svd(M)
    np.testing.assert_allclose(U * S[:, None, :] @ Vh, M, atol=1e-14)
    assert (np.diff(S) <= 0).all()
    np.testing.assert_allclose(lapack.singular_values(M), S, rtol=1e-13)


def test_eigenvalues_descend_in_a_batch():
    X = np.random.default_rng(0).standard_normal((2, 4, 9))
    K = X @ X.mT if hasattr(X, "mT") else X @ np.swapaxes(X, 1, 2)
    values, vectors = lapack.eigh(K)
    np.testing.assert_allclose(vectors * values[:, None, :] @ np.swapaxes(vectors, 1, 2), K, atol=1e-12)
    np.testing.assert_allclose(lapack.eigvalsh(K), values, rtol=1e-12)
    assert (np.diff(values) <= 0).all()


def test_the_slow_driver_takes_over_where_the_fast_one_gives_up(monkeypatch):
    def gives_up(*args, **kwargs):
        raise np.linalg.LinAlgError("SVD did not converge")

    M = np.random.default_rng(0).standard_normal((2, 4, 3))
    expected = np.array([oracles.product_svd(one, np.eye(3))[1] for one in M])
    monkeypatch.setattr(np.linalg, "svd", gives_up)
    np.testing.assert_allclose(lapack.singular_values(M), expected, rtol=1e-13)
    U, S, Vh = lapack.svd(M[0])
    np.testing.assert_allclose(U * S @ Vh, M[0], atol=1e-14)


def test_no_driver_converging_is_one_line(monkeypatch):
    import scipy.linalg

    def gives_up(*args, **kwargs):
        raise np.linalg.LinAlgError("did not converge")

    monkeypatch.setattr(np.linalg, "svd", gives_up)
    monkeypatch.setattr(np.linalg, "eigh", gives_up)
    monkeypatch.setattr(np.linalg, "eigvalsh", gives_up)
    monkeypatch.setattr(scipy.linalg, "svd", gives_up)
    for call in (lapack.svd, lapack.singular_values, lapack.eigh, lapack.eigvalsh):
        with pytest.raises(ValueRangeError, match="did not converge"):
            call(np.eye(2))


def test_singular_triangles_are_named():
    with pytest.raises(ValueRangeError, match="Singular matrix"):
        lapack.inverse(np.zeros((2, 2)))
