"""Amplification through the public API: dense definitions, identities, and the paper's published numbers."""

from __future__ import annotations

import json

import numpy as np
import oracles
import pytest

import subspace
from subspace.geometry import chance

D_OUT, D_IN = 60, 44
CLOSE = 2e-6  # W is multiplied in float32 (rounding 6e-8, summed over 60 terms), the rest is float64


@pytest.fixture
def W(rng):
    """Weights whose spectrum decays, as trained ones do."""
    return (oracles.haar(D_OUT, D_IN, rng) / np.arange(1, D_IN + 1) ** 0.5) @ oracles.haar(D_IN, D_IN, rng).T


@pytest.fixture
def factors(rng):
    return rng.standard_normal((D_OUT, 6)), rng.standard_normal((6, D_IN))


def _only(result):
    (module,) = result.modules
    return module


@pytest.mark.parametrize("ranks", [[1], [2, 4], [6], [1, 2, 3, 4, 5, 6]])
def test_every_number_is_that_of_the_dense_definition(ranks, W, factors, lora):
    B, A = factors
    module = _only(subspace.amplify(W, lora(q=factors), ranks=ranks, scale=0.25))
    assert [rank.r for rank in module.ranks] == ranks
    for rank in module.ranks:
        expected = oracles.table_7(W, 0.25 * B @ A, rank.r)
        found = {**vars(rank), "norm_W": module.norm_W, "norm_delta_W": module.norm_delta_W}
        for name, value in expected.items():
            assert found[name] == pytest.approx(value, rel=CLOSE), name
        assert rank.over_random == pytest.approx(expected["proj_delta_W"] / expected["proj_random"])
        assert rank.proj_W_error == 0


@pytest.mark.parametrize("name", ["W.npy", "W.safetensors", "W.pt"])
def test_one_matrix_in_a_file_and_a_dense_delta(name, W, factors, on_disk, tmp_path):
    delta = factors[0] @ factors[1]
    if name == "W.npy":
        np.save(tmp_path / name, W)
        np.save(tmp_path / "dW.npy", delta)
        paths = tmp_path / name, tmp_path / "dW.npy"
    else:
        paths = on_disk({"W": W}, name), on_disk({"dW": delta}, f"d{name}")
    (rank,) = _only(subspace.amplify(*paths, ranks=[4])).ranks
    for key, value in oracles.table_7(W, delta, 4).items():
        if hasattr(rank, key):
            assert getattr(rank, key) == pytest.approx(value, rel=CLOSE), key


def test_the_factor_is_linear_in_the_scale_and_nothing_else_is(W, factors, lora):
    one, ten = (_only(subspace.amplify(W, lora(q=factors), scale=s)) for s in (1.0, -10.0))
    assert ten.ranks[0].amplification == pytest.approx(10 * one.ranks[0].amplification, rel=1e-12)
    assert ten.norm_delta_W == pytest.approx(10 * one.norm_delta_W, rel=1e-12)
    for name in ("proj_delta_W", "proj_W", "proj_random", "over_random"):
        assert getattr(ten.ranks[0], name) == getattr(one.ranks[0], name)


@pytest.mark.parametrize("c", [0.5, 2.0, 20.0])
@pytest.mark.parametrize("r", [1, 3])
def test_c_times_the_leading_part_of_w_is_amplified_c_times(c, r, W, lora):
    U, S, Vh = np.linalg.svd(W)
    delta = lora(q=(U[:, :r] * S[:r], c * Vh[:r]))
    module = _only(subspace.amplify(W, delta, scale=1.0))
    assert module.ranks[0].amplification == pytest.approx(c, rel=CLOSE)
    assert module.ranks[0].proj_delta_W == pytest.approx(module.ranks[0].proj_W, rel=CLOSE)


def _numbers(result):
    return [[numbers(rank) for rank in module.ranks] for module in result.modules]


def numbers(rank):
    return {name: value for name, value in rank.record().items() if not isinstance(value, str)}


def _same(one, other):
    for left, right in zip(_numbers(one), _numbers(other), strict=True):
        for a, b in zip(left, right, strict=True):
            assert a == pytest.approx(b, rel=CLOSE)


def test_a_weight_stored_transposed_gives_the_same_numbers(W, factors, lora):
    name = "transformer.h.0.attn.c_attn"
    delta = lora({name: factors})
    plain = subspace.amplify({f"{name}.weight": W}, delta, scale=1.0)
    turned = subspace.amplify({f"{name}.weight": W.T}, delta, scale=1.0)
    assert "(d_out, d_in)" in plain.modules[0].orientation
    assert "(d_in, d_out)" in turned.modules[0].orientation
    _same(plain, turned)


def test_a_square_conv1d_is_turned_by_the_model_type(rng, lora, on_disk, tmp_path):
    W, name = rng.standard_normal((40, 40)), "transformer.h.0.attn.c_proj"
    delta = lora({name: (rng.standard_normal((40, 3)), rng.standard_normal((3, 40)))})
    on_disk({f"{name}.weight": W.T}, "model/model.safetensors")
    (tmp_path / "model" / "config.json").write_text(json.dumps({"model_type": "gpt2"}))
    by_type = subspace.amplify(tmp_path / "model", delta, scale=1.0)
    assert "model type" in by_type.modules[0].orientation
    _same(by_type, subspace.amplify({f"{name}.weight": W, "a.b.weight": W[:5]}, delta, scale=1.0))


def test_groups_of_a_fused_layer_are_its_rows(rng):
    d, r = 32, 2
    W = rng.standard_normal((3 * d, d))
    q, v = ((rng.standard_normal((d, r)), rng.standard_normal((r, d))) for _ in range(2))
    fused = {
        "attn.lora_A": np.vstack([q[1], v[1]]),
        "attn.lora_B": np.vstack([q[0], v[0]]),
    }
    result = subspace.amplify({"attn.weight": W}, fused, enable_lora=(True, False, True), scale=2.0)
    assert [module.module for module in result.modules] == ["attn[q]", "attn[v]"]
    for module, (B, A), rows in zip(result.modules, (q, v), (W[:d], W[2 * d :]), strict=True):
        expected = oracles.table_7(rows, 2 * B @ A, r)
        assert module.norm_W == pytest.approx(expected["norm_W"])
        assert module.ranks[0].amplification == pytest.approx(expected["amplification"], rel=CLOSE)
        assert module.ranks[0].proj_W == pytest.approx(expected["proj_W"], rel=CLOSE)


def test_groups_that_the_file_does_not_name_are_asked_for(rng):
    fused = {"attn.lora_A": rng.standard_normal((4, 16)), "attn.lora_B": rng.standard_normal((32, 2))}
    with pytest.raises(subspace.InconclusiveError, match="`enable_lora`"):
        subspace.amplify({"attn.weight": rng.standard_normal((48, 16))}, fused, scale=1.0)


def test_the_random_column_is_the_closed_form_and_the_mean_of_draws(W, factors, lora):
    (rank,) = _only(subspace.amplify(W, lora(q=factors), ranks=[3], scale=1.0)).ranks
    assert rank.proj_random == pytest.approx(3 * np.linalg.norm(W) / np.sqrt(W.size), rel=1e-12)
    rng = np.random.default_rng(3)
    draws = np.array(
        [np.linalg.norm(oracles.haar(D_OUT, 3, rng).T @ W @ oracles.haar(D_IN, 3, rng)) for _ in range(1500)]
    )
    assert np.sqrt(np.mean(draws**2)) == pytest.approx(rank.proj_random, rel=0.03)
    assert draws.std() == pytest.approx(rank.proj_random_sd, rel=0.1)


@pytest.mark.parametrize(("r", "published"), [(4, 0.02), (64, 0.33)])
def test_the_papers_random_column_follows_from_its_norm_of_w(r, published):
    found, _ = chance.projection_mean_sd(r, 61.95, 61.95**4 / 12288, 12288, 12288)
    assert found == pytest.approx(r * 61.95 / 12288)
    assert found == pytest.approx(published, abs=0.0075)  # one draw, printed to two digits


@pytest.mark.parametrize(
    ("r", "norm_delta", "mine", "own", "factor"),
    [(4, 6.91, 0.32, 21.67, 21.5), (64, 3.57, 1.90, 37.71, 1.88)],
)
def test_matrices_with_the_papers_norms_give_its_table(r, norm_delta, mine, own, factor, rng, lora):
    """Weights and an update made to have the published norms: the factor is theirs within their rounding."""
    d = 3 * r + 64
    S = np.full(d, np.sqrt((61.95**2 - own**2) / (d - r)))
    S[:r] = own / np.sqrt(r)
    U, V = oracles.haar(d, d, rng), oracles.haar(d, d, rng)
    angle = np.arccos(mine / (S[-1] * np.sqrt(r)))
    left = U[:, r : 2 * r]
    right = np.cos(angle) * V[:, r : 2 * r] + np.sin(angle) * V[:, 2 * r : 3 * r]
    delta = lora(q=(left, norm_delta / np.sqrt(r) * right.T))
    module = _only(subspace.amplify((U * S) @ V.T, delta, scale=1.0))
    (rank,) = module.ranks
    assert module.norm_W == pytest.approx(61.95)
    assert module.norm_delta_W == pytest.approx(norm_delta)
    assert (rank.proj_delta_W, rank.proj_W) == pytest.approx((mine, own))
    low, high = (norm_delta - 0.005) / (mine + 0.005), (norm_delta + 0.005) / (mine - 0.005)
    assert low < factor < high and low < rank.amplification < high


def test_an_unknown_scale_leaves_the_factor_out_and_says_so(W, factors):
    pair = {"A": factors[1], "B": factors[0]}
    result = subspace.amplify(W, pair)
    module = _only(result)
    assert module.scale is None and module.norm_delta_W is None and "scale_unknown" in module.flags
    assert module.ranks[0].amplification is None
    assert module.ranks[0].proj_delta_W > 0 and module.ranks[0].over_random > 0
    assert sum("give `scale`" in note for note in result.notes) == 1
    assert "the amplification factor is unknown, since the scale is" in result.headline()
    given = subspace.amplify(W, pair, scale=2.0)
    assert _only(given).ranks[0].amplification > 0 and not any("`scale`" in note for note in given.notes)


def test_modules_that_the_base_lacks_are_listed(W, factors, lora):
    delta = lora({"l.0.q": factors, "l.1.q": factors, "l.2.v": factors})
    result = subspace.amplify({"l.0.q.weight": W, "l.5.q.weight": W}, delta, scale=1.0)
    assert [module.module for module in result.modules] == ["l.0.q"]
    assert result.missing == ("l.1.q", "l.2.v")
    assert any("2 modules not in the base: l.1.q, l.2.v" in note for note in result.notes)
    with pytest.raises(subspace.InconclusiveError, match="No module of the adapter is in the base"):
        subspace.amplify({"l.7.q.weight": W, "l.8.q.weight": W}, delta, scale=1.0)


def test_a_zero_base_has_no_factor_and_a_flag(W, factors, lora):
    delta = lora({"l.0.q": factors, "l.1.q": factors})
    result = subspace.amplify({"l.0.q.weight": 0 * W, "l.1.q.weight": W}, delta, scale=1.0)
    zero, other = result.modules
    assert "base_zero" in zero.flags and other.flags == ()
    assert (zero.ranks[0].amplification, zero.ranks[0].over_random) == (None, None)
    assert any("base weight is zero" in note for note in result.notes)


def test_directions_outside_of_w_have_no_factor_and_a_flag(lora):
    W = np.diag([2.0, 1.0, 0.0, 0.0])
    result = subspace.amplify(W, lora(q=(np.eye(4)[:, 2:3], np.eye(4)[2:3])), scale=1.0)
    module = _only(result)
    assert module.flags == ("projection_zero",)
    assert (module.ranks[0].amplification, module.ranks[0].over_random) == (None, 0.0)


def test_an_untrained_update_has_no_rows(W, factors, lora):
    delta = lora({"l.0.q": factors, "l.1.q": (0 * factors[0], factors[1])})
    base = {"l.0.q.weight": W, "l.1.q.weight": W}
    result = subspace.amplify(base, delta, scale=1.0)
    assert result.modules[1].ranks == () and "untrained" in result.modules[1].flags
    assert [record["module"] for record in result.records()] == ["l.0.q"]
    with pytest.raises(subspace.InconclusiveError, match=r"Every delta_W is exactly zero \(untrained\)"):
        subspace.amplify(base, lora({"l.0.q": (0 * factors[0], factors[1])}), scale=1.0)


def test_a_rank_above_the_updates_own_is_cut_and_flagged(W, factors, lora):
    result = subspace.amplify(W, lora(q=factors), ranks=[4, 64], scale=1.0)
    module = _only(result)
    assert [rank.r for rank in module.ranks] == [4, 6] and "rank_below_wanted" in module.flags
    assert [record["flags"] for record in result.records()] == ["", "rank_below_wanted"]


@pytest.mark.parametrize("ranks", [[0], [4, -1], []])
def test_ranks_are_at_least_1(ranks, W, factors, lora):
    with pytest.raises(subspace.SubspaceError, match=r"Invalid ranks .*at least 1"):
        subspace.amplify(W, lora(q=factors), ranks=ranks)


def test_shapes_that_do_not_fit_name_the_module(W, factors, lora):
    with pytest.raises(
        subspace.SubspaceError,
        match=r"does not have the shape of its update: it is \[7, 44\].*q.* is \[60, 44\]",
    ):
        subspace.amplify({"l.0.q.weight": W[:7], "l.1.q.weight": W}, lora({"l.0.q": factors}), scale=1.0)


@pytest.mark.parametrize("where", ["base", "delta"])
def test_a_number_that_is_not_finite_names_module_and_file(where, W, factors, lora, on_disk):
    base, delta = {"l.0.q.weight": W.copy(), "l.1.q.weight": W.copy()}, lora({"l.1.q": factors})
    (base if where == "base" else delta)[f"l.1.q{'.weight' if where == 'base' else '.lora_B.weight'}"][
        3, 1
    ] = np.nan
    with pytest.raises(subspace.InconclusiveError, match=r"not all finite \(NaN or Inf\)") as told:
        subspace.amplify(on_disk(base, "base.safetensors"), on_disk(delta, "delta.safetensors"), scale=1.0)
    assert "1 module (l.1.q)" in str(told.value) and f"{where}.safetensors" in str(told.value)


def test_a_large_weight_is_searched_and_its_error_estimated(lora):
    rng = np.random.default_rng(8)
    d = 800
    S = 1 / np.sqrt(np.arange(1, d + 1))
    W = ((oracles.haar(d, d, rng) * S) @ oracles.haar(d, d, rng).T).astype(np.float32)
    delta = lora(q=(rng.standard_normal((d, 4)), rng.standard_normal((4, d))))
    for tol in (1e-2, 1e-4):
        (rank,) = _only(subspace.amplify(W, delta, scale=1.0, tol=tol)).ranks
        true = np.sqrt(np.sum(S[:4] ** 2))
        assert rank.proj_W_error <= tol
        assert abs(rank.proj_W - true) / true <= max(rank.proj_W_error, 1e-5)
