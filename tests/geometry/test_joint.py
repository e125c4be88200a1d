"""Several updates of one module: everything from products of their directions is what dense matrices give."""

import numpy as np
import pytest

from subspace.errors import ShapeError, ValueRangeError
from subspace.geometry.canonical import canonical
from subspace.geometry.interference import _haar_products, interference, random_interference
from subspace.geometry.joint import cosines, crossed_overlaps, energy_ratio, energy_ratio_sd, joint
from subspace.geometry.second_moment import SecondMoment

D_OUT, D_IN = 14, 18
WEIGHTS = (1.0, -0.5, 2.0)


def updates(ranks=(2, 3, 1), seed=0):
    rng = np.random.default_rng(seed)
    shared = rng.standard_normal((D_OUT, 1))
    return [(rng.standard_normal((D_OUT, r)) + shared, rng.standard_normal((r, D_IN)) + 0.5) for r in ranks]


def dense(pairs, weights=WEIGHTS):
    return [w * B @ A for w, (B, A) in zip(weights, pairs, strict=True)]


def haar(rng, d, k):
    Q, R = np.linalg.qr(rng.standard_normal((d, k)))
    return Q * np.sign(np.diag(R))  # without the signs the first entries of Q have one sign


def together(pairs, weights=WEIGHTS):
    return joint([canonical(B, A) for B, A in pairs], weights)


def test_inner_products_cosines_and_the_energy_of_the_sum_are_the_dense_ones():
    pairs = updates()
    found, matrices = together(pairs), dense(pairs)
    G = np.array([[np.vdot(X, Y) for Y in matrices] for X in matrices])
    np.testing.assert_allclose(found.inner() * found.size**2, G, rtol=1e-10)
    norms = np.sqrt(np.diag(G))
    np.testing.assert_allclose(cosines(found.inner()), G / np.outer(norms, norms), atol=1e-12)
    expected = np.linalg.norm(sum(matrices)) ** 2 / np.sum(norms**2)
    assert energy_ratio(found.inner()) == pytest.approx(expected)


def test_outputs_on_inputs_are_those_of_the_inputs_themselves():
    pairs = updates()
    found, matrices = together(pairs), dense(pairs)
    X = np.random.default_rng(5).standard_normal((D_IN, 300)) * np.arange(1, D_IN + 1)[:, None]
    C = X @ X.T / X.shape[1]
    values, vectors = np.linalg.eigh(C)
    moment = SecondMoment(300, X.mean(axis=1), values[::-1], vectors[:, ::-1], float(np.trace(C)))
    G = np.array([[np.mean(np.sum((M @ X) * (N @ X), axis=0)) for N in matrices] for M in matrices])
    np.testing.assert_allclose(found.inner_of_outputs(moment) * found.size**2, G, rtol=1e-9)


def test_the_chance_level_of_outputs_is_what_random_left_directions_give():
    rng = np.random.default_rng(0)
    (B, A), (_, A_), _ = updates()
    C = np.diag(np.arange(1.0, D_IN + 1))
    moment = SecondMoment(
        9, np.zeros(D_IN), np.diag(C)[::-1].copy(), np.eye(D_IN)[:, ::-1], float(np.trace(C))
    )
    products = []
    for _ in range(1500):
        Q = haar(rng, D_OUT, 3)
        products.append(np.trace(B @ A @ C @ (Q @ A_).T))
    found = joint([canonical(B, A), canonical(Q, A_)], [1.0, 1.0])
    sd = np.sqrt(found.variance_of_outputs(moment)[0, 1]) * found.size**2
    assert np.std(products) == pytest.approx(sd, rel=0.08)


def test_overlaps_are_those_of_dense_projectors_on_both_sides_and_across_modules():
    pairs, others = updates(), updates(seed=3)
    found, other = together(pairs), together(others)
    for side in ("left", "right"):

        def projectors(matrices, side=side):
            for M in matrices:
                U, S, Vh = np.linalg.svd(M, full_matrices=False)
                k = int(np.sum(1e-10 * S[0] < S))
                rows = U[:, :k].T if side == "left" else Vh[:k]
                yield rows.T @ rows, k

        own, across = list(projectors(dense(pairs))), list(projectors(dense(others)))
        phi = [[np.trace(X @ Y) / min(k, m) for Y, m in own] for X, k in own]
        np.testing.assert_allclose(found.overlaps(side), phi, atol=1e-10)
        phi = [[np.trace(X @ Y) / min(k, m) for Y, m in across] for X, k in own]
        np.testing.assert_allclose(crossed_overlaps(found, other, side), phi, atol=1e-10)


def test_no_number_moves_with_the_basis_of_the_factors_or_their_order():
    pairs, rng = updates(), np.random.default_rng(7)
    turned = []
    for B, A in pairs:
        M = rng.standard_normal((len(A), len(A))) + 3 * np.eye(len(A))
        turned.append((B @ np.linalg.inv(M), M @ A))
    one, other = together(pairs), together(turned)
    np.testing.assert_allclose(one.inner(), other.inner(), atol=1e-10)
    assert interference(one) == pytest.approx(interference(other))
    swapped = together(pairs[::-1], WEIGHTS[::-1])
    assert interference(swapped) == pytest.approx(interference(one))
    np.testing.assert_allclose(swapped.inner()[::-1, ::-1] * swapped.size**2, one.inner() * one.size**2)


def test_interference_is_its_formula_with_dense_singular_vectors_for_both_norms():
    pairs = updates()
    U, S, V = [], [], []
    for M, (_, A) in zip(dense(pairs), pairs, strict=True):
        left, values, right = np.linalg.svd(M)
        U.append(left[:, : len(A)])
        S.append(values[: len(A)])
        V.append(right[: len(A)].T)
    U, S, V = np.hstack(U), np.concatenate(S), np.hstack(V)
    M = (U.T @ U - np.eye(6)) @ np.diag(S) @ (V.T @ V - np.eye(6))
    assert interference(together(pairs)) == pytest.approx(np.abs(M).sum())
    assert interference(together(pairs), norm="columns") == pytest.approx(np.linalg.norm(M, 1))
    with pytest.raises(ValueRangeError, match="Unknown norm 'nuclear': `norm` is one of entries, columns"):
        interference(together(pairs), norm="nuclear")


def test_updates_without_a_common_direction_do_not_interfere():
    first, second = canonical(np.eye(6)[:, :2], np.eye(2, 8)), canonical(np.eye(6)[:, 2:4], np.eye(2, 8))
    assert interference(joint([first, second], [1.0, 1.0])) == 0.0
    assert energy_ratio(joint([first, second], [1.0, 1.0]).inner()) == 1.0


def test_the_random_level_is_that_of_frames_drawn_at_full_length():
    pairs = updates()
    found = together(pairs)
    rng = np.random.default_rng(0)
    values = []
    for _ in range(400):
        frames = [np.hstack([haar(rng, d, int(k)) for k in found.ranks]) for d in (D_OUT, D_IN)]
        eye = np.eye(6)
        P, Q = (frame.T @ frame - eye for frame in frames)
        values.append(np.abs((P * found.s * found.size) @ Q).sum())
    drawn = random_interference(found)
    assert drawn.mean == pytest.approx(np.mean(values), rel=0.03)
    assert drawn.sd == pytest.approx(np.std(values), rel=0.2)


@pytest.mark.parametrize("ranks", [(2, 3), (4, 4, 4, 4), (1, 0, 2)])
def test_products_of_random_frames_are_those_of_orthonormal_vectors(ranks):
    d = 9
    P = _haar_products(ranks, d, 3, np.random.default_rng(1))[-1]
    start = 0
    for k in ranks:
        np.testing.assert_allclose(P[start : start + k, start : start + k], np.eye(k), atol=1e-12)
        start += k
    values = np.linalg.eigvalsh(P)
    assert values.min() > -1e-10 and np.sum(values > 1e-10) == min(sum(ranks), d)


def test_the_spread_of_the_energy_ratio_is_that_of_random_updates():
    rng = np.random.default_rng(0)
    S = [np.array([3.0, 1.0]), np.array([2.0])]
    ratios = []
    for _ in range(1500):
        M = sum(haar(rng, 10, len(s)) @ np.diag(s) @ haar(rng, 12, len(s)).T for s in S)
        ratios.append(np.linalg.norm(M) ** 2 / 14.0)
    assert np.std(ratios) == pytest.approx(energy_ratio_sd(np.diag([10.0, 4.0]), (10, 12)), rel=0.08)


def test_zero_updates_and_huge_ones_have_numbers_where_they_exist():
    zero, one = canonical(np.zeros((4, 2)), np.eye(2, 5)), canonical(1e200 * np.eye(4, 1), np.eye(1, 5))
    found = joint([zero, one], [1.0, 1e100])
    assert np.isnan(cosines(found.inner())[0, 1]) and np.isnan(found.overlaps("left")[0, 1])
    assert found.size == pytest.approx(1e300) and energy_ratio(found.inner()) == 1.0
    assert np.isnan(energy_ratio(joint([zero, zero], [1.0, 1.0]).inner()))


def test_updates_of_different_shapes_are_refused():
    with pytest.raises(ShapeError, match="Updates that cannot be added"):
        joint([canonical(np.eye(4, 1), np.eye(1, 5)), canonical(np.eye(3, 1), np.eye(1, 5))], [1.0, 1.0])
