"""One module under the names of several writers: the same weights compare as identical, and nothing is guessed."""

from __future__ import annotations

import json

import numpy as np
import pytest

from subspace import amplify, compare
from subspace.adapters import load_base, match_modules
from subspace.adapters.naming.translation import Translations
from subspace.adapters.naming.writers import every

rng = np.random.default_rng(4)
LAYERS = range(12)
HF = ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj"]
HF += ["mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"]
# written out from the writers' converters, once more, by hand
THEIRS = {
    "torchtune": [f"attn.{x}_proj" for x in ("q", "k", "v", "output")] + ["mlp.w1", "mlp.w3", "mlp.w2"],
    "meta": [f"attention.w{x}" for x in "qkvo"] + [f"feed_forward.w{n}" for n in (1, 3, 2)],
    "gguf": ["attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"],
    "litgpt": [f"attn.qkv[{x}]" for x in "qkv"] + ["attn.proj", "mlp.fc_1", "mlp.fc_2", "mlp.proj"],
}
PREFIX = {"torchtune": "layers.", "meta": "layers.", "gguf": "blk.", "litgpt": "transformer.h."}


def pairs_of(writer):
    ours = [f"model.layers.{n}.{name}" for n in LAYERS for name in HF]
    return ours, [f"{PREFIX[writer]}{n}.{name}" for n in LAYERS for name in THEIRS[writer]]


@pytest.mark.parametrize("writer", THEIRS)
@pytest.mark.parametrize("turned", [False, True])
def test_llama_names_of_every_writer(writer, turned):
    ours, theirs = pairs_of(writer)
    first, second = (theirs, ours) if turned else (ours, theirs)
    matched = match_modules(first, second[::-1])
    assert matched.pairs == list(zip(first, second, strict=True))
    assert not matched.only_first
    assert not matched.only_second
    reordered = [
        dict(zip(first, ours, strict=True))[name] for name, hit in matched.translated.items() if hit.reordered
    ]
    wanted = [] if writer == "litgpt" else [name for name in ours if name.endswith((".q_proj", ".k_proj"))]
    assert sorted(reordered) == sorted(wanted)


def test_two_writers_meet_in_a_third_language():
    _, tune = pairs_of("torchtune")
    _, gguf = pairs_of("gguf")
    assert match_modules(tune, gguf).pairs == list(zip(tune, gguf, strict=True))


UNET = [
    ("lora_unet_input_blocks_4_1_to_q", "down_blocks.1.attentions.0.to_q"),
    ("lora_unet_input_blocks_5_1_proj_in", "down_blocks.1.attentions.1.proj_in"),
    ("lora_unet_input_blocks_1_0_in_layers_2", "down_blocks.0.resnets.0.conv1"),
    ("lora_unet_input_blocks_3_0_op", "down_blocks.0.downsamplers.0.conv"),
    ("lora_unet_middle_block_1_ff_net_0_proj", "mid_block.attentions.0.ff.net.0.proj"),
    ("lora_unet_middle_block_2_out_layers_3", "mid_block.resnets.1.conv2"),
    ("lora_unet_output_blocks_2_2_conv", "up_blocks.0.upsamplers.0.conv"),
    ("lora_unet_output_blocks_3_1_proj_out", "up_blocks.1.attentions.0.proj_out"),
    ("lora_unet_output_blocks_8_0_skip_connection", "up_blocks.2.resnets.2.conv_shortcut"),
]  # fmt: skip


@pytest.mark.parametrize("prefix", ["", "unet."])
def test_stable_diffusion_blocks_are_those_of_diffusers(prefix):
    first, second = [a for a, _ in UNET], [prefix + b for _, b in UNET]
    assert match_modules(first, second).pairs == list(zip(first, second, strict=True))
    # and dotted, as in a checkpoint
    dotted = "model.diffusion_model.output_blocks.3.1.proj_out"
    assert match_modules([dotted, "x"], second).pairs == [(dotted, second[7])]


def test_flattened_names_of_two_text_encoders():
    flat = [f"lora_{part}_text_model_encoder_layers_{n}_mlp_fc1" for part in ("te1", "te2") for n in LAYERS]
    dotted = [
        f"{part}.text_model.encoder.layers.{n}.mlp.fc1"
        for part in ("text_encoder", "text_encoder_2")
        for n in LAYERS
    ]
    assert match_modules(flat, dotted).pairs == list(zip(flat, dotted, strict=True))
    # one encoder alone does not say which of the two it is
    assert not match_modules(flat, [name.removeprefix("text_encoder.") for name in dotted[:12]]).pairs


def test_what_could_be_two_modules_is_left_over():
    assert not match_modules(["lora_unet_a_b_c", "lora_unet_x"], ["a.b_c", "a_b.c"]).pairs
    assert not match_modules(
        ["blk.0.attn_v", "x"], ["v.layers.0.self_attn.v_proj", "t.layers.0.self_attn.v_proj"]
    ).pairs
    assert Translations(["a.b"]).same("a.b") == {}


@pytest.mark.parametrize("schema", ["flux_lora_aitoolkit_format", "flux_control_lora_format"])
def test_published_flux_names(real_adapters, schema):
    def modules(name, end):
        keys = json.loads((real_adapters / "_schemas" / f"{name}.state_dict_keys.json").read_text())[
            "keys_to_shapes"
        ]
        return [key.removesuffix(end) for key in keys if key.endswith(end)]

    flat, dotted = modules("flux_lora_kohya_format", ".lora_down.weight"), modules(schema, ".lora_A.weight")
    matched = match_modules(flat, dotted)
    assert len(matched.pairs) == min(len(flat), len(dotted), 304)
    for one, other in matched.pairs:
        assert one.removeprefix("lora_unet_") == other.removeprefix("diffusion_model.").replace(".", "_")


@pytest.mark.parametrize("name", [".self_attn.{}_proj", "_self_attn_{}_proj"])
@pytest.mark.parametrize("layers", [2_500, pytest.param(25_000, marks=pytest.mark.slow)])
def test_a_hundred_thousand_modules_are_matched(name, layers):
    first = [f"model.layers.{n}.self_attn.{p}_proj" for n in range(layers) for p in "qkvo"]
    if name.startswith("_"):
        second = [f"lora_te_{module.replace('.', '_')}" for module in first]
    else:
        second = [f"layers.{n}.attn.{p}_proj" for n in range(layers) for p in ("q", "k", "v", "output")]
    # where this is quadratic, a hundred thousand take hours and the suite's time limit ends it
    assert len(match_modules(first, second).pairs) == len(first)


def weights(modules, d=12, r=2):
    return {m: (rng.standard_normal((r, d)), rng.standard_normal((d, r))) for m in modules}


def test_kohya_and_peft_of_one_adapter_are_identical():
    made = weights([f"down_blocks.{n}.attentions.0.to_{x}" for n in range(3) for x in "qkv"])
    peft = {
        f"base_model.model.{m}.lora_{p}.weight": f
        for m, ab in made.items()
        for p, f in zip("AB", ab, strict=True)
    }
    kohya = {
        f"lora_unet_{m.replace('.', '_')}.lora_{p}.weight": f
        for m, ab in made.items()
        for p, f in zip(("down", "up"), ab, strict=True)
    }
    result = compare(peft, kohya, side="all")
    assert len(result.modules) == 36
    assert not result.only_first
    assert not result.only_second
    assert all(row.phi_full == pytest.approx(1) for row in result.modules)
    assert "9 modules matched by flattened names" in result.notes


def test_rows_in_another_order_are_not_compared():
    made = weights([f"model.layers.0.self_attn.{x}_proj" for x in "qv"])
    peft = {f"{m}.lora_{p}.weight": f for m, ab in made.items() for p, f in zip("AB", ab, strict=True)}
    tune = {
        f"layers.0.attn.{m[-6:]}.lora_{p}.weight": f
        for m, ab in made.items()
        for p, f in zip("ab", ab, strict=True)
    }
    rows = {(row.module[-6:], row.side): row for row in compare(peft, tune, side="all").modules}
    for side in ("a", "right"):
        assert rows["q_proj", side].phi_full == pytest.approx(1)
    for side in ("b", "left"):
        assert rows["q_proj", side].flags == ("rows_reordered",)
        assert rows["v_proj", side].phi_full == pytest.approx(1)
    base = {f"{m}.weight": rng.standard_normal((12, 12)) for m in made}
    result = amplify(base, tune, scale=1.0)
    assert [row.module for row in result.modules] == ["layers.0.attn.v_proj"]
    assert result.missing == ("layers.0.attn.q_proj",)
    assert any("other writer's order, and so are not measured" in note for note in result.notes)


def test_a_flattened_adapter_finds_its_base():
    made = weights(["mid_block.attentions.0.to_q", "mid_block.attentions.0.to_k"])
    base = {f"{m}.weight": rng.standard_normal((12, 12)) for m in made}
    names = {m: f"lora_unet_{m.replace('.', '_')}" for m in made}
    kohya = {
        f"{names[m]}.lora_{p}.weight": f
        for m, ab in made.items()
        for p, f in zip(("down", "up"), ab, strict=True)
    }
    plain = {
        f"{m}.lora_{p}.weight": f for m, ab in made.items() for p, f in zip(("down", "up"), ab, strict=True)
    }
    found, same = amplify(base, kohya), amplify(base, plain)
    assert [row.base_key for row in found.modules] == [f"{m}.weight" for m in sorted(made)]
    assert [{**record, "base_key": ""} for record in found.records()] == [
        {**record, "module": names[record["module"]], "base_key": ""} for record in same.records()
    ]
    assert "2 modules matched by flattened names" in found.notes
    assert not any("matched" in note for note in same.notes)


def test_a_base_weight_of_another_shape_is_not_taken_by_a_translated_name():
    base = load_base({"x.fc1.weight": np.ones((3, 5)), "x.fc2.weight": np.ones((4, 4))})
    kohya = {
        "lora_te_x_fc1.lora_down.weight": np.ones((1, 7)),
        "lora_te_x_fc1.lora_up.weight": np.ones((3, 1)),
    }
    kohya |= {
        "lora_te_x_fc2.lora_down.weight": np.ones((1, 4)),
        "lora_te_x_fc2.lora_up.weight": np.ones((4, 1)),
    }
    assert amplify(base, kohya).missing == ("lora_te_x_fc1",)


def test_names_of_every_library_say_where_they_are_from():
    assert len({known.name for known in every()}) == len(every()) >= 6
    assert all("(" in known.about for known in every())
