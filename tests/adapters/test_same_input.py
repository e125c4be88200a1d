"""Which modules read one input, by the names that writers give them."""

from __future__ import annotations

import pytest

from subspace.adapters.naming.same_input import place_of

TOGETHER = [
    ["model.layers.3.self_attn.q_proj", "model.layers.3.self_attn.k_proj", "model.layers.3.self_attn.v_proj"],
    [
        "encoder.layer.0.attention.self.query",
        "encoder.layer.0.attention.self.key",
        "encoder.layer.0.attention.self.value",
    ],
    ["transformer.layer.1.attention.q_lin", "transformer.layer.1.attention.v_lin"],
    [
        "deberta.encoder.layer.1.attention.self.query_proj",
        "deberta.encoder.layer.1.attention.self.value_proj",
    ],
    ["mid_block.attn1.to_q", "mid_block.attn1.to_k", "mid_block.attn1.to_v"],
    ["down_blocks.0.attn2.to_k", "down_blocks.0.attn2.to_v"],
    ["decoder.block.1.layer.1.EncDecAttention.k", "decoder.block.1.layer.1.EncDecAttention.v"],
    ["model.decoder.layers.0.encoder_attn.k_proj", "model.decoder.layers.0.encoder_attn.v_proj"],
    ["lora_unet_mid_block_attentions_0_attn1_to_q", "lora_unet_mid_block_attentions_0_attn1_to_v"],
    ["h.0.attn.c_attn[q]", "h.0.attn.c_attn[k]", "h.0.attn.c_attn[v]"],
    ["blk.0.attn_q", "blk.0.attn_k", "blk.0.attn_v"],
    ["layers.0.attention.wq", "layers.0.attention.wv"],
    ["layers.5.mlp.gate_proj", "layers.5.mlp.up_proj"],
    ["layers.5.feed_forward.w1", "layers.5.feed_forward.w3"],
    ["encoder.block.0.layer.1.DenseReluDense.wi_0", "encoder.block.0.layer.1.DenseReluDense.wi_1"],
    ["q", "k", "v"],
]
ALONE = [
    "layers.0.self_attn.o_proj", "layers.0.mlp.down_proj", "layers.0.mlp.w2", "down_blocks.0.attn2.to_q",
    "decoder.block.1.layer.1.EncDecAttention.q", "model.decoder.layers.0.encoder_attn.q_proj", "h.0.attn.c_attn",
    "classifier", "backup", "encoder.fc1", "seq", "conv", "",
]  # fmt: skip


@pytest.mark.parametrize("modules", TOGETHER, ids=lambda m: m[0])
def test_modules_with_one_input_are_found(modules):
    assert len({place_of(module).input for module in modules}) == 1
    assert place_of(modules[0]).input is not None


@pytest.mark.parametrize("module", ALONE)
def test_others_are_left_alone(module):
    assert place_of(module).input is None


def test_no_two_layers_and_no_two_families_are_mixed():
    found = [place_of(group[0]).input for group in TOGETHER]
    assert len(set(found)) == len(found)
    assert place_of("layers.1.q_proj").input != place_of("layers.2.q_proj").input


def test_one_kind_in_all_layers_has_one_name():
    kinds = {place_of(f"blocks.{n}.attn.{m}.to_q").kind for n in range(3) for m in range(2)}
    assert kinds == {"blocks.*.attn.*.to_q"}
    assert place_of("lora_te_layers_11_mlp_fc1").layer == (11,)
