"""One small adapter in every wrapper, orientation, nesting, naming and place of its scale: always the same delta_W."""

import itertools
import json

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from subspace.adapters import load_adapter

R, ALPHA = 3, 12.0
SHAPES = {
    "layers.0.attn.q_proj": (16, 16),
    "layers.0.attn.v_proj": (8, 16),
    "layers.1.attn.q_proj": (16, 16),
    "layers.10.mlp.up_proj": (40, 16),
}
_RNG = np.random.default_rng(11)
FACTORS = {
    m: (_RNG.standard_normal((R, d_in)), _RNG.standard_normal((d_out, R)))
    for m, (d_out, d_in) in SHAPES.items()
}
DELTA = {module: B @ A for module, (A, B) in FACTORS.items()}  # of scale 1

# of a module: the keys of A and B, without what wraps them
HAND_WRITTEN = {
    "loralib": ("{}.lora_A", "{}.lora_B"),
    "pair": ("{}.A", "{}.B"),
    "container": ("{}.lora.A", "{}.lora.B"),
    "container with loralib's names": ("{}.lora.lora_A", "{}.lora.lora_B"),
    "a word before": ("{}.w_lora_A", "{}.w_lora_B"),
    "flattened": ("{}_lora_A", "{}_lora_B"),
    "flattened, down and up": ("{}_lora_down", "{}_lora_up"),
    "left and right": ("{}.lora_right", "{}.lora_left"),
    "in and out": ("{}.lora_in.weight", "{}.lora_out.weight"),
    "first and second": ("{}.lora_first", "{}.lora_second"),
    "numbers": ("{}.lora1.weight", "{}.lora2.weight"),
    "of a name": ("{}.loras.mine.lora_A", "{}.loras.mine.lora_B"),
}
KNOWN = {
    "peft": ("base_model.model.{}.lora_A.weight", "base_model.model.{}.lora_B.weight"),
    "peft, a state dict": (
        "base_model.model.{}.lora_A.default.weight",
        "base_model.model.{}.lora_B.default.weight",
    ),
    "diffusers": ("{}.lora.down.weight", "{}.lora.up.weight"),
    "kohya": ("{}.lora_down.weight", "{}.lora_up.weight"),
    "torchtune": ("{}.lora_a.weight", "{}.lora_b.weight"),
    "diffusers, old": ("{}_lora.down.weight", "{}_lora.up.weight"),
}
WRAPPERS = {
    "none": "{}",
    "compiled": "_orig_mod.{}",
    "parallel": "module.{}",
    "compiled and parallel": "_orig_mod.module.{}",
    "sharded within": "{}",  # see `wrapped`
    "checkpointed within": "{}",
    "Fabric": "_forward_module.{}",
}
_WITHIN = {"sharded within": "_fsdp_wrapped_module", "checkpointed within": "_checkpoint_wrapped_module"}
LAYOUTS = {
    "BA": (False, False),
    "AB": (True, True),
    "BAt": (True, False),
    "BtA": (False, True),
}


def wrapped(key, wrapper):
    """A key with the words of a wrapper: before it, or behind the number of the layer."""
    if wrapper in _WITHIN:
        for n in ("0", "1", "10"):
            key = key.replace(f"layers.{n}.", f"layers.{n}.{_WITHIN[wrapper]}.")
    return WRAPPERS[wrapper].format(key)


def tensors_of(naming, layout, wrapper):
    turned = LAYOUTS[layout]
    found = {}
    for module, pair in FACTORS.items():
        for key, factor, other in zip((HAND_WRITTEN | KNOWN)[naming], pair, turned, strict=True):
            value = factor.T if other else factor
            found[wrapped(key.format(module), wrapper)] = np.ascontiguousarray(value)
    return found


def tree(tensors):
    """The dotted names as dicts within one another."""
    root = {}
    for key, value in tensors.items():
        *parents, last = key.split(".")
        place = root
        for parent in parents:
            place = place.setdefault(parent, {})
        place[last] = value
    return root


NESTING = {
    "flat": lambda tensors: tensors,
    "state_dict": lambda tensors: {"state_dict": tensors},
    "model within a checkpoint": lambda tensors: {"epoch": 3, "model": tensors},
    "a tree": lambda tensors: {"weights": tree(tensors)},
}
# beside the tensors; what the scale is then, None where nothing says it
SETTINGS = {
    "none": ({}, None),
    "metadata": ({"metadata": {"r": R, "alpha": ALPHA}}, ALPHA / R),
    "config": ({"config": {"lora_r": R, "lora_alpha": ALPHA, "targets": ["q", "v"]}}, ALPHA / R),
    "hyper_parameters": ({"hyper_parameters": {"rank": R, "alpha": ALPHA, "lr": 1e-4}}, ALPHA / R),
    "a scale": ({"lora_config": {"r": R, "scaling": 4.0}}, 4.0),
}


def as_torch(value):
    if isinstance(value, dict):
        return {key: as_torch(inner) for key, inner in value.items()}
    return torch.from_numpy(value) if isinstance(value, np.ndarray) else value


def require_equal(read, scale, *, names=tuple(SHAPES)):
    assert list(read) == list(names)
    for name, module in zip(names, SHAPES, strict=True):
        np.testing.assert_allclose(read[name].delta_W(), scale * DELTA[module], rtol=1e-12, atol=1e-12)
    assert not read.unknown


@pytest.mark.parametrize("naming", HAND_WRITTEN)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_what_people_write_by_hand(naming, layout, wrapper, tmp_path):
    tensors = tensors_of(naming, layout, wrapper)
    cases = list(itertools.product(NESTING, SETTINGS.values()))
    # every fourth, another one for every wrapper: all meet all layouts and all names
    for nesting, (beside, scale) in cases[list(WRAPPERS).index(wrapper) % 4 :: 4]:
        held = NESTING[nesting](tensors)
        if nesting == "flat" and beside:
            continue  # the settings would be tensors' siblings: a case of its own below
        read = load_adapter(held | beside, scale=None if scale else 1.0)
        require_equal(read, scale or 1.0)
    save_file(tensors, tmp_path / "flat.safetensors")
    require_equal(load_adapter(tmp_path / "flat.safetensors", scale=1.0), 1.0)


@pytest.mark.parametrize("naming", HAND_WRITTEN)
@pytest.mark.parametrize("settings", SETTINGS)
@pytest.mark.parametrize("nesting", NESTING)
def test_torch_files(naming, settings, nesting, tmp_path):
    beside, scale = SETTINGS[settings]
    torch.save(as_torch(NESTING[nesting](tensors_of(naming, "BA", "none")) | beside), tmp_path / "adapter.pt")
    require_equal(load_adapter(tmp_path / "adapter.pt", scale=None if scale else 1.0), scale or 1.0)


@pytest.mark.parametrize("naming", KNOWN)
@pytest.mark.parametrize("wrapper", WRAPPERS)
@pytest.mark.parametrize("nesting", NESTING)
def test_known_writers_in_every_wrapper(naming, wrapper, nesting):
    held = NESTING[nesting](tensors_of(naming, "BA", wrapper))
    require_equal(load_adapter(held, scale=1.0), 1.0)


@pytest.mark.parametrize("wrapper", [*WRAPPERS, "outer attribute"])
@pytest.mark.parametrize("pattern", [{}, {"^layers.0.attn.q_proj": 60}, {"q_proj": 60}])
def test_the_configuration_is_of_the_names_without_wrappers(wrapper, pattern, tmp_path):
    outer = wrapper == "outer attribute"
    tensors = tensors_of("peft", "BA", "none" if outer else wrapper)
    save_file(
        {f"llm.{k}" if outer else k: v for k, v in tensors.items()}, tmp_path / "adapter_model.safetensors"
    )
    config = {
        "peft_type": "LORA",
        "r": R,
        "lora_alpha": 6,
        "alpha_pattern": pattern,
        "target_modules": ["q_proj"],
    }
    (tmp_path / "adapter_config.json").write_text(json.dumps(config))
    read = load_adapter(tmp_path)
    for module, update in read.items():
        matched = any(module.endswith(key.removeprefix("^")) for key in pattern)
        assert update.scale.value == pytest.approx((60 if matched else 6) / R)
        np.testing.assert_allclose(update.delta_W(), update.scale.value * DELTA[module], rtol=1e-12)
    assert list(read) == list(SHAPES)
    assert not any("No module of the file matches" in note for note in read.notes)


def test_two_spellings_of_one_module_are_not_one():
    """Where two names would become one, the words of the wrapper stay."""
    tensors = tensors_of("loralib", "BA", "none") | tensors_of("loralib", "BA", "compiled")
    read = load_adapter(tensors, scale=1.0)
    assert len(read) == 2 * len(SHAPES)
    assert "Wrapper words stay in names that two modules would share without them" in read.notes


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("settings", SETTINGS)
def test_names_of_peft_without_its_configuration(layout, settings):
    """Somebody's own code under PEFT's names: the shapes and what is saved beside them decide."""
    beside, scale = SETTINGS[settings]
    read = load_adapter({"lora": tensors_of("peft", layout, "none")} | beside, scale=None if scale else 1.0)
    require_equal(read, scale or 1.0)
