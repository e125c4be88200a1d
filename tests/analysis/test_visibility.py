"""How much of an update is left in stored weights: against PEFT's own merge, dense definitions, and cases by hand."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from safetensors.numpy import save_file

import subspace
from subspace.errors import InconclusiveError, ValueRangeError
from subspace.flags import Flag


def _bfloat16(values):
    import torch

    return torch.from_numpy(np.array(values, dtype=np.float32)).to(torch.bfloat16)


def _dense(W, delta_W):
    """D and W as bfloat16 has it, by torch."""
    before = _bfloat16(W).double().numpy()
    return _bfloat16(before + np.asarray(delta_W, np.float32)).double().numpy() - before


def _cosine(D, delta_W):
    return (D * delta_W).sum() / np.linalg.norm(D) / np.linalg.norm(delta_W)


def _pair(rng, name, d_out=24, d_in=20, r=3, size=1e-3):
    return {
        f"{name}.lora_A.weight": rng.standard_normal((r, d_in)).astype(np.float32),
        f"{name}.lora_B.weight": (size * rng.standard_normal((d_out, r))).astype(np.float32),
    }


def test_every_number_is_that_of_the_dense_definition():
    rng = np.random.default_rng(0)
    W, pair = rng.standard_normal((24, 20)), _pair(rng, "q")
    delta_W = 2.0 * pair["q.lora_B.weight"].astype(float) @ pair["q.lora_A.weight"]
    (row,) = subspace.visibility({"q.weight": W}, pair, scale=2.0, store="bfloat16")
    D = _dense(W, delta_W)
    U, _, Vh = np.linalg.svd(D)
    U_0, _, Vh_0 = np.linalg.svd(delta_W)
    assert 0 < row.changed < 1 and row.changed == np.count_nonzero(D) / D.size
    assert row.norm_delta_W == pytest.approx(np.linalg.norm(delta_W), rel=1e-6)
    assert row.norm_left == pytest.approx(np.linalg.norm(D) / np.linalg.norm(delta_W), rel=1e-6)
    assert row.cosine == pytest.approx(_cosine(D, delta_W), rel=1e-6)
    assert row.r == 3
    assert row.phi_left == pytest.approx(np.linalg.norm(U[:, :3].T @ U_0[:, :3]) ** 2 / 3, rel=1e-5)
    assert row.phi_right == pytest.approx(np.linalg.norm(Vh[:3] @ Vh_0[:3].T) ** 2 / 3, rel=1e-5)
    assert (row.chance_left, row.chance_right) == (3 / 24, 3 / 20)


@pytest.mark.filterwarnings(r"ignore:::peft\..*")
def test_what_is_left_is_what_peft_merges_into_a_bfloat16_model(tmp_path):
    """PEFT keeps the factors of a bfloat16 model in float32, and rounds the sum once."""
    peft, torch = pytest.importorskip("peft"), pytest.importorskip("torch")
    from safetensors.torch import save_file as save_torch

    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(48, 40, bias=False)).to(torch.bfloat16)
    save_torch({"0.weight": model[0].weight.detach().clone()}, tmp_path / "base.safetensors")
    before = model[0].weight.detach().double().numpy()
    wrapped = peft.get_peft_model(model, peft.LoraConfig(r=4, lora_alpha=4, target_modules=["0"]))
    with torch.no_grad():
        wrapped.base_model.model[0].lora_B["default"].weight.normal_(std=1e-3)
    wrapped.save_pretrained(tmp_path / "adapter")
    D = wrapped.merge_and_unload()[0].weight.detach().double().numpy() - before
    (row,) = subspace.visibility(tmp_path / "base.safetensors", tmp_path / "adapter")
    assert (row.store, row.base_dtype, row.flags) == ("bfloat16", "bfloat16", ())
    assert 0.1 < row.changed < 0.9
    # a sum within rounding of float32 of a tie may go either way
    assert row.changed == pytest.approx(np.count_nonzero(D) / D.size, abs=2 / D.size)
    assert row.norm_left * row.norm_delta_W == pytest.approx(np.linalg.norm(D), rel=2e-3)


def test_a_fine_tune_in_the_type_of_its_base_is_whole():
    """Whatever is the difference of two bfloat16 weights is kept by bfloat16."""
    rng = np.random.default_rng(1)
    base = {"q.weight": _bfloat16(rng.standard_normal((30, 20)))}
    tuned = {"q.weight": _bfloat16(base["q.weight"].float().numpy() + 0.01 * rng.standard_normal((30, 20)))}
    (row,) = subspace.visibility(base, tuned)
    assert row.store == "bfloat16" and Flag.FINE_TUNE in row.flags
    assert (row.norm_left, row.cosine) == (pytest.approx(1, rel=1e-12), pytest.approx(1, rel=1e-12))


@pytest.mark.parametrize("store", ["bfloat16", "float16", "float32", "int8"])
def test_a_base_that_is_stored_transposed_gives_the_same(store):
    rng = np.random.default_rng(2)
    W, pair = rng.standard_normal((24, 20)), _pair(rng, "q", size=1e-2)
    (one,) = subspace.visibility({"q.weight": W}, pair, scale=1.0, store=store)
    (other,) = subspace.visibility({"q.weight": np.ascontiguousarray(W.T)}, pair, scale=1.0, store=store)
    for name in ("changed", "changed_random", "norm_left", "cosine", "phi_left", "phi_right"):
        assert getattr(other, name) == pytest.approx(getattr(one, name), rel=1e-9), name


def test_groups_of_a_fused_layer_are_those_rows_alone():
    rng = np.random.default_rng(3)
    W = rng.standard_normal((36, 12)).astype(np.float32)
    A, B = rng.standard_normal((4, 12)), 1e-2 * rng.standard_normal((24, 2))
    fused = {"attn.c_attn.lora_A": A, "attn.c_attn.lora_B": B}
    found = subspace.visibility(
        {"attn.c_attn.weight": W}, fused, scale=1.0, enable_lora=(True, False, True), store="int8"
    )
    assert len(found) == 2
    for row, part, rows in zip(found, (0, 1), (slice(0, 12), slice(24, 36)), strict=True):
        pair = {"q.lora_A": A[2 * part : 2 * part + 2], "q.lora_B": B[12 * part : 12 * part + 12]}
        (alone,) = subspace.visibility({"q.weight": W[rows]}, pair, scale=1.0, store="int8")
        names = dict.fromkeys(("module", "base_key", "flags"))
        assert row.record() | names == alone.record() | names


def test_dora_counts_with_its_magnitudes():
    rng = np.random.default_rng(4)
    W, pair = rng.standard_normal((24, 20)), _pair(rng, "q", size=1e-2)
    m = 1.02 * np.linalg.norm(W, axis=1)
    V = W + pair["q.lora_B.weight"].astype(float) @ pair["q.lora_A.weight"]
    change = m[:, None] * V / np.linalg.norm(V, axis=1, keepdims=True) - W
    adapter = {**pair, "q.lora_magnitude_vector": m}
    (row,) = subspace.visibility({"q.weight": W}, adapter, scale=1.0, store="bfloat16")
    D = _dense(W, change)
    assert Flag.DORA not in row.flags
    assert row.norm_delta_W == pytest.approx(np.linalg.norm(change), rel=1e-5)
    assert row.norm_left == pytest.approx(np.linalg.norm(D) / np.linalg.norm(change), rel=1e-3)


def test_auto_is_the_type_of_the_base_where_that_has_16_bits_and_else_bfloat16_with_a_flag():
    import torch

    rng = np.random.default_rng(5)
    W, pair = torch.from_numpy(rng.standard_normal((24, 20))), _pair(rng, "q")
    for dtype, store in (("float16", "float16"), ("bfloat16", "bfloat16"), ("float32", "bfloat16")):
        found = subspace.visibility({"q.weight": W.to(getattr(torch, dtype))}, pair, scale=1.0)
        (row,) = found
        assert (row.base_dtype, row.store) == (dtype, store)
        assert (Flag.ROUNDED_FIRST in row.flags) == (dtype == "float32")
        assert any("stored in another type" in note for note in found.notes) == (dtype == "float32")
    (row,) = subspace.visibility({"q.weight": W.to(torch.bfloat16)}, pair, scale=1.0, store="float32")
    assert row.flags == () and row.norm_left == pytest.approx(1, abs=1e-4)


def test_an_update_below_half_a_step_of_every_weight_leaves_nothing():
    pair = {"q.lora_A.weight": np.ones((1, 8)), "q.lora_B.weight": np.full((6, 1), 2.0**-10)}
    found = subspace.visibility({"q.weight": np.ones((6, 8))}, pair, scale=1.0, store="bfloat16")
    (row,) = found
    assert (row.changed, row.norm_left, row.cosine, row.phi_left) == (0, 0, None, None)
    assert Flag.NOTHING_LEFT in row.flags and (found.changed, found.norm_left, found.cosine) == (0, 0, None)
    assert "nothing of delta_W is left" in found.headline()
    json.loads(found.to_json())


def test_weights_too_large_for_float16_have_no_norm():
    W = np.full((6, 8), 65504.0)
    pair = {"q.lora_A.weight": np.ones((1, 8)), "q.lora_B.weight": np.full((6, 1), 100.0)}
    found = subspace.visibility({"q.weight": W}, pair, scale=1.0, store="float16")
    (row,) = found
    assert (row.infinite, row.norm_left, row.cosine) == (48, None, None)
    assert Flag.TOO_LARGE_TO_STORE in row.flags and "give `store` bfloat16 or float32" in " ".join(
        found.notes
    )
    assert "it is known" in found.headline() and found.norm_left is None


def test_zero_weights_and_a_zero_row_keep_the_update():
    rng = np.random.default_rng(6)
    W, pair = rng.standard_normal((24, 20)), _pair(rng, "q")
    W[3] = 0
    for store in ("bfloat16", "int8"):
        (row,) = subspace.visibility({"q.weight": W}, pair, scale=1.0, store=store)
        assert row.norm_left is not None and math.isfinite(row.norm_left)
        (row,) = subspace.visibility({"q.weight": 0 * W}, pair, scale=1.0, store=store)
        assert row.norm_left == pytest.approx(1, abs=5e-3) and row.cosine > 0.999


def test_modules_without_an_answer_are_left_out_of_the_total():
    rng = np.random.default_rng(7)
    adapter = {**_pair(rng, "q"), **_pair(rng, "k"), **_pair(rng, "v")}
    adapter["k.lora_B.weight"] *= 0
    adapter["v.lora_A.weight"][0, 0] = np.nan
    base = {f"{name}.weight": rng.standard_normal((24, 20)) for name in "qkv"}
    found = subspace.visibility(base, adapter, scale=1.0)
    assert {row.module: row.changed is None for row in found} == {"q": False, "k": True, "v": True}
    assert Flag.UNTRAINED in found["k"].flags and Flag.NOT_FINITE in found["v"].flags
    assert (found.changed, found.norm_left) == (found["q"].changed, pytest.approx(found["q"].norm_left))


def test_the_total_is_that_of_all_modules_as_one_matrix():
    rng = np.random.default_rng(8)
    adapter = {**_pair(rng, "q"), **_pair(rng, "k", d_out=10, size=1e-2)}
    base = {"q.weight": rng.standard_normal((24, 20)), "k.weight": rng.standard_normal((10, 20))}
    found = subspace.visibility(base, adapter, scale=1.0, store="bfloat16", r=0)
    pairs = [
        (_dense(base[f"{n}.weight"], delta), delta)
        for n in "qk"
        for delta in [adapter[f"{n}.lora_B.weight"].astype(float) @ adapter[f"{n}.lora_A.weight"]]
    ]
    D, delta_W = (np.concatenate(each) for each in zip(*pairs, strict=True))
    assert found.changed == pytest.approx(np.count_nonzero(D) / D.size)
    assert found.norm_left == pytest.approx(np.linalg.norm(D) / np.linalg.norm(delta_W), rel=1e-5)
    assert found.cosine == pytest.approx(_cosine(D, delta_W), rel=1e-5)
    assert all(row.phi_left is None for row in found)
    assert found["q"].cosine < found["k"].cosine
    assert found.headline().endswith(f"The lowest cosine is {found['q'].cosine:.3g}, in q.")


def test_without_a_single_answer_there_is_an_error():
    rng = np.random.default_rng(9)
    W, pair = {"q.weight": rng.standard_normal((24, 20))}, _pair(rng, "q")
    with pytest.raises(InconclusiveError, match=r"scale of delta_W is unknown, in module q .*give `scale`"):
        subspace.visibility(W, pair)
    with pytest.raises(InconclusiveError, match="exactly zero"):
        subspace.visibility(W, {**pair, "q.lora_B.weight": np.zeros((24, 3))}, scale=1.0)
    with pytest.raises(InconclusiveError, match="Cannot tell how much of the update is left: "):
        subspace.visibility({"q.weight": np.nan * W["q.weight"]}, pair, scale=1.0)


def test_unknown_types_and_negative_ranks_are_refused():
    for bad in ({"store": "fp4"}, {"r": -1}):
        with pytest.raises(ValueRangeError, match=r"give `(store|r)`"):
            subspace.visibility(np.eye(3), np.eye(3), **bad)
    with pytest.raises(ValueRangeError, match=r"Unknown type to store 'fp4'"):
        subspace.amplify(np.eye(3), np.eye(3), store="fp4")


def test_amplify_has_the_same_numbers_where_they_are_asked_for(tmp_path):
    rng = np.random.default_rng(10)
    base, adapter = {"q.weight": rng.standard_normal((24, 20))}, _pair(rng, "q")
    save_file({"q.weight": base["q.weight"].astype(np.float32)}, tmp_path / "base.safetensors")
    (row,) = subspace.visibility(tmp_path / "base.safetensors", adapter, scale=1.0)
    found = subspace.amplify(tmp_path / "base.safetensors", adapter, scale=1.0, store="auto")
    for name in ("store", "changed", "changed_random", "norm_left", "cosine"):
        assert getattr(found.modules[0], name) == getattr(row, name)
        assert found.records()[0][name] == getattr(row, name)
    assert Flag.ROUNDED_FIRST in found.modules[0].flags
    assert {"changed", "norm_left"} <= set(found.columns())
    without = subspace.amplify(tmp_path / "base.safetensors", adapter, scale=1.0)
    assert not {"store", "changed", "norm_left", "cosine"} & {*without.columns(), *without.records()[0]}
    assert "store" not in without.document()["modules"][0]


def test_factors_whose_product_is_beyond_float32_are_too_large_for_every_type():
    rng = np.random.default_rng(11)
    pair = {"q.lora_A.weight": 1e30 * np.ones((2, 20)), "q.lora_B.weight": 1e30 * np.ones((24, 2))}
    other = _pair(rng, "v")
    base = {f"{name}.weight": rng.standard_normal((24, 20)) for name in "qv"}
    found = subspace.visibility(base, {**pair, **other}, scale=1.0)
    assert Flag.TOO_LARGE_TO_STORE in found["q"].flags and found["q"].changed is None
    assert found["v"].changed > 0
