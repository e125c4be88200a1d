"""What is written, loaded by the library that reads it into a model that has the layers: delta_W of every layer."""

from __future__ import annotations

import functools

import numpy as np
import torch
from writable_sources import FLUX, HEADS, KV_HEADS, VIT, D


def tree(layers):
    """A module with a layer at each dotted path."""
    root = torch.nn.Module()
    for path, layer in layers.items():
        parent = root
        *before, last = path.split(".")
        for part in before:
            if not hasattr(parent, part):
                parent.add_module(part, torch.nn.Module())
            parent = getattr(parent, part)
        parent.add_module(last, layer)
    return root


def linear_tree(shapes):
    """A module with linear layers of these shapes (d_out, d_in)."""
    return tree({path: torch.nn.Linear(d_in, d_out) for path, (d_out, d_in) in shapes.items()})


def llama():
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        hidden_size=D, intermediate_size=24, num_hidden_layers=2, num_attention_heads=HEADS,
        num_key_value_heads=KV_HEADS, vocab_size=32,
    )  # fmt: skip
    return LlamaForCausalLM(config)


def unet():
    from diffusers import UNet2DConditionModel

    return UNet2DConditionModel(
        block_out_channels=(8, 16), layers_per_block=1, sample_size=8, cross_attention_dim=16, norm_num_groups=2,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"), up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=2, use_linear_projection=True,
    )  # fmt: skip


def clip():
    from transformers import CLIPTextConfig, CLIPTextModel

    config = CLIPTextConfig(
        vocab_size=50, hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2,
        max_position_embeddings=16, bos_token_id=0, eos_token_id=1,
    )  # fmt: skip
    return CLIPTextModel(config)


MODELS = {
    "llama": llama,
    "unet": unet,
    "vit": functools.partial(linear_tree, VIT),
    "flux": functools.partial(linear_tree, FLUX),
}


def _of_layers(model, adapter="default", prefix=""):
    """delta_W of every LoRA layer of PEFT in a model, (d_out, d_in)."""
    found = {}
    for name, layer in model.named_modules():
        if hasattr(layer, "get_delta_weight"):
            delta = layer.get_delta_weight(adapter).detach().double()
            base = type(layer.get_base_layer()).__name__
            delta = delta.T if base in {"Embedding", "Conv1D"} else delta
            found[prefix + name] = delta.reshape(delta.shape[0], -1).numpy()
    return found


def load_peft(folder, model):
    """PEFT loads a folder: no key is missing or left over."""
    import peft

    model = peft.PeftModel.from_pretrained(model, folder)
    weights = peft.utils.load_peft_weights(folder)
    assert peft.get_peft_model_state_dict(model).keys() == weights.keys()
    return {name.removeprefix("base_model.model."): delta for name, delta in _of_layers(model).items()}


def load_loralib(path, scale):
    """loralib's own layers at the paths of a file, which `load_state_dict` fills."""
    import loralib

    state = torch.load(path, weights_only=True)
    layers = {}
    for key, A in state.items():
        if key.endswith(".lora_A"):
            B = state[f"{key[:-1]}B"]
            groups = A.shape[0] // B.shape[1]
            r, settings = B.shape[1], {"lora_alpha": scale * B.shape[1], "merge_weights": False}
            if groups > 1:
                enabled = [True, False, True] if groups == 2 else [True] * groups
                d_out = B.shape[0] // groups * len(enabled)
                layer = loralib.MergedLinear(A.shape[1], d_out, r=r, enable_lora=enabled, **settings)
            else:
                layer = loralib.Linear(A.shape[1], B.shape[0], r=r, **settings)
            layers[key.removesuffix(".lora_A")] = layer
    model = tree(layers)
    assert model.load_state_dict(state, strict=False).unexpected_keys == []
    found = {}
    for name, layer in layers.items():
        layer.double()
        merged = isinstance(layer, loralib.MergedLinear)
        delta = layer.merge_AB() if merged else layer.lora_B @ layer.lora_A
        found[name] = (delta * layer.scaling).detach().numpy()
    return found


def load_transformer(path, model):
    """diffusers loads a file into a transformer, by the method of every pipeline that has one."""
    from safetensors.torch import load_file

    state = load_file(path)
    model.load_lora_adapter(state, prefix="transformer", adapter_name="a")
    found = _of_layers(model, "a", "transformer.")
    assert len(found) == len(state) // 2
    return found


def load_diffusers(path):
    """diffusers loads a file into a UNet and a CLIP, by the methods of its pipelines."""
    from diffusers.loaders import StableDiffusionLoraLoaderMixin as Loader
    from safetensors.torch import load_file

    state, alphas = Loader.lora_state_dict(load_file(path))
    found, models = {}, {"unet": unet(), "text_encoder": clip()}
    if any(key.startswith("unet.") for key in state):
        Loader.load_lora_into_unet(state, alphas, models["unet"], adapter_name="a")
        found |= _of_layers(models["unet"], "a", "unet.")
    if any(key.startswith("text_encoder.") for key in state):
        Loader.load_lora_into_text_encoder(state, alphas, models["text_encoder"], adapter_name="a")
        inner = "" if hasattr(models["text_encoder"], "text_model") else "text_model."  # until transformers 5
        found |= _of_layers(models["text_encoder"], "a", f"text_encoder.{inner}")
    assert len(found) == len(state) // 2
    return found


def load_lycoris(path, model):
    """LyCORIS loads a file: delta_W by the name of the layer in the file."""
    from lycoris import create_lycoris_from_weights

    network, _ = create_lycoris_from_weights(1.0, str(path), model)
    found = {}
    for layer in network.loras:
        delta = layer.get_diff_weight()[0] if hasattr(layer, "get_diff_weight") else layer.get_weight(None)
        found[layer.lora_name] = delta.detach().double().numpy().reshape(delta.shape[0], -1)
    return found


def load_by_keys(path, names):
    """sd-scripts' and ComfyUI's way: a name of their list, then ``alpha / r * up @ down``.

    Parameters
    ----------
    names : key in the file -> module

    References
    ----------
    kohya-ss/sd-scripts, networks/lora.py: ``create_network_from_weights``, ``LoRAModule.merge_to``;
    comfyanonymous/ComfyUI, comfy/lora.py: ``load_lora``, which warns of keys that it does not know.
    """
    from safetensors.numpy import load_file

    state, found = load_file(path), {}
    for name, module in names.items():
        if f"{name}.lora_up.weight" in state:
            down, up = (state.pop(f"{name}.lora_{x}.weight").astype(float) for x in ("down", "up"))
            scale = state.pop(f"{name}.alpha").item() / len(down)
            found[module] = scale * up.reshape(len(up), -1) @ down.reshape(len(down), -1)
    assert not state, sorted(state)
    return found


def sd_scripts_names(models):
    """Key of sd-scripts -> name of every layer: prefix, name of the module, underscores for dots.

    References
    ----------
    kohya-ss/sd-scripts, networks/lora.py: ``LoRANetwork.__init__``, ``create_modules``.
    """
    words = {"unet": "lora_unet", "text_encoder": "lora_te"}
    names = {}
    for model, module in models.items():
        for name, layer in module.named_modules():
            if type(layer).__name__ in {"Linear", "LoRACompatibleLinear", "Conv2d"}:
                inner = (
                    f"text_model.{name}"
                    if model == "text_encoder" and not name.startswith("text_model")
                    else name
                )
                names[f"{words[model]}_{inner.replace('.', '_')}"] = f"{model}.{inner}"
    return names


def comfy_names(paths):
    """Key of ComfyUI -> name of every layer of a checkpoint: ``lora_unet_``, then the name with underscores for dots.

    References
    ----------
    comfyanonymous/ComfyUI, comfy/lora.py: ``model_lora_keys_unet``, for keys ``diffusion_model.*.weight``.
    """
    return {f"lora_unet_{path.replace('.', '_')}": path for path in paths}


def assert_same(found, wanted, rtol=1e-6):
    """The layers are exactly those, and each has the same delta_W."""
    assert set(found) == set(wanted)
    for name, delta in wanted.items():
        assert np.linalg.norm(found[name] - delta) <= rtol * np.linalg.norm(delta), name
