"""llama.cpp's names of modules against the tables of the package gguf, and the order of rows by architecture."""

from __future__ import annotations

import json

import numpy as np
import pytest
from oracle_versions import needs
from safetensors.numpy import save_file

import subspace
from subspace.adapters import match_modules
from subspace.adapters.naming.writers import gguf as writer
from subspace.flags import Flag

gguf = pytest.importorskip("gguf")

BLOCKS = {
    gguf.TENSOR_NAMES[tensor].removeprefix("blk.{bid}."): names
    for tensor, names in gguf.TensorNameMap.block_mappings_cfg.items()
}
WHOLE = {gguf.TENSOR_NAMES[tensor]: names for tensor, names in gguf.TensorNameMap.mappings_cfg.items()}


@needs("gguf", "0.18", "all of these names")
@pytest.mark.parametrize("part", writer._PARTS)
def test_names_in_a_layer_are_those_of_gguf(part):
    for name in writer._translate(f"blk.7.{part}"):
        elsewhere = [each.format(bid=7) for each in BLOCKS[part]]
        assert any(f".{each}".endswith(f".{name}") for each in elsewhere), name


@pytest.mark.parametrize("part", writer._WHOLE)
def test_names_outside_the_layers_are_those_of_gguf(part):
    for name in writer._translate(part):
        assert any(f".{each}".endswith((f".{name}", f".{name}.weight")) for each in WHOLE[part]), name


@pytest.mark.parametrize("part", writer._EXPERTS)
def test_names_of_experts_are_those_of_gguf_with_a_number(part):
    for name in writer._translate(f"blk.7.{part}[3]"):
        stacked = name.replace(".experts.3.", ".experts.")
        assert any(f".{each.format(bid=7)}".endswith(f".{stacked}") for each in BLOCKS[part]), name


@pytest.mark.parametrize("stack", ["enc", "dec"])
@pytest.mark.parametrize("part", writer._T5)
def test_names_of_t5_are_those_of_gguf(stack, part):
    known = BLOCKS.get(f"{stack}.blk.{{bid}}.{part}", ())
    elsewhere = {each.format(bid=7) for each in known}
    found = writer._translate(f"{stack}.blk.7.{part}")
    assert set(found) == elsewhere or not known  # the encoder has no cross attention


MODELS = {
    "gpt-neox": ("gpt_neox.layers.0.attention.query_key_value", "blk.0.attn_qkv", True),
    "bloom": ("transformer.h.0.self_attention.query_key_value", "blk.0.attn_qkv", True),
    "phi-3": ("model.layers.0.self_attn.qkv_proj", "blk.0.attn_qkv", False),
    "gpt-2": ("transformer.h.0.attn.c_attn", "blk.0.attn_qkv", False),
    "phi-2": ("model.layers.0.self_attn.dense", "blk.0.attn_output", False),
    "bert": ("bert.encoder.layer.0.attention.self.query", "blk.0.attn_q", False),
    "bert dense": ("bert.encoder.layer.0.attention.output.dense", "blk.0.attn_output", False),
    "bert down": ("bert.encoder.layer.0.output.dense", "blk.0.ffn_down", False),
    "llama": ("model.layers.0.self_attn.k_proj", "blk.0.attn_k", True),
    "qwen2-moe": ("model.layers.0.mlp.experts.5.up_proj", "blk.0.ffn_up_exps[5]", False),
    "mixtral": ("model.layers.0.block_sparse_moe.experts.5.w2", "blk.0.ffn_down_exps[5]", False),
    "shared expert": ("model.layers.0.mlp.shared_expert.up_proj", "blk.0.ffn_up_shexp", False),
    "deepseek": ("model.layers.0.self_attn.kv_a_proj_with_mqa", "blk.0.attn_kv_a_mqa", False),
    "t5": ("decoder.block.0.layer.2.DenseReluDense.wi_1", "dec.blk.0.ffn_up", False),
    "head": ("gpt_neox.embed_out", "output", False),
}


@pytest.mark.parametrize("model", MODELS)
def test_modules_of_a_model_match(model):
    there, here, reordered = MODELS[model]
    other = "model.layers.1.mlp.down_proj", "blk.1.ffn_down"
    matched = match_modules([there, other[0]], [other[1], here])
    assert dict(matched.pairs) == {there: here, other[0]: other[1]}
    assert matched.translated[there].how == "llama.cpp"
    assert matched.translated[there].reordered == reordered


def both_files(tmp_path, architecture):
    rng = np.random.default_rng(0)
    factors = {
        part: (rng.standard_normal((2, 32)).astype("f4"), rng.standard_normal((16, 2)).astype("f4"))
        for part in "qv"
    }
    out = gguf.GGUFWriter(tmp_path / "lora.gguf", architecture)
    out.add_type(gguf.GGUFType.ADAPTER)
    out.add_float32(gguf.Keys.Adapter.LORA_ALPHA, 2.0)
    tensors = {}
    for part, (A, B) in factors.items():
        out.add_tensor(f"blk.0.attn_{part}.weight.lora_a", A)
        out.add_tensor(f"blk.0.attn_{part}.weight.lora_b", B)
        name = f"base_model.model.model.layers.0.self_attn.{part}_proj"
        tensors |= {f"{name}.lora_A.weight": A, f"{name}.lora_B.weight": B}
    for write in (out.write_header_to_file, out.write_kv_data_to_file, out.write_tensors_to_file):
        write()
    out.close()
    save_file(tensors, tmp_path / "adapter_model.safetensors")
    config = {"peft_type": "LORA", "r": 2, "lora_alpha": 2}
    (tmp_path / "adapter_config.json").write_text(json.dumps(config))
    return tmp_path / "lora.gguf", tmp_path / "adapter_model.safetensors"


@pytest.mark.parametrize(("architecture", "permuted"), [("llama", True), ("qwen2", False), ("gemma3", False)])
def test_the_architecture_says_whether_rows_are_in_another_order(tmp_path, architecture, permuted):
    first, second = both_files(tmp_path, architecture)
    for pair in ((first, second), (second, first)):
        result = subspace.compare(*pair, side="b")
        flagged = [row.module for row in result.modules if Flag.ROWS_REORDERED in row.flags]
        assert len(flagged) == permuted
        assert any("another order" in note for note in result.notes) == permuted
    if not permuted:
        assert result.cosine == pytest.approx(1)
