"""A merged or fine-tuned model as an adapter: ranks, errors, what is left out, and what rounding can make."""

from __future__ import annotations

import json

import numpy as np
import pytest

import subspace
from subspace.adapters import load_adapter
from subspace.analysis.difference_rows import Difference, survey
from subspace.analysis.leading_change import leading_change
from subspace.checkpoints import StoredMatrix
from subspace.checkpoints.narrowing import narrow
from subspace.checkpoints.widening import widen

D = 128
MODULES = [f"model.layers.{n}.self_attn.{p}_proj" for n in range(2) for p in "qkv"]
MERGED = [module for module in MODULES if not module.endswith("k_proj")]


def _rounded(M, dtype):
    return widen(narrow(np.asarray(M), dtype), dtype)


def _stored(M, dtype):
    """A matrix as a torch tensor of a type, so that bfloat16 has its own."""
    torch = pytest.importorskip("torch")
    return torch.tensor(_rounded(M, dtype)).to(getattr(torch, dtype))


def _lora(rng, r, size, d=D):
    """A LoRA with falling singular values, the largest of which is `size`."""
    B = np.linalg.qr(rng.standard_normal((d, r)))[0] * np.geomspace(1, 0.2, r)
    return size * B @ np.linalg.qr(rng.standard_normal((d, r)))[0].T


def _weights(rng, dtype, modules=MODULES):
    return {name: _rounded(0.02 * rng.standard_normal((D, D)), dtype).astype(np.float64) for name in modules}


def _files(W, T, dtype):
    return tuple({f"{name}.weight": _stored(M, dtype) for name, M in each.items()} for each in (W, T))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("r", [1, 4, 16])
@pytest.mark.parametrize("size", [0.003, 0.03, 0.3, 3.0])
def test_the_rank_of_a_merged_lora_is_recovered_above_the_floor(dtype, r, size):
    """Never more directions than were merged, and every one above the floor."""
    rng = np.random.default_rng(round(1e4 * size) + r)
    W = _weights(rng, dtype)
    change = {name: _lora(rng, r, size) for name in MERGED}
    T = {name: M + change.get(name, 0) for name, M in W.items()}
    try:
        found = subspace.extract(*_files(W, T, dtype))
    except subspace.InconclusiveError:
        assert size < 0.01 and dtype == "bfloat16"
        return
    assert set(found.unchanged) == set(MODULES) - set(MERGED)
    for row in found.modules:
        sigma = np.linalg.svd(change[row.module], compute_uv=False)[:r]
        assert row.recovered_rank <= r
        # what rounding swallows is lost, whatever its size
        assert "unmoved" in row.flags or row.recovered_rank >= np.sum(sigma > row.floor)
        assert row.recovered_rank == row.rank
        if size >= (0.3 if dtype == "bfloat16" else 0.03):
            assert row.recovered_rank == r and "unmoved" not in row.flags
        assert bool("rounding_only" in row.flags) == (row.rank == 0)
    assert load_adapter(found.adapter).keys() == {row.module for row in found.modules if row.rank}


@pytest.mark.parametrize(
    ("base", "tuned"), [("float32", "bfloat16"), ("float32", "float16"), ("float16", "bfloat16")]
)
def test_a_base_in_a_shorter_type_has_no_false_direction(base, tuned):
    """Rounding alone: of 40 matrices of three shapes and two laws none has a direction above the edge."""
    rng = np.random.default_rng(5)
    for shape in ((64, 64), (128, 48), (40, 160)):
        for heavy in (False, True) * 7:
            W = 0.02 * (rng.standard_t(3, shape) if heavy else rng.standard_normal(shape))
            one, other = narrow(_rounded(W, base).astype(np.float64), base), narrow(W, tuned)
            difference = Difference(StoredMatrix(other, tuned), StoredMatrix(one, base))
            found = survey(difference)
            assert leading_change(difference, found, most=8, energy=None).above == 0


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_large_module_takes_the_streamed_way_to_the_same_numbers(dtype):
    """Above 512 there is no dense SVD; directions a million times smaller than the first are found too."""
    rng = np.random.default_rng(0)
    d_out, d_in, r = 640, 560, 5
    W = _rounded(0.02 * rng.standard_normal((d_out, d_in)), dtype).astype(np.float64)
    U, V = (np.linalg.qr(rng.standard_normal((d, r)))[0] for d in (d_out, d_in))
    S = np.array([1.0, 0.3, 0.1, 2e-2, 1e-6])
    T = _rounded(W + U * S @ V.T, dtype)
    D = Difference(StoredMatrix(narrow(T, dtype), dtype), StoredMatrix(narrow(W, dtype), dtype))
    found = survey(D)
    change = leading_change(D, found, most=64, energy=None)
    dense = np.linalg.svd(T - W, compute_uv=False)
    above = 5 if dtype == "float32" else 4
    assert change.complete and change.above == above
    np.testing.assert_allclose(change.S[:above], dense[:above], rtol=1e-9)
    assert found.norm == pytest.approx(np.linalg.norm(dense), rel=1e-12)
    assert change.floor > dense[above]


def test_a_large_full_fine_tune_is_cut_to_its_best_approximation():
    rng = np.random.default_rng(1)
    d = 544
    sigma = np.arange(1, d + 1) ** -0.7
    change = (
        np.linalg.qr(rng.standard_normal((d, d)))[0] * sigma @ np.linalg.qr(rng.standard_normal((d, d)))[0]
    )
    W = rng.standard_normal((d, d)).astype(np.float32)
    T = (W + change).astype(np.float32)
    base, tuned = ({"h.0.q.weight": M, "h.1.q.weight": W} for M in (W, T))
    (row,) = subspace.extract(base, tuned, rank=12).modules
    assert row.rank == 12 and row.recovered_rank is None and "no_low_rank" in row.flags
    best = np.linalg.norm(sigma[12:]) / np.linalg.norm(sigma)
    assert best * (1 - 1e-6) <= row.error <= best * (1 + 1e-4)
    (row,) = subspace.extract(base, tuned, energy=0.5).modules
    needed = 1 + int(np.searchsorted(np.cumsum(sigma**2) / np.sum(sigma**2), 0.5))
    assert row.rank == needed and row.energy >= 0.5


def test_energy_is_that_of_the_stored_factors():
    rng = np.random.default_rng(2)
    W = _weights(rng, "float32")
    T = {name: M + 0.1 * rng.standard_normal((D, D)) for name, M in W.items()}
    base, tuned = _files(W, T, "float32")
    for energy, dtype in ((0.3, "float32"), (0.9, "bfloat16"), (0.999999, "bfloat16")):
        found = subspace.extract(base, tuned, energy=energy, dtype=dtype)
        for row in found.modules:
            change = T[row.module].astype(np.float32).astype(np.float64) - W[row.module]
            left = change - found.adapter[row.module].delta_W()
            assert row.error == pytest.approx(np.linalg.norm(left) / np.linalg.norm(change), rel=1e-6)
            assert row.energy == pytest.approx(1 - row.error**2)
            assert (row.energy >= energy) or "energy_below_wanted" in row.flags
            assert ("energy_below_wanted" in row.flags) is (energy == 0.999999)


def test_the_written_adapter_is_read_back_and_its_error_is_exact(tmp_path):
    rng = np.random.default_rng(3)
    W = _weights(rng, "float32")
    T = {name: M + _lora(rng, 6, 0.5) for name, M in W.items()}
    found = subspace.extract(*_files(W, T, "float32"), rank=4, dtype="float16")
    found.save(tmp_path / "out")
    with pytest.raises(subspace.SubspaceError, match="exists"):
        found.save(tmp_path / "out")
    found.save(tmp_path / "out", overwrite=True)
    read = load_adapter(tmp_path / "out")
    for row in found.modules:
        change = T[row.module].astype(np.float32).astype(np.float64) - W[row.module]
        left = np.linalg.norm(change - read[row.module].delta_W()) / np.linalg.norm(change)
        assert (row.rank, row.recovered_rank) == (4, 6)
        assert row.error == pytest.approx(left, rel=1e-9)
    config = json.loads((tmp_path / "out/adapter_config.json").read_text())
    assert (config["r"], config["lora_alpha"], config["base_model_name_or_path"]) == (4, 4, None)


def test_convolutions_and_square_conv1d():
    rng = np.random.default_rng(4)
    W = {
        "h.0.attn.c_attn.weight": rng.standard_normal((24, 72)),
        "h.0.attn.c_proj.weight": rng.standard_normal((24, 24)),
        "conv.weight": rng.standard_normal((10, 6, 3, 3)),
        "depthwise.weight": rng.standard_normal((10, 1, 3, 3)),
    }
    T = {
        key: M + 0.1 * np.ones_like(M) * np.arange(len(M)).reshape(-1, *[1] * (M.ndim - 1))
        for key, M in W.items()
    }
    base, tuned = ({k: M.astype(np.float32) for k, M in each.items()} for each in (W, T))
    found = subspace.extract(base, tuned)
    assert {row.module: row.rank for row in found.modules} == {
        "h.0.attn.c_attn": 1,
        "h.0.attn.c_proj": 1,
        "conv": 1,
    }
    assert [each["key"] for each in found.rest] == ["depthwise.weight"]
    for row in found.modules:
        key, whole = f"{row.module}.weight", found.adapter[row.module].delta_W()
        change = (tuned[key] - base[key]).reshape(len(base[key]), -1)
        np.testing.assert_allclose(whole, change if row.module == "conv" else change.T, atol=1e-5)
    assert found.adapter["conv"].A_factor.tensor_shape == (1, 6, 3, 3)
    assert json.loads(found.files["adapter_config.json"])["fan_in_fan_out"] is True


def test_what_is_no_lora_is_named_with_its_reason():
    rng = np.random.default_rng(6)
    base = {
        "embed_tokens.weight": rng.standard_normal((20, 8)),
        "layers.0.q.weight": rng.standard_normal((8, 8)),
        "layers.0.q.bias": np.zeros(8),
        "layers.0.norm.weight": np.ones(8),
        "layers.1.norm.weight": np.ones(8),
        "experts.gate_up": rng.standard_normal((4, 8, 8)),
    }
    base = {key: M.astype(np.float32) for key, M in base.items()}
    tuned = {key: M + np.float32(1) for key, M in base.items()} | {
        "embed_tokens.weight": np.ones((24, 8), np.float32),
        "layers.1.norm.weight": base["layers.1.norm.weight"],
        "head.weight": np.ones((2, 8), np.float32),
    }
    tuned["layers.0.q.weight"] = base["layers.0.q.weight"] + np.eye(8, dtype=np.float32)[:, :1]
    found = subspace.extract(base, tuned)
    assert {each["key"]: each["why"] for each in found.rest} == {
        "embed_tokens.weight": "of the shape [24, 8], but [20, 8] in the base model",
        "layers.0.q.bias": "a bias",
        "layers.0.norm.weight": "not a matrix",
        "experts.gate_up": "a parameter, not the weight of a layer",
        "head.weight": "not in the base model",
    }
    assert any(
        "5 changed tensors NOT in the adapter" in note and "`save_rest`" in note for note in found.notes
    )
    saved = subspace.extract(base, tuned, save_rest=True)
    assert [each["key"] for each in saved.rest if not each["saved"]] == ["experts.gate_up"]
    one = subspace.extract(base, tuned, layers=[0])
    assert {each["key"] for each in one.rest} == {"layers.0.q.bias", "layers.0.norm.weight"}


def test_errors_say_what_is_wrong():
    rng = np.random.default_rng(7)
    W = {f"h.{n}.q.weight": rng.standard_normal((32, 32)).astype(np.float32) for n in range(3)}
    other = {key: rng.standard_normal((32, 32)).astype(np.float32) for key in W}
    pair = {"h.0.q.lora_A": np.ones((2, 32)), "h.0.q.lora_B": np.ones((32, 2))}
    cases = [
        ((W, other), {}, "Unrelated weights: the cosine between .* is at most"),
        ((W, {key: M[:16] for key, M in W.items()}), {}, "No matrices in common"),
        ((W, W), {}, "No matrix changed between"),
        ((W, pair), {}, "Not a whole model: .* is read as an adapter"),
        ((W, other), {"rank": 0}, "Invalid rank 0"),
        ((W, other), {"rank": 2, "energy": 0.5}, "give `rank` or `energy`, not both"),
        ((W, other), {"energy": 0}, "Invalid share of energy 0"),
        ((W, other), {"dtype": "int8"}, "Invalid type 'int8'"),
    ]
    for models, given, message in cases:
        with pytest.raises(subspace.SubspaceError, match=message):
            subspace.extract(*models, **given)
    cast = {key: _rounded(M, "bfloat16") for key, M in W.items()}
    torch = pytest.importorskip("torch")
    short = {key: torch.tensor(M).to(torch.bfloat16) for key, M in cast.items()}
    with pytest.raises(subspace.InconclusiveError, match="No module changed by more than rounding"):
        subspace.extract(W, short)


def test_a_module_that_is_not_finite_is_left_out_and_named():
    rng = np.random.default_rng(8)
    W = _weights(rng, "float32")
    T = {name: M + _lora(rng, 2, 0.5) for name, M in W.items()}
    base, tuned = _files(W, T, "float32")
    tuned[f"{MODULES[1]}.weight"][3, 4] = float("nan")
    found = subspace.extract(base, tuned)
    assert found[MODULES[1]].flags == ("not_finite",) and found[MODULES[1]].rank is None
    assert MODULES[1] not in found.adapter and len(found.adapter) == 5
    assert any("not all finite" in note and MODULES[1] in note for note in found.notes)


def test_the_headline_says_where_the_rank_is():
    rng = np.random.default_rng(9)
    W = _weights(rng, "bfloat16")
    T = {name: M + (_lora(rng, 4, 0.5) if name in MERGED else 0) for name, M in W.items()}
    found = subspace.extract(*_files(W, T, "bfloat16"))
    assert "has rank 4 in q_proj, v_proj (4 modules) and none in 2 modules." in found.headline()
    document = json.loads(found.to_json())
    assert document["schema"] == "subspace.extract/1"
    assert {"module", "rank", "error", "flags", "sigma", "floor", "recovered_rank", "energy", "norm"} <= set(
        document["modules"][0]
    )


def test_names_are_the_longer_of_the_two():
    rng = np.random.default_rng(10)
    W = rng.standard_normal((16, 16)).astype(np.float32)
    changed = W + np.eye(16, 1, dtype=np.float32)
    short, long = {"h.0.q.weight": W, "h.1.q.weight": W}, {"m.h.0.q.weight": W, "m.h.1.q.weight": changed}
    assert list(subspace.extract(short, long).adapter) == ["m.h.1.q"]
    assert list(subspace.extract(long, dict.fromkeys(short, changed)).adapter) == ["m.h.0.q"]


def test_the_plot_has_a_row_for_each_kind_and_a_column_for_each_layer():
    rng = np.random.default_rng(11)
    W = _weights(rng, "float32")
    T = {name: M + (_lora(rng, 4, 0.5) if name in MERGED else 0) for name, M in W.items()}
    axes = subspace.extract(*_files(W, T, "float32")).plot()
    assert [tick.get_text() for tick in axes.get_yticklabels()] == ["q_proj", "v_proj", "k_proj"]
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["0", "1"]
    assert sorted(text.get_text() for text in axes.texts) == ["0", "0", "4", "4", "4", "4"]
    T[MERGED[0]] = W[MERGED[0]] + 0.1 * rng.standard_normal((D, D))
    axes = subspace.extract(*_files(W, T, "float32")).plot()
    assert axes.get_title() == "recovered rank; hatched: no low rank"
    assert len(axes.patches) == 1 and len(axes.texts) == 5
