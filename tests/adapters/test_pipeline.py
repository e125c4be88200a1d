"""Image pipelines in PEFT's keys without a configuration, and the key lists of published files."""

from __future__ import annotations

import json

import numpy as np
import pytest

from subspace.adapters import load_adapter
from subspace.errors import FormatError, ShapeError

RNG = np.random.default_rng(0)
PATH = "transformer.single_transformer_blocks.12.proj_out"


def normal(*shape):
    return RNG.standard_normal(shape).astype(np.float32)


def pair(path=PATH, *, r=4, d_in=6, d_out=5):
    return {f"{path}.lora_A.weight": normal(r, d_in), f"{path}.lora_B.weight": normal(d_out, r)}


@pytest.mark.parametrize(
    "path",
    [
        PATH,
        "diffusion_model.double_blocks.0.img_attn.proj",
        "diffusion_model.blocks.0.cross_attn.k_proj",
        "double_blocks.0.img_attn.proj",
        "single_blocks.3.linear1",
        "transformer_blocks.0.attn.to_k",
        "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q",
        "text_encoder_2.text_model.encoder.layers.0.self_attn.q_proj",
    ],
)
def test_without_an_alpha_the_scale_is_one(path):
    tensors = pair(path)
    adapter = load_adapter(tensors)
    A, B = tensors.values()
    assert (adapter.format, list(adapter)) == ("pipeline", [path])
    assert adapter[path].delta_W() == pytest.approx(B @ A, rel=1e-5)
    assert (adapter[path].scale.value, adapter.notes) == (1, ())


def test_an_alpha_in_the_file_counts():
    adapter = load_adapter(pair() | {f"{PATH}.alpha": np.array(2.0, "f4")})
    assert adapter[PATH].scale.value == 2 / 4


def test_dora_is_flagged():
    adapter = load_adapter(pair() | {f"{PATH}.lora_magnitude_vector": np.ones(5, "f4")})
    assert (adapter[PATH].flags, adapter.unknown) == (("dora",), ())


def test_peft_keeps_what_has_its_configuration_or_its_prefix():
    assert load_adapter({f"base_model.model.{key}": value for key, value in pair().items()}).format == "peft"
    assert load_adapter(pair("transformer.h.0.attn.c_attn")).format == "peft"


def test_a_configuration_in_the_metadata_decides(tmp_path):
    from safetensors.numpy import save_file

    told = json.dumps({"r": 4, "lora_alpha": 12, "peft_type": "LORA"})
    save_file(pair(), tmp_path / "a.safetensors", metadata={"lora_adapter_metadata": told})
    adapter = load_adapter(tmp_path / "a.safetensors")
    assert (adapter.format, adapter[PATH].scale.value) == ("peft", 3)


@pytest.mark.parametrize(("has", "lacks"), [("A", "B"), ("B", "A")])
def test_half_a_pair_is_an_error(has, lacks):
    tensors = pair() | pair("transformer.single_transformer_blocks.0.proj_out")
    del tensors[f"{PATH}.lora_{lacks}.weight"]
    with pytest.raises(
        ShapeError, match=f"^Incomplete pair: lora_{lacks} is missing .*, which has lora_{has};"
    ):
        load_adapter(tensors)


# the format of each published key list, its pairs, and its other tensors
SCHEMAS = {
    "anima_lora_kohya_format": ("kohya", 11, 0),
    "flux_control_lora_format": ("pipeline", 314, 466),
    "flux_dora_onetrainer_format": ("kohya", 506, 0),
    "flux_lora_aitoolkit_format": ("pipeline", 228, 0),
    "flux_lora_diffusers_format": ("pipeline", 494, 0),
    "flux_lora_kohya_format": ("kohya", 304, 0),
    "flux_lora_kohya_with_te1_format": ("kohya", 376, 0),
}


def built(folder, schema):
    """Tensors of the listed shapes; one zero stands for all the numbers of a tensor."""
    shapes = json.loads((folder / "_schemas" / f"{schema}.state_dict_keys.json").read_text())[
        "keys_to_shapes"
    ]
    zero = np.zeros(1, np.float32)
    return {
        key: np.broadcast_to(zero, shape) if shape else np.ones((), np.float32)
        for key, shape in shapes.items()
    }


@pytest.mark.parametrize("schema", SCHEMAS)
def test_published_key_lists_are_read_whole(real_adapters, schema):
    adapter = load_adapter(built(real_adapters, schema))
    assert (adapter.format, len(adapter), len(adapter.ignored)) == SCHEMAS[schema]
    assert adapter.unknown == ()


def test_every_key_list_is_read_or_a_known_stranger(real_adapters):
    for path in sorted((real_adapters / "_schemas").glob("*.json")):
        schema = path.name.removesuffix(".state_dict_keys.json")
        try:
            assert load_adapter(built(real_adapters, schema)).unknown == (), schema
        except FormatError as error:
            assert "lok" in schema or "qwen" in schema, schema
            assert "LoKr" in str(error)


def test_a_file_of_ai_toolkit(real_adapters):
    adapter = load_adapter(real_adapters / "flux-aitoolkit-4layers")
    assert (adapter.format, len(adapter)) == ("pipeline", 4)
    assert {(update.r, update.scale.value) for update in adapter.values()} == {(16, 1.0)}
