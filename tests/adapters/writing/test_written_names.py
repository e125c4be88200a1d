"""Names of modules in what is written: translated where there is one answer, else refused with a cure that works."""

from __future__ import annotations

import json

import numpy as np
import pytest
from click.testing import CliRunner
from library_loaders import (
    MODELS,
    assert_same,
    clip,
    comfy_names,
    linear_tree,
    llama,
    load_by_keys,
    load_diffusers,
    load_loralib,
    load_peft,
    load_transformer,
)
from oracle_versions import needs
from safetensors.numpy import load, load_file, save_file
from writable_sources import FORMATS, LLAMA, UNET, base_folder, permuted
from written_files import peft_folder, put

from subspace.adapters import load_adapter
from subspace.adapters.naming.writers import sd_unet
from subspace.adapters.naming.writers.sd_unet import name_in_sdxl
from subspace.analysis.convert import convert
from subspace.cli import app
from subspace.errors import FormatError

pytestmark = [
    pytest.mark.filterwarnings(r"ignore:::peft\..*"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]
_ATTN = "down_blocks.1.attentions.0.transformer_blocks.0.attn1"
_TO = ("peft", "loralib", "kohya", "diffusers")


def pair(d_out=16, d_in=12, r=2, seed=0):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((r, d_in)).astype("f4"), rng.standard_normal((d_out, r)).astype("f4")


def kohya(*names, alpha=2.0, **sizes):
    tensors = {}
    for n, name in enumerate(names):
        A, B = pair(seed=n, **sizes)
        tensors |= {
            f"{name}.lora_down.weight": A,
            f"{name}.lora_up.weight": B,
            f"{name}.alpha": np.array(alpha, "f4"),
        }
    return tensors


def names_of(source, to, **options):
    return [row.module for row in convert(source, to=to, **options).modules]


# --- names with underscores for dots


@pytest.mark.parametrize(
    ("flat", "path"),
    [
        ("lora_unet_down_blocks_0_attentions_1_transformer_blocks_0_ff_net_0_proj",
         "down_blocks.0.attentions.1.transformer_blocks.0.ff.net.0.proj"),
        ("lora_unet_input_blocks_4_1_transformer_blocks_0_attn1_to_q",
         "down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q"),
        ("lora_te_text_model_encoder_layers_3_self_attn_out_proj", "text_model.encoder.layers.3.self_attn.out_proj"),
        ("lora_te3_encoder_block_2_layer_1_DenseReluDense_wi_0", "encoder.block.2.layer.1.DenseReluDense.wi_0"),
        ("lora_transformer_single_transformer_blocks_7_norm_linear", "single_transformer_blocks.7.norm.linear"),
        ("lora_unet_double_blocks_0_img_attn_qkv", "double_blocks.0.img_attn.qkv"),
        ("lora_unet_joint_blocks_3_context_block_attn_qkv", "joint_blocks.3.context_block.attn.qkv"),
        ("lycoris_diffusion_model_double_blocks_0_txt_mlp_2", "double_blocks.0.txt_mlp.2"),
        ("lora_unet_unet_mid_block_attentions_0_proj_out", "mid_block.attentions.0.proj_out"),
        ("lycoris_model_layers_1_self_attn_q_proj", "model.layers.1.self_attn.q_proj"),
        ("lycoris_transformer_h_0_attn_c_attn", "transformer.h.0.attn.c_attn"),
        ("lycoris_bert_encoder_layer_0_attention_self_query", "bert.encoder.layer.0.attention.self.query"),
    ],
)  # fmt: skip
def test_the_dots_of_known_models_come_back(flat, path):
    assert names_of(kohya(flat), "peft") == names_of(kohya(flat), "loralib") == [path]


@pytest.mark.parametrize("to", ["peft", "loralib", "diffusers"])
def test_unknown_words_are_refused_and_the_base_or_new_names_help(to, tmp_path):
    flat = "lora_unet_my_block_0_to_q"
    with pytest.raises(
        FormatError, match=rf"No model has a module called {flat}: its dots.*`base`.*`rename`"
    ):
        convert(kohya(flat), to=to)
    name = "unet.mid_block.attentions.0.proj_in"
    assert names_of(kohya(flat), to, rename={flat: name}) == [name if to == "diffusers" else name[5:]]
    if to != "diffusers":
        base = {
            "my_block.0.to_q.weight": np.ones((16, 12), "f4"),
            "my_block.0.to_k.weight": np.ones((16, 12), "f4"),
        }
        assert names_of(kohya(flat), to, base=base) == ["my_block.0.to_q"]


def test_the_first_word_of_a_name_that_the_published_base_lacks_stays():
    base = {f"h.{n}.attn.c_zz.weight": np.ones((16, 12), "f4") for n in range(2)}
    assert names_of(kohya("lycoris_transformer_h_0_attn_c_zz"), "peft", base=base) == [
        "transformer.h.0.attn.c_zz"
    ]


def test_a_name_of_a_thousand_parts_takes_no_time():
    flat = "lora_unet_" + "_".join(["to", "out", "0"] * 400)
    with pytest.raises(FormatError, match="No model has a module called"):
        convert(kohya(flat), to="peft")


# --- models of a pipeline


def test_one_model_of_a_pipeline_loses_its_name_and_several_are_refused(tmp_path):
    unet, text = "unet.mid_block.attentions.0.proj_in", "text_encoder.text_model.encoder.layers.0.mlp.fc1"
    for style in (".lora.down.weight", ".lora.up.weight"), (".lora_A.weight", ".lora_B.weight"):
        one, both = ({name + end: M for name in names for end, M in zip(style, pair(), strict=True)}
                     for names in ([unet], [unet, text]))  # fmt: skip
        for to in ("peft", "loralib"):
            assert names_of(one, to) == [unet.removeprefix("unet.")]
            with pytest.raises(
                FormatError, match=rf"is of 2 models .*, and a file of the format {to} is of one"
            ):
                convert(both, to=to)
        assert set(names_of(both, "diffusers")) == {unet, text}
    # in a language model "transformer" is a module
    gpt = {f"transformer.h.0.attn.c_attn.lora_{x}": M for x, M in zip("AB", pair(), strict=True)}
    assert names_of(gpt, "peft", scale=1.0) == ["transformer.h.0.attn.c_attn"]


def test_a_file_of_pefts_keeps_words_that_are_models_elsewhere(tmp_path):
    shapes = {"unet.mid_block.q": (8, 6), "text_encoder.q": (8, 6)}
    source = peft_folder(tmp_path / "in", dict.fromkeys(shapes, 2), dict.fromkeys(shapes, 2), shapes=shapes)
    assert set(names_of(source, "peft")) == set(names_of(source, "loralib")) == set(shapes)
    deltas = {name: update.delta_W() for name, update in load_adapter(source).items()}
    assert_same(load_peft(put(convert(source, to="peft"), tmp_path / "out"), linear_tree(shapes)), deltas)


@pytest.mark.parametrize("to", ["peft", "loralib"])
def test_a_file_of_diffusers_with_the_configuration_in_its_metadata_is_of_a_unet(to, tmp_path):
    """It has PEFT's keys behind ``unet.``, without PEFT's prefix."""
    name = f"{_ATTN}.to_q"
    A, B = pair(16, 16)
    config = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "target_modules": [name]}
    metadata = {"lora_adapter_metadata": json.dumps(config)}
    tensors = {f"unet.{name}.lora_A.weight": A, f"unet.{name}.lora_B.weight": B}
    save_file(tensors, tmp_path / "in.safetensors", metadata)
    made = convert(tmp_path / "in.safetensors", to=to)
    assert [row.module for row in made.modules] == [name]
    if to == "peft":
        assert_same(load_peft(put(made, tmp_path / "out"), MODELS["unet"]()), {name: 2 * B.astype(float) @ A})


@needs("transformers", "5.0", "CLIP has no text_model in it any more")
def test_clip_in_transformers_5_needs_other_names_and_the_note_says_which(tmp_path):
    A, B = pair(16, 16)
    name = "text_encoder.text_model.encoder.layers.0.self_attn.q_proj"
    source = {f"{name}.lora_A.weight": A, f"{name}.lora_B.weight": B}
    assert any("without it in transformers 5" in note for note in convert(source, to="peft").notes)
    made = convert(source, to="peft", rename={"text_encoder.text_model": ""})
    found = load_peft(put(made, tmp_path / "out"), clip())
    assert_same(found, {"encoder.layers.0.self_attn.q_proj": B.astype(float) @ A})


@pytest.mark.parametrize(
    "module",
    ["text_encoder.text_model.embeddings.token_embedding", "text_encoder_3.encoder.block.0.layer.0.SelfAttention.q",
     "diffusion_model.double_blocks.0.img_attn.qkv", "transformer.double_blocks.0.img_attn.qkv", "unet.layers.0.q"],
)  # fmt: skip
def test_what_no_pipeline_of_diffusers_loads_is_refused(module):
    tensors = {f"{module}.lora_{x}.weight": M for x, M in zip("AB", pair(), strict=True)}
    with pytest.raises(
        FormatError, match=r"No pipeline of diffusers has|diffusers loads only q_proj|Flux has other layers"
    ):
        convert(tensors, to="diffusers")


def flux():
    from diffusers import FluxTransformer2DModel

    return FluxTransformer2DModel(
        patch_size=1, in_channels=4, num_layers=1, num_single_layers=1, attention_head_dim=16, num_attention_heads=2,
        joint_attention_dim=32, pooled_projection_dim=32, axes_dims_rope=[4, 4, 8],
    )  # fmt: skip


def sd3():
    from diffusers import SD3Transformer2DModel

    return SD3Transformer2DModel(
        sample_size=8, patch_size=1, in_channels=4, num_layers=2, attention_head_dim=8, num_attention_heads=4,
        joint_attention_dim=32, caption_projection_dim=32, pooled_projection_dim=64, out_channels=4,
    )  # fmt: skip


def wan():
    from diffusers import WanTransformer3DModel

    return WanTransformer3DModel(
        patch_size=(1, 2, 2), num_attention_heads=2, attention_head_dim=12, in_channels=16, out_channels=16,
        text_dim=32, freq_dim=256, ffn_dim=32, num_layers=1, cross_attn_norm=True, rope_max_seq_len=32,
    )  # fmt: skip


@needs("diffusers", "0.33", "it has Wan, and tells ranks of equal ends of names apart")
@pytest.mark.parametrize("model", [flux, sd3, wan])
def test_transformers_of_diffusers_load_every_linear_layer(model, tmp_path):
    import torch

    model, tensors, deltas = model(), {}, {}
    for n, (name, layer) in enumerate(model.named_modules()):
        if isinstance(layer, torch.nn.Linear):
            r = 1 + n % 3  # ranks differ, and one name is the end of another
            A, B = pair(*layer.weight.shape, r=r, seed=n)
            tensors |= {f"transformer.{name}.lora_down.weight": A, f"transformer.{name}.lora_up.weight": B}
            tensors[f"transformer.{name}.alpha"] = np.array(2.0 * r, "f4")
            deltas[f"transformer.{name}"] = 2 * B.astype(float) @ A
    path = put(convert(tensors, to="diffusers"), tmp_path / "a.safetensors")
    assert_same(load_transformer(path, model), deltas)


def test_a_transformer_with_the_keys_of_comfyui_comes_back(tmp_path):
    """OneTrainer's prefix for diffusers' names: ComfyUI, comfy/lora.py, "lora_transformer_{}"."""
    names = [
        "transformer_blocks.0.attn.to_q",
        "single_transformer_blocks.0.proj_mlp",
        "transformer_blocks.0.norm1.linear",
    ]
    tensors = {
        f"transformer.{name}.lora_{x}.weight": M for name in names for x, M in zip("AB", pair(), strict=True)
    }
    path = put(convert(tensors, to="kohya"), tmp_path / "a.safetensors")
    assert set(names_of(path, "diffusers")) == {f"transformer.{name}" for name in names}
    flat = {f"lora_transformer_{name.replace('.', '_')}": name for name in names}
    A, B = pair()
    assert_same(load_by_keys(path, flat), dict.fromkeys(names, B.astype(float) @ A))


@pytest.mark.parametrize("prefix", ["diffusion_model.", "model.diffusion_model.", ""])
def test_names_of_a_checkpoint_are_those_of_comfyui(prefix, tmp_path):
    names = ["double_blocks.0.img_attn.qkv", "single_blocks.1.linear1"]
    tensors = {
        f"{prefix}{name}.lora_{x}.weight": M for name in names for x, M in zip("AB", pair(), strict=True)
    }
    path = put(convert(tensors, to="kohya", **({"scale": 1.0} if prefix == "model.diffusion_model." else {})),
               tmp_path / "a.safetensors")  # fmt: skip
    assert set(load_by_keys(path, comfy_names(names))) == set(names)


def test_flattened_names_stay_in_their_format():
    """Those of SDXL under diffusers' names, and a first text encoder that is counted, from LyCORIS too."""
    names = [
        "lora_unet_down_blocks_1_attentions_0_transformer_blocks_1_attn1_to_q",
        "lora_te1_text_model_encoder_layers_0_mlp_fc1",
    ]
    tensors = kohya(*names)
    assert set(names_of(tensors, "kohya")) == set(names)
    lokr = {f"{names[0]}.lokr_w1": np.eye(2, dtype="f4"), f"{names[0]}.lokr_w2_a": np.ones((8, 2), "f4")}
    lokr |= {f"{names[0]}.lokr_w2_b": np.ones((2, 6), "f4"), f"{names[0]}.alpha": np.array(2, "f4")}
    lokr |= {key: value for key, value in tensors.items() if key.startswith(names[1])}
    assert load_adapter(lokr).format == "lycoris"
    assert set(names_of(lokr, "kohya")) == set(names)


def test_a_file_of_old_attention_processors_gets_the_name_of_its_model(tmp_path):
    """Without ``unet.`` diffusers 0.42 loads nothing; magnitudes of DoRA get the same name."""
    path = "mid_block.attentions.0.transformer_blocks.0.attn1"
    A, B = pair(16, 16)
    old = {f"{path}.processor.to_q_lora.down.weight": A, f"{path}.processor.to_q_lora.up.weight": B}
    made = convert(old, to="diffusers")
    assert_same(
        load_diffusers(put(made, tmp_path / "a.safetensors")), {f"unet.{path}.to_q": B.astype(float) @ A}
    )
    dora = {f"{path}.to_q.lora.down.weight": A, f"{path}.to_q.lora.up.weight": B}
    dora[f"{path}.to_q.lora_magnitude_vector"] = np.ones(16, "f4")
    made = convert(dora, to="diffusers")
    assert f"unet.{path}.to_q.lora_magnitude_vector" in load(made.files[""])


def test_words_that_flux_and_other_transformers_share_are_those_of_the_model_they_stand_behind():
    name = "transformer.img_in"  # of Qwen-Image in diffusers, and of Flux under its authors' names
    tensors = {f"{n}.lora.{x}.weight": M for n in (name, "transformer.transformer_blocks.0.img_mlp.net.2")
               for x, M in zip(("down", "up"), pair(), strict=True)}  # fmt: skip
    assert name in names_of(tensors, "diffusers")
    keys = {
        key.replace(".lora.down.", ".lora_down.").replace(".lora.up.", ".lora_up."): M
        for key, M in tensors.items()
    }
    assert name in names_of(keys, "diffusers")


def test_a_flux_of_its_authors_goes_into_diffusers_by_way_of_kohya(tmp_path):
    """As the refusal says: diffusers splits q, k and v of kohya's files itself."""
    import torch
    from diffusers.loaders import FluxLoraLoaderMixin
    from safetensors.torch import load as load_torch

    A, B = pair(24, 8)
    name = "diffusion_model.double_blocks.0.img_attn.qkv"
    made = convert({f"{name}.lora_A.weight": A, f"{name}.lora_B.weight": B}, to="kohya")
    state = FluxLoraLoaderMixin.lora_state_dict(load_torch(made.files[""]))
    for n, x in enumerate("qkv"):
        stem = f"transformer.transformer_blocks.0.attn.to_{x}.lora_"
        delta = state[f"{stem}B.weight"].to(torch.float64) @ state[f"{stem}A.weight"].to(torch.float64)
        assert_same({x: delta.numpy()}, {x: B[8 * n : 8 * n + 8].astype(float) @ A})


# --- SDXL, whose UNet has other names in sd-scripts


SDXL = {
    "down_blocks.1.attentions.0.transformer_blocks.1.attn1.to_q": "input_blocks.4.1.transformer_blocks.1.attn1.to_q",
    "down_blocks.0.resnets.1.conv1": "input_blocks.2.0.in_layers.2",
    "down_blocks.1.downsamplers.0.conv": "input_blocks.6.0.op",
    "mid_block.attentions.0.proj_out": "middle_block.1.proj_out",
    "mid_block.resnets.1.time_emb_proj": "middle_block.2.emb_layers.1",
    "up_blocks.0.attentions.2.proj_in": "output_blocks.2.1.proj_in",
    "up_blocks.1.upsamplers.0.conv": "output_blocks.5.2.conv",
    "time_embedding.linear_1": "time_embed.0",
    "add_embedding.linear_2": "label_emb.0.2",
    "conv_in": "input_blocks.0.0",
    "conv_out": "out.2",
}


def test_names_of_sdxl_there_and_back():
    for path, original in SDXL.items():
        assert name_in_sdxl(path) == original
        assert sd_unet.NAMES.translate(f"diffusion_model.{original}") == (path,)


def test_sdxl_gets_the_names_of_sd_scripts_and_stable_diffusion_1_those_of_diffusers(tmp_path):
    name = "down_blocks.1.attentions.0.transformer_blocks.{}.attn1.to_q"
    text = "text_encoder{}.text_model.encoder.layers.0.mlp.fc1"

    def written(*names):
        A, B = pair()
        tensors = {f"{n}.lora.{x}.weight": M for n in names for x, M in (("down", A), ("up", B))}
        return set(names_of(tensors, "kohya"))

    assert written(f"unet.{name.format(1)}") == {"lora_unet_input_blocks_4_1_transformer_blocks_1_attn1_to_q"}
    assert written(f"unet.{name.format(0)}", text.format("_2"), text.format("")) == {
        "lora_unet_input_blocks_4_1_transformer_blocks_0_attn1_to_q",
        "lora_te1_text_model_encoder_layers_0_mlp_fc1",
        "lora_te2_text_model_encoder_layers_0_mlp_fc1",
    }
    assert written(f"unet.{name.format(0)}", text.format("")) == {
        "lora_unet_down_blocks_1_attentions_0_transformer_blocks_0_attn1_to_q",
        "lora_te_text_model_encoder_layers_0_mlp_fc1",
    }


# --- names of other libraries


def gguf_pair(*parts, **sizes):
    return {
        f"{part}.weight.lora_{x}": M
        for n, part in enumerate(parts)
        for x, M in zip("ab", pair(seed=n, **sizes), strict=True)
    }


def test_rows_that_llama_cpp_may_have_reordered_need_the_base(tmp_path):
    q, v = gguf_pair("blk.0.attn_q", d_out=16, d_in=16), gguf_pair("blk.0.attn_v", d_out=8, d_in=16)
    for to in ("peft", "loralib", "kohya"):
        with pytest.raises(
            FormatError, match=r"rows of q and k may be in another order.*blk\.0\.attn_q.*`base`"
        ):
            convert(q, to=to, scale=1.0)
        (name,) = names_of(v, to, scale=1.0)
        assert name.replace(".", "_").endswith("model_layers_0_self_attn_v_proj")
    base = base_folder(tmp_path / "base")
    config = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps({**config, "model_type": "qwen2"}))  # which is not reordered
    written = load(convert(q, to="peft", scale=1.0, base=base).files["adapter_model.safetensors"])
    stem = "base_model.model.model.layers.0.self_attn.q_proj"
    np.testing.assert_array_equal(written[f"{stem}.lora_B.weight"], q["blk.0.attn_q.weight.lora_b"])
    (base / "config.json").write_text(json.dumps({**config, "model_type": "strange"}))
    with pytest.raises(FormatError, match="may be in another order"):
        convert(q, to="peft", scale=1.0, base=base)


def test_the_order_of_rows_is_that_of_transformers(tmp_path):
    """The permutation of llama.cpp, by its own package's converter of models, undone."""
    rng = np.random.default_rng(0)
    B = rng.standard_normal((16, 2)).astype("f4")
    source = {"blk.0.attn_q.weight.lora_a": pair(16, 16)[0], "blk.0.attn_q.weight.lora_b": permuted(B, 4)}
    made = convert(source, to="peft", scale=1.0, base=base_folder(tmp_path / "base"))
    written = load(made.files["adapter_model.safetensors"])
    np.testing.assert_array_equal(
        written["base_model.model.model.layers.0.self_attn.q_proj.lora_B.weight"], B
    )
    assert made.modules[0].of == ("blk.0.attn_q",)


def test_names_that_several_models_have_are_decided_by_the_others_or_refused():
    with pytest.raises(
        FormatError, match=r"llama\.cpp gives to modules, blk\.0\.ffn_up: they could be of .*`rename`"
    ):
        convert(gguf_pair("blk.0.ffn_up"), to="peft", scale=1.0)
    assert names_of(gguf_pair("blk.0.ffn_up", "blk.0.ffn_gate"), "peft", scale=1.0)[1].endswith("up_proj")
    gpt2 = {
        "transformer.h.0.mlp.c_fc.weight": np.ones((12, 16), "f4"),
        "transformer.h.1.mlp.c_fc.weight": np.ones((12, 16), "f4"),
    }
    assert names_of(gguf_pair("blk.0.ffn_up"), "peft", scale=1.0, base=gpt2) == ["transformer.h.0.mlp.c_fc"]
    with pytest.raises(FormatError, match=r"blk\.0\.ssm_in: no known model has them all"):
        convert(gguf_pair("blk.0.attn_v", "blk.0.ssm_in"), to="peft", scale=1.0)
    assert names_of(gguf_pair("blk.0.ssm_in"), "peft", scale=1.0, rename={"blk.0.ssm_in": "x.in_proj"}) == [
        "x.in_proj"
    ]


def test_groups_of_litgpt_whose_rows_are_interleaved_are_layers_of_their_own(tmp_path):
    case = FORMATS["litgpt"](tmp_path / "in")
    old = {key.replace(".qkv.", ".attn."): value for key, value in case.source.items()}
    found = load_peft(put(convert(old, to="peft", scale=2.0), tmp_path / "out"), llama())
    assert_same(found, case.deltas)


@pytest.mark.parametrize("to", ["peft", "loralib", "kohya"])
def test_groups_whose_rows_are_not_known_need_enable_lora(to):
    fused = {"h.0.c_attn.lora_A": np.ones((4, 8), "f4"), "h.0.c_attn.lora_B": np.ones((12, 2), "f4")}
    if to != "loralib":
        with pytest.raises(FormatError, match="`enable_lora`, or choose the format loralib"):
            convert(fused, to=to, scale=1.0)
    made = convert(fused, to=to, scale=1.0, enable_lora=[True, False, True])
    assert made.modules[0].of == ("h.0.c_attn[q]", "h.0.c_attn[v]")


def test_groups_of_litgpt_that_the_file_does_not_name_need_enable_lora():
    fused = {"h.0.attn.qkv.lora_A": np.ones((4, 8), "f4"), "h.0.attn.qkv.lora_B": np.ones((16, 2), "f4")}
    for to in _TO:
        with pytest.raises(
            FormatError, match=r"which of q, k and v the groups h\.0\.attn\.qkv\[0\].*`enable_lora`"
        ):
            convert(fused, to=to, scale=1.0)
    assert names_of(fused, "peft", scale=1.0, enable_lora=[True, False, True]) == [
        f"model.layers.0.self_attn.{x}_proj" for x in "qv"
    ]


def test_a_gguf_file_says_the_kind_of_its_model(tmp_path):
    gguf = pytest.importorskip("gguf")
    for kind, order in (("qwen2", True), ("llama", False)):
        writer = gguf.GGUFWriter(tmp_path / f"{kind}.gguf", kind)
        writer.add_type(gguf.GGUFType.ADAPTER)
        writer.add_string(gguf.Keys.Adapter.TYPE, "lora")
        writer.add_float32(gguf.Keys.Adapter.LORA_ALPHA, 4.0)
        tensors = gguf_pair("blk.0.attn_k", d_out=8, d_in=16)
        for name, array in tensors.items():
            writer.add_tensor(name, array)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        if not order:
            with pytest.raises(FormatError, match="may be in another order"):
                convert(tmp_path / f"{kind}.gguf", to="peft")
        base = None if order else base_folder(tmp_path / "base")
        written = load(
            convert(tmp_path / f"{kind}.gguf", to="peft", base=base).files["adapter_model.safetensors"]
        )
        B = tensors["blk.0.attn_k.weight.lora_b"]
        wanted = B if order else B.reshape(2, 2, 2, -1).swapaxes(1, 2).reshape(B.shape)
        np.testing.assert_array_equal(
            written["base_model.model.model.layers.0.self_attn.k_proj.lora_B.weight"], wanted
        )


# --- layers that only some formats hold


def test_embeddings_and_pointwise_convolutions_in_loralib(tmp_path):
    import loralib
    import torch

    A, B = pair(5, 11)
    convolution = {"c.lora_A": A[:, :, None, None], "c.lora_B": B[:, :, None, None]}
    tensors = {"base_model.model.e.lora_embedding_A": A, "base_model.model.e.lora_embedding_B": B}
    tensors |= {f"base_model.model.{key}.weight": value for key, value in convolution.items()}
    path = put(convert(tensors, to="loralib", scale=2.0), tmp_path / "a.pt")
    emb, conv = loralib.Embedding(11, 5, r=2, lora_alpha=4), loralib.Conv2d(11, 5, 1, r=2, lora_alpha=4)
    model = torch.nn.ModuleDict({"e": emb, "c": conv})
    assert model.load_state_dict(torch.load(path), strict=False).unexpected_keys == []
    wanted = 2 * B.astype(float) @ A
    for layer, turned in ((emb, False), (conv, False)):
        delta = (layer.lora_B @ layer.lora_A * layer.scaling).detach().double().numpy()
        assert_same({"x": delta.T if turned else delta}, {"x": wanted})


@pytest.mark.parametrize("to", _TO)
def test_what_no_file_of_pairs_holds_is_refused(to, tmp_path):
    grouped = {"base_model.model.c.lora_A.weight": np.ones((4, 3, 3, 3), "f4")}
    grouped["base_model.model.c.lora_B.weight"] = np.ones((6, 2, 1, 1), "f4")
    with pytest.raises(FormatError, match="it is a group of a convolution"):
        convert(grouped, to=to, scale=1.0)
    experts = {
        f"blk.0.ffn_up_exps.weight.lora_{x}": np.stack([M, M]) for x, M in zip("ab", pair(), strict=True)
    }
    with pytest.raises(FormatError, match="it is one of several experts that share a pair"):
        convert(experts, to=to, scale=1.0)


# --- `--map`, the cure of the messages


@pytest.mark.parametrize("to", _TO)
def test_the_command_line_renames_what_has_no_names(to, tmp_path):
    """cloneofsimo counts layers; with names for them every format loads the file."""
    case = FORMATS["cloneofsimo"](tmp_path / "in")
    save_file(case.source, tmp_path / "in.safetensors")
    names = {f"unet:{n}": f"unet.mid_block.attentions.{n}.proj_in" for n in range(3)}
    out = tmp_path / ("out" if to == "peft" else "out.pt" if to == "loralib" else "out.safetensors")
    command = ["convert", str(tmp_path / "in.safetensors"), str(out), "--to", to]
    failed = CliRunner().invoke(app, command)
    assert failed.exit_code == 1
    assert "`rename`" in str(failed.exception)  # --map for the command line
    rules = [text for old, new in names.items() for text in ("--map", f"{old}={new}")]
    result = CliRunner().invoke(app, [*command, *rules])
    assert result.exit_code == 0, result.output
    read = load_adapter(out, scale=1.0)
    deltas = {names[old]: update.delta_W() for old, update in load_adapter(case.source).items()}
    written = {"kohya": lambda n: "lora_unet_" + n[5:].replace(".", "_"), "diffusers": str}.get(
        to, lambda n: n[5:]
    )
    assert_same({n: u.delta_W() for n, u in read.items()}, {written(n): d for n, d in deltas.items()})
    cut = tmp_path / f"cut{out.suffix}"
    cutting = ["truncate", command[1], str(cut), "--to", to, "--rank", "1", *rules]
    assert CliRunner().invoke(app, cutting).exit_code == 0
    assert set(load_adapter(cut)) == set(read)


@pytest.mark.parametrize("to", _TO)
def test_groups_are_renamed_with_their_layer(to, tmp_path):
    source = FORMATS["positional"](tmp_path / "in").source
    new = "unet.mid_block.attentions.*.proj_in"
    made = convert(source, to=to, rename={"blocks.*.attn.qkv[*]": f"{new}[*]"})
    assert {row.of for row in made.modules} == {
        tuple(f"unet.mid_block.attentions.{n}.proj_in[{x}]" for x in "qv") for n in range(2)
    }


# --- what PEFT's configuration chooses


def test_a_bare_name_is_not_the_end_of_others(tmp_path):
    shapes = {"q": (8, 6), "a+b": (8, 6), "0": (8, 6)}
    tensors = {f"{n}.lora_{x}": M for n in shapes for x, M in zip("AB", pair(8, 6), strict=True)}
    made = convert(tensors, to="peft", scale=2.0)
    model = linear_tree(shapes | {"h.q": (8, 6), "h.0": (8, 6), "h.a+b": (8, 6)})
    A, B = pair(8, 6)
    assert_same(load_peft(put(made, tmp_path / "out"), model), dict.fromkeys(shapes, 2 * B.astype(float) @ A))


_ALL = ["q_proj", "k_proj", "v_proj", "o_proj"]


@pytest.mark.parametrize(
    "config",
    [
        {"target_modules": _ALL, "layers_to_transform": [0, 1], "layers_pattern": "layers"},
        {"target_modules": _ALL, "exclude_modules": ["lm_head"]},
        {"target_modules": r".*self_attn\.._proj"},
        {"target_modules": "all-linear"},
        {"target_modules": ["V", "strange"]},
        {"target_modules": _ALL, "exclude_modules": ["q_proj"]},
        {"target_modules": ["q_proj"], "layers_to_transform": 0},
        {},
    ],
)  # fmt: skip
@pytest.mark.parametrize("renamed", [False, True])
def test_a_kept_configuration_chooses_the_layers_that_are_written(config, renamed, tmp_path):
    source = FORMATS["peft"](tmp_path / "in")
    path = source.source / "adapter_config.json"
    told = json.loads(path.read_text())
    del told["target_modules"]
    path.write_text(json.dumps({**told, "base_model_name_or_path": "org/name", **config}))
    new = {"model.layers": "net.model.layers"} if renamed else None
    made = convert(source.source, to="peft", rename=new)
    assert json.loads(made.files["adapter_config.json"])["base_model_name_or_path"] == "org/name"
    model = linear_tree({f"net.{n}": s for n, s in LLAMA.items()}) if renamed else MODELS["llama"]()
    wanted = {f"net.{n}" if renamed else n: delta for n, delta in source.deltas.items()}
    assert_same(load_peft(put(made, tmp_path / "out"), model), wanted)


def test_magnitudes_of_dora_follow_a_new_name(tmp_path):
    import torch

    folder = peft_folder(tmp_path / "in", {"h.q": 2}, {"h.q": 2}, shapes={"h.q": (8, 6)}, use_dora=True)
    tensors = load_file(folder / "adapter_model.safetensors")
    tensors["base_model.model.h.q.lora_magnitude_vector"] = np.arange(1, 9, dtype="f4")
    save_file(tensors, folder / "adapter_model.safetensors")
    out = put(convert(folder, to="peft", rename={"h": "g"}), tmp_path / "out")
    assert "base_model.model.g.q.lora_magnitude_vector" in load_file(out / "adapter_model.safetensors")
    torch.manual_seed(0)
    assert set(load_peft(out, linear_tree({"g.q": (8, 6)}))) == {"g.q"}


def test_conv1d_of_gpt2(tmp_path):
    """PEFT's own delta of a layer that stores its weight (d_in, d_out)."""
    from transformers import GPT2Config, GPT2LMHeadModel

    A, B = pair(48, 16)
    name = "transformer.h.0.attn.c_attn"
    for source in (
        {f"{name}.lora_A": A, f"{name}.lora_B": B},
        {
            f"lycoris_{name.replace('.', '_')}.lora_down.weight": A,
            f"lycoris_{name.replace('.', '_')}.lora_up.weight": B,
        },
    ):
        model = GPT2LMHeadModel(GPT2Config(n_embd=16, n_layer=1, n_head=2, vocab_size=20))
        out = put(
            convert(source, to="peft", scale=3.0), tmp_path / str(len(source) + len(next(iter(source))))
        )
        assert_same(load_peft(out, model), {name: 3 * B.astype(float) @ A})


def test_a_unet_of_kohya_goes_through_all_four(tmp_path):
    flat = ["lora_unet_" + name.replace(".", "_") for name in UNET]
    tensors, wanted = {}, {}
    for n, (name, (d_out, d_in)) in enumerate(UNET.items()):
        A, B = pair(d_out, d_in, seed=n)
        tensors |= {f"{flat[n]}.lora_down.weight": A, f"{flat[n]}.lora_up.weight": B}
        wanted[name] = B.astype(float) @ A
    assert_same(load_peft(put(convert(tensors, to="peft"), tmp_path / "a"), MODELS["unet"]()), wanted)
    assert_same(load_loralib(put(convert(tensors, to="loralib"), tmp_path / "a.pt"), 1.0), wanted)
    path = put(convert(tensors, to="diffusers"), tmp_path / "a.safetensors")
    assert_same(load_diffusers(path), {f"unet.{name}": delta for name, delta in wanted.items()})


def test_truncate_translates_names_and_rows_too(tmp_path):
    case = FORMATS["torchtune"](tmp_path / "in")
    save_file(case.source, tmp_path / "in.safetensors")
    command = [
        "truncate",
        str(tmp_path / "in.safetensors"),
        str(tmp_path / "out"),
        "--energy",
        "1",
        "--scale",
        "2",
    ]
    assert CliRunner().invoke(app, command).exit_code == 1
    result = CliRunner().invoke(app, [*command, "--base", str(case.options["base"]), "--json"])
    assert result.exit_code == 0, result.output
    assert_same(load_peft(tmp_path / "out", llama()), case.deltas, rtol=1e-5)
