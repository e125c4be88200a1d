"""PEFT loads what is written and applies the same delta_W, whatever ranks, alphas, names and layers."""

from __future__ import annotations

import json

import numpy as np
import peft
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from peft.utils.other import get_pattern_key
from safetensors.numpy import load_file
from written_files import SHAPES, deltas, peft_folder, put, there

from subspace.adapters import load_adapter
from subspace.adapters.writers._rank_patterns import patterns_for
from subspace.analysis.convert import convert
from subspace.analysis.truncate import truncate

pytestmark = pytest.mark.filterwarnings(r"ignore:::peft\..*")


class Toy(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = torch.nn.ModuleList(
            torch.nn.ModuleDict({"q": torch.nn.Linear(8, 8), "v": torch.nn.Linear(8, 6)}) for _ in range(2)
        )
        self.emb = torch.nn.Embedding(11, 8)
        self.conv = torch.nn.Conv2d(4, 6, (3, 2))
        self.point = torch.nn.Conv1d(4, 6, 1)
        self.c_attn = torch.nn.Linear(8, 18)


def assert_peft_loads(folder, expected, atol=1e-6):
    """PEFT's own delta of every module, in (d_out, d_in), is the expected one; no module more or less."""
    model = peft.PeftModel.from_pretrained(Toy(), folder)
    found = {}
    for name, layer in model.named_modules():
        if hasattr(layer, "get_delta_weight"):
            delta = layer.get_delta_weight("default").detach().double()
            base = type(layer.get_base_layer()).__name__
            delta = delta.T if base == "Embedding" else delta
            found[name.removeprefix("base_model.model.")] = delta.reshape(delta.shape[0], -1).numpy()
    assert set(found) == set(expected)
    for name, delta in expected.items():
        np.testing.assert_allclose(found[name], delta, rtol=0, atol=atol * (1 + np.abs(delta).max()))


@pytest.mark.parametrize("through", ["peft", "loralib", "kohya"])
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_mixed_ranks_and_alphas_come_through_every_format(through, dtype, tmp_path):
    source = peft_folder(
        tmp_path / "in",
        {"layers.0.q": 1, "layers.0.v": 2, "layers.1.q": 3, "layers.1.v": 2},
        {"layers.0.q": 2, "layers.0.v": 3, "layers.1.q": 12, "layers.1.v": 8},
        dtype=dtype,
    )
    wide = {} if through in {"peft", "kohya"} else {"dtype": "float32"}
    suffix = {"peft": "", "loralib": ".pt"}.get(through, ".safetensors")
    made, read = there(source, through, tmp_path / f"through{suffix}", **wide)
    assert max(row.error for row in made.modules) < 1e-6
    back = {row.module: row.of[0] for row in made.modules}
    renamed = load_adapter(
        {
            f"base_model.model.{back[m]}.lora_{x}.weight": getattr(u, x) * (1 if x == "A" else f)
            for m, u in read.items()
            for f in [u.scale.value or 1.0]
            for x in "AB"
        }
    )
    out = put(convert(renamed, to="peft", scale=1.0), tmp_path / "out")
    assert_peft_loads(out, deltas(load_adapter(source)), atol=2e-6)


def test_equal_ranks_are_a_plain_r(tmp_path):
    source = peft_folder(tmp_path / "in", dict.fromkeys(SHAPES, 4), dict.fromkeys(SHAPES, 8))
    config = json.loads(convert(source, to="peft").files["adapter_config.json"])
    assert (config["r"], config["lora_alpha"], config["rank_pattern"], config["alpha_pattern"]) == (
        4,
        8,
        {},
        {},
    )
    assert_peft_loads(put(convert(source, to="peft"), tmp_path / "out"), deltas(load_adapter(source)))


def test_what_the_configuration_says_of_the_model_stays(tmp_path):
    told = {
        "base_model_name_or_path": "org/name",
        "task_type": "CAUSAL_LM",
        "target_modules": ["q", "v"],
        "lora_dropout": 0.1,
        "use_rslora": True,
        "something_new": [1],
    }
    source = peft_folder(tmp_path / "in", dict.fromkeys(SHAPES, 4), dict.fromkeys(SHAPES, 8), **told)
    config = json.loads(convert(source, to="peft").files["adapter_config.json"])
    assert {key: config[key] for key in told} == told
    assert (config["r"], config["lora_alpha"]) == (4, 8)


@pytest.mark.parametrize("kind", ["emb", "conv", "point", "conv dora", "q dora"])
def test_layers_of_every_kind_stay_peft(kind, tmp_path):
    torch.manual_seed(0)
    name, _, dora = kind.partition(" ")
    target = "layers.0.q" if name == "q" else name
    config = peft.LoraConfig(target_modules=[target], r=3, lora_alpha=6, use_dora=bool(dora))
    model = peft.get_peft_model(Toy(), config)
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            if "lora_" in key:
                parameter.normal_()
    model.save_pretrained(tmp_path / "in")
    made = convert(tmp_path / "in", to="peft")
    out = put(made, tmp_path / "out")
    before, after = (load_file(folder / "adapter_model.safetensors") for folder in (tmp_path / "in", out))
    assert before.keys() == after.keys()
    for key, tensor in before.items():
        np.testing.assert_array_equal(tensor, after[key])
    assert_peft_loads(out, deltas(load_adapter(tmp_path / "in")))


@pytest.mark.parametrize(
    "config",
    [
        {"target_modules": ["conv"]},
        {"target_modules": ["emb", "q"]},
        {"target_modules": ["q", "v"], "use_rslora": True},
        {"target_modules": ["q", "v"], "rank_pattern": {"v": 2}, "alpha_pattern": {r"layers\.1\.q": 5}},
        {"target_modules": r".*layers\.1\.[qv]"},
    ],
)
@pytest.mark.parametrize("limits", [{"rank": 2}, {"energy": 0.7}, {"ranks": {"q": 1}, "rank": 3}])
def test_a_cut_adapter_is_loaded_with_its_ranks(config, limits, tmp_path):
    trained(r=4, **config).save_pretrained(tmp_path / "in")
    cut = truncate(tmp_path / "in", **limits)
    out = put(convert(cut.adapter, to="peft", allow={"rounding"}), tmp_path / "out")
    assert [u.kind for u in load_adapter(out).values()] == [u.kind for u in cut.adapter.values()]
    assert_peft_loads(out, deltas(cut.adapter), atol=1e-5)


@pytest.mark.parametrize("enabled", [(True, False, True), (True, True, True), (True, False, False)])
def test_a_fused_layer_becomes_one_pair_with_zeros(enabled, tmp_path):
    groups = sum(enabled)
    rng = np.random.default_rng(0)
    A, B = rng.standard_normal((2 * groups, 8)), rng.standard_normal((6 * groups, 2))
    source = load_adapter({"c_attn.lora_A": A, "c_attn.lora_B": B}, scale=0.5, enable_lora=enabled)
    made = convert(source, to="peft")
    assert "fused layer" in " ".join(made.notes)
    expected = np.zeros((18, 8))
    for n, place in enumerate(np.flatnonzero(enabled)):
        expected[6 * place : 6 * place + 6] = 0.5 * B[6 * n : 6 * n + 6] @ A[2 * n : 2 * n + 2]
    assert_peft_loads(put(made, tmp_path / "out"), {"c_attn": expected})


_NAMES = st.lists(
    st.sampled_from(["q", "h.q", "g.q", "h.0.q", "h.1.q", "x.h.0.q", "v", "h.0.v", "a+b", "h.a+b", "h.0xq"]),
    min_size=1,
    unique=True,
)


@settings(max_examples=200, deadline=None)
@given(_NAMES, st.data())
def test_patterns_give_every_module_its_number_as_peft_looks_it_up(names, data):
    numbers = {name: data.draw(st.integers(1, 3)) for name in names}
    default, patterns = patterns_for(numbers)
    for name, number in numbers.items():
        assert patterns.get(get_pattern_key(patterns.keys(), name), default) == number


def trained(r=3, **config):
    torch.manual_seed(0)
    model = peft.get_peft_model(Toy(), peft.LoraConfig(r=r, lora_alpha=6, **config))
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            if parameter.requires_grad and "magnitude" not in key:
                parameter.normal_()
    return model


@pytest.mark.parametrize(
    "config",
    [
        {"target_modules": ["q"], "modules_to_save": ["c_attn"]},
        {"target_modules": ["q"], "bias": "all"},
        {"target_modules": ["q", "v"], "bias": "lora_only"},
        {"target_modules": ["q"], "lora_bias": True},
        {"target_modules": ["q"], "trainable_token_indices": {"emb": [1, 2]}},
        {"target_modules": ["q"], "use_dora": True},
    ],
)
def test_what_was_trained_beside_the_pairs_comes_along(config, tmp_path):
    trained(**config).save_pretrained(tmp_path / "in")
    out = put(convert(tmp_path / "in", to="peft"), tmp_path / "out")
    cut = truncate(tmp_path / "in", rank=2)
    small = put(convert(cut.adapter, to="peft", allow={"rounding"}), tmp_path / "small")
    before, after, fewer = (
        load_file(folder / "adapter_model.safetensors") for folder in (tmp_path / "in", out, small)
    )
    assert before.keys() == after.keys() == fewer.keys()
    for key, tensor in before.items():
        np.testing.assert_array_equal(tensor, after[key])
        if "lora_A.weight" not in key and "lora_B.weight" not in key:
            np.testing.assert_array_equal(tensor, fewer[key])
    for folder in (out, small):
        torch.manual_seed(1)
        model = peft.PeftModel.from_pretrained(Toy(), folder)
        state = peft.get_peft_model_state_dict(model)
        assert state.keys() == before.keys()


def test_a_model_in_memory_is_written_with_its_configuration(tmp_path):
    model = trained(target_modules={"q", "v"}, exclude_modules={"nothing"}, task_type="FEATURE_EXTRACTION")
    made = convert(model, to="peft")
    config = json.loads(made.files["adapter_config.json"])
    assert (config["task_type"], config["target_modules"]) == ("FEATURE_EXTRACTION", ["q", "v"])
    assert_peft_loads(put(made, tmp_path / "out"), deltas(load_adapter(model)))
