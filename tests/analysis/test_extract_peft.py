"""What `extract` writes, loaded by PEFT onto the base: the tuned model comes back, within the error that is stated."""

from __future__ import annotations

import json
import warnings

import numpy as np
import pytest

import subspace

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
peft = pytest.importorskip("peft")

TOKENS = 96


def _llama(**more):
    config = transformers.LlamaConfig(
        vocab_size=TOKENS, hidden_size=48, intermediate_size=80, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=64, **more,
    )  # fmt: skip
    return transformers.LlamaForCausalLM(config)


def _gpt2(**more):
    config = transformers.GPT2Config(
        vocab_size=TOKENS, n_embd=48, n_layer=2, n_head=4, n_positions=64, **more
    )
    return transformers.GPT2LMHeadModel(config)


def _bert(**more):
    config = transformers.BertConfig(
        vocab_size=TOKENS,
        hidden_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        **more,
    )
    return transformers.BertModel(config, add_pooling_layer=False)


BUILT = {"llama": _llama, "gpt2": _gpt2, "bert": _bert}


def _logits(model):
    tokens = torch.arange(40).reshape(2, 20) % TOKENS
    with torch.no_grad():
        return model.eval()(tokens)[0].double().numpy()


def _saved(folder, model, name):
    model.save_pretrained(folder / name)
    return folder / name


def _loaded(cls, base, adapter):
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)  # PEFT warns of keys that it does not find
        return peft.PeftModel.from_pretrained(cls.from_pretrained(base), adapter)


@pytest.mark.parametrize("architecture", BUILT)
def test_a_merged_lora_comes_back(architecture, tmp_path):
    torch.manual_seed(0)
    model = BUILT[architecture]()
    base = _saved(tmp_path, model, "base")
    targets = {"llama": ["q_proj", "down_proj"], "gpt2": ["c_attn", "c_proj"], "bert": ["query", "dense"]}
    config = peft.LoraConfig(r=4, lora_alpha=8, target_modules=targets[architecture], init_lora_weights=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of fan_in_fan_out for GPT-2
        merged = peft.get_peft_model(model, config).merge_and_unload()
    tuned = _saved(tmp_path, merged, "tuned")
    found = subspace.extract(base, tuned)
    assert found.modules and {row.recovered_rank for row in found.modules} == {4}
    assert {row.module.rpartition(".")[2] for row in found.modules} == set(targets[architecture])
    assert max(row.error for row in found.modules) < 1e-5 and found.notes == ()
    found.save(tmp_path / "out")
    wanted, before = _logits(merged), _logits(type(merged).from_pretrained(base))
    loaded = _loaded(type(merged), base, tmp_path / "out")
    assert np.abs(wanted - before).max() > 1e-2
    np.testing.assert_allclose(_logits(loaded), wanted, atol=1e-5 * np.abs(wanted - before).max() + 1e-6)
    np.testing.assert_allclose(_logits(loaded.merge_and_unload()), wanted, atol=1e-5)


def _tune(model, *, norms):
    """A full fine-tune: every matrix of the layers changes, and norms and biases where that is asked for."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, value in model.named_parameters():
            in_a_layer = value.dim() > 1 and ("layers." in name or ".h." in name)
            if in_a_layer or (value.dim() == 1 and norms):
                value.add_(0.02 * torch.randn(value.shape, generator=generator))
    return model


@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
def test_a_full_fine_tune_comes_back_whole_with_its_norms_and_biases(architecture, tmp_path):
    torch.manual_seed(0)
    model = BUILT[architecture]()
    base = _saved(tmp_path, model, "base")
    tuned = _saved(tmp_path, _tune(model, norms=True), "tuned")
    found = subspace.extract(base, tuned, energy=1.0, save_rest=True)
    assert all(row.error < 1e-6 and "no_low_rank" in row.flags for row in found.modules)
    assert found.rest and all(each["saved"] for each in found.rest)
    found.save(tmp_path / "out")
    np.testing.assert_allclose(
        _logits(_loaded(type(model), base, tmp_path / "out")), _logits(model), atol=2e-5
    )


def test_the_stated_error_is_that_of_the_model_that_peft_builds(tmp_path):
    torch.manual_seed(0)
    model = _gpt2()
    base = _saved(tmp_path, model, "base")
    W = {name: value.detach().clone() for name, value in model.named_parameters()}
    tuned = _saved(tmp_path, _tune(model, norms=False), "tuned")
    found = subspace.extract(base, tuned, rank=3, dtype="bfloat16")
    found.save(tmp_path / "out")
    merged = _loaded(type(model), base, tmp_path / "out").merge_and_unload()
    rebuilt, whole = dict(merged.named_parameters()), dict(model.named_parameters())
    for row in found.modules:
        key = f"{row.module}.weight"
        change = (whole[key] - W[key]).detach().double()
        left = (whole[key] - rebuilt[key]).detach().double()
        assert row.rank == 3 and row.error == pytest.approx(float(left.norm() / change.norm()), rel=1e-4)
        dense = torch.linalg.svdvals(change)
        assert row.error >= float(dense[3:].norm() / dense.norm()) * (1 - 1e-9)


def test_unequal_ranks_are_patterns_that_peft_reads(tmp_path):
    torch.manual_seed(0)
    model = _llama()
    base = _saved(tmp_path, model, "base")
    with torch.no_grad():
        for n, layer in enumerate(model.model.layers):
            for r, part in ((1 + n, layer.self_attn.q_proj), (5, layer.mlp.up_proj)):
                d_out, d_in = part.weight.shape
                part.weight += 0.1 * torch.randn(d_out, r) @ torch.randn(r, d_in)
    tuned = _saved(tmp_path, model, "tuned")
    found = subspace.extract(base, tuned)
    assert {row.module[13:].replace("self_attn.", ""): row.rank for row in found.modules} == {
        "0.q_proj": 1, "0.mlp.up_proj": 5, "1.q_proj": 2, "1.mlp.up_proj": 5,
    }  # fmt: skip
    found.save(tmp_path / "out")
    config = json.loads((tmp_path / "out/adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == str(base) and config["task_type"] == "CAUSAL_LM"
    loaded = _loaded(type(model), base, tmp_path / "out")
    np.testing.assert_allclose(_logits(loaded), _logits(model), atol=2e-5)
    assert loaded.base_model.model.model.layers[1].self_attn.q_proj.r == {"default": 2}


@pytest.mark.parametrize("tie", [True, False])
def test_embeddings(tie, tmp_path):
    torch.manual_seed(0)
    model = _llama(tie_word_embeddings=tie)
    base = _saved(tmp_path, model, "base")
    with torch.no_grad():
        model.model.embed_tokens.weight[7] += 0.5
        model.model.layers[0].self_attn.q_proj.weight += 0.01
    tuned = _saved(tmp_path, model, "tuned")
    found = subspace.extract(base, tuned, save_rest=True)
    names = {row.module for row in found.modules}
    assert ("model.embed_tokens" in names) is not tie
    assert [each["key"] for each in found.rest] == (["model.embed_tokens.weight"] if tie else [])
    found.save(tmp_path / "out")
    loaded = _loaded(type(model), base, tmp_path / "out")
    np.testing.assert_allclose(_logits(loaded), _logits(model), atol=2e-5)


def test_added_tokens_are_named_and_stored_whole(tmp_path):
    torch.manual_seed(0)
    model = _llama()
    base = _saved(tmp_path, model, "base")
    model.resize_token_embeddings(TOKENS + 4)
    with torch.no_grad():
        model.model.layers[0].self_attn.q_proj.weight += 0.01
    tuned = _saved(tmp_path, model, "tuned")
    found = subspace.extract(base, tuned, save_rest=True)
    assert {each["key"] for each in found.rest} == {"model.embed_tokens.weight", "lm_head.weight"}
    assert any("resize_token_embeddings" in note and "[100, 48]" in note for note in found.notes)
    found.save(tmp_path / "out")
    larger = type(model).from_pretrained(base)
    larger.resize_token_embeddings(TOKENS + 4)
    loaded = peft.PeftModel.from_pretrained(larger, tmp_path / "out")
    np.testing.assert_allclose(_logits(loaded), _logits(model), atol=2e-5)


def test_shards_and_torch_files_are_read_alike(tmp_path):
    torch.manual_seed(0)
    model = _gpt2()
    base = _saved(tmp_path, model, "base")
    with torch.no_grad():
        model.transformer.h[1].attn.c_attn.weight += 0.05
    model.save_pretrained(tmp_path / "shards", max_shard_size="60KB")
    assert (tmp_path / "shards/model.safetensors.index.json").exists()
    torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
    expected = subspace.extract(base, _saved(tmp_path, model, "tuned"))
    assert [row.recovered_rank for row in expected.modules] == [1]
    for other in (tmp_path / "shards", tmp_path / "pytorch_model.bin", model):
        found = subspace.extract(base, other)
        assert found.files == expected.files
    found = subspace.extract(tmp_path / "shards", base)
    np.testing.assert_allclose(found.modules[0].sigma[0], expected.modules[0].sigma[0], rtol=1e-12)
