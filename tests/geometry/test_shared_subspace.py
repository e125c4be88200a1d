"""The shared subspace of a library against dense matrices, and its random null against closed forms."""

from __future__ import annotations

import numpy as np
import oracles
import pytest

from subspace.errors import ShapeError
from subspace.geometry.shared_subspace import residual_of_random, shared_subspace


def updates(n, r, d_out, d_in, rng, *, common=0):
    """Singular triplets of n updates, the first `common` input directions of each drawn from one span of as many."""
    span = oracles.haar(d_in, max(common, 1), rng)
    found = []
    for _ in range(n):
        A = rng.standard_normal((r, d_in))
        if common:
            A[:common] = rng.standard_normal((common, common)) @ span.T * 20
        U, S, Vh = np.linalg.svd(rng.standard_normal((d_out, r)) @ A, full_matrices=False)
        found.append((U[:, :r], S[:r], Vh[:r]))
    return found


def dense(found, *, centred):
    """Energies of the input directions of dense updates of norm 1, descending, as shares."""
    D = np.array([U * (S / np.linalg.norm(S)) @ Vh for U, S, Vh in found])
    D = D - D.mean(axis=0) if centred else D
    energies = np.linalg.svd(D.reshape(-1, D.shape[-1]), compute_uv=False) ** 2
    return energies / energies.sum()


@pytest.mark.parametrize("centred", [False, True])
@pytest.mark.parametrize(("n", "d_in"), [(6, 70), (30, 40)])  # fewer directions than dimensions, and more
@pytest.mark.parametrize("side", ["right", "left"])
def test_energies_are_those_of_the_dense_updates(centred, n, d_in, side):
    found = updates(n, 4, 55, d_in, np.random.default_rng(0), common=2)
    if side == "left":
        found = [(Vh.T, S, U.T) for U, S, Vh in found]
    expected = dense(found, centred=centred)
    others = [U.T for U, _, _ in found] if centred else None
    shared = shared_subspace([Vh for _, _, Vh in found], [S for _, S, _ in found], others=others)
    assert shared.directions == np.searchsorted(np.cumsum(expected), 0.9) + 1
    assert shared.share == pytest.approx(expected[:4].sum(), abs=1e-12)
    assert (shared.top, shared.total) == (4, 4 * n)


def test_random_directions_are_like_their_null():
    """Size: of libraries without anything in common the numbers lie where the null's do."""
    rng = np.random.default_rng(1)
    for centred in (False, True):
        z = []
        for seed in range(25):
            found = updates(12, 4, 60, 90, rng)
            others = [U.T for U, _, _ in found] if centred else None
            shared = shared_subspace(
                [Vh for *_, Vh in found], [S for _, S, _ in found], others=others, seed=seed
            )
            sd = shared.share_error * np.sqrt(5)
            z.append((shared.share - shared.share_random) / sd)
            assert abs(shared.directions - shared.directions_random) <= 1.5
        assert abs(np.mean(z)) < 1.0


def test_a_planted_span_stands_out():
    found = updates(12, 4, 60, 90, np.random.default_rng(2), common=2)
    shared = shared_subspace([Vh for *_, Vh in found], [S for _, S, _ in found])
    assert shared.share > 0.85 > 0.4 > shared.share_random
    assert shared.directions <= 7 < 17 < shared.directions_random
    assert shared.narrow


def test_a_mean_that_all_share_is_taken_out():
    """One update in all of them, and a small one of each: with the mean out the small ones are left."""
    rng = np.random.default_rng(3)
    common, own = updates(1, 2, 60, 90, rng)[0], updates(10, 2, 60, 90, rng)
    found = []
    for U, S, Vh in own:
        whole = 10 * common[0] * common[1] @ common[2] + U * S @ Vh
        left, strengths, right = np.linalg.svd(whole)
        found.append((left[:, :4], strengths[:4], right[:4]))
    right, left, S = [Vh for *_, Vh in found], [U.T for U, *_ in found], [S for _, S, _ in found]
    assert shared_subspace(right, S).directions <= 2
    assert shared_subspace(right, S, others=left).directions >= 8


def test_the_null_of_single_directions_is_that_of_marchenko_and_pastur():
    """M random directions of R^d, equal strengths: the largest energy is at the edge of the law."""
    M, d = 200, 800
    rng = np.random.default_rng(4)
    rows = rng.standard_normal((M, d))
    rows /= np.linalg.norm(rows, axis=1)[:, None]
    shared = shared_subspace([row[None] for row in rows], draws=10)
    assert shared.share_random * M == pytest.approx((1 + np.sqrt(M / d)) ** 2, rel=0.03)
    assert shared.directions_error < 1.5


def test_adapters_count_the_same_whatever_their_scale():
    found = updates(6, 3, 50, 70, np.random.default_rng(5))
    right, S = [Vh for *_, Vh in found], [S for _, S, _ in found]
    scaled = [S[0] * 1e6, *S[1:]]
    one, other = shared_subspace(right, S), shared_subspace(right, scaled)
    assert one.share == pytest.approx(other.share) and one.share_random == pytest.approx(other.share_random)


def test_the_residual_of_a_random_direction():
    rng = np.random.default_rng(6)
    M, d = 40, 100
    Q = np.linalg.qr(rng.standard_normal((d, M)))[0]
    v = rng.standard_normal((d, 4000))
    v /= np.linalg.norm(v, axis=0)
    left = np.sqrt(np.mean(1 - np.sum((Q.T @ v) ** 2, axis=0)))
    assert left == pytest.approx(residual_of_random(M, d), abs=0.005)
    assert residual_of_random(16 * 26, 1024) == pytest.approx(0.7706, abs=1e-3)


def test_narrow_layers_are_marked():
    rng = np.random.default_rng(7)
    wide = shared_subspace([oracles.haar(64, 4, rng).T for _ in range(7)])
    narrow = shared_subspace([oracles.haar(64, 4, rng).T for _ in range(8)])
    whole = shared_subspace([oracles.haar(64, 4, rng).T for _ in range(20)])
    assert (wide.narrow, narrow.narrow, whole.narrow) == (False, True, True)
    assert whole.residual == 0.0 and narrow.residual == pytest.approx(np.sqrt(0.5))


def test_ranks_may_differ_and_zero_updates_are_left_out():
    rng = np.random.default_rng(8)
    right = [oracles.haar(64, k, rng).T for k in (2, 5, 3)] + [np.empty((0, 64))]
    shared = shared_subspace(right)
    assert (shared.total, shared.top, shared.d) == (10, 3, 64)


def test_shapes_that_do_not_fit():
    with pytest.raises(ShapeError, match="Directions that cannot be stacked"):
        shared_subspace([np.eye(2, 5), np.eye(2, 6)])
    with pytest.raises(ShapeError, match="Directions that cannot be stacked"):
        shared_subspace([])
    with pytest.raises(ShapeError, match="Sides that do not fit together: 4 directions and 2"):
        shared_subspace([np.eye(2, 5)] * 2, others=[np.eye(1, 5)] * 2)
