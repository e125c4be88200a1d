"""Words that wrappers put into names are taken out once, for every format, base and model in memory."""

from __future__ import annotations

import json

import numpy as np
import pytest
from safetensors.numpy import save_file

from subspace.adapters import load_adapter, load_base
from subspace.adapters.format import Role
from subspace.adapters.naming.wrappers import clean_names, clean_pattern
from subspace.analysis.compare import compare
from subspace.errors import FormatError

ALWAYS = ("_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module", "_forward_module")
MODULES = ("h.0.attn.q", "h.1.attn.q")
CONFIG = {
    "peft_type": "LORA",
    "r": 2,
    "lora_alpha": 8,
    "target_modules": ["q"],
    "alpha_pattern": {"^h.0.attn.q": 64},
}


def factors(module, seed=0):
    rng = np.random.default_rng([seed, *map(ord, module)])
    return rng.standard_normal((2, 6)).astype("f4"), rng.standard_normal((5, 2)).astype("f4")


def peft(module):
    A, B = factors(module)
    return {f"base_model.model.{module}.lora_A.weight": A, f"base_model.model.{module}.lora_B.weight": B}


def loralib(module):
    A, B = factors(module)
    return {f"{module}.lora_A": A, f"{module}.lora_B": B}


def kohya_like(module):
    A, B = factors(module)
    return {
        f"{module}.lora_down.weight": A,
        f"{module}.lora_up.weight": B,
        f"{module}.alpha": np.float32(8),
    }


def diffusers(module):
    A, B = factors(module)
    return {f"unet.{module}.lora.down.weight": A, f"unet.{module}.lora.up.weight": B}


FORMATS = {function.__name__: function for function in (peft, loralib, kohya_like, diffusers)}
POSITIONS = {
    "first": lambda key, word: f"{word}.{key}",
    "twice": lambda key, word: f"{word}.{word}.{key}",
    "inside": lambda key, word: key.replace("h.", f"h.{word}.", 1),
    "in front of the layer": lambda key, word: key.replace(".q.", f".{word}.q."),
    "behind the layer": lambda key, word: key.replace(".q.", f".q.{word}."),
    "everywhere": lambda key, word: f"{word}.{key}".replace("h.", f"h.{word}.").replace(".q.", f".q.{word}."),
}


def written(tensors, folder, config=None):
    folder.mkdir(exist_ok=True)
    save_file(
        {key: np.asarray(value) for key, value in tensors.items()}, folder / "adapter_model.safetensors"
    )
    if config is not None:
        (folder / "adapter_config.json").write_text(json.dumps(config))
    return folder


def same(read, plain):
    assert list(read) == list(plain)
    assert read.format == plain.format
    assert read.unknown == plain.unknown
    for module, update in plain.items():
        assert read[module].scale == update.scale
        assert np.array_equal(read[module].A, update.A)
        assert np.array_equal(read[module].B, update.B)


def stored(name, wrap=lambda key: key):
    tensors = {key: value for module in MODULES for key, value in FORMATS[name](module).items()}
    return {wrap(key): value for key, value in tensors.items()}


@pytest.mark.parametrize("position", POSITIONS)
@pytest.mark.parametrize("word", ALWAYS)
@pytest.mark.parametrize("name", FORMATS)
def test_a_word_of_a_wrapper_anywhere(name, word, position, tmp_path):
    config = CONFIG if name == "peft" else None
    wrap = POSITIONS[position]
    plain = load_adapter(written(stored(name), tmp_path / "plain", config))
    wrapped = stored(name, lambda key: wrap(key, word))
    read = load_adapter(written(wrapped, tmp_path / "wrapped", config))
    same(read, plain)
    assert any(note.startswith("Wrapper words") and word in note for note in read.notes)
    assert f"of {len(wrapped)} tensors" in read.notes[0]
    if config is None:
        same(load_adapter(wrapped), plain)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda key: f"module.{key}",
        lambda key: f"module.module.{key}",
        lambda key: f"_orig_mod.module.{key}",
        lambda key: f"module._orig_mod.{key}",
        lambda key: f"_forward_module.module.{key}",
        lambda key: f"model.module.{key}",
        lambda key: key.replace("h.", "h._fsdp_wrapped_module.module.", 1),
        lambda key: key.replace("attn.", "attn.module._checkpoint_wrapped_module.", 1),
    ],
)
@pytest.mark.parametrize("name", FORMATS)
def test_module_where_it_is_a_wrapper(name, wrap, tmp_path):
    config = CONFIG if name == "peft" else None
    plain = load_adapter(written(stored(name), tmp_path / "plain", config))
    read = load_adapter(written(stored(name, wrap), tmp_path / "wrapped", config))
    named = {
        module.removeprefix("model."): update for module, update in read.items()
    }  # of a trainer's own attribute
    assert list(named) == list(plain)
    assert [update.scale for update in named.values()] == [update.scale for update in plain.values()]


@pytest.mark.parametrize(
    "wrap",
    [
        lambda key: key.replace("base_model.model.", "base_model.model.module."),
        lambda key: key.replace("base_model.model.", "base_model.model.module._orig_mod."),
        lambda key: key.replace("base_model.model.", "base_model.module.model."),
        lambda key: key.replace("base_model.model.", "base_model._orig_mod.model."),
        lambda key: f"llm.{key}",
        lambda key: f"llm.module.{key}",
        lambda key: f"module.llm._orig_mod.{key}",
        lambda key: f"model.thinker.{key}",
        lambda key: f"base_model.model.{key}",
    ],
)
def test_what_stands_around_the_prefix_of_peft(wrap, tmp_path):
    plain = load_adapter(written(stored("peft"), tmp_path / "plain", CONFIG))
    read = load_adapter(written(stored("peft", wrap), tmp_path / "wrapped", CONFIG))
    same(read, plain)
    assert read["h.0.attn.q"].scale.value == 32.0


def test_the_layers_around_an_outer_attribute_keep_their_names(tmp_path):
    tensors = stored("peft", lambda key: f"llm.{key}") | {"projector.weight": np.ones((2, 2), "f4")}
    read = load_adapter(written(tensors, tmp_path / "wrapped", CONFIG))
    assert list(read) == list(MODULES)
    assert [item.key for item in read.ignored] == ["projector.weight"]
    assert "llm" in read.notes[0]


def test_several_outer_attributes_stay():
    tensors = stored("peft", lambda key: f"llm.module.{key}") | stored("peft", lambda key: f"vision.{key}")
    read = load_adapter(tensors)
    assert list(read) == [f"{outer}.{module}" for outer in ("llm", "vision") for module in MODULES]
    assert any(
        "Several modules are around PEFT's prefix" in note and "llm, vision" in note for note in read.notes
    )


def test_an_outer_attribute_beside_a_model_of_its_own():
    read = load_adapter(stored("peft") | stored("peft", lambda key: f"llm.{key}"))
    assert list(read) == [*MODULES, *(f"llm.{module}" for module in MODULES)]


@pytest.mark.parametrize("outer", ["unet", "text_encoder", "transformer"])
def test_an_outer_attribute_that_is_a_part_of_a_pipeline(outer):
    """Its scale is that of a configuration that is not there, not the 1 of a file of diffusers."""
    read = load_adapter(stored("peft", lambda key: f"{outer}.{key}"))
    assert read.format == "peft"
    assert list(read) == list(MODULES)
    assert read["h.0.attn.q"].scale.value is None


@pytest.mark.parametrize(
    ("stored_name", "name"),
    [
        ("lora_unet__orig_mod_mid_block_to_q", "lora_unet_mid_block_to_q"),
        ("lora_unet_module_mid_block_to_q", "lora_unet_mid_block_to_q"),
        ("lora_te1_module__orig_mod_layers_0_fc1", "lora_te1_layers_0_fc1"),
        ("lora_unet_mid_block__checkpoint_wrapped_module_to_q", "lora_unet_mid_block_to_q"),
        ("module.lora_unet_mid_block_to_q", "lora_unet_mid_block_to_q"),
        ("lycoris__orig_mod_mid_block_to_q", "lycoris_mid_block_to_q"),
        ("lora_unet_mid_module_to_q", "lora_unet_mid_module_to_q"),
    ],
)
def test_names_whose_dots_are_underscores(stored_name, name):
    assert list(load_adapter(kohya_like(stored_name))) == [name]


@pytest.mark.parametrize(
    "pattern", ["^module.h.0.attn.q", r"^_orig_mod\.h\.0\.attn\.q", "module._orig_mod.h.0.attn.q"]
)
def test_patterns_with_the_words_in_them(pattern, tmp_path):
    """PEFT over a wrapped model sees the words, and a configuration may name them."""
    config = CONFIG | {
        "alpha_pattern": {pattern: 64},
        "target_modules": ["module.h.0.attn.q", "module.h.1.attn.q"],
    }
    wrapped = stored(
        "peft", lambda key: key.replace("base_model.model.", "base_model.model.module._orig_mod.")
    )
    read = load_adapter(written(wrapped, tmp_path / "wrapped", config))
    assert [update.scale.value for update in read.values()] == [32.0, 4.0]
    assert not any("No module of the file matches" in note for note in read.notes)
    assert read.config["target_modules"] == list(MODULES)


def test_a_module_that_is_part_of_a_path_stays():
    read = load_adapter(loralib("h.0.module.q") | loralib("block.module.fc"))
    assert list(read) == ["block.module.fc", "h.0.module.q"]
    assert not any("Wrapper" in note for note in read.notes)


@pytest.mark.parametrize("order", [1, -1])
def test_two_modules_never_become_one(order):
    tensors = loralib("module.q") | loralib("q") | loralib("module.v") | loralib("_orig_mod.k")
    read = load_adapter(dict(list(tensors.items())[::order]))
    assert list(read) == ["k", "module.q", "module.v", "q"]
    assert any("stay in names that two modules would share" in note for note in read.notes)
    for name in ("module.q", "q"):
        assert np.array_equal(read[name].A, factors(name)[0])


def test_copies_of_a_whole_model_stay_apart():
    names = [
        f"{start}h.{n}.{last}" for start in ("", "module.") for n in range(3) for last in ("q.lora_A", "b")
    ]
    assert list(clean_names(names).stored) == names


def test_nested_parameters_of_peft_stay_nested():
    """PEFT's target_parameters has factors of one parameter beside those of another, inside its base_layer."""
    tensors = peft("h.experts") | peft("h.experts.base_layer")
    assert list(clean_names(tensors).stored) == list(tensors)


def test_the_last_base_layer_marks_a_weight_of_the_base():
    tensors = peft("h.0.q") | {
        "base_model.model.h.0.q.base_layer.weight": np.ones((5, 6), "f4"),
        "base_model.model.h.0.q.base_layer.bias": np.ones(5, "f4"),
        "base_model.model.h.0.q.base_layer.weight.absmax": np.ones(5, "f4"),
    }
    read = load_adapter({f"module.{key}": value for key, value in tensors.items()})
    roles = {item.key.rpartition("base_layer.")[2]: item.role for item in read.ignored}
    assert roles == {"weight": Role.BASE, "bias": Role.TRAINED, "weight.absmax": Role.BASE}


def test_a_layer_inside_an_adapted_layer():
    names = clean_names(
        [
            "base_model.model.attn.lora_A.weight",
            "base_model.model.attn.base_layer.out_proj.lora_A.weight",
            "base_model.model.attn.base_layer.out_proj.base_layer.weight",
            "base_model.model.attn.base_layer.in_proj_weight",
        ]
    )
    assert list(names.stored)[1] == "base_model.model.attn.out_proj.lora_A.weight"
    assert list(names.stored.items())[2:] == [(key, key) for key in list(names.stored)[2:]]
    assert names.of_module("attn.base_layer.out_proj") == "attn.out_proj"


def test_one_matrix_with_a_dotted_name_is_no_adapter_yet():
    with pytest.raises(FormatError):
        load_adapter({"module.embedding": np.ones((4, 4), "f4")})


def test_a_file_without_the_words_is_left_alone():
    read = load_adapter(stored("loralib"))
    assert type(read.tensors).__name__ == "MemoryFile"


def test_names_of_hostile_length_take_linear_time():
    words = "module." * 100_000
    names = [f"{words}q.lora_A", f"{words}q.lora_B", "base_model.model." * 20_000 + "q.lora_A", "q.lora_A"]
    names += ["lora_unet" + "_module" * 50_000 + "_q.alpha", "base_layer." * 50_000 + "lora_A"]
    names += [f"module.{n}.lora_A" for n in range(20_000)] + [f"{n}.lora_A" for n in range(20_000)]
    clean = clean_names(names)
    assert sorted(clean.stored.values()) == sorted(names)


@pytest.mark.parametrize(
    ("pattern", "clean"),
    [
        ("module.h.0", "h.0"), (r"^module\.h", "^h"), ("h.module.q", "h.module.q"), ("q_proj", "q_proj"),
        (r"h\._orig_mod\.q", r"h\.q"), ("my_module.q", "my_module.q"), (r".*\.q", r".*\.q"),
    ],
)  # fmt: skip
def test_expressions_of_a_configuration(pattern, clean):
    assert clean_pattern(pattern) == clean


@pytest.mark.parametrize(
    "wrap",
    [
        lambda key: f"module.{key}",
        lambda key: f"_orig_mod.{key}",
        lambda key: key.replace("h.", "h._fsdp_wrapped_module."),
        lambda key: key.replace(".attn", "._checkpoint_wrapped_module.attn"),
        lambda key: f"model.module.{key}",
        lambda key: f"base_model.model.{key.replace('.weight', '.base_layer.weight')}",
        lambda key: f"_orig_mod.llm.base_model.model.{key.replace('.weight', '.base_layer.weight')}",
    ],
)
def test_a_wrapped_base(wrap):
    weights = {
        f"{module}.weight": np.random.default_rng(n).standard_normal((5, 6))
        for n, module in enumerate(MODULES)
    }
    base = load_base({wrap(key): value for key, value in weights.items()})
    for module, update in load_adapter(stored("loralib", lambda key: f"module.{key}")).items():
        weight = base.weight(update)
        assert np.array_equal(weight.stored.full(np.float64), weights[f"{module}.weight"])
        assert weight.key == wrap(f"{module}.weight")  # as a message has to name it


def test_a_wrapped_base_of_a_full_fine_tune():
    rng = np.random.default_rng(0)
    base = {f"{module}.weight": rng.standard_normal((5, 6)) for module in MODULES}
    tuned = {f"module._orig_mod.{key}": value + 1 for key, value in base.items()}
    read = load_adapter(tuned, base=base)
    assert list(read) == list(MODULES)
    assert np.allclose(read[MODULES[0]].delta_W(), 1)


@pytest.mark.parametrize("name", FORMATS)
def test_compare_pairs_modules_of_equal_names(name):
    wrapped = stored(name, lambda key: f"module.{key.replace('.q.', '._orig_mod.q.')}")
    rows = compare(wrapped, stored(name)).modules
    assert [row.module for row in rows] == [row.second_module for row in rows]
    assert len({row.module for row in rows}) == len(MODULES)
