"""Independent definitions, dense and slow on purpose; nothing here imports the package."""

import math

import numpy as np
import scipy.linalg
import scipy.special


def right_vectors(M, tol=1e-13):
    """Right singular vectors as columns, by LAPACK's other driver, cut at a relative tolerance."""
    _, S, Vh = scipy.linalg.svd(np.asarray(M, dtype=np.float64), full_matrices=False, lapack_driver="gesvd")
    return Vh[tol * max(S[0], 1e-300) < S].T


def phi(A, A_other):
    """phi(i, j) of two matrices by its definition, one norm for every i and j."""
    U, V = right_vectors(A), right_vectors(A_other)
    grid = np.empty((U.shape[1], V.shape[1]))
    for i in range(1, U.shape[1] + 1):
        for j in range(1, V.shape[1] + 1):
            grid[i - 1, j - 1] = np.linalg.norm(U[:, :i].T @ V[:, :j]) ** 2 / min(i, j)
    return grid


def angles(U, V):
    """Principal angles between two column spaces, radians, ascending."""
    return np.sort(scipy.linalg.subspace_angles(U, V))


def product_svd(B, A):
    """Dense SVD of the product."""
    return scipy.linalg.svd(
        np.asarray(B, dtype=np.float64) @ np.asarray(A, dtype=np.float64),
        full_matrices=False,
        lapack_driver="gesvd",
    )


def haar(d, k, rng):
    """k orthonormal columns in R^d, Haar distributed (QR with the signs of R made positive)."""
    Q, R = np.linalg.qr(rng.standard_normal((d, k)))
    return Q * np.sign(np.diag(R))


def planted(theta, d, rng=None, i=None, j=None):
    """Column spaces in R^d with the given principal angles; with an `rng`, mixed and rotated at random."""
    theta = np.asarray(theta)
    p = len(theta)
    i, j = i or p, j or p
    U, V = np.eye(d)[:, :i], np.zeros((d, j))
    V[np.arange(p), np.arange(p)] = np.cos(theta)
    V[i + j - p + np.arange(p), np.arange(p)] = np.sin(theta)
    for extra in range(p, j):
        V[i + extra - p, extra] = 1
    if rng is None:
        return U, V
    Q = haar(d, d, rng)
    return Q @ U @ haar(i, i, rng), Q @ V @ haar(j, j, rng)


def with_condition(r, d, kappa, rng):
    """An (r, d) matrix with singular values from 1 to 1 / kappa, evenly spaced in their logarithm."""
    return (haar(r, r, rng) * np.logspace(0, -math.log10(kappa), r)) @ haar(d, r, rng).T


def distance_table(theta):
    """Ye & Lim 2016, table 2, as printed."""
    theta = np.asarray(theta, dtype=np.float64)
    product = math.prod(math.cos(t) for t in theta)
    return {
        "geodesic": math.sqrt(sum(t**2 for t in theta)),
        "chordal": math.sqrt(sum(math.sin(t) ** 2 for t in theta)),
        "projection": math.sin(max(theta)),
        "asimov": max(theta),
        "binet_cauchy": math.sqrt(1 - product**2),
        "fubini_study": math.acos(product),
        "martin": math.sqrt(math.log(1 / product**2)),
        "procrustes": 2 * math.sqrt(sum(math.sin(t / 2) ** 2 for t in theta)),
        "spectral": 2 * math.sin(max(theta) / 2),
    }


def beta_tail(x, a, b):
    """Upper regularised incomplete Beta."""
    if hasattr(scipy.special, "betaincc"):  # since SciPy 1.12
        return scipy.special.betaincc(a, b, x)
    from scipy import stats

    return stats.beta.sf(x, a, b)


def beta_quantile(q, a, b):
    """Quantile of a Beta variable."""
    return scipy.special.betaincinv(a, b, q)


def lora_side(B, A, side):
    """Directions of one side of an update as columns: of A or B by themselves, or of their product formed in full."""
    if side == "a":
        return right_vectors(A)
    if side == "b":
        return right_vectors(np.asarray(B).T)
    U, S, Vh = product_svd(B, A)
    k = int(np.count_nonzero(1e-12 * S[0] < S))
    return U[:, :k] if side == "left" else Vh[:k].T


def phi_of_frames(U, V):
    """phi(i, j) by its definition for two sets of orthonormal columns."""
    return np.array(
        [
            [np.linalg.norm(U[:, :i].T @ V[:, :j]) ** 2 / min(i, j) for j in range(1, V.shape[1] + 1)]
            for i in range(1, U.shape[1] + 1)
        ]
    )


def table_7(W, delta_W, r):
    """Norms and projections of the paper's table 7, from full singular value decompositions."""
    U, _, Vh = scipy.linalg.svd(delta_W, full_matrices=False, lapack_driver="gesvd")
    own_U, _, own_Vh = scipy.linalg.svd(W, full_matrices=False, lapack_driver="gesvd")
    mine = np.linalg.norm(U[:, :r].T @ W @ Vh[:r].T)
    return {
        "norm_W": np.linalg.norm(W),
        "norm_delta_W": np.linalg.norm(delta_W),
        "proj_delta_W": mine,
        "proj_W": np.linalg.norm(own_U[:, :r].T @ W @ own_Vh[:r].T),
        "proj_random": r * np.linalg.norm(W) / math.sqrt(W.size),
        "amplification": np.linalg.norm(delta_W) / mine,
    }


def largest_root_tail(sin2, i, j, d, digits):
    """Probability that the largest squared cosine of two Haar spans exceeds 1 - sin2, in so many digits.

    Chiani 2016, J. Multivariate Anal. 143:467: the square root of a determinant of incomplete Beta functions.
    """
    import mpmath

    p, q = min(i, j), max(i, j)
    with mpmath.workdps(digits):
        m, n = mpmath.mpf(q - p - 1) / 2, mpmath.mpf(d - q - p - 1) / 2
        return float(
            1 - _jacobi_pfaffian(mpmath.mpf(sin2), p, m, n) / _jacobi_pfaffian(mpmath.mpf(0), p, m, n)
        )


def _jacobi_pfaffian(sin2, p, m, n):
    import mpmath

    x = 1 - sin2

    def betas(a, b, count):
        """Incomplete Beta functions at a, a + 1, ..."""
        found = [mpmath.betainc(a, b, 0, x) if sin2 else mpmath.beta(a, b)]
        for k in range(count - 1):
            found.append(((a + k) * found[-1] - x ** (a + k) * sin2**b) / (a + k + b))
        return found

    single, double = betas(m + 1, n + 1, p + 1), betas(2 * m + 2, 2 * n + 2, 2 * p + 1)
    A = mpmath.matrix(p + p % 2)
    for k in range(p):
        nested = single[k] ** 2 / 2
        for col in range(k + 1, p):
            nested = ((m + col) * nested - double[k + col - 1]) / (m + n + col + 1)
            A[k, col] = 2 * nested - single[k] * single[col]
            A[col, k] = -A[k, col]
        if p % 2:
            A[k, p], A[p, k] = single[k], -single[k]
    return mpmath.sqrt(abs(mpmath.det(A)))
