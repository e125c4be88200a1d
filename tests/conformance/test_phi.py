"""phi(i, j) and the angles through the public API, against dense definitions and identities of the paper."""

from __future__ import annotations

import numpy as np
import oracles
import pytest

import subspace

SIDES = ("a", "b", "left", "right")


def _pair(rng, r, d_out=72, d_in=96, kappa=1e3):
    A = oracles.with_condition(r, d_in, kappa, rng) if r > 1 else rng.standard_normal((1, d_in))
    B = rng.standard_normal((d_out, r))
    return B, A


def _only(result, side="a", init="kept"):
    (row,) = [row for row in result.modules if row.side == side and row.init == init]
    return row


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize(("r", "other"), [(8, 8), (4, 16), (16, 4), (1, 1), (1, 12), (24, 24)])
def test_phi_is_that_of_a_dense_svd_on_every_side(side, r, other, rng, lora):
    (B, A), (B2, A2) = _pair(rng, r), _pair(rng, other)
    row = _only(subspace.compare(lora(q=(B, A)), lora(q=(B2, A2)), side=side, level=0.01), side)
    U, V = oracles.lora_side(0.5 * B, A, side), oracles.lora_side(B2, A2, side)
    assert row.phi.shape == (r, other)
    np.testing.assert_allclose(row.phi, oracles.phi_of_frames(U, V), rtol=0, atol=1e-10)
    np.testing.assert_allclose(row.theta, oracles.angles(U, V), rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("name", ["adapter.safetensors", "adapter.pt", "adapter.npz"])
@pytest.mark.parametrize("dtype", ["float64", "float32", "float16"])
def test_a_file_gives_the_numbers_of_the_arrays_in_it(name, dtype, rng, lora, on_disk):
    tensors = {key: value.astype(dtype) for key, value in lora(q=_pair(rng, 8, kappa=50)).items()}
    other = lora(q=_pair(rng, 5))
    A, A2 = (t["q.lora_A.weight"].astype(np.float64) for t in (tensors, other))
    row = _only(subspace.compare(on_disk(tensors, name), other))
    np.testing.assert_allclose(row.phi, oracles.phi(A, A2), rtol=0, atol=1e-10)


def test_phi_lies_between_0_and_1_and_its_corner_with_itself_is_1(rng, lora):
    adapter = lora(q=_pair(rng, 12))
    for row in subspace.compare(adapter, adapter, side="all").modules:
        assert row.phi.min() >= 0 and row.phi.max() <= 1
        np.testing.assert_allclose(np.diag(row.phi), 1, rtol=0, atol=1e-10)


def test_exchanging_the_adapters_transposes_phi(rng, lora):
    one, other = lora(q=_pair(rng, 6)), lora(q=_pair(rng, 9))
    for there, back in zip(
        subspace.compare(one, other, side="all").modules,
        subspace.compare(other, one, side="all").modules,
        strict=True,
    ):
        np.testing.assert_allclose(there.phi, back.phi.T, rtol=0, atol=1e-12)
        assert (there.r_first, there.rank_second) == (back.r_second, back.rank_first)


def test_min_i_j_times_phi_never_falls(rng, lora):
    phi = _only(subspace.compare(lora(q=_pair(rng, 7)), lora(q=_pair(rng, 11)))).phi
    i, j = np.arange(1, 8)[:, None], np.arange(1, 12)[None]
    total = np.minimum(i, j) * phi
    assert (np.diff(total, axis=0) > -1e-12).all() and (np.diff(total, axis=1) > -1e-12).all()


def test_phi_is_the_mean_squared_cosine_of_the_angles(rng, lora):
    row = _only(subspace.compare(lora(q=_pair(rng, 7)), lora(q=_pair(rng, 11))))
    assert row.phi_full == pytest.approx(np.sum(np.cos(row.theta) ** 2) / 7, abs=1e-12)


def test_phi_is_1_minus_d2_over_p_and_not_the_papers_last_line(rng, lora):
    row = _only(subspace.compare(lora(q=_pair(rng, 7)), lora(q=_pair(rng, 11))))
    d2 = 7 - np.sum(np.cos(row.theta) ** 2)  # the projection metric of appendix G
    assert row.distances["chordal"] ** 2 == pytest.approx(d2, abs=1e-10)
    assert row.phi_full == pytest.approx(1 - d2 / 7, abs=1e-12)
    assert abs(row.phi_full - (1 - d2) / 7) > 0.5


def test_scale_and_orthogonal_mixing_change_nothing(rng, lora):
    B, A = _pair(rng, 8)
    other = lora(q=_pair(rng, 5))
    Q = oracles.haar(8, 8, rng)
    told = subspace.compare(lora(q=(B, A)), other, side="all").modules
    for changed in ((3.7 * B, 1e-6 * A), (B @ Q.T, Q @ A)):
        for row, again in zip(
            told, subspace.compare(lora(q=changed), other, side="all").modules, strict=True
        ):
            np.testing.assert_allclose(row.phi, again.phi, rtol=0, atol=1e-9)


def test_a_refactoring_changes_side_a_but_for_its_corner_and_delta_w_not_at_all(rng, lora):
    B, A = oracles.haar(64, 8, rng), oracles.haar(64, 8, rng).T * np.logspace(0, -1, 8)[:, None]
    G = np.diag(np.logspace(0, 3, 8))
    same = subspace.compare(lora(q=(B, A)), lora(q=(B @ np.linalg.inv(G), G @ A)), side="all")
    a, left, right = (_only(same, side) for side in ("a", "left", "right"))
    assert a.phi_11 < 0.01
    assert a.phi_full == pytest.approx(1, abs=1e-10)
    for row in (left, right):
        np.testing.assert_allclose(np.diag(row.phi), 1, rtol=0, atol=1e-9)


def test_right_spans_what_a_spans_in_another_order(rng, lora):
    one, other = lora(q=_pair(rng, 6, kappa=5)), lora(q=_pair(rng, 6, kappa=5))
    result = subspace.compare(one, other, side="all")
    for factor, product in (("a", "right"), ("b", "left")):
        assert _only(result, factor).phi_full == pytest.approx(_only(result, product).phi_full, abs=1e-10)
        assert abs(_only(result, factor).phi_11 - _only(result, product).phi_11) > 1e-6


def test_the_scale_of_the_update_does_not_matter(rng, lora):
    one, other = lora(q=_pair(rng, 6)), lora(q=_pair(rng, 6))
    plain, scaled = (subspace.compare(subspace.load_adapter(one, scale=s), other) for s in (1.0, -16.0))
    np.testing.assert_array_equal(_only(plain).phi, _only(scaled).phi)


@pytest.mark.parametrize("small", [1e-12, 1e-9, 1e-6, 1e-3])
def test_planted_angles_are_found_to_a_millionth(small, lora):
    theta = np.array([small, 10 * small, 0.3, np.pi / 4, np.pi / 2])
    U, V = oracles.planted(theta, 40)
    row = _only(subspace.compare(lora(q=(np.eye(30, 5), U.T)), lora(q=(np.eye(30, 5), V.T))))
    np.testing.assert_allclose(row.theta, theta, rtol=1e-6)
    assert row.distances["geodesic"] == pytest.approx(np.linalg.norm(theta), rel=1e-9)


def test_every_distance_is_that_of_the_table_of_ye_and_lim(lora):
    theta = np.array([0.2, 0.5, 0.9, 1.3])
    U, V = oracles.planted(theta, 30)
    row = _only(subspace.compare(lora(q=(np.eye(30, 4), U.T)), lora(q=(np.eye(30, 4), V.T))))
    for name, value in oracles.distance_table(theta).items():
        assert row.distances[name] == pytest.approx(value, rel=1e-9), name


def test_the_d_in_side_is_used_whatever_the_layout(rng):
    B, A = _pair(rng, 4)
    B2, A2 = _pair(rng, 4)
    upright = subspace.compare({"A": A, "B": B}, {"A": A2, "B": B2}, side="all")
    turned = subspace.compare({"A": A.T, "B": B.T}, {"A": A2, "B": B2}, side="all")
    for row, again in zip(upright.modules, turned.modules, strict=True):
        assert row.d == again.d
        np.testing.assert_allclose(row.phi, again.phi, rtol=0, atol=1e-12)


def test_a_convolution_is_its_flattened_matrix(rng, lora):
    B, A, A2 = rng.standard_normal((16, 4)), rng.standard_normal((4, 36)), rng.standard_normal((3, 36))
    conv = {"c.lora_A.weight": A.reshape(4, 4, 3, 3), "c.lora_B.weight": B.reshape(16, 4, 1, 1)}
    row = _only(subspace.compare(conv, lora(c=(B[:, :3], A2))))
    np.testing.assert_allclose(row.phi, oracles.phi(A, A2), rtol=0, atol=1e-10)


def test_all_of_u_instead_of_the_rank_would_say_1(rng, lora):
    """A trap that was measured: phi(64, 64) of two unrelated updates from full U matrices is 1 by force."""
    one, other = (lora(q=(rng.standard_normal((64, 8)), rng.standard_normal((8, 64)))) for _ in range(2))
    for row in subspace.compare(one, other, side="all").modules:
        assert row.phi.shape == (8, 8)
        assert row.phi_full < 0.3


def test_different_ranks_and_a_longer_list_of_sides(rng, lora):
    result = subspace.compare(lora(q=_pair(rng, 2)), lora(q=_pair(rng, 20)), side=("b", "a"))
    assert [row.side for row in result.modules] == ["b", "a"]
    with pytest.raises(
        subspace.SubspaceError, match=r"Unknown side 'c': `side` is one of a, b, left, right or all"
    ):
        subspace.compare(lora(q=_pair(rng, 2)), lora(q=_pair(rng, 2)), side="c")
