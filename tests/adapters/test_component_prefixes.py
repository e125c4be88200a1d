"""PEFT's keys without a configuration: of an image pipeline, which applies 1 without alpha, or of a language model."""

from __future__ import annotations

import json

import numpy as np
import pytest

from subspace.adapters import load_adapter, match_modules
from subspace.adapters.naming.image_models import component_of
from subspace.flags import Flag

RNG = np.random.default_rng(0)


def pair(path, *, r=4, d_in=6, d_out=5, name=""):
    return {
        f"{path}.lora_{x}{name}.weight": RNG.standard_normal(shape).astype("f4")
        for x, shape in (("A", (r, d_in)), ("B", (d_out, r)))
    }


IMAGE = [
    "transformer.blocks.0.attn1.to_q",
    "transformer.blocks.0.ffn.net.0.proj",
    "transformer_2.blocks.0.attn2.to_out.0",
    "transformer_2.blocks.0.anything",
    "transformer.layers.0.attention.to_q",
    "transformer.noise_refiner.0.feed_forward.w1",
    "transformer.transformer_blocks.0.img_mlp.net.2",
    "transformer.single_transformer_blocks.0.norm.linear",
    "transformer.double_stream_blocks.0.block.ff_i.shared_experts.w1",
    "transformer.time_text_embed.timestep_embedder.linear_1",
    "transformer.joint_transformer_blocks.0.ff.linear_in",
    "diffusion_model.layers.0.attention.qkv",
    "diffusion_model.blocks.0.self_attn.q",
    "model.diffusion_model.input_blocks.1.1.proj_in",
    "pipe.dit.blocks.0.self_attn.q",
    "dit.blocks.0.mlp.layer1",
    "unet.conv_in",
    "prior.layers.0.q",
    "controlnet.x_embedder",
    "vae.decoder.conv_in",
    "connectors.a.b",
    "text_encoder_4.layers.0.self_attn.q_proj",
    "layers.0.attention.to_q",
    "blocks.0.attn1.to_k",
    "joint_blocks.0.x_block.attn.qkv",
    "down_blocks.0.resnets.0.conv1",
    "double_blocks.0.txt_mod.lin",
    "layers.0.adaLN_modulation.1",
]
LANGUAGE = [
    "transformer.h.0.attn.c_attn",
    "transformer.wte",
    "transformer.word_embeddings",
    "transformer.encoder.layers.0.self_attention.query_key_value",
    "transformer.layer.0.attention.q_lin",
    "model.layers.0.self_attn.q_proj",
    "layers.0.self_attn.q_proj",
    "encoder.layer.0.attention.self.query",
    "gpt_neox.layers.0.attention.query_key_value",
    "model.decoder.layers.0.encoder_attn.k_proj",
    "bert.encoder.layer.0.output.dense",
    "transformer_layers.0.q",
    "proj_out",
]
UNDECIDED = [
    "transformer.blocks.0.attn.Wqkv",
    "transformer.blocks.0.self_attn.q",
    "transformer.layers.0.attention.wq",
    "transformer.proj_out",
]


@pytest.mark.parametrize("path", IMAGE)
def test_a_pipeline_applies_1(path):
    adapter = load_adapter(pair(path))
    assert (adapter.format, list(adapter), adapter.notes) == ("pipeline", [path], ())
    assert adapter[path].scale.value == 1


@pytest.mark.parametrize("path", IMAGE[:3])
def test_and_alpha_over_r_where_there_is_an_alpha(path):
    adapter = load_adapter(pair(path) | {f"{path}.alpha": np.array(8, "f4")})
    assert adapter[path].scale.value == 2


@pytest.mark.parametrize("path", LANGUAGE)
def test_the_scale_of_a_language_model_is_unknown(path):
    adapter = load_adapter(pair(path))
    assert (adapter.format, adapter[path].scale.value) == ("peft", None)
    assert [note.flag for note in adapter.notes] == [Flag.SCALE_UNKNOWN]
    assert "pipeline" not in adapter.notes[0]


@pytest.mark.parametrize("path", UNDECIDED)
def test_where_it_is_undecided_the_scale_is_unknown_and_the_note_says_so(path):
    adapter = load_adapter(pair(path))
    assert (adapter.format, adapter[path].scale.value) == ("peft", None)
    assert "the names do not say whether an image pipeline reads it, which would apply 1" in adapter.notes[0]


def test_one_module_of_a_pipeline_decides_for_the_file():
    adapter = load_adapter(pair("transformer.blocks.0.ffn.0") | pair("transformer.blocks.0.attn1.to_q"))
    assert {update.scale.value for update in adapter.values()} == {1}


@pytest.mark.parametrize("path", IMAGE[:3])
def test_pefts_prefix_or_its_configuration_decides(path, tmp_path):
    prefixed = load_adapter(pair(f"base_model.model.{path}"))
    assert (prefixed.format, prefixed[path].scale.value) == ("peft", None)
    from safetensors.numpy import save_file

    save_file(pair(path), tmp_path / "adapter_model.safetensors")
    fields = {"peft_type": "LORA", "r": 4, "lora_alpha": 12}
    (tmp_path / "adapter_config.json").write_text(json.dumps(fields))
    assert load_adapter(tmp_path)[path].scale.value == 3


def test_the_name_of_the_default_adapter_may_be_in_the_key():
    path = "pipe.dit.blocks.0.self_attn.q"
    adapter = load_adapter(pair(path, name=".default"))
    assert (adapter.format, list(adapter), adapter[path].scale.value, adapter.unknown) == (
        "pipeline",
        [path],
        1,
        (),
    )
    both = pair(path, name=".default") | pair(path, name=".two")
    assert load_adapter(both, adapter_name="two").format == "peft"


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("diffusion_model.blocks.0.attn1.to_q", "transformer.blocks.0.attn1.to_q"),
        ("pipe.dit.layers.0.attention.to_q", "transformer.layers.0.attention.to_q"),
        ("model.diffusion_model.layers.0.attention.qkv", "diffusion_model.layers.0.attention.qkv"),
        ("diffusion_model.noise_refiner.0.attention.to_k", "transformer.noise_refiner.0.attention.to_k"),
    ],
)
def test_prefixes_of_one_model_are_matched(first, second):
    assert match_modules([first, "x.1"], [second, "y.2"]).pairs == [(first, second)]


@pytest.mark.parametrize(
    ("path", "component"),
    [
        ("layers.0.attention.to_q", "transformer"),
        ("blocks.0.attn1.to_q", "transformer"),
        ("mid_block.attentions.0.proj_in", "unet"),
        ("up_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q", "unet"),
        ("text_model.encoder.layers.0.mlp.fc1", "text_encoder"),
        ("transformer_2.blocks.0.attn1.to_q", "transformer_2"),
        ("model.layers.0.self_attn.q_proj", None),
    ],
)
def test_the_component_that_is_written_for_a_bare_name(path, component):
    assert component_of(path) == component
