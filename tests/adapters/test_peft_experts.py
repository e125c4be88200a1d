"""``target_parameters`` of PEFT, whose pairs hold all experts of a layer: files, models in memory and base weights."""

from __future__ import annotations

import json

import numpy as np
import peft
import pytest
import torch
import transformers
from oracle_versions import needs

from subspace import amplify
from subspace.adapters import load_adapter, load_base
from subspace.errors import FormatError, ShapeError

pytestmark = [
    needs("transformers", "5.0", "one parameter holds all experts of a layer"),
    pytest.mark.filterwarnings(r"ignore:::peft\..*"),
    pytest.mark.filterwarnings(r"ignore:::transformers\..*"),
]

_SIZES = {
    "hidden_size": 16, "intermediate_size": 12, "num_hidden_layers": 2, "num_attention_heads": 2,
    "num_key_value_heads": 2, "head_dim": 8, "vocab_size": 37, "max_position_embeddings": 64, "pad_token_id": 0,
}  # fmt: skip


def mixtral():
    config = transformers.MixtralConfig(**_SIZES, num_local_experts=4, num_experts_per_tok=2)
    return transformers.MixtralForCausalLM(config)


def qwen3_moe():
    config = transformers.Qwen3MoeConfig(
        **_SIZES, moe_intermediate_size=6, num_experts=4, num_experts_per_tok=2, decoder_sparse_step=1
    )
    return transformers.Qwen3MoeForCausalLM(config)


def gpt_oss():
    config = transformers.GptOssConfig(**_SIZES, num_local_experts=4, num_experts_per_tok=2)
    return transformers.GptOssForCausalLM(config)


def square_gpt_oss():
    sizes = {**_SIZES, "intermediate_size": 16}
    config = transformers.GptOssConfig(**sizes, num_local_experts=4, num_experts_per_tok=2)
    return transformers.GptOssForCausalLM(config)


MODELS = {
    "mixtral": mixtral,
    "qwen3_moe": qwen3_moe,
    "gpt_oss": gpt_oss,
    "square gpt_oss": square_gpt_oss,
}
BOTH = ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"]


def adapted(model, seed=0, **options):
    torch.manual_seed(seed)
    config = peft.LoraConfig(**{"target_modules": [], "r": 3, "lora_alpha": 6, **options})
    model = peft.get_peft_model(model, config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                parameter.normal_()
    return model


def built(name, seed=0):
    torch.manual_seed(seed)
    return MODELS[name]()


def parameters(model):
    """Name without PEFT's wrappers -> value of every parameter."""
    names = {
        name.removeprefix("base_model.model.").replace(".base_layer", ""): value.detach().double().numpy()
        for name, value in model.named_parameters()
        if "lora_" not in name
    }
    return {name: value.copy() for name, value in names.items()}


def changes(model):
    """What merging changes, of PEFT: name of a parameter -> W_merged - W, for those that change."""
    before = parameters(model)
    after = {
        name: value.detach().double().numpy() for name, value in model.merge_and_unload().named_parameters()
    }
    return {name: after[name] - W for name, W in before.items() if not np.array_equal(after[name], W)}


def assert_as_merged(read, changed, *, transposed=False):
    """Every expert's update is what merging changes in it, in the orientation of the parameter."""
    seen = set()
    for name, change in changed.items():
        for n, expert in enumerate(change if change.ndim == 3 else [change]):
            module = f"{name}[{n}]" if change.ndim == 3 else name.removesuffix(".weight")
            seen.add(module)
            got = read[module].delta_W()
            np.testing.assert_allclose(
                got.T if transposed and change.ndim == 3 else got, expert, rtol=0, atol=2e-5, err_msg=module
            )
    assert set(read) == seen


@pytest.mark.parametrize("targets", [BOTH, BOTH[:1], BOTH[1:], ["gate_up_proj", "down_proj"], ["down_proj"]])
@pytest.mark.parametrize("name", MODELS)
def test_experts_are_named_by_their_parameter(name, targets, tmp_path):
    model = adapted(built(name), target_parameters=targets)
    model.save_pretrained(tmp_path)
    file, live = load_adapter(tmp_path), load_adapter(model)
    assert list(file) == list(live)
    assert file.unknown == ()
    assert not any("lora" in key for key in live.unknown)
    changed = changes(model)
    assert changed
    for read in (file, live):
        assert_as_merged(read, changed, transposed="gpt_oss" in name)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize(
    "options",
    [
        {"rank_pattern": {"experts.down_proj": 5}},
        {"rank_pattern": {"gate_up_proj": 2}, "alpha_pattern": {"down_proj": 11}},
        {"alpha_pattern": {r".*\.gate_up_proj": 4}, "use_rslora": True},
        {"rank_pattern": {r"layers\.1\.mlp\.experts\.gate_up_proj": 1}},
    ],
)
def test_patterns_of_one_of_two_parameters(name, options, tmp_path):
    model = adapted(built(name), target_parameters=BOTH, **options)
    model.save_pretrained(tmp_path)
    reads = load_adapter(tmp_path), load_adapter(model)
    assert list(reads[0]) == list(reads[1])
    changed = changes(model)
    for read in reads:
        assert_as_merged(read, changed, transposed="gpt_oss" in name)


def test_attention_and_router_beside_the_experts(tmp_path):
    model = adapted(
        qwen3_moe(),
        target_modules=["q_proj"],
        target_parameters=["gate_up_proj", "down_proj", "mlp.gate.weight"],
    )
    model.save_pretrained(tmp_path)
    reads = load_adapter(tmp_path), load_adapter(model)
    changed = changes(model)
    for read in reads:
        assert_as_merged(read, changed)
        assert {"model.layers.0.mlp.gate", "model.layers.0.self_attn.q_proj"} < set(read)


def test_a_configuration_in_memory_has_other_types(tmp_path):
    model = adapted(mixtral(), target_parameters=BOTH)
    assert isinstance(model.peft_config["default"].target_modules, set | list)
    model.peft_config["default"].target_parameters = set(BOTH)
    assert "model.layers.0.mlp.experts.down_proj[3]" in load_adapter(model)
    model.peft_config["default"].target_parameters = tuple(BOTH)
    assert isinstance(load_adapter(model).config["target_parameters"], list)


def test_the_base_weight_of_every_expert(tmp_path):
    for name in MODELS:
        base = built(name)
        weights = {key: value.detach().double().numpy() for key, value in base.state_dict().items()}
        model = adapted(base, target_parameters=BOTH)
        model.save_pretrained(tmp_path / name)
        for read in (load_adapter(tmp_path / name), load_adapter(model)):
            for source in (built(name), model):
                opened = load_base(source)
                for module, update in read.items():
                    parameter, _, number = module[:-1].partition("[")
                    W = weights[parameter][int(number)]
                    found = opened.weight(update)
                    assert found is not None, module
                    assert found.shape == (update.d_out, update.d_in)
                    expected = W.T if "gpt_oss" in name else W
                    np.testing.assert_array_equal(found.factor().load(), expected.astype("f4"))


def dense(W, delta, r):
    """Amplification by dense linear algebra: ||delta_W|| over the norm of W in delta_W's leading directions."""
    U, _, Vh = np.linalg.svd(delta)
    return np.linalg.norm(delta) / np.linalg.norm(U[:, :r].T @ W @ Vh[:r].T)


@pytest.mark.parametrize("name", MODELS)
def test_amplify_equals_the_dense_computation(name, tmp_path):
    base = built(name)
    base.save_pretrained(tmp_path / "base")
    weights = {key: value.detach().double().numpy() for key, value in base.state_dict().items()}
    adapted(base, target_parameters=BOTH).save_pretrained(tmp_path / "adapter")
    read = load_adapter(tmp_path / "adapter")
    result = amplify(tmp_path / "base", tmp_path / "adapter")
    rows = {row.module: row for row in result.modules}
    assert set(rows) == set(read)
    assert not result.missing
    for module, update in read.items():
        parameter, _, number = module[:-1].partition("[")
        W = weights[parameter][int(number)]
        W = W.T if "gpt_oss" in name else W
        assert rows[module].norm_W == pytest.approx(np.linalg.norm(W), rel=1e-4)
        assert rows[module].ranks[0].amplification == pytest.approx(dense(W, update.delta_W(), 3), rel=1e-4)


@pytest.mark.parametrize("parts", [("w1", "w3", "w2"), ("gate_proj", "up_proj", "down_proj")])
@pytest.mark.parametrize("parent", ["mlp", "block_sparse_moe"])
def test_a_base_with_a_layer_for_each_expert(parts, parent):
    model = mixtral()
    base = {}
    for name, value in model.state_dict().items():
        for n, expert in enumerate(value if "experts." in name else ()):
            own = name.replace(".mlp.", f".{parent}.").rpartition(".")[0]
            down = name.endswith("down_proj")
            for part, rows in zip(
                parts[2:] if down else parts[:2], [expert] if down else expert.chunk(2), strict=True
            ):
                base[f"{own}.{n}.{part}.weight"] = rows.clone()
    weights = {name: value.detach().numpy() for name, value in model.state_dict().items()}
    read = load_adapter(adapted(model, target_parameters=BOTH))
    opened = load_base(base)
    for module, update in read.items():
        parameter, _, number = module[:-1].partition("[")
        np.testing.assert_array_equal(opened.weight(update).factor().load(), weights[parameter][int(number)])
    del base[f"model.layers.1.{parent}.experts.2.{parts[1]}.weight"]
    assert load_base(base).weight(read["model.layers.1.mlp.experts.gate_up_proj[2]"]) is None


class Experts(torch.nn.Module):
    def __init__(self, sizes=((8, 10), (5, 8)), transposed=False):
        super().__init__()
        self.up = torch.nn.Parameter(torch.randn(3, *sizes[0]))
        self.down = torch.nn.Parameter(torch.randn(3, *sizes[1]))
        self.is_transposed = transposed


class MoE(torch.nn.Module):
    def __init__(self, **options):
        super().__init__()
        self.layers = torch.nn.ModuleList(
            torch.nn.ModuleDict({"experts": Experts(**options)}) for _ in range(2)
        )


OWN = ["experts.up", "experts.down"]


@pytest.mark.parametrize("transposed", [False, True])
def test_names_that_a_file_does_not_say_come_from_the_base(transposed, tmp_path):
    torch.manual_seed(0)
    base = MoE(transposed=transposed)
    weights = {name: value.clone() for name, value in base.state_dict().items()}
    model = adapted(base, target_parameters=OWN)
    model.save_pretrained(tmp_path)
    alone, named = load_adapter(tmp_path), load_adapter(tmp_path, base=weights)
    assert set(alone) == {
        f"layers.{n}.experts{w}[{e}]" for n in "01" for w in ("", ".base_layer") for e in range(3)
    }
    assert any("which of target_parameters" in note and "`base`" in note for note in alone.notes)
    assert not any("target_parameters" in note for note in named.notes)
    live = load_adapter(model)
    assert list(named) == list(live)
    opened = load_base(weights)
    for read in (alone, named, live):
        for module, update in read.items():
            found = opened.weight(update)
            assert found.transposed is transposed
            assert found.shape == (update.d_out, update.d_in), module
    assert_as_merged(named, changes(model), transposed=transposed)


def test_pairs_of_different_scale_that_nothing_tells_apart(tmp_path):
    model = adapted(MoE(), target_parameters=OWN, alpha_pattern={"experts.up": 4})
    model.save_pretrained(tmp_path)
    with pytest.raises(
        FormatError, match=r"Cannot tell which parameter of module .*experts.*up.*down.*`base`"
    ):
        load_adapter(tmp_path)
    changed = changes(model)
    assert_as_merged(load_adapter(tmp_path, base=MoE()), changed)


def test_experts_of_an_unknown_rank(tmp_path):
    model = adapted(mixtral(), target_parameters=BOTH)
    model.save_pretrained(tmp_path)
    path = tmp_path / "adapter_config.json"
    config = {name: value for name, value in json.loads(path.read_text()).items() if name != "r"}
    path.write_text(json.dumps(config))
    with pytest.raises(
        FormatError, match=r"number of experts that its pair holds: there is no r in .*`base`"
    ):
        load_adapter(tmp_path)
    assert_as_merged(load_adapter(tmp_path, base=mixtral()), changes(model))


def test_a_base_of_other_shapes(tmp_path):
    adapted(mixtral(), target_parameters=BOTH).save_pretrained(tmp_path)
    read = load_adapter(tmp_path)
    other = {
        key: value[:, :-1] if value.ndim == 3 else value for key, value in mixtral().state_dict().items()
    }
    module = "model.layers.0.mlp.experts.down_proj[3]"
    with pytest.raises(
        ShapeError, match=r"down_proj does not have the shape of its update: it is \[15, 12\]"
    ):
        load_base(other).weight(read[module])
    fewer = {key: value[:2] if value.ndim == 3 else value for key, value in mixtral().state_dict().items()}
    with pytest.raises(ShapeError, match=r"it is \[2, 16, 12\] and delta_W of module .*\[3\] is \[16, 12\]"):
        load_base(fewer).weight(read[module])


@pytest.mark.parametrize("name", ["mixtral", "qwen3_moe"])
def test_a_layer_for_each_expert_in_the_adapter_and_one_parameter_in_the_base(name):
    model = built(name)
    names = {"mixtral": ("w1", "w3", "w2"), "qwen3_moe": ("gate_proj", "up_proj", "down_proj")}[name]
    opened = load_base(model)
    weights = model.state_dict()
    W = weights["model.layers.1.mlp.experts.gate_up_proj"][2].numpy()
    down = weights["model.layers.1.mlp.experts.down_proj"][2].numpy()
    m = len(W) // 2
    parent = "block_sparse_moe" if name == "mixtral" else "mlp"
    for part, expected in zip(names, (W[:m], W[m:], down), strict=True):
        module = f"model.layers.1.{parent}.experts.2.{part}"
        d_out, d_in = expected.shape
        update = load_adapter(
            {f"{module}.lora_A": np.ones((2, d_in)), f"{module}.lora_B": np.ones((d_out, 2))}
        )
        found = opened.weight(update[module])
        np.testing.assert_array_equal(found.factor().load(), expected)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_stacked_factors_are_one_update_for_each_expert(dtype, tmp_path):
    from safetensors.torch import save_file

    torch.manual_seed(0)
    A, B = torch.randn(4, 2, 8), torch.randn(4, 6, 2)
    A, B = (M.to(getattr(torch, dtype)) for M in (A, B))
    module = "base_model.model.decoder.layers.0.mlp.experts.linear_fc1"
    save_file(
        {f"{module}.lora_A.weight": A, f"{module}.lora_B.weight": B}, tmp_path / "adapter_model.safetensors"
    )
    config = {"peft_type": "LORA", "r": 2, "lora_alpha": 8, "target_modules": ["linear_fc1"]}
    (tmp_path / "adapter_config.json").write_text(json.dumps(config))
    read = load_adapter(tmp_path)
    assert list(read) == [f"decoder.layers.0.mlp.experts.linear_fc1[{n}]" for n in range(4)]
    for n, update in enumerate(read.values()):
        assert "expert" in update.flags
        np.testing.assert_allclose(update.delta_W(), 4 * (B[n].double() @ A[n].double()).numpy(), rtol=1e-12)


def test_a_convolution_of_one_dimension_is_no_stack(tmp_path):
    torch.manual_seed(0)
    model = torch.nn.ModuleDict({"conv": torch.nn.Conv1d(4, 6, 3)})
    adapted(model, target_modules=["conv"]).save_pretrained(tmp_path)
    assert [update.kind for update in load_adapter(tmp_path).values()] == ["conv"]


def test_stacks_that_do_not_multiply():
    A, B = np.ones((4, 2, 8), "f4"), np.ones((4, 6, 3), "f4")
    with pytest.raises(ShapeError, match="not pointwise"):
        load_adapter({"x.lora_A.weight": A, "x.lora_B.weight": B})


def grouped(prefix="base_model.model."):
    rng = np.random.default_rng(0)
    experts = f"{prefix}model.layers.0.mlp.experts"
    shapes = {
        f"{experts}.lora_gate_and_up_A": (4, 8, 2), f"{experts}.lora_gate_and_up_B": (4, 2, 12),
        f"{experts}.lora_down_A": (4, 6, 2), f"{experts}.lora_down_B": (4, 2, 8),
        f"{prefix}model.layers.0.self_attn.q_proj.lora_A.weight": (2, 8),
        f"{prefix}model.layers.0.self_attn.q_proj.lora_B.weight": (8, 2),
    }  # fmt: skip
    return {key: rng.normal(size=shape).astype("f4") for key, shape in shapes.items()}


@pytest.mark.parametrize("prefix", ["base_model.model.", ""])
def test_grouped_experts_are_stored_for_x_A_B(prefix, tmp_path):
    from safetensors.numpy import save_file

    tensors = grouped(prefix)
    save_file(tensors, tmp_path / "adapter_model.safetensors")
    config = {"peft_type": "LORA", "r": 2, "lora_alpha": 8}
    (tmp_path / "adapter_config.json").write_text(json.dumps(config))
    read = load_adapter(tmp_path)
    assert read.unknown == ()
    experts = f"{prefix}model.layers.0.mlp.experts"
    for part, name in (("gate_and_up", "gate_up_proj"), ("down", "down_proj")):
        A, B = (tensors[f"{experts}.lora_{part}_{side}"].astype("f8") for side in "AB")
        for n in range(4):
            update = read[f"model.layers.0.mlp.experts.{name}[{n}]"]
            np.testing.assert_allclose(update.delta_W(), 4 * (A[n] @ B[n]).T, rtol=1e-12)
    assert len(read) == 9
    del tensors[f"{experts}.lora_down_B"]
    with pytest.raises(ShapeError, match=r"Incomplete pair: lora_down_B is missing"):
        load_adapter(tensors)


def test_grouped_experts_alone_without_a_scale():
    tensors = {key: value for key, value in grouped().items() if "experts" in key}
    read = load_adapter(tensors)
    assert len(read) == 8
    assert any("scale is unknown" in note for note in read.notes)
    tensors["base_model.model.model.layers.0.mlp.experts.lora_down_A"] = np.ones((4, 6, 3), "f4")
    with pytest.raises(ShapeError, match="grouped experts do not fit together"):
        load_adapter(tensors)
