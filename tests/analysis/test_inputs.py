"""Inputs of a model's modules: against dense passes outside our hooks, interrupted and not, padded and not."""

from __future__ import annotations

import os
import signal

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.numpy import save_file
from tiny_models import TEXTS, tiny
from torch import nn
from torch.nn import functional

import subspace
from subspace.errors import FileError, FormatError, InconclusiveError, ValueRangeError
from subspace.flags import Flag
from subspace.geometry.second_moment import SecondMoment
from subspace.results.inputs import Gradient, Inputs, ModuleInputs
from subspace.results.inputs_file import inputs_bytes
from subspace.training import LoRA, embedded, inject, save

pytest.importorskip("transformers")


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    path = tmp_path_factory.mktemp("text") / "text.txt"
    path.write_text("\n".join(f"{n}. {line}" for n in range(40) for line in TEXTS), encoding="utf-8")
    return str(path)


def one_layer(*sizes, **given):
    return nn.Sequential(nn.Linear(*sizes, **given))


def _dense(x):
    """C in float64 of inputs (..., d)."""
    rows = x.detach().double().reshape(-1, x.shape[-1]).numpy()
    return rows.T @ rows / len(rows)


def _whole(moment):
    """C of all its eigenpairs."""
    assert moment.k == moment.d
    return (moment.vectors * moment.values) @ moment.vectors.T


def _llama(**changes):
    import transformers

    settings = {
        "vocab_size": 50, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 64, "pad_token_id": 0,
    }  # fmt: skip
    torch.manual_seed(0)
    return transformers.LlamaForCausalLM(transformers.LlamaConfig(**settings, **changes)).eval()


@pytest.fixture(scope="module")
def llama():
    return _llama()


def _ids(*shape, seed=0):
    return torch.randint(1, 50, shape, generator=torch.Generator().manual_seed(seed))


def test_moments_are_those_of_a_dense_pass_without_hooks(llama):
    batches = [{"input_ids": _ids(4, 20, seed=seed)} for seed in range(3)]
    found = subspace.inputs(llama, batches, tokens=10**6)
    assert found.tokens == 240
    for n, layer in enumerate(llama.model.layers):
        with torch.no_grad():
            states = [llama(**batch, output_hidden_states=True).hidden_states[n] for batch in batches]
            x = layer.input_layernorm(torch.cat(states))
            moment = found.moment(f"layers.{n}.self_attn.q_proj")
            np.testing.assert_allclose(_whole(moment), _dense(x), atol=1e-6 * moment.trace)
            np.testing.assert_allclose(moment.mean, x.double().mean((0, 1)).numpy(), atol=1e-7)
            assert moment.trace == pytest.approx(np.trace(_dense(x)), rel=1e-7)
            assert moment.squares == pytest.approx(np.sum(_dense(x) ** 2), rel=1e-6)


def test_the_second_half_of_a_layer_too():
    model = embedded.load()
    ids = torch.randint(0, 256, (3, 40), generator=torch.Generator().manual_seed(0))
    found = subspace.inputs(model, [ids], targets=["gate_proj", "down_proj"])
    with torch.no_grad():
        layer, decoder = model.model.layers[0], model.model
        h = decoder.embed_tokens(ids)
        h = h + layer.self_attn(layer.input_layernorm(h), (decoder.cos[:40], decoder.sin[:40]))
        x = layer.post_attention_layernorm(h)
        inner = functional.silu(layer.mlp.gate_proj(x)) * layer.mlp.up_proj(x)
    for name, own in (("gate_proj", x), ("down_proj", inner)):
        moment = found.moment(f"layers.0.mlp.{name}")
        np.testing.assert_allclose(_whole(moment), _dense(own), atol=1e-6 * moment.trace)


def test_a_large_mean_does_not_hide_what_is_small_beside_it():
    rng = np.random.default_rng(0)
    x = 1e3 * rng.standard_normal(16) + 1e-1 * rng.standard_normal((4000, 16))
    x = torch.from_numpy(x).float()
    moment = subspace.inputs(one_layer(16, 2), x.split(1000)).moments["0"]
    expected = np.linalg.eigvalsh(_dense(x))[::-1]
    np.testing.assert_allclose(moment.values[1:], expected[1:], rtol=1e-3)
    assert moment.mean_share > 0.999


def test_modules_that_read_one_tensor_are_stored_once(llama):
    found = subspace.inputs(llama, [_ids(2, 20)])
    assert [row.module for row in found][:3] == [f"model.layers.0.self_attn.{x}_proj" for x in "qkv"]
    with_ = {row.module.rpartition(".")[2]: row.read_with.rpartition(".")[2] for row in found}
    own = {"o_proj": "o_proj", "down_proj": "down_proj"}
    assert with_ == dict.fromkeys(("q_proj", "k_proj", "v_proj"), "q_proj") | own | dict.fromkeys(
        ("gate_proj", "up_proj"), "gate_proj"
    )
    assert len(found.moments) == 8 and "lm_head" not in {row.module for row in found}
    assert found.moment("layers.0.self_attn.v_proj") is found.moment("layers.0.self_attn.q_proj")


class _Copies(nn.Module):
    """Two layers of one name pattern that read equal numbers in two tensors, and two that share one tensor."""

    def __init__(self):
        super().__init__()
        self.q_proj, self.k_proj, self.other = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x):
        return self.q_proj(x) + self.k_proj(x.clone()) + self.other(input=x)


def test_sharing_is_of_tensors_and_not_of_names():
    found = subspace.inputs(_Copies(), [torch.randn(50, 4)])
    assert {row.module: row.read_with for row in found} == {
        "q_proj": "q_proj", "k_proj": "k_proj", "other": "q_proj",
    }  # fmt: skip


def test_padding_does_not_count(llama):
    ids, mask = _ids(3, 12), torch.ones(3, 12, dtype=torch.int64)
    mask[0, 7:] = mask[2, 3:] = 0
    padded = subspace.inputs(llama, [{"input_ids": ids, "attention_mask": mask}])
    alone = subspace.inputs(llama, [ids[:1, :7], ids[1:2], ids[2:, :3]])
    assert padded.tokens == alone.tokens == 22
    for name, moment in alone.moments.items():
        np.testing.assert_allclose(_whole(padded.moments[name]), _whole(moment), atol=2e-6 * moment.trace)
    counted = subspace.inputs(llama, [ids])
    assert counted.tokens == 36


@pytest.mark.parametrize("kind", ["t5", "bart"])
def test_an_encoder_and_a_decoder_have_masks_of_their_own(tmp_path, kind):
    import transformers

    model = transformers.AutoModelForSeq2SeqLM.from_pretrained(tiny(kind, tmp_path / "model")).eval()
    source, target = (
        _ids(2, 9),
        _ids(2, 9, seed=1),
    )  # of one shape, so that shapes do not tell the masks apart
    mask, labels = torch.ones_like(source), target.clone()
    mask[0, 4:], labels[1, 2:] = 0, -100
    both = subspace.inputs(model, [{"input_ids": source, "attention_mask": mask, "labels": labels}])
    alone = [
        {"input_ids": source[:1, :4], "labels": target[:1]},
        {"input_ids": source[1:], "labels": target[1:, :2]},
    ]
    apart = subspace.inputs(model, alone)
    tokens = {name: moment.tokens for name, moment in both.moments.items()}
    assert set(tokens.values()) == {13, 11}
    for name, moment in apart.moments.items():
        assert tokens[name] == moment.tokens, name
        np.testing.assert_allclose(_whole(both.moments[name]), _whole(moment), atol=2e-6 * moment.trace)
    cross = [row for row in both if "EncDec" in row.module or "encoder_attn" in row.module]
    keys = [row for row in cross if row.module.endswith((".k", ".v", "k_proj", "v_proj"))]
    assert len(keys) == 4 and {row.tokens for row in keys} == {13}
    assert len({row.read_with for row in keys}) == 1  # all layers of the decoder read what the encoder gave


def test_the_model_is_left_as_it_was(llama):
    model = _llama(attention_dropout=0.5).train()
    model.model.layers[0].eval()
    model.model.embed_tokens.weight.requires_grad_(False)
    state = {name: value.clone() for name, value in model.state_dict().items()}
    modes = [module.training for module in model.modules()]
    trained = [parameter.requires_grad for parameter in model.parameters()]
    hooks = [len(m._forward_pre_hooks) + len(m._forward_hooks) for m in model.modules()]
    before = model.eval()(_ids(2, 8)).logits
    for module, mode in zip(model.modules(), modes, strict=True):
        module.training = mode
    subspace.inputs(model, [{"input_ids": _ids(2, 8), "labels": _ids(2, 8)}], gradients=True)
    assert [module.training for module in model.modules()] == modes
    assert [parameter.requires_grad for parameter in model.parameters()] == trained
    assert all(parameter.grad is None for parameter in model.parameters())
    assert [len(m._forward_pre_hooks) + len(m._forward_hooks) for m in model.modules()] == hooks
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert torch.equal(model.eval()(_ids(2, 8)).logits, before)


def test_a_model_whose_pass_fails_is_left_as_it_was():
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4)).train()
    with pytest.raises(subspace.SubspaceError, match="failed with RuntimeError"):
        subspace.inputs(model, [torch.ones(3, 4), torch.ones(3, 5)])
    assert model.training and not any(len(m._forward_pre_hooks) for m in model.modules())


def test_a_sketch_stays_below_the_truth_and_says_by_how_much():
    rng = np.random.default_rng(0)
    d = 96
    x = torch.from_numpy(rng.standard_normal((3000, d)) * np.arange(1, d + 1) ** -1.0).float()
    layer = one_layer(d, 2)
    whole = subspace.inputs(layer, x.split(500), eigenpairs=8)
    sketched = subspace.inputs(layer, x.split(500), eigenpairs=8, full=0)
    true, found = whole.moments["0"], sketched.moments["0"]
    assert true.k == d and found.k == 8 and true.missed == 0 and found.squares is None
    assert found.trace == pytest.approx(true.trace, rel=1e-6)
    assert (found.values <= true.values[:8] * (1 + 1e-6)).all()
    assert (true.values[:8].sum() - found.values.sum()) <= found.missed
    np.testing.assert_allclose(found.values[:4], true.values[:4], rtol=0.05)
    assert 0 < sketched.modules[0].error_share < 0.1
    # of the rank of the sketch it is exact
    low = torch.from_numpy(rng.standard_normal((400, 5)) @ rng.standard_normal((5, d))).float()
    exact, found = (subspace.inputs(layer, [low], eigenpairs=8, full=full).moments["0"] for full in (4096, 0))
    np.testing.assert_allclose(found.values, exact.values[:8], rtol=1e-5, atol=1e-5 * exact.trace)
    assert found.missed < 1e-9 * found.trace


def _interrupted(out, model, text, **given):
    """A reading that Ctrl-C ends after three batches."""
    calls = []

    def progress(done, total):
        calls.append(done)
        if len(calls) == 3:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt, match=r"partial; the same call goes on"):
        subspace.inputs(model, text, out=out, progress=progress, **given)
    return calls


@pytest.mark.parametrize("more", [{}, {"full": 0, "eigenpairs": 4}, {"gradients": True}])
def test_resumed_is_the_same_as_not_resumed(tmp_path, text, more):
    folder = tiny("llama", tmp_path / "model")
    given = {"length": 16, "batch": 4, "tokens": 600, **more}
    whole = subspace.inputs(str(folder), text, **given)
    out = tmp_path / "inputs.safetensors"
    assert _interrupted(out, str(folder), text, **given) == [64, 128, 192]
    assert not out.exists() and (tmp_path / "inputs.safetensors.partial").is_file()
    seen = []
    subspace.inputs(str(folder), text, out=out, progress=lambda done, total: seen.append(done), **given)
    assert seen[0] == 256 and not (tmp_path / "inputs.safetensors.partial").exists()
    resumed = subspace.load_inputs(out)
    assert resumed.tokens == whole.tokens == 608 and list(resumed.moments) == list(whole.moments)
    for name, moment in whole.moments.items():
        other = resumed.moments[name]
        np.testing.assert_allclose(other.values, moment.values, rtol=1e-12, atol=1e-12 * moment.trace)
        np.testing.assert_allclose(other.mean, moment.mean, atol=1e-12)
        assert other.trace == pytest.approx(moment.trace, rel=1e-12)
    for name, gradient in whole.gradients.items():
        np.testing.assert_allclose(resumed.gradients[name].S, gradient.S, rtol=1e-10)


def test_partial_sums_of_other_settings_are_not_taken_up(tmp_path, text):
    folder = str(tiny("llama", tmp_path / "model"))
    out = tmp_path / "inputs.safetensors"
    _interrupted(out, folder, text, length=16, batch=4)
    with pytest.raises(FileError, match="Partial sums of another model, data or settings are in the way"):
        subspace.inputs(folder, text, out=out, length=16, batch=8)
    model = one_layer(4, 4)
    batches = [torch.full((5, 4), float(n)) for n in range(5)]
    _interrupted(tmp_path / "own.safetensors", model, batches)
    with pytest.raises(ValueRangeError, match="The batches are not those that were read before"):
        subspace.inputs(model, batches[::-1], out=tmp_path / "own.safetensors")
    subspace.inputs(model, batches, out=tmp_path / "own.safetensors")
    assert subspace.load_inputs(tmp_path / "own.safetensors").tokens == 25


def test_the_first_gradient_is_that_of_the_loss(llama):
    batches = [{"input_ids": ids, "labels": ids} for ids in (_ids(3, 12), _ids(3, 12, seed=1))]
    found = subspace.inputs(llama, batches, gradients=True, targets=["v_proj", "down_proj"])
    weight = llama.model.layers[1].self_attn.v_proj.weight
    slopes = [torch.autograd.grad(llama(**batch).loss, weight)[0] for batch in batches]
    G = torch.stack(slopes).mean(0).double().numpy()
    U, S, Vh = np.linalg.svd(G)
    gradient = found.gradients["model.layers.1.self_attn.v_proj"]
    np.testing.assert_allclose(gradient.S, S[: len(gradient.S)], rtol=1e-4, atol=1e-7 * S[0])
    assert abs(gradient.U[:, 0] @ U[:, 0]) == pytest.approx(1) == abs(gradient.V[:, 0] @ Vh[0])
    row = found["layers.1.self_attn.v_proj"]
    assert row.gradient_norm == pytest.approx(np.linalg.norm(G), rel=1e-5)
    assert row.gradient_top_share == pytest.approx(S[0] ** 2 / np.sum(S**2), rel=1e-4)


def test_a_gradient_of_ones_own_loss_and_of_gpt2():
    import transformers

    x, y = torch.randn(20, 4), torch.randint(0, 3, (20,))
    layer = one_layer(4, 3)
    found = subspace.inputs(layer, [(x, y)], loss=functional.cross_entropy, gradients=True).gradients["0"]
    (G,) = torch.autograd.grad(functional.cross_entropy(layer(x), y), [layer[0].weight])
    np.testing.assert_allclose((found.U * found.S) @ found.V.T, G.numpy(), atol=1e-6)
    config = transformers.GPT2Config(n_embd=12, n_layer=1, n_head=2, n_positions=16, vocab_size=50)
    model = transformers.GPT2LMHeadModel(config)  # whose weights are (d_in, d_out)
    found = subspace.inputs(model, [{"input_ids": _ids(2, 8), "labels": _ids(2, 8)}], gradients=True)
    assert [row.d for row in found] == [12, 12, 12, 48]
    assert found.gradients["transformer.h.0.attn.c_attn"].U.shape == (36, 12)


def test_a_file_has_all_of_the_result(tmp_path, text):
    out = tmp_path / "inputs.safetensors"
    found = subspace.inputs("embedded", text, tokens=600, length=32, out=out, gradients=True)
    again = subspace.load_inputs(out)
    assert again.to_json() == found.to_json() and again.notes == found.notes
    assert again.model == "embedded" and len(again.model_sha256) == len(again.data_sha256) == 64
    for name, moment in found.moments.items():
        other = again.moments[name]
        np.testing.assert_allclose(other.vectors, moment.vectors, atol=1e-7)
        np.testing.assert_array_equal(other.values, moment.values)
        assert (other.squares, other.missed, other.tokens) == (moment.squares, moment.missed, moment.tokens)
    for name, gradient in found.gradients.items():
        np.testing.assert_allclose(again.gradients[name].V, gradient.V, atol=1e-7)
    with pytest.raises(FileError, match="exists already"):
        subspace.inputs("embedded", text, tokens=600, out=out)
    assert subspace.inputs("embedded", text, tokens=64, length=32, out=out, overwrite=True).tokens == 64


def test_files_of_another_kind_are_refused(tmp_path):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 4))
    inject(model, LoRA(r=1), ["0"])
    save(model, tmp_path / "adapter")
    path = tmp_path / "adapter" / "adapter_model.safetensors"
    with pytest.raises(FormatError, match="Not a file of inputs"):
        subspace.load_inputs(path)
    with pytest.raises(FileError, match="it is a file of another kind"):
        subspace.inputs(model, [torch.ones(2, 4)], out=path, overwrite=True)
    with pytest.raises(ValueRangeError, match=r"Inputs are a \.safetensors file"):
        subspace.inputs(model, [torch.ones(2, 4)], out=tmp_path / "inputs.json")
    out = tmp_path / "inputs.safetensors"
    subspace.inputs(one_layer(4, 4), [torch.ones(9, 4)], out=out)
    content = out.read_bytes()
    out.write_bytes(content.replace(b'\\"moments\\"', b'\\"nothing\\"'))
    with pytest.raises(FormatError, match=r"The file of inputs is damaged: .*, in "):
        subspace.load_inputs(out)


@pytest.mark.parametrize(
    ("key", "change", "what"),
    [
        ("input/0/vectors", lambda M: M * 1.01, "vectors"),
        ("input/0/vectors", lambda M: np.roll(M, 1, 0) + M, "vectors"),
        ("input/0/vectors", lambda M: M[:, :3], "shapes"),
        ("input/0/values", lambda values: values[::-1].copy(), "eigenvalues"),
        ("input/0/values", lambda values: values * 1e300, "eigenvalues"),
        ("input/0/values", lambda values: -values, "eigenvalues"),
        ("input/0/values", lambda values: values * 2, "eigenvalues"),
        ("input/0/mean", lambda mean: mean + 100, "mean"),
        ("input/0/mean", lambda mean: mean + 1e200, "mean"),
        ("input/0/numbers", lambda numbers: numbers * [1, 1e300, 1, 1], "energies"),
        ("input/0/numbers", lambda numbers: numbers * [1, 1, 1e3, 1], "energies"),
        ("input/0/numbers", lambda numbers: numbers - [0, 0, 0, 1], "energies"),
        ("gradient/0/S", lambda S: S[::-1].copy(), "singular values"),
        ("gradient/0/norm", lambda norm: norm / 2, "singular values"),
        ("gradient/0/U", lambda M: M[:, :1], "shapes"),
        ("gradient/0/V", lambda M: M + 0.1, "vectors"),
    ],
)
def test_numbers_that_no_inputs_have_are_refused(key, change, what, tmp_path):
    """They would be measured with, and give numbers that mean nothing, or warnings."""
    rng = np.random.default_rng(0)
    name, values = "0", np.array([4.0, 3.0, 2.0, 1.0])
    Q, _ = np.linalg.qr(rng.standard_normal((4, 4)))
    moment = SecondMoment(9, np.full(4, 0.5), values, Q, 10.0, float(values @ values))
    gradient = Gradient(np.array([2.0, 1.0]), Q[:, :2], Q[:, 2:], 2.5)
    row = ModuleInputs(
        module=name, read_with=name, tokens=9, d=4, eigenpairs=4, eigenvalues=values,
        **dict.fromkeys(("energy", "effective_dimension", "decay", "gradient_norm"), 1.0),
        **dict.fromkeys(("mean_share", "top_share", "rest_share", "error_share", "gradient_top_share"), 0.1),
    )  # fmt: skip
    whole = Inputs("m", "d", "", "", 9, (row,), {name: moment}, {name: gradient})
    path = tmp_path / "inputs.safetensors"
    path.write_bytes(inputs_bytes(whole))
    assert len(subspace.load_inputs(path).moments) == 1
    with safe_open(path, "np") as file:
        metadata, tensors = file.metadata(), {each: file.get_tensor(each) for each in file.keys()}  # noqa: SIM118
    tensors[key] = np.ascontiguousarray(change(tensors[key]))
    save_file(tensors, path, metadata)
    with pytest.raises(FormatError, match=f"damaged: the {what} of .* do not fit"):
        subspace.load_inputs(path)


def test_the_modules_of_an_adapter(tmp_path, text):
    model = embedded.load()
    inject(model, LoRA(r=2), ["layers.1.*.q_proj", "layers.2.mlp.down_proj"])
    save(model, tmp_path / "adapter")
    found = subspace.inputs("embedded", text, adapter=tmp_path / "adapter", tokens=100, length=32)
    assert [row.module for row in found] == [
        "model.layers.1.self_attn.q_proj",
        "model.layers.2.mlp.down_proj",
    ]
    with pytest.raises(InconclusiveError, match="The model has no linear layer of the adapter"):
        other = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
        subspace.inputs(other, [torch.ones(2, 3)], adapter=tmp_path / "adapter")
    with pytest.raises(ValueRangeError, match="Both targets and an adapter are given"):
        subspace.inputs("embedded", text, adapter=tmp_path / "adapter", targets=["q_proj"])


def test_what_an_adapter_was_trained_on_is_what_is_read(tmp_path, text):
    from subspace.training import Job, Recipe, train

    recipe = Recipe(steps=2, batch=2, length=16)
    train(Job(data=text, recipe=recipe, method=LoRA(r=2), threads=1, accounts=False), tmp_path / "run")
    found = subspace.inputs(adapter=tmp_path / "run", tokens=100)
    assert (found.model, found.data) == ("embedded", "text.txt") and found.tokens == 112  # windows of 16
    assert {row.module.rpartition(".")[2] for row in found} == {"q_proj", "v_proj"}


@pytest.mark.parametrize("kind", ["bert", "t5"])
def test_texts_with_labels_and_prompts(tmp_path, kind):
    folder = str(tiny(kind, tmp_path / "model"))
    rows = [f"{n} {text}\t{n % 2}" for n in range(20) for text in TEXTS[: 1 + n % 2]]
    (tmp_path / "rows.tsv").write_text("\n".join(["document\tlabel", *rows]) + "\n")
    found = subspace.inputs(folder, str(tmp_path / "rows.tsv"), tokens=200, batch=4, length=24)
    assert 200 <= found.tokens < 200 + 4 * 24
    lines = [f'{{"prompt": "{text}", "completion": "{n}"}}' for n, text in enumerate(TEXTS * 4)]
    (tmp_path / "rows.jsonl").write_text("\n".join(lines) + "\n")
    if kind == "t5":
        found = subspace.inputs(folder, str(tmp_path / "rows.jsonl"), tokens=10**6, batch=4, gradients=True)
        assert len(found.gradients) == len(found.modules)


class _Experts(nn.Module):
    """Two experts, of which one is never asked, and a layer whose input is flattened."""

    def __init__(self):
        super().__init__()
        self.one, self.other, self.flat = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x, attention_mask=None):
        self.flat(x.reshape(-1, 4))
        self.one(x[:, :3].reshape(-1, 4))
        return x


def test_modules_without_tokens_and_masks_that_fit_nothing():
    mask = torch.tensor([[1, 1, 1, 0], [1, 1, 0, 0]])
    x = torch.randn(2, 4, 4)
    found = subspace.inputs(_Experts(), [(x, mask)])
    assert found["flat"].tokens == 5 and Flag.PADDING_COUNTED not in found["flat"].flags
    assert found["one"].tokens == 6 and Flag.PADDING_COUNTED in found["one"].flags
    assert found["other"].tokens == 0 and found["other"].flags == (Flag.NOT_CALLED,)
    assert found["other"].energy is None and "other" not in found.moments
    notes = " ".join(found.notes)
    assert "(other) no forward pass called the module" in notes and "padding counts as input" in notes
    np.testing.assert_allclose(_whole(found.moment("flat")), _dense(x[mask.bool()]), atol=1e-6)


def test_what_cannot_be_measured_is_an_error(text):
    layer = one_layer(4, 4)
    for message, call in {
        "There are no batches": lambda: subspace.inputs(layer, []),
        "Not batches: int cannot": lambda: subspace.inputs(layer, 5),
        "Batches need a model in memory": lambda: subspace.inputs("embedded", [torch.ones(2, 4)]),
        "Invalid `tokens` 0": lambda: subspace.inputs(layer, [torch.ones(2, 4)], tokens=0),
        "Not linear layers: model.embed_tokens": lambda: subspace.inputs(
            "embedded", text, targets=["embed_tokens"]
        ),
        "No layer matches the target 'nothing'": lambda: subspace.inputs(
            "embedded", text, targets=["nothing"]
        ),
        "An input is not a finite number": lambda: subspace.inputs(layer, [torch.tensor([[np.nan] * 4])]),
        "The model gives no loss": lambda: subspace.inputs(layer, [torch.ones(2, 4)], gradients=True),
        "Not enough memory: the sums need 8000 GB": lambda: subspace.inputs(
            one_layer(10**6, 1), [torch.ones(1, 10**6)], full=10**7, eigenpairs=1
        ),
    }.items():
        with pytest.raises(ValueRangeError, match=message):
            call()


def test_tokens_are_evenly_chosen_and_no_more_than_asked_for(tmp_path):
    ids = [torch.full((1, 10), n) for n in range(9)]
    model = nn.Sequential(nn.Embedding(9, 9), nn.Linear(9, 2))
    nn.init.eye_(model[0].weight)
    found = subspace.inputs(model, ids, tokens=30)
    assert found.tokens == 30
    np.testing.assert_allclose(
        np.diag(_whole(found.moment("1"))), np.array([1, 1, 1, 0, 0, 0, 0, 0, 0]) / 3, atol=1e-7
    )
    (tmp_path / "text.txt").write_bytes(b"a" * 640 + b"b" * 640)
    given = {"targets": ["layers.0.*.q_proj"], "length": 32}
    all_of_it, few = (
        subspace.inputs("embedded", str(tmp_path / "text.txt"), tokens=n, **given) for n in (1280, 320)
    )
    assert few.tokens == 320
    # as much of one letter as of the other
    top = [each.moment("q_proj").values[:2] for each in (all_of_it, few)]
    np.testing.assert_allclose(top[0], top[1], rtol=0.1)
