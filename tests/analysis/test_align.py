"""`align` through the public API: dense definitions, cases whose answer is known, and what is odd about a module."""

from __future__ import annotations

import json

import numpy as np
import oracles
import oracles_of_alignment as dense
import pytest

import subspace
from subspace.flags import Flag
from subspace.geometry import singular_basis, topk

D_OUT, D_IN = 60, 44
SHARES = ("input_share", "output_share", "subspace_share")
MOVED = (
    "spectral_shift",
    "input_rotation",
    "output_rotation",
    "mask_overlap",
    "changed_in_bf16",
    "norm_delta_W",
)


@pytest.fixture
def rng():
    return np.random.default_rng(11)


@pytest.fixture
def krylov(monkeypatch):
    """Weights of these tests count as large."""
    monkeypatch.setattr(singular_basis, "_SMALL_SIDE", 8)
    monkeypatch.setattr(topk, "_DENSE", 24)


def _factors(rng, d_out=D_OUT, d_in=D_IN, r=3):
    return 0.05 * rng.standard_normal((d_out, r)), 0.3 * rng.standard_normal((r, d_in))


def _lora(**factors):
    return {f"{m}.lora_{x}": M for m, pair in factors.items() for x, M in zip("BA", pair, strict=True)}


def _only(result):
    (row,) = result.modules
    return row


@pytest.mark.parametrize("kind", dense.spectra(8))
@pytest.mark.parametrize("as_matrix", [False, True])
def test_every_number_is_that_of_the_dense_definition(kind, as_matrix, rng):
    W = dense.weight(D_OUT, D_IN, dense.spectra(D_IN)[kind], rng)
    B, A = _factors(rng)
    delta = {"q.weight": 0.25 * B @ A} if as_matrix else _lora(q=(B, A))
    source = subspace.align(W, 0.25 * B @ A, k=4) if as_matrix else subspace.align(W, delta, k=4, scale=0.25)
    row = _only(source)
    for name, value in dense.alignment(W, 0.25 * B @ A, 4).items():
        assert getattr(row, name) == pytest.approx(value, rel=1e-9), name
    assert row.spectral_shift_most == row.spectral_shift and row.base_error == 0
    assert row.input_isotropic == 4 / D_IN and row.output_isotropic == 4 / D_OUT
    assert row.subspace_isotropic == 16 / (D_IN * D_OUT)
    assert row.reweighting_isotropic == row.directions / (D_IN * D_OUT)


@pytest.mark.parametrize("c", [0.3, -0.2])
@pytest.mark.parametrize("large", [False, True])
def test_a_multiple_of_the_leading_part_of_w_only_reweights(c, large, rng, request):
    if large:
        request.getfixturevalue("krylov")
    S = dense.spectra(D_IN)["bulk and spikes"]
    W = dense.weight(D_OUT, D_IN, S, rng)
    U, _, Vh = np.linalg.svd(W, full_matrices=False)
    row = _only(subspace.align(W, _lora(q=(U[:, :4] * S[:4], c * Vh[:4])), scale=1.0, k=4))
    close = {"rel": 1e-6} if large else {"rel": 1e-10}
    for name in (*SHARES, "reweighting"):
        assert getattr(row, name) == pytest.approx(1, **close), name
    assert row.input_rotation == pytest.approx(0, abs=1e-4 if large else 1e-9)
    assert row.output_rotation == pytest.approx(0, abs=1e-4 if large else 1e-9)
    size = abs(c) * np.linalg.norm(S[:4]) / np.linalg.norm(S)
    assert row.spectral_shift == pytest.approx(size, rel=1e-4)
    assert row.spectral_shift_most == pytest.approx(size, rel=1e-4)


@pytest.mark.parametrize("large", [False, True])
def test_one_direction_into_another_only_mixes(large, rng, request):
    """delta_W = e u_1 v_2^T inside the top 2: in the span, off the diagonal, and a 2 x 2 problem by hand."""
    if large:
        request.getfixturevalue("krylov")
    S = dense.spectra(D_IN)["bulk and spikes"]
    W = dense.weight(D_OUT, D_IN, S, rng)
    U, _, Vh = np.linalg.svd(W, full_matrices=False)
    e = 1.0
    update = _lora(q=(U[:, :1], e * Vh[1:2]))
    inside, first = (_only(subspace.align(W, update, scale=1.0, k=k)) for k in (2, 1))
    assert [getattr(inside, name) for name in SHARES] == pytest.approx([1, 1, 1])
    assert inside.reweighting == pytest.approx(0, abs=1e-12)
    assert inside.input_rotation == pytest.approx(0, abs=1e-4)
    # alone, u_1 has all of it at the output and v_1 none at the input
    assert (first.input_share, first.output_share) == pytest.approx((0, 1), abs=1e-9)
    core = np.array([[S[0], e], [0, S[1]]])
    u, s, vh = np.linalg.svd(core)
    assert first.input_rotation == pytest.approx(np.degrees(np.arccos(abs(vh[0, 0]))), rel=1e-4)
    assert first.output_rotation == pytest.approx(np.degrees(np.arccos(abs(u[0, 0]))), rel=1e-4)
    if not large:
        shift = np.linalg.norm(s - S[:2]) / np.linalg.norm(S)
        assert inside.spectral_shift == pytest.approx(shift, rel=1e-9)


def test_what_is_outside_w_is_in_no_direction_of_it(rng):
    """W of rank 5 and an update outside both of its spans."""
    Q, P = oracles.haar(D_OUT, 8, rng), oracles.haar(D_IN, 8, rng)
    W = (Q[:, :5] * [5, 4, 3, 2, 1.0]) @ P[:, :5].T
    row = _only(subspace.align(W, _lora(q=(Q[:, 5:], 0.1 * P[:, 5:].T)), scale=1.0, k=5))
    assert (row.k, row.directions, row.next_over_last) == (5, 5, 0.0)
    assert [getattr(row, name) for name in (*SHARES, "reweighting")] == pytest.approx([0] * 4, abs=1e-12)
    assert row.input_rotation == pytest.approx(0, abs=1e-9)
    low = _only(subspace.align(W, _lora(q=(Q[:, 5:], 0.1 * P[:, 5:].T)), scale=1.0, k=9))
    assert low.k == 5 and Flag.BASE_RANK_BELOW_K in low.flags and Flag.BASE_RANK_BELOW_K not in row.flags


@pytest.mark.parametrize("as_matrix", [False, True])
@pytest.mark.parametrize("kind", ["power law", "bulk and spikes"])
def test_a_large_weight_has_the_same_numbers_for_its_leading_directions(kind, as_matrix, krylov, rng):
    W = dense.weight(160, 120, dense.spectra(120)[kind], rng)
    B, A = _factors(rng, 160, 120)
    expected = dense.alignment(W, B @ A, 4)
    row = _only(
        subspace.align(W, B @ A, k=4) if as_matrix else subspace.align(W, _lora(q=(B, A)), scale=1, k=4)
    )
    assert Flag.BASE_LEADING in row.flags and row.directions == 4
    for name in (*SHARES, "input_rotation", "output_rotation", "changed_in_bf16", "norm_W", "norm_delta_W"):
        assert getattr(row, name) == pytest.approx(expected[name], rel=1e-3), name
    assert row.mask_overlap == pytest.approx(expected["mask_overlap"], abs=1e-3)
    assert row.spectral_shift <= expected["spectral_shift"] <= row.spectral_shift_most
    U, _, Vh = np.linalg.svd(W)
    diagonal = np.diag(U[:, :4].T @ B @ A @ Vh[:4].T)
    assert row.reweighting == pytest.approx(np.sum(diagonal**2) / np.sum((B @ A) ** 2), rel=1e-3)
    assert row.reweighting_isotropic == 4 / (160 * 120)


# --- how a weight is stored


def _numbers(row):
    return {name: value for name, value in row.record().items() if not isinstance(value, str)}


@pytest.mark.parametrize("large", [False, True])
def test_a_weight_stored_transposed_gives_the_same_numbers(large, rng, request):
    if large:
        request.getfixturevalue("krylov")
    W = dense.weight(D_OUT, D_IN, dense.spectra(D_IN)["bulk and spikes"], rng)
    name = "transformer.h.0.attn.c_attn"
    delta = _lora(**{name: _factors(rng)})
    plain, turned = (
        _only(subspace.align({f"{name}.weight": M}, delta, scale=1.0, k=4))
        for M in (W, np.ascontiguousarray(W.T))
    )
    assert "(d_in, d_out)" in turned.orientation and "(d_out, d_in)" in plain.orientation
    for column, value in _numbers(plain).items():
        if column == "base_error":
            assert max(value, turned.base_error) < 1e-6
            continue
        assert _numbers(turned)[column] == pytest.approx(value, rel=1e-3 if large else 1e-9), column


def test_groups_of_a_fused_layer_are_its_rows(rng):
    d, r = 32, 2
    W = dense.weight(3 * d, d, dense.spectra(d)["power law"], rng)
    q, v = _factors(rng, d, d, r), _factors(rng, d, d, r)
    fused = {"attn.lora_A": np.vstack([q[1], v[1]]), "attn.lora_B": np.vstack([q[0], v[0]])}
    result = subspace.align({"attn.weight": W}, fused, enable_lora=(True, False, True), scale=2.0, k=4)
    assert [row.module for row in result] == ["attn[q]", "attn[v]"]
    for row, (B, A), part in zip(result, (q, v), (W[:d], W[2 * d :]), strict=True):
        for name, value in dense.alignment(part, 2 * B @ A, 4).items():
            assert getattr(row, name) == pytest.approx(value, rel=1e-6), name


def test_an_embedding_is_stored_by_tokens(rng):
    W = dense.weight(70, 24, dense.spectra(24)["power law"], rng)  # (tokens, d_out)
    A, B = rng.standard_normal((2, 70)), rng.standard_normal((24, 2))
    delta = {"embed_tokens.lora_embedding_A": A, "embed_tokens.lora_embedding_B": B}
    row = _only(subspace.align({"embed_tokens.weight": W}, delta, scale=0.01, k=4))
    assert (row.d_out, row.d_in) == (24, 70)
    for name, value in dense.alignment(W.T, 0.01 * B @ A, 4).items():
        assert getattr(row, name) == pytest.approx(value, rel=1e-6), name


def test_a_base_in_bfloat16_is_taken_as_it_is(rng):
    torch = pytest.importorskip("torch")
    W = torch.tensor(dense.weight(D_OUT, D_IN, dense.spectra(D_IN)["power law"], rng)).to(torch.bfloat16)
    B, A = _factors(rng)
    row = _only(subspace.align({"q.weight": W}, _lora(q=(B, A)), scale=0.05, k=4))
    assert 0 < row.changed_in_bf16 < 1
    for name, value in dense.alignment(W.double().numpy(), 0.05 * B @ A, 4).items():
        assert getattr(row, name) == pytest.approx(value, rel=1e-9), name


# --- numbers that do not exist


def test_an_unknown_scale_leaves_the_shares(rng):
    W = dense.weight(D_OUT, D_IN, dense.spectra(D_IN)["power law"], rng)
    B, A = _factors(rng)
    result = subspace.align(W, {"A": A, "B": B}, k=4)
    row, given = _only(result), _only(subspace.align(W, {"A": A, "B": B}, k=4, scale=3.0))
    assert Flag.SCALE_UNKNOWN in row.flags and sum("give `scale`" in note for note in result.notes) == 1
    assert all(getattr(row, name) is None for name in (*MOVED, "rotation_most", "mask_gaussian"))
    for name in (*SHARES, "reweighting", "input_sd", "input_z"):
        assert getattr(row, name) == pytest.approx(getattr(given, name)), name
    assert len(result.facts()) == 2 and len(subspace.align(W, {"A": A, "B": B}, scale=1.0).facts()) == 4


def test_untrained_and_zero_modules_have_no_numbers_and_a_flag(rng):
    W = dense.weight(D_OUT, D_IN, dense.spectra(D_IN)["power law"], rng)
    B, A = _factors(rng)
    names = [f"l.{n}.q" for n in range(4)]
    base = {f"{name}.weight": W for name in names}
    base["l.1.q.weight"] = 0 * W
    delta = _lora(**dict.fromkeys(names, (B, A)))
    delta["l.0.q.lora_B"] = 0 * B
    delta["l.2.q.lora_A"] = np.where(A.max() == A, np.nan, A)
    result = subspace.align(base, delta, scale=1.0)
    untrained, zero, damaged, sound = result
    assert Flag.UNTRAINED in untrained.flags and Flag.NOT_FINITE in damaged.flags
    assert Flag.BASE_ZERO in zero.flags and zero.norm_W == 0
    for row in (untrained, zero, damaged):
        assert all(
            getattr(row, name) is None for name in (*SHARES, "reweighting", "spectral_shift", "mask_overlap")
        )
    assert sound.flags == () and sound.input_share > 0
    for odd, why in (
        ("l.0.q", "exactly zero"),
        ("l.1.q", "every base weight is zero"),
        ("l.2.q", "not all finite"),
    ):
        with pytest.raises(subspace.InconclusiveError, match=why):
            subspace.align(base, delta, scale=1.0, modules=[odd])


def test_equal_singular_values_have_no_diagonal_and_no_rotation_to_read(rng):
    result = subspace.align(np.eye(24), _lora(q=_factors(rng, 24, 24)), scale=0.01, k=4)
    row = _only(result)
    assert row.reweighting is None and row.curves["reweighting"][-1] >= 0
    assert {Flag.BASE_TIES, Flag.SPAN_UNDETERMINED} <= set(row.flags)
    assert row.input_rotation_isotropic > 60 and row.rotation_most == 90
    assert len(result.facts()) == 3


def test_a_change_below_bfloat16_has_no_overlap_with_the_mask(rng):
    W = np.asarray(1 + rng.integers(0, 64, (D_OUT, D_IN)) / 128)
    row = _only(subspace.align(W, _lora(q=_factors(rng)), scale=1e-6, k=2))
    assert row.mask_overlap is None and row.changed_in_bf16 == 0 and Flag.UNCHANGED_IN_BF16 in row.flags


def test_an_update_that_takes_w_away_leaves_no_span(rng):
    W = dense.weight(12, 9, dense.spectra(9)["power law"], rng)
    row = _only(subspace.align(W, -W, k=3))
    assert row.input_rotation is None and Flag.SPAN_UNDETERMINED in row.flags
    assert row.spectral_shift == pytest.approx(1) and row.reweighting == pytest.approx(1)


def test_a_large_random_update_is_drawn(rng):
    """Beyond first order the level is that of a draw: a random update itself is near it."""
    W = dense.weight(D_OUT, D_IN, dense.spectra(D_IN)["bulk and spikes"], rng)
    B, A = oracles.haar(D_OUT, 3, rng), 4 * oracles.haar(D_IN, 3, rng).T
    row = _only(subspace.align(W, _lora(q=(B, A)), scale=1.0, k=4))
    assert row.input_rotation > 15
    assert row.input_rotation == pytest.approx(row.input_rotation_isotropic, rel=0.4)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"k": 0}, "k = 0 is too small"),
        ({"mask_share": 1.0}, "`mask_share` is 1.0"),
        ({"mask_share": 0}, "between"),
    ],
)
def test_values_out_of_range(given, message, rng):
    with pytest.raises(subspace.SubspaceError, match=message):
        subspace.align(np.eye(4), _lora(q=_factors(rng, 4, 4, 1)), **given)


@pytest.mark.parametrize("large", [False, True])
@pytest.mark.parametrize("size", [1e-300, 1e-40, 1e30, 1e300])
@pytest.mark.parametrize("delta", [1e-160, 1.0, 1e160])
def test_extreme_numbers_have_shares_and_what_is_missing_has_a_flag(size, delta, large, rng, request):
    if large:
        request.getfixturevalue("krylov")
    W, (B, A) = rng.standard_normal((60, 44)), _factors(rng)
    plain = _only(subspace.align(W, _lora(q=(B, A)), scale=1.0, k=3))
    row = _only(subspace.align(W * size, _lora(q=(B, A * delta)), scale=1.0, k=3))
    for name in SHARES:
        assert getattr(row, name) == pytest.approx(getattr(plain, name), rel=1e-3), name
    missing = [name for name in (*MOVED, "mask_gaussian") if getattr(row, name) is None]
    odd = {Flag.OVERFLOW, Flag.SPAN_UNDETERMINED, Flag.UNCHANGED_IN_BF16}
    assert not missing or odd & set(row.flags)
    assert all(np.isfinite(value) for value in _numbers(row).values() if value is not None)


# --- the result


@pytest.fixture
def result(rng):
    names = [f"layers.{n}.{p}" for n in (0, 1) for p in ("q_proj", "v_proj")]
    base = {
        f"{name}.weight": dense.weight(32, 24, dense.spectra(24)["power law"], rng).astype(np.float32)
        for name in names
    }
    return subspace.align(base, _lora(**{name: _factors(rng, 32, 24) for name in names}), scale=1.0, k=4)


def test_the_headline_is_of_the_median_module(result):
    shares = [row.input_share for row in result]
    assert result.headline().startswith(f"In the median of 4 modules, {100 * np.median(shares):.3g}"[:31])
    assert "in W's 4 leading input directions (isotropic: 16.7 %)" in result.headline()
    assert " ".join(result.facts()) == result.headline() and len(result.facts()) == 4


def test_the_document_has_the_curves_and_is_strict_json(result):
    document = json.loads(result.to_json())
    assert document["schema"] == "subspace.align/1"
    for row in document["modules"]:
        curves = row["curves"]
        assert curves["i"] == [1, 2, 3, 4, 6, 8, 12, 16, 24]
        assert {len(curve) for curve in curves.values()} == {9}
        assert curves["input"][curves["i"].index(4)] == row["input_share"]
        assert curves["input"][-1] == pytest.approx(1) and curves["output"][-1] < 1
        assert curves["output_isotropic"][-1] == 0.75
        assert len(row["input_angles"]) == 4


def test_modules_and_layers_choose_what_is_measured(rng):
    names = [f"layers.{n}.{p}" for n in (0, 1) for p in ("q_proj", "v_proj")]
    base = {f"{name}.weight": rng.standard_normal((16, 12)) for name in names}
    delta = _lora(**{name: _factors(rng, 16, 12) for name in names})
    chosen = subspace.align(base, delta, scale=1.0, modules=["*.q_proj"], layers=[1])
    assert [row.module for row in chosen] == ["layers.1.q_proj"]


def test_the_seeds_are_fixed(rng):
    W, delta = (
        rng.standard_normal((40, 40)),
        _lora(q=(rng.standard_normal((40, 3)), rng.standard_normal((3, 40)))),
    )
    one, other = (_numbers(_only(subspace.align(W, delta, scale=1.0))) for _ in range(2))
    assert one == other


@pytest.mark.slow
def test_a_large_weight_is_read_in_pieces(rng):
    """Never more memory than two matrices of W's size in float32, here of one that is stored in bfloat16."""
    import tracemalloc

    torch = pytest.importorskip("torch")
    W = torch.tensor(rng.standard_normal((2400, 1800)) * (1 + 20 * (np.arange(1800) < 4))).to(torch.bfloat16)
    delta = _lora(q=(rng.standard_normal((2400, 4)), rng.standard_normal((4, 1800))))
    tracemalloc.start()
    try:
        row = _only(subspace.align({"q.weight": W}, delta, scale=1e-3, k=4))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert Flag.BASE_LEADING in row.flags and row.input_rotation > 0
    assert peak < 2 * 4 * 2400 * 1800


def test_what_is_left_in_a_stored_type_is_that_of_visibility():
    rng = np.random.default_rng(5)
    W = rng.standard_normal((24, 20))
    delta = {"A": 1e-2 * rng.standard_normal((2, 20)), "B": rng.standard_normal((24, 2))}
    (row,), (plain,) = (
        subspace.align(W, delta, scale=1.0, k=2, store="int8"),
        subspace.align(W, delta, scale=1.0, k=2),
    )
    (left,) = subspace.visibility(W, delta, scale=1.0, store="int8")
    assert row.store == "int8" and 0 < row.changed < 1
    assert (row.changed, row.norm_left, row.cosine) == (left.changed, left.norm_left, left.cosine)
    assert "changed" not in plain.record() and "changed" in row.record()
