"""What the inputs explain of an overlap: against brute force, in the isotropic case, and by simulated sizes."""

from __future__ import annotations

import sys
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from second_moments import covariance, moment

from subspace.geometry.agreement import Rows, agreements
from subspace.geometry.frame import overlap, row_frame
from subspace.geometry.input_chance import _corners, input_chance, leverage_overlap, sign_flip_p
from subspace.geometry.output_agreement import dense_output_agreement, output_agreement, output_size
from subspace.geometry.significance import shared_dimension_p


def _frames(d, i, j, seed=0):
    rng = np.random.default_rng(seed)
    return row_frame(rng.standard_normal((i, d))), row_frame(rng.standard_normal((j, d)))


def _flipped(C, first, second):
    """Overlaps after every choice of signs in the eigenbasis of C."""
    Q = np.linalg.eigh(C)[1]
    U, V = Q.T @ first.vectors(), Q.T @ second.vectors()
    return [U.T @ (np.array(signs)[:, None] * V) for signs in product((-1.0, 1.0), repeat=len(C))]


def test_leverage_is_the_mean_over_all_signs():
    C = covariance(8)
    first, second = _frames(8, 2, 3)
    every = _flipped(C, first, second)
    found = input_chance(first, second, moment(C, 8))
    assert found.phi_full == pytest.approx(np.mean([np.sum(G**2) for G in every]) / 2)
    assert found.phi_11 == pytest.approx(np.mean([G[0, 0] ** 2 for G in every]))


def test_flat_leverage_gives_the_isotropic_mean():
    flat = np.full((1, 16), 0.25)
    whole = moment(np.diag(np.arange(16.0, 0, -1)), 16)
    one = whole.coordinates(flat)
    assert leverage_overlap(one, one, 0) == pytest.approx(1 / 16)
    # all that lies outside the eigenpairs is flat: a direction there overlaps others as isotropic ones do
    part = moment(np.diag(np.arange(16.0, 0, -1)), 4)
    outside = part.coordinates(np.eye(16)[[10]])
    assert leverage_overlap(outside, outside, 12) == pytest.approx(1 / 12)


def test_signs_are_compared_with_all_signs():
    C = covariance(8)
    first, second = _frames(8, 2, 3, seed=1)
    G = overlap(first, second)
    largest = [np.linalg.svd(each)[1][0] for each in _flipped(C, first, second)]
    exact = np.mean(np.array(largest) >= np.linalg.svd(G)[1][0] - 1e-9)
    one, other = (moment(C, 8).coordinates(frame.vectors().T) for frame in (first, second))
    found = sign_flip_p(one, other, 0, G=G, draws=20_000)
    assert found == pytest.approx(exact, abs=4 * np.sqrt(exact / 20_000))
    assert sign_flip_p(one, other, 0, G=G, seed=1) == sign_flip_p(one, other, 0, G=G, seed=1)
    # the least is that of no signs that are as near
    assert sign_flip_p(one, other, 0, G=G * 1e3, draws=199) == 1 / 200


def test_corners_are_those_of_random_rotations():
    rng = np.random.default_rng(0)
    found = _corners(20_000, 2, 3, 9, rng)
    rotations = np.linalg.qr(rng.standard_normal((20_000, 9, 3)))[0][:, :2]
    for statistic in (lambda Z: np.sum(Z**2, axis=(1, 2)), lambda Z: np.linalg.svd(Z)[1][:, 0]):
        mine, theirs = statistic(found), statistic(rotations)
        assert mine.mean() == pytest.approx(theirs.mean(), abs=0.01)
        assert mine.std() == pytest.approx(theirs.std(), abs=0.01)


def test_with_isotropic_inputs_the_tests_are_the_isotropic_ones():
    first, second = _frames(24, 3, 4)
    found = input_chance(first, second, moment(np.eye(24), 24))
    theta = agreements({"a": Rows(first.vectors().T)}, {"a": Rows(second.vectors().T)})["a"].theta
    np.testing.assert_allclose(found.shared_p, shared_dimension_p(theta, 3, 4, 24), rtol=1e-9)
    # where nothing is stored but the trace, signs are random rotations of all of the space
    p = [
        input_chance(*_frames(24, 3, 4, seed), moment(np.eye(24), 1), seed=seed).signs_p for seed in range(60)
    ]
    assert 0.35 < np.mean(p) < 0.65 and np.mean(np.array(p) <= 0.1) < 0.25


def test_whitening_is_of_the_coordinates():
    """Rows that are drawn from known energies: the angles after whitening do not depend on the inputs' basis."""
    rng = np.random.default_rng(5)
    C = covariance(32, 2)
    Q = np.linalg.eigh(C)[1]
    A, A_ = rng.standard_normal((3, 32)), rng.standard_normal((3, 32))
    found = input_chance(row_frame(A @ Q.T), row_frame(A_ @ Q.T), moment(C, 32))
    turned = np.diag(np.linalg.eigvalsh(C))
    np.testing.assert_allclose(
        found.shared_p, input_chance(row_frame(A), row_frame(A_), moment(turned, 32)).shared_p, rtol=1e-6
    )


def _simulated():
    sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
    try:
        import simulated
    finally:
        sys.path.pop(0)
    return simulated


def _rates(inputs, *, modules, pairs, k=128, planted=0.0):
    """How often a nominal 5 % is rejected by the isotropic test, by signs and after whitening."""
    simulated, rejected = _simulated(), []
    for n in range(modules):
        module = simulated.Module(128, inputs, np.random.default_rng([n, 7]))
        known = moment(np.diag(module.sd**2) + np.outer(module.mean, module.mean), k, module.mean)
        one, other = (module.adapters(pairs, 8, 1.2) for _ in range(2))
        if planted:
            shared = planted * module.rng.standard_normal(128) / 128**0.5
            one, other = (M + module.rng.standard_normal((pairs, 8, 1)) * shared for M in (one, other))
        for A, A_ in zip(one, other, strict=True):
            first, second = row_frame(A), row_frame(A_)
            found = input_chance(first, second, known, seed=n)
            isotropic = agreements({"a": Rows(A)}, {"a": Rows(A_)})["a"].shared_p[0]
            rejected.append((isotropic <= 0.05, found.signs_p <= 0.05, found.shared_p[0] <= 0.05))
    return np.mean(rejected, axis=0)


def test_inputs_alone_are_rejected_by_the_isotropic_test_and_by_no_other():
    isotropic, signs, whitened = _rates(_simulated().Inputs(1, 0.3), modules=6, pairs=10)
    assert isotropic > 0.4 and signs <= 0.11 and whitened <= 0.11
    isotropic, signs, whitened = _rates(_simulated().Inputs(1, 0.3), modules=2, pairs=10, planted=2.0)
    assert signs > 0.6 and whitened > 0.9


@pytest.mark.slow
@pytest.mark.parametrize("k", [128, 32])
@pytest.mark.parametrize(
    ("power", "mean", "least"),
    [(0, 0, 0), (0.5, 0, 0), (1, 0, 0.3), (0, 0.3, 0.35), (1, 0.3, 0.5), (1, 0.7, 0.8), (2, 0, 0.8)],
)
def test_sizes(power, mean, least, k):
    isotropic, signs, whitened = _rates(_simulated().Inputs(power, mean), modules=20, pairs=20, k=k)
    assert isotropic >= least
    assert 0.01 <= signs <= 0.10 and whitened <= 0.12  # 400 pairs: 5 % is 3 to 7 %


# --- outputs


def test_outputs_of_factors_are_those_of_the_matrices():
    rng, C = np.random.default_rng(0), covariance(20)
    B, A, B_, A_ = (rng.standard_normal(shape) for shape in ((9, 2), (2, 20), (9, 3), (3, 20)))
    for k in (20, 5):
        known = moment(C, k)
        D, D_ = B @ A, B_ @ A_
        flat = known.inner(np.eye(20), np.eye(20))
        found = output_agreement((B, A), (B_, A_), known)
        sizes = [np.sqrt(np.trace(M @ flat @ M.T)) for M in (D, D_)]
        np.testing.assert_allclose(found[1:], sizes)
        assert found.cosine == pytest.approx(np.trace(D @ flat @ D_.T) / np.prod(sizes))
        np.testing.assert_allclose(dense_output_agreement(D, D_, known), found)
        assert output_size([D[:4], D[4:]], known) == pytest.approx(sizes[0])


def test_outputs_on_isotropic_inputs_are_the_updates_themselves():
    rng = np.random.default_rng(1)
    B, A, B_, A_ = (rng.standard_normal(shape) for shape in ((9, 2), (2, 20), (9, 3), (3, 20)))
    found = output_agreement((B, A), (B_, A_), moment(np.eye(20), 20))
    D, D_ = B @ A, B_ @ A_
    assert found.cosine == pytest.approx(np.vdot(D, D_) / np.linalg.norm(D) / np.linalg.norm(D_))
    assert found.first == pytest.approx(np.linalg.norm(D))


def test_outputs_that_are_zero_or_huge():
    known = moment(np.diag([1.0, 0.0]), 2)
    nothing = output_agreement(
        (np.ones((1, 1)), np.array([[0.0, 1.0]])), (np.ones((1, 1)), np.eye(1, 2)), known
    )
    assert np.isnan(nothing.cosine) and nothing.first == 0 and nothing.second == 1
    large = (np.full((1, 1), 1e200), np.array([[1e-180, 0.0]]))
    assert output_agreement(large, large, known).first == pytest.approx(1e20)
