"""Layouts of vision-language models across versions of transformers: matched as PEFT loads the old into the new."""

from __future__ import annotations

import numpy as np
import pytest

import subspace
from subspace.adapters import match_modules
from subspace.adapters.base.weights import load_base

pytestmark = pytest.mark.filterwarnings("ignore")
_TEXT = {
    "vocab_size": 32,
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
}
_VISION = {
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "image_size": 28,
    "patch_size": 14,
}


def llava(t):
    text, vision = t.LlamaConfig(**_TEXT), t.CLIPVisionConfig(**_VISION)
    return t.LlavaForConditionalGeneration(
        t.LlavaConfig(vision_config=vision, text_config=text, image_token_index=31)
    )


def gemma3(t):
    text, vision = t.Gemma3TextConfig(**_TEXT, head_dim=8), t.SiglipVisionConfig(**_VISION)
    return t.Gemma3ForConditionalGeneration(
        t.Gemma3Config(vision_config=vision, text_config=text, mm_tokens_per_image=4, image_token_index=31)
    )


def qwen2_vl(t):
    rope = {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [1, 1, 2]}
    vision = {
        "depth": 2,
        "embed_dim": 16,
        "hidden_size": 16,
        "num_heads": 2,
        "mlp_ratio": 2,
        "patch_size": 14,
    }
    return t.Qwen2VLForConditionalGeneration(
        t.Qwen2VLConfig(text_config={**_TEXT, "rope_parameters": rope}, vision_config=vision)
    )


# model, its targets, the beginnings of names in the new layout -> those in the old one, and the key mapping that PEFT
# is given where it does not find transformers' own (conversion_mapping.py: Qwen2VLForConditionalGeneration)
MODELS = {
    "llava": (
        llava,
        ["q_proj", "v_proj"],
        {
            "model.language_model.": "language_model.model.",
            "model.vision_tower.": "vision_tower.vision_model.",
        },
        None,
    ),
    "gemma3": (
        gemma3,
        ["q_proj", "v_proj"],
        {
            "model.language_model.": "language_model.model.",
            "model.vision_tower.": "vision_tower.vision_model.",
        },
        None,
    ),
    "qwen2_vl": (
        qwen2_vl,
        ["q_proj", "qkv", "up_proj"],
        {"model.language_model.": "model.", "model.visual.": "visual."},
        {r"^visual": "model.visual", r"^model(?!\.(language_model|visual))": "model.language_model"},
    ),
}


@pytest.mark.parametrize("kind", MODELS)
def test_every_module_is_matched_as_peft_loads_it(kind, tmp_path):
    torch, peft = pytest.importorskip("torch"), pytest.importorskip("peft")
    transformers = pytest.importorskip("transformers", minversion="5")
    from safetensors.torch import save_file

    build, targets, layout, mapping = MODELS[kind]
    config = peft.LoraConfig(r=2, lora_alpha=2, target_modules=targets)
    saved = peft.get_peft_model(build(transformers), config)
    saved.save_pretrained(tmp_path)
    generator = torch.Generator().manual_seed(0)
    new = {
        key: torch.randn(value.shape, generator=generator)
        for key, value in peft.get_peft_model_state_dict(saved).items()
    }

    def old_name(key):
        name = key.removeprefix("base_model.model.")
        start = next(start for start in layout if name.startswith(start))
        return f"base_model.model.{layout[start]}{name.removeprefix(start)}"

    save_file({old_name(key): value for key, value in new.items()}, tmp_path / "adapter_model.safetensors")
    model = peft.PeftModel.from_pretrained(build(transformers), tmp_path, key_mapping=mapping)
    loaded = peft.get_peft_model_state_dict(model)
    assert all(torch.equal(loaded[key], value) for key, value in new.items())

    first, second = subspace.load_adapter(tmp_path), subspace.load_adapter(dict(loaded))
    assert not set(first) & set(second)
    matched = match_modules(list(first), list(second))
    assert (len(matched.pairs), matched.only_first, matched.only_second) == (len(second), [], [])
    for name, other in matched.pairs:
        np.testing.assert_array_equal(first[name].A, second[other].A)
        np.testing.assert_array_equal(first[name].B, second[other].B)
    # against the base model of the new layout, every old name finds the weight that PEFT adapts
    weights = load_base(model.get_base_model())
    for name, other in matched.pairs:
        weight = weights.weight(first[name])
        assert weight is not None and weight.key == f"{other}.base_layer.weight"


def q(prefix, n=2):
    return [f"{prefix}.{i}.self_attn.q_proj" for i in range(n)]


def test_the_note_says_how():
    A, B = np.eye(2, 4, dtype="f4"), np.ones((3, 2), "f4")
    files = [
        {f"{name}.lora_{x}": value for name in q(prefix) for x, value in (("A", A), ("B", B))}
        for prefix in ("language_model.model.layers", "model.language_model.layers")
    ]
    result = subspace.compare(*files)
    assert "2 modules matched by another transformers version's names" in result.notes


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("language_model.model.layers", "model.language_model.layers"),
        ("model.layers", "model.language_model.layers"),
        ("language_model.model.layers", "model.layers"),
        ("text_model.model.layers", "model.text_model.layers"),
        ("thinker.model.layers", "model.language_model.layers"),
        ("vision_tower.vision_model.encoder.layers", "model.vision_tower.encoder.layers"),
        ("vision_tower.vision_model.encoder.layers", "model.vision_tower.layers"),
        ("vision_model.encoder.layers", "model.vision_model.encoder.layers"),
        ("language_model.model.decoder.layers", "model.language_model.decoder.layers"),
    ],
)
def test_the_same_layer_in_two_layouts(first, second):
    assert match_modules(q(first), q(second)).pairs == list(zip(q(first), q(second), strict=True))
    assert match_modules(q(second), q(first)).pairs == list(zip(q(second), q(first), strict=True))


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("language_model.model.layers", "model.vision_tower.layers"),
        ("model.layers", "model.visual.encoder.layers"),
        ("audio_tower.layers", "model.language_model.layers"),
        ("talker.model.layers", "model.language_model.layers"),
        ("language_model.model.encoder.layers", "model.language_model.decoder.layers"),
    ],
)
def test_layers_of_two_parts_of_a_model_are_never_matched(first, second):
    assert match_modules(q(first), q(second)).pairs == []


def test_a_part_that_is_there_twice_is_not_matched():
    both = [*q("model.language_model.layers"), *q("model.text_model.layers")]
    assert match_modules(q("language_model.model.layers"), both).pairs == []
    assert match_modules(both, q("language_model.model.layers")).pairs == []


def test_of_a_language_and_a_vision_layer_the_base_has_the_one_that_is_meant():
    names = ["language_model.model.layers.0.self_attn.q_proj", "vision_tower.model.layers.0.self_attn.q_proj"]
    base = load_base({f"{name}.weight": np.zeros((4, 4), "f4") for name in names})
    assert base.find("layers.0.self_attn.q_proj") == f"{names[0]}.weight"
    assert base.find("vision_tower.layers.0.self_attn.q_proj") is None
    assert base.translated("vision_tower.layers.0.self_attn.q_proj")[0] == names[1]


def test_many_modules_take_bounded_time():
    first = [f"language_model.model.layers.{i}.self_attn.q_proj" for i in range(20000)]
    second = [f"model.language_model.layers.{i}.self_attn.q_proj" for i in range(20000)]
    assert len(match_modules(first, second).pairs) == 20000
