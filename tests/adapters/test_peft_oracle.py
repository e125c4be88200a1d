"""delta_W of every update against PEFT's own `get_delta_weight`, on files that PEFT wrote."""

from __future__ import annotations

import json

import numpy as np
import peft
import pytest
import torch

from subspace.adapters import LowRankUpdate, load_adapter
from subspace.errors import FormatError

# what PEFT, the oracle, warns of about the odd models made here
pytestmark = pytest.mark.filterwarnings(r"ignore:::peft\..*")


class Toy(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.emb = torch.nn.Embedding(11, 8)
        self.layers = torch.nn.ModuleList(torch.nn.ModuleDict(_attention()) for _ in range(2))
        self.conv1 = torch.nn.Conv1d(4, 6, 3)
        self.conv2 = torch.nn.Conv2d(4, 6, (3, 2))
        self.conv3 = torch.nn.Conv3d(4, 6, (1, 3, 2))
        self.point = torch.nn.Conv2d(4, 6, 1)
        self.head = torch.nn.Linear(8, 3)


def _attention():
    return {"q": torch.nn.Linear(8, 8), "v": torch.nn.Linear(8, 6), "o": torch.nn.Linear(6, 8)}


def adapted(config, model=None, seed=0):
    """A PEFT model with random B, as training would leave it."""
    torch.manual_seed(seed)
    model = peft.get_peft_model(Toy() if model is None else model, config)
    randomise(model)
    return model


def randomise(model):
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_" in name and "magnitude" not in name:
                parameter.normal_()


def layers(model, adapter="default"):
    """name -> (layer, its delta weight) as PEFT sees it."""
    for name, layer in model.named_modules():
        if hasattr(layer, "get_delta_weight") and adapter in {**layer.lora_A, **layer.lora_embedding_A}:
            yield name.removeprefix("base_model.model."), layer, layer.get_delta_weight(adapter).detach()


def as_matrix(layer, delta):
    """PEFT's delta, which has the orientation of the base weight, as (d_out, d_in)."""
    kind = type(layer.get_base_layer()).__name__
    if kind in {"Conv1D", "Embedding"}:
        delta = delta.T
    return delta.reshape(delta.shape[0], -1).double().numpy()


def assert_as_peft(read, model, adapter="default", dtype_tol=1e-6):
    expected = {name: as_matrix(layer, delta) for name, layer, delta in layers(model, adapter)}
    assert set(read) == set(expected)
    assert expected
    for name, delta in expected.items():
        got = read[name].delta_W()
        assert got.shape == delta.shape == (read[name].d_out, read[name].d_in)
        np.testing.assert_allclose(got, delta, rtol=0, atol=dtype_tol * (1 + np.abs(delta).max()))


CONFIGS = {
    "linear": {"target_modules": ["q", "v"], "r": 3, "lora_alpha": 7},
    "rslora": {"target_modules": ["q", "v"], "r": 4, "lora_alpha": 8, "use_rslora": True},
    "patterns": {
        "target_modules": ["q", "v", "o"],
        "rank_pattern": {"q": 2, r"layers\.1\.v": 5, "layers.0.o": 1},
        "alpha_pattern": {"^layers.0.q$": 3, "v": 11, "nothing": 2},
        "r": 4,
        "lora_alpha": 16,
    },
    "embedding": {"target_modules": ["emb", "q"], "r": 3, "lora_alpha": 6},
    "conv": {"target_modules": ["conv1", "conv2", "conv3", "point"], "r": 3, "lora_alpha": 5},
    "dora": {"target_modules": ["q", "conv2", "emb"], "r": 3, "lora_alpha": 6, "use_dora": True},
    "lora_bias": {"target_modules": ["q", "v"], "r": 3, "lora_alpha": 6, "lora_bias": True},
    "bias all": {"target_modules": ["q", "v"], "r": 3, "lora_alpha": 6, "bias": "all"},
    "bias lora_only": {"target_modules": ["q", "v"], "r": 3, "lora_alpha": 6, "bias": "lora_only"},
    "modules_to_save": {"target_modules": ["q"], "modules_to_save": ["head"], "r": 3, "lora_alpha": 6},
    "trainable tokens": {"target_modules": ["q"], "trainable_token_indices": {"emb": [1, 2]}, "r": 3},
    "gaussian": {"target_modules": ["q"], "init_lora_weights": "gaussian", "r": 3, "lora_alpha": 6},
    "regex": {"target_modules": r".*layers\.1\.[qv]", "r": 3, "lora_alpha": 6},
    "all-linear": {"target_modules": ["q", "v", "o", "head"], "r": 8, "lora_alpha": 6},
}


@pytest.mark.parametrize("kind", CONFIGS)
@pytest.mark.parametrize("safe", [True, False], ids=["safetensors", "bin"])
def test_saved_adapter_equals_peft(kind, safe, tmp_path):
    model = adapted(peft.LoraConfig(**CONFIGS[kind]))
    model.save_pretrained(tmp_path, safe_serialization=safe)
    read = load_adapter(tmp_path)
    assert read.format == "peft"
    assert read.unknown == ()
    assert_as_peft(read, model)


@pytest.mark.parametrize("kind", CONFIGS)
def test_live_model_equals_peft(kind):
    model = adapted(peft.LoraConfig(**CONFIGS[kind]))
    read = load_adapter(model)
    assert read.unknown == ()
    assert_as_peft(read, model)


def test_scale_and_where_it_comes_from(tmp_path):
    adapted(peft.LoraConfig(**CONFIGS["rslora"])).save_pretrained(tmp_path)
    scale = load_adapter(tmp_path)["layers.0.q"].scale
    assert (scale.value, scale.source, scale.alpha) == (8 / 2, "config alpha/sqrt(r)", 8)


def test_patterns_that_match_nothing_are_told(tmp_path):
    adapted(peft.LoraConfig(**CONFIGS["patterns"])).save_pretrained(tmp_path)
    assert any("alpha_pattern" in note and "nothing" in note for note in load_adapter(tmp_path).notes)


def test_dora_is_flagged_and_its_magnitudes_are_not_unknown(tmp_path):
    adapted(peft.LoraConfig(**CONFIGS["dora"])).save_pretrained(tmp_path)
    read = load_adapter(tmp_path)
    assert all(update.flags == ("dora",) for update in read.values())
    assert {update.kind for update in read.values()} == {"linear", "conv", "embedding"}


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_types(dtype, tmp_path):
    model = adapted(peft.LoraConfig(**CONFIGS["linear"]), model=Toy().to(dtype))
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            parameter.data = parameter.data.to(dtype)
    model.save_pretrained(tmp_path)
    read = load_adapter(tmp_path)
    for name, layer, _ in layers(model):
        A, B = (getattr(layer, f)["default"].weight.detach().double() for f in ("lora_A", "lora_B"))
        np.testing.assert_allclose(read[name].delta_W(), (7 / 3) * (B @ A).numpy(), rtol=1e-12, atol=1e-12)
        assert read[name].A_factor.dtype == str(dtype).removeprefix("torch.")


def test_config_missing(tmp_path):
    model = adapted(peft.LoraConfig(**CONFIGS["linear"]))
    model.save_pretrained(tmp_path)
    (tmp_path / "adapter_config.json").unlink()
    read = load_adapter(tmp_path / "adapter_model.safetensors")
    assert {update.scale.value for update in read.values()} == {None}
    assert any("scale is unknown" in note for note in read.notes)
    assert_as_peft(load_adapter(tmp_path, scale=7 / 3), model)


def test_config_without_alpha_and_rank(tmp_path):
    adapted(peft.LoraConfig(**CONFIGS["linear"])).save_pretrained(tmp_path)
    (tmp_path / "adapter_config.json").write_text('{"peft_type": "LORA", "unheard_of": {"a": 1}}')
    read = load_adapter(tmp_path)
    assert read["layers.0.q"].scale.value is None
    assert any("no lora_alpha" in note for note in read.notes)


def test_raw_state_dict_of_several_adapters(tmp_path):
    model = adapted(peft.LoraConfig(**CONFIGS["linear"]))
    model.add_adapter("other", peft.LoraConfig(target_modules=["o"], r=2, lora_alpha=4))
    randomise(model)
    torch.save(model.state_dict(), tmp_path / "dump.pt")
    with pytest.raises(FormatError, match=r"2 adapters in .*default, other; choose one with `adapter_name`"):
        load_adapter(tmp_path / "dump.pt")
    with pytest.raises(FormatError, match="default, other"):
        load_adapter(tmp_path / "dump.pt", adapter_name="third")
    assert_as_peft(load_adapter(tmp_path / "dump.pt", adapter_name="default", scale=7 / 3), model)
    read = load_adapter(tmp_path / "dump.pt", adapter_name="other", scale=2.0)
    assert_as_peft(read, model, "other")
    assert any(entry.why == "part of the adapter default" for entry in read.ignored)
    assert read.unknown == ()


def test_live_model_of_several_adapters():
    model = adapted(peft.LoraConfig(**CONFIGS["linear"]))
    model.add_adapter("other", peft.LoraConfig(target_modules=["o"], r=2, lora_alpha=4))
    randomise(model)
    with pytest.raises(FormatError, match="default, other"):
        load_adapter(model)
    assert_as_peft(load_adapter(model, adapter_name="other"), model, "other")


def test_live_scale_that_was_changed():
    model = adapted(peft.LoraConfig(**CONFIGS["linear"]))
    for _, layer, _ in list(layers(model)):
        layer.scaling["default"] *= 3
    read = load_adapter(model)
    assert {update.scale.source for update in read.values()} == {"module"}
    assert_as_peft(read, model)


def test_a_target_that_is_also_saved(tmp_path):
    config = peft.LoraConfig(target_modules=["q", "head"], modules_to_save=["head"], r=2, lora_alpha=4)
    model = adapted(config)
    model.save_pretrained(tmp_path)
    read = load_adapter(tmp_path)
    assert read.unknown == ()
    assert {"layers.0.q", "layers.1.q"} <= set(read) <= {"layers.0.q", "layers.1.q", "head"}


@pytest.mark.parametrize("init", ["pissa", "olora"])
def test_a_start_that_changes_the_base_is_told(init, tmp_path):
    config = peft.LoraConfig(target_modules=["q"], r=2, lora_alpha=4, init_lora_weights=init)
    model = peft.get_peft_model(Toy(), config)
    model.save_pretrained(tmp_path)
    read = load_adapter(tmp_path)
    assert any(init in note for note in read.notes)
    assert_as_peft(read, model)


class Experts(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.up = torch.nn.Parameter(torch.randn(3, 8, 10))
        self.down = torch.nn.Parameter(torch.randn(3, 5, 8))
        self.router = torch.nn.Parameter(torch.randn(3, 8))


class MoE(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.experts = Experts()
        self.q = torch.nn.Linear(8, 6)


@pytest.mark.parametrize("options", [{}, {"rank_pattern": {"experts.up": 4, "experts.down": 4}}])
def test_experts_of_target_parameters(options, tmp_path):
    config = peft.LoraConfig(
        target_modules=["q"],
        target_parameters=["experts.up", "experts.down", "experts.router"],
        r=2,
        lora_alpha=8,
        **options,
    )
    if options:
        config.target_parameters = ["experts.up", "experts.down"]
    model = adapted(config, MoE())
    model.save_pretrained(tmp_path)
    for read, live in ((load_adapter(tmp_path), False), (load_adapter(model), True)):
        assert read.unknown == ()
        seen = set()
        for stored, layer, delta in layers(model):
            # a file does not say which pair is of which parameter, where the ranks do not
            name = f"experts.{layer.parameter_name}" if live and hasattr(layer, "num_experts") else stored
            if delta.dim() == 2:
                seen.add(name)
                np.testing.assert_allclose(read[name].delta_W(), delta, atol=1e-4)
                continue
            for n, expert in enumerate(delta):
                seen.add(f"{name}[{n}]")
                # not transposed here: PEFT takes (experts, d_out, d_in) for what nn.Linear would hold
                np.testing.assert_allclose(read[f"{name}[{n}]"].delta_W(), expert, atol=1e-4)
        assert set(read) == seen


def test_experts_of_unlike_rank_are_told_apart_by_it(tmp_path):
    config = peft.LoraConfig(
        target_parameters=["experts.up", "experts.down"], r=2, lora_alpha=8, rank_pattern={"experts.up": 4}
    )
    model = adapted(config, MoE())
    model.save_pretrained(tmp_path)
    for read in (load_adapter(tmp_path), load_adapter(model)):
        assert set(read) == {f"experts.{name}[{n}]" for name in ("up", "down") for n in range(3)}
        for _, layer, delta in layers(model):
            for n, expert in enumerate(delta):
                np.testing.assert_allclose(
                    read[f"experts.{layer.parameter_name}[{n}]"].delta_W(), expert, atol=1e-4
                )


class Grouped(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = torch.nn.Conv2d(8, 6, 3, groups=2, padding=1, bias=False)


def test_a_convolution_of_groups_is_split(tmp_path):
    model = adapted(peft.LoraConfig(target_modules=["conv"], r=4, lora_alpha=8), Grouped())
    model.save_pretrained(tmp_path)
    read = load_adapter(tmp_path)
    assert list(read) == ["conv[0]", "conv[1]"]
    layer = model.base_model.model.conv
    x = torch.randn(1, layer.lora_A["default"].in_channels, 5, 5)
    expected = layer.lora_B["default"](layer.lora_A["default"](x)) * layer.scaling["default"]
    kernel = np.concatenate([read[name].delta_W() for name in read]).reshape(6, -1, 3, 3)
    got = torch.nn.functional.conv2d(x.double(), torch.from_numpy(kernel), padding=1)
    np.testing.assert_allclose(got, expected.detach(), atol=1e-4)


def test_layer_replication_is_told(tmp_path):
    adapted(peft.LoraConfig(**CONFIGS["linear"])).save_pretrained(tmp_path)
    path = tmp_path / "adapter_config.json"
    config = json.loads(path.read_text())
    config["layer_replication"] = [[0, 1], [0, 1]]
    path.write_text(json.dumps(config))
    read = load_adapter(tmp_path)
    assert any("layer_replication" in note for note in read.notes)
    assert all("layer_replication" in update.flags for update in read.values())


@pytest.mark.parametrize("field", ["use_qalora", "use_bdlora", "kasa_config"])
def test_other_products_than_B_A_are_refused(field, tmp_path):
    adapted(peft.LoraConfig(**CONFIGS["linear"])).save_pretrained(tmp_path)
    path = tmp_path / "adapter_config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps({**config, field: False}))
    load_adapter(tmp_path)
    path.write_text(json.dumps({**config, field: {"nblocks": 2}}))
    with pytest.raises(FormatError, match="a kind that is not supported"):
        load_adapter(tmp_path)


def test_multihead_attention(tmp_path):
    class Model(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.mha = torch.nn.MultiheadAttention(8, 2)

    model = adapted(peft.LoraConfig(target_modules=["mha"], r=2, lora_alpha=4), Model())
    model.save_pretrained(tmp_path)
    read = load_adapter(tmp_path)
    layer = model.base_model.model.mha
    assert read.unknown == ()
    assert isinstance(read["mha"], LowRankUpdate)
    np.testing.assert_allclose(read["mha"].delta_W(), layer.get_delta_weight("default").detach(), atol=1e-5)
