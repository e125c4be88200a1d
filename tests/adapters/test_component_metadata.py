"""Metadata of diffusers per component of a pipeline: our delta_W is that of the model that diffusers loads."""

from __future__ import annotations

import json

import numpy as np
import pytest
from oracle_versions import needs

import subspace
from subspace.errors import FormatError

pytestmark = pytest.mark.filterwarnings("ignore")
metadata_is_written = needs("diffusers", "0.34", "metadata per component")


@pytest.fixture(scope="module")
def libraries():
    torch = pytest.importorskip("torch")
    return torch, pytest.importorskip("diffusers"), pytest.importorskip("peft")


def unet(diffusers):
    return diffusers.UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(8, 16),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=12,
        attention_head_dim=4,
        norm_num_groups=4,
    )


def flux(diffusers):
    return diffusers.FluxTransformer2DModel(
        in_channels=4,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=8,
        num_attention_heads=2,
        joint_attention_dim=12,
        pooled_projection_dim=12,
        axes_dims_rope=(2, 2, 4),
    )


def encoder():
    transformers = pytest.importorskip("transformers")
    return transformers.CLIPTextModel(
        transformers.CLIPTextConfig(
            vocab_size=20, hidden_size=8, intermediate_size=16, num_hidden_layers=2, num_attention_heads=2
        )
    )


def adapted(model, config, torch, seed=0):
    """Give a model an adapter with random factors, and return its state dict in PEFT's keys."""
    from peft import get_peft_model_state_dict, inject_adapter_in_model

    generator = torch.Generator().manual_seed(seed)
    # what add_adapter of diffusers does; that of transformers wants a newer PEFT
    inject_adapter_in_model(config, model, "default")
    model.peft_config = {"default": config}
    for name, parameter in model.named_parameters():
        if "lora_" in name or "lokr_" in name:
            parameter.data = torch.randn(parameter.shape, generator=generator)
    return get_peft_model_state_dict(model, adapter_name="default")


def live(model):
    """Module -> delta_W as the layers of a model in memory apply it, a convolution flattened."""
    return {
        name: layer.get_delta_weight(layer.active_adapters[0]).detach().numpy()
        for name, layer in model.named_modules()
        if hasattr(layer, "get_delta_weight")
    }


def same(adapter, component, model):
    found = {
        module.removeprefix(f"{component}."): update
        for module, update in adapter.items()
        if module.startswith(f"{component}.")
    }
    wanted = live(model)
    assert set(found) == set(wanted)
    for module, update in found.items():
        np.testing.assert_allclose(
            update.delta_W(), wanted[module].reshape(update.d_out, -1), rtol=2e-5, atol=1e-5
        )


def config(peft, targets, **fields):
    return peft.LoraConfig(target_modules=targets, init_lora_weights=False, **fields)


@metadata_is_written
def test_every_component_has_its_own_ranks_and_alphas(libraries, tmp_path):
    torch, diffusers, peft = libraries
    model, text, text_2 = unet(diffusers), encoder(), encoder()
    layers = {
        "unet": adapted(
            model,
            config(
                peft,
                ["to_q", "to_out.0", "proj_in", "conv1"],
                r=4,
                lora_alpha=6,
                rank_pattern={"down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_q": 2},
                alpha_pattern={"proj_in": 5, r"mid_block\..*\.conv1": 9},
            ),
            torch,
        ),
        "text_encoder": adapted(
            text, config(peft, ["q_proj", "fc1"], r=3, lora_alpha=12, use_rslora=True), torch, 1
        ),
        "text_encoder_2": adapted(
            text_2, config(peft, ["q_proj"], r=3, lora_alpha=1, alpha_pattern={r"layers\.1\..*": 7}), torch, 2
        ),
    }
    models = {"unet": model, "text_encoder": text, "text_encoder_2": text_2}
    fields = {
        f"{name}_lora_adapter_metadata": one.peft_config["default"].to_dict() for name, one in models.items()
    }
    diffusers.StableDiffusionXLPipeline.save_lora_weights(
        str(tmp_path), **{f"{name}_lora_layers": state for name, state in layers.items()}, **fields
    )
    adapter = subspace.load_adapter(tmp_path)
    assert (adapter.format, adapter.notes, adapter.unknown) == ("pipeline", (), ())
    for name, one in models.items():
        same(adapter, name, one)


@metadata_is_written
def test_keys_as_the_training_scripts_convert_them(libraries, tmp_path):
    """Some layers in PEFT's keys and some in those of diffusers, in one file; without metadata alpha is r."""
    torch, diffusers, peft = libraries
    from diffusers.utils import convert_state_dict_to_diffusers

    model, text = unet(diffusers), encoder()
    layers = {
        "unet_lora_layers": convert_state_dict_to_diffusers(
            adapted(model, config(peft, ["to_q", "proj_in"], r=4, lora_alpha=6), torch)
        ),
        "text_encoder_lora_layers": convert_state_dict_to_diffusers(
            adapted(text, config(peft, ["q_proj", "fc1"], r=3, lora_alpha=12), torch, 1)
        ),
    }
    with_metadata = {
        "unet_lora_adapter_metadata": model.peft_config["default"].to_dict(),
        "text_encoder_lora_adapter_metadata": text.peft_config["default"].to_dict(),
    }
    save = diffusers.StableDiffusionPipeline.save_lora_weights
    save(str(tmp_path / "with"), **layers, **with_metadata)
    adapter = subspace.load_adapter(tmp_path / "with")
    same(adapter, "unet", model)
    same(adapter, "text_encoder", text)
    save(str(tmp_path / "without"), **layers)
    bare = subspace.load_adapter(tmp_path / "without")
    assert (list(bare), bare.notes, bare.unknown) == (list(adapter), (), ())
    assert {update.scale.value for update in bare.values()} == {1}


@metadata_is_written
def test_a_component_without_metadata_has_alpha_r(libraries, tmp_path):
    torch, diffusers, peft = libraries
    model, text = flux(diffusers), encoder()
    layers = {
        "transformer_lora_layers": adapted(
            model, config(peft, ["to_k", "proj_mlp"], r=4, lora_alpha=2, rank_pattern={"proj_mlp": 8}), torch
        ),
        "text_encoder_lora_layers": adapted(text, config(peft, ["q_proj"], r=8, lora_alpha=8), torch),
    }
    diffusers.FluxPipeline.save_lora_weights(
        str(tmp_path), **layers, transformer_lora_adapter_metadata=model.peft_config["default"].to_dict()
    )
    adapter = subspace.load_adapter(tmp_path)
    same(adapter, "transformer", model)
    same(adapter, "text_encoder", text)

    loaded = flux(diffusers)
    loaded.load_lora_adapter(
        str(tmp_path), prefix="transformer", weight_name="pytorch_lora_weights.safetensors"
    )
    same(adapter, "transformer", loaded)


@metadata_is_written
def test_one_component_saved_alone_has_a_plain_configuration(libraries, tmp_path):
    torch, diffusers, peft = libraries
    model = flux(diffusers)
    adapted(
        model, config(peft, ["to_k", "proj_out"], r=4, lora_alpha=2, alpha_pattern={"proj_out": 3}), torch
    )
    model.save_lora_adapter(str(tmp_path))
    adapter = subspace.load_adapter(tmp_path)
    assert adapter.format == "peft"
    wanted = live(model)
    assert set(adapter) == set(wanted)
    for module, update in adapter.items():
        np.testing.assert_allclose(update.delta_W(), wanted[module], rtol=2e-5, atol=1e-5)


@needs("diffusers", "0.36", "the pipeline of Flux 2")
def test_lokr_of_a_component(libraries, tmp_path):
    torch, diffusers, peft = libraries
    model = flux(diffusers)
    layers = adapted(model, peft.LoKrConfig(r=2, alpha=5, target_modules=["to_k", "proj_mlp"]), torch)
    diffusers.Flux2Pipeline.save_lora_weights(
        str(tmp_path),
        transformer_lora_layers=layers,
        transformer_lora_adapter_metadata=model.peft_config["default"].to_dict(),
    )
    adapter = subspace.load_adapter(tmp_path)
    assert adapter.format == "peft_lycoris"
    same(adapter, "transformer", model)


PATH = "transformer.blocks.0.attn1.to_q"


def written(folder, tensors, metadata):
    from safetensors.numpy import save_file

    path = folder / "a.safetensors"
    save_file(tensors, path, metadata={"lora_adapter_metadata": json.dumps(metadata)})
    return path


def pair(path=PATH, r=4, **extra):
    ones = {f"{path}.lora_A.weight": np.ones((r, 6), "f4"), f"{path}.lora_B.weight": np.ones((5, r), "f4")}
    return ones | {f"{path}.{name}": np.array(value, "f4") for name, value in extra.items()}


def test_an_alpha_that_contradicts_the_metadata_leaves_the_scale_unknown(tmp_path):
    metadata = {"transformer.r": 4, "transformer.lora_alpha": 8}
    agreed = subspace.load_adapter(written(tmp_path, pair(alpha=8), metadata))
    assert agreed[PATH].scale.value == 2
    adapter = subspace.load_adapter(written(tmp_path, pair(alpha=2), metadata))
    assert adapter[PATH].scale.value is None
    assert any("alpha in the file and" in note and PATH in note for note in adapter.notes)


def test_a_rank_that_is_not_the_stored_one_is_an_error(tmp_path):
    with pytest.raises(FormatError, match=r"different ranks: r = 8 in transformer in the metadata .* and 4"):
        subspace.load_adapter(written(tmp_path, pair(), {"transformer.r": 8, "transformer.lora_alpha": 8}))


def test_metadata_of_another_component_only(tmp_path):
    metadata = {"unet.r": 8, "unet.lora_alpha": 16}
    assert subspace.load_adapter(written(tmp_path, pair(alpha=2), metadata))[PATH].scale.value == 0.5
    assert subspace.load_adapter(written(tmp_path, pair(), metadata))[PATH].scale.value == 1


def test_empty_metadata_says_nothing(tmp_path):
    adapter = subspace.load_adapter(written(tmp_path, pair(), {}))
    assert (adapter.format, adapter[PATH].scale.value) == ("pipeline", 1)


def test_patterns_that_match_nothing_are_named_with_their_component(tmp_path):
    metadata = {"transformer.r": 4, "transformer.lora_alpha": 8, "transformer.alpha_pattern": {"x": 3}}
    (note,) = [n for n in subspace.load_adapter(written(tmp_path, pair(), metadata)).notes if "matches" in n]
    assert "No module of the file matches x, in alpha_pattern of transformer in the metadata" in note


def test_a_start_that_changed_the_base_is_noted_and_not_converted(tmp_path):
    metadata = {"transformer.r": 4, "transformer.lora_alpha": 8, "transformer.init_lora_weights": "pissa"}
    path = written(tmp_path, pair(), metadata)
    assert any("init_lora_weights is pissa" in note for note in subspace.load_adapter(path).notes)
    with pytest.raises(
        FormatError, match="delta_W is relative to base weights that init_lora_weights 'pissa' changed"
    ):
        subspace.convert(path, to="kohya")
