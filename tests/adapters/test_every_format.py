"""What holds for every format: no other fits, every key is accounted for, errors are one line; and other files."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from subspace.adapters import Adapter, formats, load, load_adapter
from subspace.adapters.format import Source
from subspace.checkpoints import from_memory
from subspace.errors import FileError, FormatError, SubspaceError

A, B, E = np.ones((2, 4), "f4"), np.ones((3, 2), "f4"), np.ones((2, 1), "f4")

# format -> one module of it
STYLES = {
    "adalora": {"m.q.lora_A": A, "m.q.lora_B": B, "m.q.lora_E": E},
    "cloneofsimo": {"unet:0:up": B, "unet:0:down": A},
    "dense": {"m.q.delta_W": B @ A, "m.v.delta_W": B @ A},
    "diffusers": {"unet.q.lora.down.weight": A, "unet.q.lora.up.weight": B},
    "by_marker": {"m.q.w_lora_A": A, "m.q.w_lora_B": B, "m.v.w_lora_A": A, "m.v.w_lora_B": B},
    "gguf": {"blk.0.attn_v.weight.lora_a": A, "blk.0.attn_v.weight.lora_b": B},
    "ia3": {"base_model.model.q.ia3_l": E, "base_model.model.v.ia3_l": A[:1]},
    "kohya": {"lora_unet_q.lora_down.weight": A, "lora_unet_q.lora_up.weight": B},
    "litgpt": {"h.0.attn.qkv.lora_A": A, "h.0.attn.qkv.lora_B": B},
    "loralib": {"m.q.lora_A": A, "m.q.lora_B": B},
    "minlora": {"q.parametrizations.weight.0.lora_A": A, "q.parametrizations.weight.0.lora_B": B},
    "lycoris": {
        "lora_unet_q.lokr_w1": np.ones((2, 2), "f4"),
        "lora_unet_q.lokr_w2_a": B,
        "lora_unet_q.lokr_w2_b": A,
        "lora_unet_v.lora_down.weight": A,
        "lora_unet_v.lora_up.weight": B,
    },
    "mlx": {"m.q.lora_a": A.T, "m.q.lora_b": B.T},
    "mlxvlm": {"m.q.A": A.T, "m.q.B": B.T},
    "oft": {
        "base_model.model.q.oft_R.weight": np.ones((2, 1), "f4"),
        "base_model.model.v.boft_R": np.ones((1, 2, 2, 2), "f4"),
        "base_model.model.v.boft_s": np.ones((3, 1), "f4"),
    },
    "pair": {"m.q.A": A, "m.q.B": B},
    "peft": {"base_model.model.q.lora_A.weight": A, "base_model.model.q.lora_B.weight": B},
    "peft_lycoris": {
        "base_model.model.q.hada_w1_a": B,
        "base_model.model.q.hada_w1_b": A,
        "base_model.model.q.hada_w2_a": B,
        "base_model.model.q.hada_w2_b": A,
    },
    "pipeline": {"transformer_blocks.0.q.lora_A.weight": A, "transformer_blocks.0.q.lora_B.weight": B},
    "positional": {"w_a_000": A, "w_b_000": B},
    "torchtune": {"m.q.lora_a.weight": A, "m.q.lora_b.weight": B},
    "vera": {
        "base_model.vera_A": A,
        "base_model.vera_B": B,
        "base_model.model.q.vera_lambda_b": np.ones(3, "f4"),
        "base_model.model.q.vera_lambda_d": np.ones(2, "f4"),
    },
    "xlabs": {
        "double_blocks.0.processor.qkv_lora1.down.weight": A,
        "double_blocks.0.processor.qkv_lora1.up.weight": B,
    },
}  # fmt: skip
CONFIGS = {
    "mlxvlm": {"rank": 2, "alpha": 0.5},
    "adalora": {"peft_type": "ADALORA", "lora_alpha": 2, "init_r": 2},
}


def source(tensors, config=None):
    return Source(from_memory(tensors), config, config_path=None if config is None else "adapter_config.json")


def matching(tensors, config=None):
    return [known.name for known in formats.matching_formats(source(tensors, config))]


def keys_of(adapter):
    return [entry.key for entry in adapter.ignored] + list(adapter.unknown)


@pytest.mark.parametrize("name", STYLES)
def test_a_style_is_claimed_by_its_format_alone(name):
    assert matching(STYLES[name], CONFIGS.get(name)) == [name]
    reordered = dict(reversed(STYLES[name].items()))
    assert matching(reordered, CONFIGS.get(name)) == [name]


@pytest.mark.parametrize("name", STYLES)
def test_two_formats_in_one_file_are_read_or_named(name):
    for tensors in STYLES.values():
        both = {**STYLES[name], **tensors}
        fitting = matching(both)
        if not fitting:
            continue
        try:
            adapter = load_adapter(both)
        except FormatError as error:
            assert len(fitting) > 1 and f"it could be {' or '.join(fitting)};" in str(error)
        else:
            assert adapter.formats == tuple(fitting)
            assert set(keys_of(adapter)) <= set(both)


@pytest.mark.parametrize("known", formats.every(), ids=lambda known: known.name)
def test_each_format_says_who_writes_it_and_its_scale(known):
    assert "scale" in known.about
    assert "\n" not in known.about


words = st.sampled_from(
    "lora_A lora_B lora_E lora_a lora_b weight bias A B down up lora_down lora_up lora_mid alpha scalar diff diff_b "
    "unet:0:up unet:0:down unet:x:up 0 1 2 3 parametrizations lora_dropout_mask attn qkv h proj double_blocks "
    "single_blocks processor qkv_lora1 proj_lora transformer diffusion_model blk magnitude m ranknum default "
    "token_embd modules_to_save w_lora_A w_lora_B lora_left lora_right loraA "
    "oft_R boft_R boft_s vera_A vera_lambda_b vera_lambda_d ia3_l hada_w1_a hada_t1 lokr_w1 "
    "lokr_w2 lokr_t2 lokr_w2_b lora_magnitude_vector norm scale".split()
)
key_names = st.lists(words, min_size=1, max_size=6).map(".".join)
shapes = st.lists(st.integers(0, 4), max_size=4).map(tuple)
arrays = st.tuples(shapes, st.sampled_from(["f4", "f2", "i4", "?"])).map(lambda told: np.ones(*told))
numbers = st.sampled_from([None, True, 0, 2, -1, 2.5, float("nan"), "x", [1], 10**400])
configs = st.none() | st.dictionaries(
    st.sampled_from(
        "peft_type coft eps block_share num_cayley_neumann_terms "
        "projection_prng_key feedforward_modules r rank alpha lora_alpha init_r fan_in_fan_out lora_parameters".split()
    ),
    numbers,
)
one_style = st.sampled_from(sorted(STYLES)).map(STYLES.get)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(one_style, st.dictionaries(key_names, arrays, max_size=5), configs, st.data())
def test_only_our_errors_come_out(style, others, config, data):
    tensors = {**style, **others}
    for key in style:
        if data.draw(st.booleans()):
            tensors[key] = data.draw(arrays)
    try:
        adapter = load.recognised(source(tensors, config))
    except SubspaceError as error:
        assert "\n" not in str(error)
        return
    assert isinstance(adapter, Adapter)
    told = keys_of(adapter)
    assert len(told) == len(set(told))
    assert set(told) <= set(tensors)
    for update in adapter.values():
        if update.scale.value is not None:
            assert update.delta_W().shape == (update.d_out, update.d_in)


# what a published file is, in the words of its refusal
REFUSED = {
    "cloneofsimo-kiriko2-ti-pt": "a textual inversion embedding, not an adapter",
    "loravit-wa-only-feb27": "only w_a",
    "peft-unilora-roberta-glue": "type UNILORA|UniLoRA",
}


def test_every_published_file_is_read_whole_or_refused_by_name(real_adapters):
    for entry in json.loads((real_adapters / "MANIFEST.json").read_text()):
        path = real_adapters / entry["name"] / entry["file"]
        if entry["name"] in REFUSED:
            with pytest.raises(FormatError, match=REFUSED[entry["name"]]):
                load_adapter(path)
            continue
        try:
            adapter = load_adapter(path)
        except FormatError as error:
            raise AssertionError(entry["name"]) from error
        else:
            assert adapter.unknown == (), entry["name"]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("config-only-rank-alpha-pattern", "it holds no file of weights"),
        ("lfs-pointer-esm2-bin", "git-lfs pointer.*git lfs pull"),
        ("lfs-pointer-finsenti-safetensors", "git-lfs pointer.*git lfs pull"),
        ("two-byte-safetensors-hirvita6", "is only 2 bytes long; download it again"),
    ],
)
def test_each_broken_folder_is_refused_with_its_reason(real_adapters, name, said):
    folder = real_adapters / "_broken" / name
    with pytest.raises(FileError, match=said):
        load_adapter(folder)
    for path in folder.iterdir():
        with pytest.raises(FileError):
            load_adapter(path)


def test_no_broken_folder_is_forgotten(real_adapters):
    for folder in (real_adapters / "_broken").iterdir():
        with pytest.raises(SubspaceError):
            load_adapter(folder)
