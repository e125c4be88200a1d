"""``explain``: planted directions, outputs of the updates themselves, heads, and what it refuses to say."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny_models import tiny

import subspace
from subspace.errors import FileError, InconclusiveError, ValueRangeError
from subspace.flags import Flag
from subspace.geometry.second_moment import SecondMoment
from subspace.results.inputs import Gradient, Inputs, ModuleInputs
from subspace.training import embedded

NAMES = [
    "model.layers.1.self_attn.q_proj",
    "model.layers.1.self_attn.o_proj",
    "model.layers.2.mlp.gate_proj",
    "model.layers.2.mlp.down_proj",
]


def _lora(name, B, A):
    return {f"{name}.lora_A.weight": np.atleast_2d(A), f"{name}.lora_B.weight": B.reshape(len(B), -1)}


def _adapter(seed, *, r=4, modules=NAMES):
    rng = np.random.default_rng(seed)
    model, found = embedded.load(), {}
    for name in modules:
        d_out, d_in = model.get_submodule(name).weight.shape
        found |= _lora(name, rng.standard_normal((d_out, r)), rng.standard_normal((r, d_in)))
    return found


def _parameter(name):
    return dict(embedded.load().named_parameters())[name].detach().double().numpy()


@pytest.fixture(scope="module")
def ids():
    return torch.randint(0, 256, (6, 40), generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def inputs(ids):
    return subspace.inputs(embedded.load(), [ids[:3], ids[3:]], targets=NAMES)


@pytest.fixture(scope="module")
def tokens(ids):
    """What each module is given, in float64."""
    model, found = embedded.load(), {}
    for name in NAMES:
        model.get_submodule(name).register_forward_pre_hook(
            lambda module, args, name=name: found.__setitem__(
                name, args[0].detach().double().flatten(0, 1).numpy()
            )
        )
    model(ids)
    return found


def _inputs_of(module, moment, gradient=None):
    row = ModuleInputs(
        module=module, read_with=module, tokens=moment.tokens, d=moment.d, energy=moment.trace, mean_share=None,
        top_share=None, effective_dimension=None, decay=None, eigenpairs=moment.k, rest_share=0.0, error_share=0.0,
        gradient_norm=None, gradient_top_share=None, eigenvalues=moment.values,
    )  # fmt: skip
    gradients = {} if gradient is None else {module: gradient}
    return Inputs("model", "data", "", "", moment.tokens, (row,), {module: moment}, gradients)


def _moment(mean, covariance):
    values, vectors = np.linalg.eigh(covariance + np.outer(mean, mean))
    return SecondMoment(1000, mean, values[::-1], vectors[:, ::-1], float(values.sum()))


# --- sizes and shares


def test_functional_sizes_are_those_of_the_outputs(inputs, tokens):
    adapter = _adapter(0)
    result = subspace.explain(adapter, inputs=inputs, directions=4, scale=2.0)
    for name, x in tokens.items():
        A, B = (adapter[f"{name}.lora_{side}.weight"] for side in "AB")
        y = 2.0 * (x @ A.T) @ B.T
        whole = np.mean(np.sum(y**2, axis=1))
        rows = [row for row in result if row.module == name]
        assert sum(row.output_square for row in rows) == pytest.approx(whole, rel=1e-6)
        assert sum(row.output_share for row in rows) == pytest.approx(1, abs=1e-6)
        _, S, Vh = np.linalg.svd(2.0 * B @ A)
        for row in rows:
            n = row.k - 1
            part = S[n] * (x @ Vh[n])
            assert row.sigma == pytest.approx(S[n], rel=1e-9)
            assert row.output_square == pytest.approx(np.mean(part**2), rel=1e-6)
            assert row.output_variance == pytest.approx(np.var(part), rel=1e-6)
            assert row.constant_share == pytest.approx(np.mean(part) ** 2 / np.mean(part**2), abs=1e-6)
            mean = x.mean(axis=0)
            assert row.mean_share == pytest.approx((Vh[n] @ mean) ** 2 / (mean @ mean), abs=1e-6)
            assert row.constant_isotropic == pytest.approx(mean @ mean / np.mean(np.sum(x**2, 1)), rel=1e-6)
            top = np.linalg.svd(x)[2][:16]
            assert row.input_share == pytest.approx(np.sum((top @ Vh[n]) ** 2), abs=1e-5)
            assert (row.mean_isotropic, row.input_isotropic) == (1 / x.shape[1], 16 / x.shape[1])


def test_a_direction_along_the_mean_has_a_mean_share_of_one():
    rng = np.random.default_rng(1)
    mean = rng.standard_normal(20)
    moment = _moment(mean, 0.01 * np.eye(20))
    gradient = Gradient(np.ones(1), np.eye(8, 1), mean[:, None] / np.linalg.norm(mean), 1.0)
    adapter = _lora("q", rng.standard_normal(8), mean / np.linalg.norm(mean))
    row = subspace.explain(adapter, inputs=_inputs_of("q", moment, gradient), scale=1.0, leading=1).modules[0]
    assert row.mean_share == pytest.approx(1, abs=1e-12)
    assert row.gradient_share == pytest.approx(1, abs=1e-12) and row.gradient_isotropic == 1 / 20
    assert row.input_share == pytest.approx(1, abs=1e-12) and row.W_share is None
    assert row.constant_share == pytest.approx(mean @ mean / (mean @ mean + 0.01), abs=1e-12)
    # delta_W has no other direction: the controls are random ones, which average to chance
    assert row.control == "isotropic" and row.mean_control == pytest.approx(1 / 20, abs=0.03)
    headline = subspace.explain(adapter, inputs=_inputs_of("q", moment), scale=1.0).headline()
    assert headline.startswith(
        "The leading direction lies to 100 % in the mean of its inputs (isotropic chance 5 %"
    )


def test_shares_in_W_are_those_of_its_singular_vectors():
    rng = np.random.default_rng(2)
    W = rng.standard_normal((24, 20))
    Vh = np.linalg.svd(W)[2]
    V = np.vstack([0.6 * Vh[0] + 0.8 * Vh[15], 0.8 * Vh[0] - 0.6 * Vh[15]])
    adapter = _lora("q", np.linalg.qr(rng.standard_normal((24, 2)))[0] * [2.0, 1.0], V)
    result = subspace.explain(adapter, base={"q.weight": W}, scale=1.0, leading=4, directions=1)
    row = result.modules[0]
    assert row.W_share == pytest.approx(0.36, abs=1e-6) and row.W_isotropic == 4 / 20
    assert row.control == "trailing" and row.W_control == pytest.approx(0.64, abs=1e-6)
    assert row.token is None and "where in a language model" in row.without_tokens


def test_a_weight_stored_transposed_gives_the_input_side():
    rng = np.random.default_rng(3)
    W = rng.standard_normal((24, 20))
    adapter = _lora("q", rng.standard_normal((24, 3)), rng.standard_normal((3, 20)))
    plain, turned = (
        subspace.explain(adapter, base={"q.weight": M}, scale=1.0, leading=4) for M in (W, W.T.copy())
    )
    assert [row.W_share for row in turned] == pytest.approx([row.W_share for row in plain], abs=1e-6)


def test_a_dense_update_has_the_numbers_of_its_factors(inputs):
    adapter = {key: value for key, value in _adapter(4).items() if key.startswith(NAMES[0])}
    A, B = (adapter[f"{NAMES[0]}.lora_{side}.weight"] for side in "AB")
    low = subspace.explain(adapter, inputs=inputs, heads=[8], scale=2.0)
    dense = subspace.explain({f"{NAMES[0]}.delta_W": B @ A}, inputs=inputs, heads=[8], scale=2.0)
    for one, other in zip(low, dense, strict=True):
        for name in (
            "sigma",
            "energy_share",
            "output_square",
            "output_share",
            "constant_share",
            "head_share",
        ):
            assert getattr(one, name) == pytest.approx(getattr(other, name), rel=1e-5), name
    np.testing.assert_allclose(low.heads[0].share, dense.heads[0].share, atol=1e-6)
    np.testing.assert_allclose(low.heads[0].output, dense.heads[0].output, rtol=1e-5)


def test_what_does_not_exist_is_none_with_a_flag(inputs):
    adapter = _adapter(5)
    adapter[f"{NAMES[2]}.lora_B.weight"] *= 0
    adapter[f"{NAMES[3]}.lora_A.weight"][0, 0] = np.nan
    result = subspace.explain(adapter, inputs=replace(inputs, modules=inputs.modules[:1]), scale=2.0)
    untrained, damaged = result["layers.2.mlp.gate_proj"], result["layers.2.mlp.down_proj"]
    assert (untrained.k, untrained.sigma, untrained.flags[-1]) == (0, None, Flag.UNTRAINED)
    assert (damaged.k, damaged.sigma, damaged.flags[-1]) == (0, None, Flag.NOT_FINITE)
    other = result["layers.1.self_attn.o_proj", 1]
    assert other.mean_share is None and Flag.NO_INPUTS in other.flags
    assert result["layers.1.self_attn.q_proj", 1].mean_share is not None
    row = subspace.explain(adapter, inputs=inputs)["q_proj", 1]
    assert row.output_square is None and row.constant_share is not None and Flag.SCALE_UNKNOWN in row.flags


def test_directions_that_rounding_turns_are_flagged():
    eye = {"q.lora_A": np.eye(3, 8), "q.lora_B": np.eye(9, 3) * [4.0, 4.0, 1.0]}
    flagged = [Flag.NEAR_TIE in row.flags for row in subspace.explain(eye, scale=1.0)]
    assert flagged == [True, True, False]


def test_a_full_fine_tune_is_explained_with_its_base():
    rng = np.random.default_rng(14)
    W = {f"layers.{n}.q_proj.weight": rng.standard_normal((24, 16)) for n in range(2)}
    u, v = rng.standard_normal(24), rng.standard_normal(16)
    tuned = {name: weight + np.outer(u, v) for name, weight in W.items()}
    result = subspace.explain(tuned, base=W, directions=1, heads=[4])
    assert [row.sigma for row in result] == pytest.approx(
        [np.linalg.norm(u) * np.linalg.norm(v)] * 2, rel=1e-9
    )
    assert all(row.energy_share == pytest.approx(1) and row.W_share is not None for row in result)
    squares = [np.sum(u[start : start + 6] ** 2) / (u @ u) for start in range(0, 24, 6)]
    np.testing.assert_allclose(result.heads[0].share, squares, rtol=1e-6)


def test_an_adapter_without_directions_and_other_inputs_are_errors(inputs):
    zero = {key: 0 * value for key, value in _adapter(6).items()}
    with pytest.raises(InconclusiveError, match=r"No module has a direction: .*untrained"):
        subspace.explain(zero)
    two = _lora("x.q", np.ones(4), np.ones(4)) | _lora("x.v", np.ones(4), np.ones(4))
    with pytest.raises(InconclusiveError, match="No module of the adapter is in the inputs"):
        subspace.explain(two, inputs=inputs)
    with pytest.raises(
        InconclusiveError, match=r"in the inputs: .* has a matrix without a name, and the inputs"
    ):
        subspace.explain(np.ones((4, 4)), inputs=inputs)
    with pytest.raises(ValueRangeError, match="Not inputs: int"):
        subspace.explain(two, inputs=3)
    for given in ({"directions": 0}, {"level": 1.0}, {"draws": 0}, {"heads": [0]}, {"leading": 0}):
        with pytest.raises(ValueRangeError, match=f"`{next(iter(given))}`"):
            subspace.explain(two, **given)


# --- heads


def test_squared_norms_of_heads_add_up_and_are_those_of_blocks(inputs):
    adapter = _adapter(7)
    result = subspace.explain(adapter, inputs=inputs, base="embedded", tokens=0, scale=2.0)
    model_heads = 8  # of the embedded base
    assert {each.module for each in result.heads} == set(NAMES[:2])
    for each in result.heads:
        A, B = (adapter[f"{each.module}.lora_{side}.weight"] for side in "AB")
        M = 2.0 * B @ A
        assert len(each.share) == model_heads and sum(each.share) == pytest.approx(1, abs=1e-12)
        blocks = np.split(M, model_heads, axis=1 if each.side == "columns" else 0)
        squares = [np.sum(block**2) / np.sum(M**2) for block in blocks]
        np.testing.assert_allclose(each.share, squares, rtol=1e-9)
    rows, columns = sorted(result.heads, key=lambda each: each.side, reverse=True)
    assert (rows.side, columns.side) == ("rows", "columns")
    whole = sum(row.output_square for row in result if row.module == rows.module)
    assert sum(rows.output) == pytest.approx(whole, rel=1e-9)
    assert all(sum(row.heads) == pytest.approx(1) for row in result if row.module in NAMES[:2])


def test_grouped_queries_have_fewer_heads_of_keys():
    rng = np.random.default_rng(8)
    adapter = {}
    for name, d_out in (("q_proj", 32), ("k_proj", 8), ("v_proj", 8)):
        adapter |= _lora(
            f"l.0.self_attn.{name}", rng.standard_normal((d_out, 2)), rng.standard_normal((2, 32))
        )
    by_size = subspace.explain(adapter, heads=[8], scale=1.0)
    assert {each.module[-6:]: len(each.share) for each in by_size.heads} == {
        "q_proj": 8,
        "k_proj": 2,
        "v_proj": 2,
    }
    given = subspace.explain(adapter, heads=[8, 2], scale=1.0)
    assert [each.share for each in given.heads] == [each.share for each in by_size.heads]
    none = subspace.explain(adapter, scale=1.0)
    assert none.heads == () and any("attention heads" in limit for limit in none.limits)


def test_one_planted_head_stands_out_and_random_updates_do_not():
    rng = np.random.default_rng(9)
    u = np.zeros(64)
    u[24:32] = rng.standard_normal(8)
    row, heads = (
        (found := subspace.explain(_lora("a.q_proj", u, rng.standard_normal(32)), heads=[8])).modules[0],
        found.heads[0],
    )
    assert (row.head, row.head_share, row.head_p) == ("3", pytest.approx(1), 0.0001)
    assert heads.largest_p == 0.001
    adapter = {}
    for n in range(200):
        adapter |= _lora(f"l.{n}.q_proj", rng.standard_normal((64, 3)), rng.standard_normal((3, 32)))
    result = subspace.explain(adapter, heads=[8], directions=1)
    assert 1 <= sum(row.head_p <= 0.05 for row in result) <= 20
    assert 1 <= sum(each.largest_p <= 0.05 for each in result.heads) <= 20


# --- tokens


def _planted(byte):
    """A delta_W that reads one byte of the embedded base, through the gain of the norm before it."""
    name = NAMES[0]
    v = _parameter("model.embed_tokens.weight")[byte] * _parameter("model.layers.1.input_layernorm.weight")
    return _lora(name, np.random.default_rng(byte).standard_normal(256), v)


def test_a_planted_token_is_first_at_the_floor():
    for byte in b"eTa":
        row = subspace.explain(_planted(byte), base="embedded", scale=1.0).modules[0]
        assert (row.token, row.token_p, row.read_as) == (repr(chr(byte)), 1 / 200, "input")
        assert row.tokens[0].place == 1 and row.tokens[0].id == byte and row.token_score > 0.7
    E, g = _parameter("model.embed_tokens.weight"), _parameter("model.norm.weight")
    adapter = _lora(NAMES[3], E[ord("e")] * g, np.random.default_rng(0).standard_normal(688))
    found = subspace.explain(adapter, base="embedded", scale=1.0, draws=99)
    row = found.modules[0]
    assert (row.token, row.token_p, row.read_as) == ("'e'", 1 / 100, "output")
    assert any("which writes 'e'" in fact for fact in found.facts()) and "one matrix" in " ".join(
        found.limits
    )


def test_scores_are_the_cosines_of_their_definition():
    row = subspace.explain(_planted(101), base="embedded", scale=1.0).modules[0]
    E, g = _parameter("model.embed_tokens.weight"), _parameter("model.layers.1.input_layernorm.weight")
    X = E / np.sqrt(np.mean(E**2, axis=1, keepdims=True))
    Y = (X - X.mean(axis=0)) * g
    v = E[101] * g
    scores = Y @ v / np.linalg.norm(Y, axis=1) / np.linalg.norm(v)
    order = np.argsort(-abs(scores), kind="stable")
    assert [token.id for token in row.tokens] == order[: len(row.tokens)].tolist()
    np.testing.assert_allclose(
        [abs(token.score) for token in row.tokens], abs(scores)[order][: len(row.tokens)], atol=1e-5
    )


def test_random_directions_name_a_token_at_the_stated_level():
    rng = np.random.default_rng(10)
    name = "model.layers.3.self_attn.v_proj"
    adapter = _lora(name, np.linalg.qr(rng.standard_normal((256, 200)))[0] * np.linspace(2, 1, 200),
                    np.linalg.qr(rng.standard_normal((256, 200)))[0].T)  # fmt: skip
    result = subspace.explain(adapter, base="embedded", scale=1.0, directions=200)
    named = sum(bool(row.tokens) for row in result)
    assert len(result) == 200 and 2 <= named <= 20  # 10 expected
    assert all(row.token == "none" for row in result if row.token_p > 0.05)
    quiet = subspace.explain(adapter, base="embedded", scale=1.0, directions=20, level=0.001)
    assert quiet.facts()[-1].startswith("No token stands out in any of 20 directions")


def test_tokens_of_other_layers_are_a_control_of_their_own():
    adapter = {}
    for layer in range(4):
        name = f"model.layers.{layer}.self_attn.q_proj"
        v = _parameter("model.embed_tokens.weight")[101] * _parameter(
            f"model.layers.{layer}.input_layernorm.weight"
        )
        adapter |= _lora(name, np.random.default_rng(layer).standard_normal(256), v)
    result = subspace.explain(adapter, base="embedded", scale=1.0)
    assert all(row.token == "'e'" and row.token_p == 1 / 200 for row in result)
    assert all(row.token_p_modules >= 1 / 4 for row in result)  # three other layers
    assert any("in 0 of these from other layers' directions too" in fact for fact in result.facts())


def test_gpt2_with_its_transposed_weights_tied_head_and_layer_norms(tmp_path):
    pytest.importorskip("transformers")
    folder = tiny("gpt2", tmp_path / "gpt2")
    from safetensors.numpy import load_file, save_file

    base = load_file(folder / "model.safetensors")
    rng = np.random.default_rng(11)
    gain = {
        key: rng.uniform(0.5, 2, value.shape).astype(np.float32)
        for key, value in base.items()
        if "ln_" in key and key.endswith("weight")
    }
    save_file({**base, **gain}, folder / "model.safetensors", metadata={"format": "pt"})
    E = base["transformer.wte.weight"].astype(np.float64)
    centred = E - E.mean(axis=1, keepdims=True)
    v = gain["transformer.h.1.ln_1.weight"] * centred[77]
    u = gain["transformer.ln_f.weight"] * E[88]
    adapter = _lora("transformer.h.1.attn.c_attn", rng.standard_normal(96), v)
    adapter |= _lora("transformer.h.0.mlp.c_proj", u - u.mean(), rng.standard_normal(128))
    result = subspace.explain(adapter, base=folder, scale=1.0)
    read, written = result["c_attn"], result["c_proj"]
    assert (read.tokens[0].id, read.token_p, written.tokens[0].id, written.token_p) == (77, 0.005, 88, 0.005)
    assert read.W_share is not None and read.head[0] in "qkv" and len(read.heads) == 12
    assert sum(result.heads[0].share) == pytest.approx(1)
    assert result.tokenizer == "tokenizer.json" and read.token.startswith(("'", '"'))


def test_models_with_norms_behind_their_layers_name_no_token(tmp_path):
    pytest.importorskip("transformers")
    folder = tiny("bert", tmp_path / "bert")
    rng = np.random.default_rng(12)
    name = "bert.encoder.layer.0.attention.self.query"
    result = subspace.explain(
        _lora(name, rng.standard_normal(32), rng.standard_normal(32)), base=folder, scale=1.0
    )
    row = result.modules[0]
    assert row.token is None and row.token_p is None and "as in BERT" in row.without_tokens
    assert any("as in BERT" in limit for limit in result.limits)
    assert row.head is not None and row.W_share is not None


def test_without_a_config_an_absent_head_is_not_taken_for_the_embedding():
    base = {
        "model.embed_tokens.weight": np.eye(16), "model.norm.weight": np.ones(16),
        "model.layers.0.mlp.down_proj.weight": np.eye(16, 24), "model.layers.0.mlp.up_proj.weight": np.eye(24, 16),
    }  # fmt: skip
    adapter = _lora("model.layers.0.mlp.down_proj", np.ones(16), np.ones(24))
    adapter |= _lora("model.layers.0.mlp.up_proj", np.ones(24), np.ones(16))
    result = subspace.explain(adapter, base=base, scale=1.0)
    assert (
        "config.json" in result["down_proj"].without_tokens and "no norm" in result["up_proj"].without_tokens
    )


def test_a_tokenizer_is_found_or_its_absence_an_error(tmp_path):
    with pytest.raises(FileError, match="No tokenizer in "):
        subspace.explain(_planted(101), base="embedded", scale=1.0, tokenizer=str(tmp_path))
    for other in ("{}", '{"error": "Repository not found"}', '{"model": {"vocab": {}}}'):
        (tmp_path / "vocab.json").write_text(other, encoding="utf-8")
        with pytest.raises(FileError, match=r"No vocabulary: the file names no tokens, in .*vocab\.json"):
            subspace.explain(_planted(101), base="embedded", scale=1.0, tokenizer=str(tmp_path))
    (tmp_path / "vocab.json").write_text(json.dumps({"Ġthe": 101, "Ã¤": 102}), encoding="utf-8")
    row = subspace.explain(_planted(101), base="embedded", scale=1.0, tokenizer=str(tmp_path)).modules[0]
    assert row.token == "' the'"
    row = subspace.explain(_planted(103), base="embedded", scale=1.0, tokenizer=str(tmp_path)).modules[0]
    assert row.token == "#103"


# --- as a result


def test_the_result_is_strict_json_and_csv_and_repeatable(inputs):
    result = subspace.explain(_adapter(13), inputs=inputs, base="embedded", directions=2)
    document = json.loads(result.to_json())
    assert document["schema"] == "subspace.explain/1" and document["headline"].startswith(result.facts()[0])
    assert {(row["module"], row["k"]) for row in document["modules"]} == {
        (m, k) for m in NAMES for k in (1, 2)
    }
    assert document["heads"][0]["share"] == list(result.heads[0].share)
    assert len(result.to_csv().splitlines()) == 9 and result._repr_html_()
    assert result["q_proj", 2].k == 2
    again = subspace.explain(_adapter(13), inputs=inputs, base="embedded", directions=2)
    assert again.to_json() == result.to_json()


def test_published_gpt2_adapters_without_a_base(real_adapters):
    result = subspace.explain(real_adapters / "gpt2-lazie-runX-ck7500", heads=[12])
    assert len(result.heads) == 12 and all(len(each.share) == 36 for each in result.heads)
    assert all(sum(each.share) == pytest.approx(1, abs=1e-9) for each in result.heads)
    assert "head_share" in result.columns() and "mean_share" not in result.columns()
    assert any("inputs" in limit for limit in result.limits)


@pytest.mark.slow
def test_two_processes_and_a_resumed_run_give_the_same(tmp_path):
    from subspace.training import LoRA, inject, save

    model = embedded.load()
    inject(model, LoRA(r=2, alpha=2.0), targets=["q_proj", "down_proj"])
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "lora_B" in name or name.endswith(".B"):
                weight.normal_(generator=torch.Generator().manual_seed(len(name)))
    save(model, tmp_path / "adapter")
    results = [
        subspace.explain(tmp_path / "adapter", base="embedded", jobs=jobs, resume=tmp_path / "rows.jsonl")
        for jobs in (2, 1)
    ]
    assert results[0].records() == results[1].records()
    assert all(row.W_share is not None for row in results[0])
