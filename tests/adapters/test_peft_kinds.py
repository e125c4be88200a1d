"""Every type of adapter that the installed PEFT has: read right, or refused by its name with a reason."""

from __future__ import annotations

import dataclasses

import numpy as np
import peft
import pytest
import torch
from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING
from safetensors.torch import load_file
from transformers import LlamaConfig, LlamaForCausalLM

from subspace.adapters import load_adapter
from subspace.adapters.format import Source
from subspace.adapters.formats._peft_types import type_by_keys
from subspace.checkpoints import from_memory
from subspace.errors import FormatError, SubspaceError

pytestmark = [
    pytest.mark.filterwarnings(r"ignore:::peft\..*"),
    pytest.mark.filterwarnings(r"ignore:::transformers\..*"),
    pytest.mark.filterwarnings(r"ignore:::torch\..*"),
]

# delta_W is compared with that of PEFT, or needs the base
READ = {
    "LORA": "peft", "ADALORA": "adalora", "LOHA": "peft_lycoris", "LOKR": "peft_lycoris", "VERA": "vera",
    "IA3": "ia3", "OFT": "oft", "BOFT": "oft",
}  # fmt: skip
# essential words of the reason
REFUSED = {
    "ADAMSS": "subspaces", "ADAPTION_PROMPT": "prompts", "BEFT": "biases", "C3A": "circulant",
    "CARTRIDGE": "prompts", "CPT": "prompts", "DEFT": "directions out", "DELORA": "normalised",
    "FOURIERFT": "Fourier", "FROD": "joint decomposition", "GLORA": "multiplies and adds", "GRALORA": "blocks",
    "HIRA": "number by number", "HRA": "reflected", "LILY": "router", "LN_TUNING": "norm layers", "MISS": "block",
    "MULTITASK_PROMPT_TUNING": "prompts", "OSF": "singular value", "PEANUT": "not linear", "POLY": "task",
    "PREFIX_TUNING": "prompts", "PROMPT_TUNING": "prompts", "PSOFT": "rotates", "PVERA": "random",
    "P_TUNING": "prompts", "RANDLORA": "random matrices", "ROAD": "rotates", "SHADOW": "network", "SHIRA": "sparse",
    "SUPERTUNING": "sparse", "TINYLORA": "singular vectors", "TRAINABLE_TOKENS": "rows of an embedding",
    "UNILORA": "one vector", "VBLORA": "bank of vectors", "WAVEFT": "wavelet", "XLORA": "mixes several",
}  # fmt: skip
OPTIONS = {
    "ADALORA": {"total_step": 10},
    "ADAPTION_PROMPT": {"adapter_len": 4, "adapter_layers": 1, "target_modules": None},
    "BOFT": {"boft_block_size": 4},
    "C3A": {"block_size": 8},
    "CPT": {"cpt_token_ids": [1, 2], "cpt_mask": [1, 1], "cpt_tokens_type_mask": [1, 1]},
    "FOURIERFT": {"n_frequency": 20},
    "GRALORA": {"r": 4, "gralora_k": 2},
    "IA3": {"feedforward_modules": []},
    "LILY": {"r": 4},
    "LN_TUNING": {"target_modules": ["input_layernorm"]},
    "MISS": {"r": 4},
    "OFT": {"r": 4, "oft_block_size": 0},
    "POLY": {"n_tasks": 2, "n_skills": 2, "r": 4},
    "PSOFT": {"r": 4},
    "RANDLORA": {"r": 4},
    "ROAD": {"group_size": 8},
    "SHIRA": {"r": 2},
    "TRAINABLE_TOKENS": {"target_modules": ["embed_tokens"], "token_indices": [1, 2]},
    "UNILORA": {"r": 4},
    "VBLORA": {"vector_length": 8, "num_vectors": 8, "topk": 2},
    "WAVEFT": {"n_frequency": 20},
}
# keys of files of the types that this installation cannot build, by peft/tuners/adamss and peft/tuners/xlora
BY_HAND = {
    "ADAMSS": {"q.adamss_A.0": np.ones((2, 8), "f4"), "q.adamss_B.0": np.ones((8, 2), "f4")},
    "XLORA": {"base_model.internal_xlora_classifier.layers.0.weight": np.ones((4, 8), "f4")},
}  # fmt: skip


def llama():
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
    return LlamaForCausalLM(LlamaConfig(**sizes, vocab_size=37, max_position_embeddings=64, pad_token_id=0))


def built(kind):
    """A model adapted by a type, whose trained parameters are random."""
    made = PEFT_TYPE_TO_CONFIG_MAPPING[peft.PeftType(kind)]
    fields = {field.name for field in dataclasses.fields(made)}
    defaults = {"target_modules": ["q_proj", "v_proj"], "num_virtual_tokens": 4, "task_type": "CAUSAL_LM"}
    options = {name: value for name, value in defaults.items() if name in fields} | OPTIONS.get(kind, {})
    torch.manual_seed(0)
    model = peft.get_peft_model(llama(), made(**options))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.normal_(std=0.3)
    return model


def test_every_type_is_known():
    assert {kind.value for kind in PEFT_TYPE_TO_CONFIG_MAPPING} <= READ.keys() | REFUSED.keys()
    assert not READ.keys() & REFUSED.keys()


@pytest.mark.parametrize("kind", READ)
def test_types_that_are_read(kind, tmp_path):
    model = built(kind)
    model.save_pretrained(tmp_path)
    base = llama()
    for read in (load_adapter(tmp_path, base=base), load_adapter(model, base=base)):
        assert read.format == READ[kind]
        assert len(read) == 4
        assert read.unknown == ()
        for name, layer in model.named_modules():
            module = name.removeprefix("base_model.model.")
            if module in read:
                before = layer.get_base_layer().weight.detach().double().numpy().copy()
                layer.merge(adapter_names=["default"])
                after = layer.get_base_layer().weight.detach().double().numpy().copy()
                layer.unmerge()
                np.testing.assert_allclose(read[module].delta_W(), after - before, rtol=0, atol=2e-5)


@pytest.mark.parametrize("kind", [kind for kind in REFUSED if kind not in BY_HAND])
def test_types_that_are_refused(kind, tmp_path):
    if peft.PeftType(kind) not in PEFT_TYPE_TO_CONFIG_MAPPING:
        pytest.skip("the installed PEFT needs another package for it")
    model = built(kind)
    model.save_pretrained(tmp_path)
    for source in (tmp_path, model):
        with pytest.raises(FormatError, match=rf"a PEFT adapter of type {kind}, .*{REFUSED[kind]}"):
            load_adapter(source)
    alone = tmp_path / "adapter_model.safetensors"
    (tmp_path / "adapter_config.json").unlink()
    with pytest.raises(SubspaceError) as raised:
        load_adapter(alone)
    prompts = {name for name, why in REFUSED.items() if why == "prompts"}
    words = ("prompt",) if kind in prompts else (f"type {kind}",)
    # rows of an embedding may come with LoRA too
    assert kind == "TRAINABLE_TOKENS" or any(word in str(raised.value) for word in words), str(raised.value)
    if kind not in prompts | {"TRAINABLE_TOKENS"}:
        assert type_by_keys(Source(from_memory(load_file(alone) if alone.exists() else {}))) == kind


@pytest.mark.parametrize("kind", BY_HAND)
def test_types_that_cannot_be_built_here(kind):
    with pytest.raises(FormatError, match=rf"a PEFT adapter of type {kind}, .*{REFUSED[kind]}"):
        load_adapter(BY_HAND[kind])


LORA = {
    "mica": {"init_lora_weights": "mica"},
    "orthogonal": {"init_lora_weights": "orthogonal", "r": 4},
    "aLoRA": {"alora_invocation_tokens": [3, 4]},
    "velora": {"velora_config": {}},
    "monteclora": {"monteclora_config": True},
    "rslora": {"use_rslora": True, "rank_pattern": {"q_proj": 3}},
    "dora": {"use_dora": True},
    "lora_bias": {"lora_bias": True},
}


@pytest.mark.parametrize("variant", LORA)
def test_variants_of_lora(variant, tmp_path):
    options = {
        "target_modules": ["q_proj", "o_proj"],
        "r": 2,
        "lora_alpha": 6,
        "task_type": "CAUSAL_LM",
        **LORA[variant],
    }
    if variant == "lora_bias":
        options["target_modules"] = ["q_proj"]
    if variant == "monteclora":
        options["monteclora_config"] = peft.tuners.lora.config.MontecloraConfig()
    if variant == "velora":
        options["velora_config"] = peft.tuners.lora.config.VeloraConfig()
    model = peft.get_peft_model(biased() if variant == "lora_bias" else llama(), peft.LoraConfig(**options))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.requires_grad and "magnitude" not in name:
                parameter.normal_(std=0.3)
    model.save_pretrained(tmp_path)
    for read in (load_adapter(tmp_path), load_adapter(model)):
        assert read.unknown == ()
        for name, layer in model.named_modules():
            if hasattr(layer, "get_delta_weight"):
                delta = layer.get_delta_weight("default").detach().double().numpy()
                module = name.removeprefix("base_model.model.")
                np.testing.assert_allclose(read[module].delta_W(), delta, rtol=0, atol=1e-5)
        assert any("invocation tokens" in note for note in read.notes) == (variant == "aLoRA")


def biased():
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = LlamaConfig(**sizes, vocab_size=37, pad_token_id=0, attention_bias=True)
    return LlamaForCausalLM(config)


def test_a_bias_of_lora_is_accounted_for(tmp_path):
    config = peft.LoraConfig(target_modules=["q_proj"], r=2, lora_alpha=6, lora_bias=True)
    model = peft.get_peft_model(biased(), config)
    model.save_pretrained(tmp_path)
    for read in (load_adapter(tmp_path), load_adapter(model)):
        whys = {entry.why for entry in read.ignored if entry.key.endswith("lora_B.bias")}
        assert whys == {"a bias, which is not part of delta_W"}


def test_a_router_of_arrow_is_refused(tmp_path):
    arrow = peft.tuners.lora.config.ArrowConfig()
    arrow.task_adapter_names, arrow.gks_adapter_names = ["a"], []  # as create_arrow_model sets them
    model = peft.get_peft_model(llama(), peft.LoraConfig(target_modules=["q_proj"], r=2, arrow_config=arrow))
    model.save_pretrained(tmp_path)
    for source in (tmp_path, model):
        with pytest.raises(FormatError, match=r"not supported: Arrow .*routes between other adapters"):
            load_adapter(source)
