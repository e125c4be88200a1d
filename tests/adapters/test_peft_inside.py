"""PEFT models in memory of every kind: inside other modules, mixed, merged, injected, of transformers and diffusers."""

from __future__ import annotations

import numpy as np
import peft
import pytest
import torch
from safetensors.torch import load

from subspace import convert
from subspace.adapters import load_adapter, load_base
from subspace.errors import FormatError

pytestmark = [
    pytest.mark.filterwarnings(r"ignore:::peft\..*"),
    pytest.mark.filterwarnings(r"ignore:::transformers\..*"),
    pytest.mark.filterwarnings(r"ignore:::diffusers\..*"),
]


class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.h = torch.nn.ModuleList(torch.nn.ModuleDict(self.layer()) for _ in range(2))
        self.head = torch.nn.Linear(8, 3)

    @staticmethod
    def layer():
        return {"q": torch.nn.Linear(8, 8), "v": torch.nn.Linear(8, 6), "k": torch.nn.Linear(8, 8)}


def randomise(model):
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.normal_()


def adapted(net=None, name="default", seed=0, **options):
    torch.manual_seed(seed)
    config = peft.LoraConfig(**{"target_modules": ["q", "v"], "r": 2, "lora_alpha": 6, **options})
    model = peft.get_peft_model(net or Net(), config, adapter_name=name)
    randomise(model)
    return model


def expected(model, name="default", outer=""):
    """Module -> delta_W of PEFT, named as in the model."""
    deltas = {}
    for module, layer in model.named_modules():
        if hasattr(layer, "get_delta_weight") and name in getattr(layer, "scaling", {}):
            path = module.removeprefix("base_model.model.").replace(".base_layer", "")
            deltas[outer + path] = layer.get_delta_weight(name).detach().double().numpy()
    assert deltas
    return deltas


def assert_reads(read, wanted):
    assert set(read) == set(wanted)
    for module, delta in wanted.items():
        np.testing.assert_allclose(read[module].delta_W(), delta, rtol=0, atol=1e-5, err_msg=module)
    assert read.unknown == ()


class Outer(torch.nn.Module):
    def __init__(self, **models):
        super().__init__()
        for name, model in models.items():
            setattr(self, name, model)
        self.projector = torch.nn.Linear(8, 8)


def test_two_models_inside_another_keep_their_own_configurations():
    llm = adapted(r=2, lora_alpha=6, rank_pattern={"^h.1.q$": 4})
    vision = adapted(seed=1, r=3, lora_alpha=5, use_rslora=True, target_modules=["k"])
    read = load_adapter(Outer(llm=llm, vision=vision))
    assert_reads(read, expected(llm, outer="llm.") | expected(vision, outer="vision."))
    assert read["llm.h.1.q"].r == 4
    assert {update.scale.source for update in read.values()} == {"config alpha/r", "config alpha/sqrt(r)"}
    assert any("llm" in note and "vision" in note for note in read.notes)
    assert any(entry.key == "projector.weight" for entry in read.ignored)
    assert read.format == "peft"


def test_the_base_of_two_models_inside_another():
    model = Outer(llm=adapted(), vision=adapted(seed=1))
    base = load_base(model)
    for module, update in load_adapter(model).items():
        outer, _, inner = module.partition(".")
        own = getattr(model, outer).get_submodule(f"base_model.model.{inner}.base_layer").weight
        np.testing.assert_array_equal(base.weight(update).factor().load(), own.detach())


def test_one_model_inside_another_has_its_own_names():
    inner = adapted(rank_pattern={"^h.1.q$": 4})
    for model in (Outer(llm=inner), Outer(model=Outer(llm=inner))):
        read = load_adapter(model)
        assert_reads(read, expected(inner))
        assert any("llm of the model" in note and "left out" in note for note in read.notes)
        assert all(load_base(model).weight(update) is not None for update in read.values())


def test_layers_of_the_model_around_are_of_no_adapter():
    inner = adapted()
    model = Outer(llm=inner)
    model.h = Net().h
    model.h[0]["q"].lora_A = torch.nn.ModuleDict({"default": torch.nn.Linear(8, 2, bias=False)})
    read = load_adapter(model)
    assert_reads(read, expected(inner))
    assert any(entry.key == "h.0.q.lora_A.default.weight" for entry in read.ignored)


@pytest.mark.parametrize("options", [{"lora_bias": True}, {"use_dora": True}, {"modules_to_save": ["head"]}])
def test_models_inside_another_are_written_with_all_that_was_trained(options):
    llm, vision = adapted(**options), adapted(seed=1, **options)
    alone = peft.get_peft_model_state_dict(llm)
    written = load(convert(Outer(llm=llm), to="peft").files["adapter_model.safetensors"])
    assert set(written) == set(alone)
    assert all(torch.equal(written[key], alone[key]) for key in alone)
    both = load(convert(Outer(llm=llm, vision=vision), to="peft").files["adapter_model.safetensors"])
    start = "base_model.model."
    assert set(both) == {
        f"{start}{outer}.{key.removeprefix(start)}" for outer in ("llm", "vision") for key in alone
    }


def test_adapters_of_models_inside_another_are_chosen_by_name():
    llm, vision = adapted(name="text"), adapted(name="image", seed=1, r=3)
    llm.add_adapter("both", peft.LoraConfig(target_modules=["k"], r=1, lora_alpha=2))
    vision.add_adapter("both", peft.LoraConfig(target_modules=["q"], r=4, lora_alpha=2))
    for model in (llm, vision):
        model.set_adapter("both")
        randomise(model)
    model = Outer(llm=llm, vision=vision)
    with pytest.raises(FormatError, match=r"2 adapters in llm of the model: text, both; .*`adapter_name`"):
        load_adapter(model)
    with pytest.raises(FormatError, match=r"No adapter 'third' in the model, which holds text, both, image"):
        load_adapter(model, adapter_name="third")
    assert_reads(load_adapter(model, adapter_name="text"), expected(llm, "text", "llm."))
    both = expected(llm, "both", "llm.") | expected(vision, "both", "vision.")
    assert_reads(load_adapter(model, adapter_name="both"), both)


def test_models_of_different_kinds_inside_another():
    vera = peft.get_peft_model(Net(), peft.VeraConfig(target_modules=["q"], r=2))
    randomise(vera)
    llm = adapted()
    model = Outer(llm=llm, vision=vera)
    read = load_adapter(model)
    assert read.format == "peft + vera"
    wanted = expected(llm, outer="llm.")
    for module, layer in vera.named_modules():
        if hasattr(layer, "get_delta_weight"):
            delta = layer.get_delta_weight("default").detach().double().numpy()
            wanted["vision." + module.removeprefix("base_model.model.")] = delta
    assert_reads(read, wanted)


def test_injected_without_a_peft_model():
    torch.manual_seed(0)
    config = peft.LoraConfig(target_modules=["q", "v"], r=2, lora_alpha=6)
    model = peft.inject_adapter_in_model(config, Net(), adapter_name="mine")
    randomise(model)
    assert_reads(load_adapter(model), expected(model, "mine"))
    del model.peft_config
    read = load_adapter(model)
    assert_reads(read, expected(model, "mine"))
    assert {update.scale.source for update in read.values()} == {"module"}
    assert not any("scale is unknown" in note for note in read.notes)


def test_layers_alone_of_several_adapters():
    model = peft.inject_adapter_in_model(peft.LoraConfig(target_modules=["q"]), Net(), adapter_name="one")
    model = peft.inject_adapter_in_model(
        peft.LoraConfig(target_modules=["q", "v"]), model, adapter_name="two"
    )
    del model.peft_config
    with pytest.raises(FormatError, match="2 adapters in the model: one, two"):
        load_adapter(model)
    assert set(load_adapter(model, adapter_name="one")) == {"h.0.q", "h.1.q"}


def test_mixed_models():
    torch.manual_seed(0)
    model = peft.get_peft_model(
        Net(), peft.LoraConfig(target_modules=["q", "v"], r=2, lora_alpha=6), adapter_name="lora", mixed=True
    )
    model.add_adapter("loha", peft.LoHaConfig(target_modules=["q"], r=3, alpha=2, init_weights=False))
    model.add_adapter("ada", peft.AdaLoraConfig(target_modules=["k"], total_step=3))
    model.set_adapter(["lora", "loha", "ada"])
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if ".lora_" in name or "hada_" in name:
                parameter.normal_()
    with pytest.raises(FormatError, match="3 adapters in the model: lora, loha, ada"):
        load_adapter(model)
    for name, known in (("lora", "peft"), ("loha", "peft_lycoris"), ("ada", "adalora")):
        read = load_adapter(model, adapter_name=name)
        assert read.format == known
        assert_reads(read, expected(model, name))


def test_a_merged_adapter_is_read_and_its_model_is_no_base():
    model = adapted()
    wanted = expected(model)
    assert not any("merged" in note for note in load_adapter(model).notes)
    model.merge_adapter()
    read = load_adapter(model)
    assert_reads(read, wanted)
    assert any("merged into the weights" in note and "unmerge_adapter()" in note for note in read.notes)
    with pytest.raises(FormatError, match=r"not those of its base.*merged.*default.*unmerge_adapter\(\)"):
        load_base(model)
    model.unmerge_adapter()
    load_base(model)


@pytest.mark.parametrize("combination", ["linear", "cat", "svd", "ties", "dare_linear_svd"])
def test_weighted_adapters(combination):
    model = adapted(name="a")
    model.add_adapter("b", peft.LoraConfig(target_modules=["q", "v"], r=2, lora_alpha=9))
    model.set_adapter("b")
    randomise(model)
    options = {"density": 0.5} if combination in {"ties", "dare_linear_svd"} else {}
    model.add_weighted_adapter(["a", "b"], [0.7, -0.4], "sum", combination_type=combination, **options)
    assert_reads(load_adapter(model, adapter_name="sum"), expected(model, "sum"))


def test_a_model_of_transformers(monkeypatch):
    import transformers.integrations.peft
    from transformers import LlamaConfig, LlamaForCausalLM

    # it asks for the next release of PEFT, and does nothing here that this one cannot do
    monkeypatch.setattr(transformers.integrations.peft, "check_peft_version", lambda **_: None)
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
    model = LlamaForCausalLM(LlamaConfig(**sizes, vocab_size=37, pad_token_id=0))
    model.add_adapter(peft.LoraConfig(target_modules=["q_proj", "lm_head"], r=2, lora_alpha=6), "mine")
    randomise(model)
    read = load_adapter(model)
    assert_reads(read, expected(model, "mine"))
    assert "model.layers.0.self_attn.q_proj" in read


def test_a_model_of_diffusers(tmp_path):
    import diffusers

    torch.manual_seed(0)
    sizes = {
        "block_out_channels": (4, 8), "layers_per_block": 1, "norm_num_groups": 2, "cross_attention_dim": 8,
        "attention_head_dim": 2, "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
    }  # fmt: skip
    model = diffusers.UNet2DConditionModel(**sizes)
    model.add_adapter(peft.LoraConfig(target_modules=["to_q", "to_out.0"], r=2, lora_alpha=6), "one")
    randomise(model)
    wanted = expected(model, "one")
    assert_reads(load_adapter(model), wanted)
    model.save_lora_adapter(tmp_path, adapter_name="one")
    other = diffusers.UNet2DConditionModel(**sizes)
    weights = str(next(tmp_path.glob("*.safetensors")))
    other.load_lora_adapter(weights, prefix=None, adapter_name="style")
    assert_reads(load_adapter(other), expected(other, "style"))


@pytest.mark.parametrize(
    "options",
    [
        {}, {"lora_bias": True}, {"use_dora": True}, {"bias": "all"}, {"bias": "lora_only"},
        {"modules_to_save": ["head"]}, {"target_modules": ["q", "head"], "modules_to_save": ["head"]},
    ],
)  # fmt: skip
@pytest.mark.parametrize("several", [False, True])
def test_a_model_in_memory_is_written_as_peft_saves_it(options, several):
    model = adapted(**options)
    if several:
        model.add_adapter("other", peft.LoraConfig(target_modules=["k", "q"], r=3))
    written = convert(model, to="peft", adapter_name="default").files["adapter_model.safetensors"]
    got, wanted = load(written), peft.get_peft_model_state_dict(model, adapter_name="default")
    assert set(got) == set(wanted)
    assert all(torch.equal(got[key], wanted[key]) for key in wanted)


def test_what_is_not_peft_in_a_model_in_memory_is_ignored():
    read = load_adapter(adapted(lora_bias=True))
    whys = {entry.key.removeprefix("base_model.model."): entry.why for entry in read.ignored}
    assert whys["h.0.q.lora_B.bias"] == "a bias, which is not part of delta_W"
    assert whys["h.0.q.base_layer.weight"] == whys["head.weight"] == "a weight of the model"


class Attention(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.blocks = torch.nn.ModuleList(
            torch.nn.ModuleDict({"attn": torch.nn.MultiheadAttention(8, 2), "fc": torch.nn.Linear(8, 4)})
            for _ in range(2)
        )


def attention():
    torch.manual_seed(0)
    net = Attention()
    weights = {key: value.clone() for key, value in net.state_dict().items()}
    return adapted(net, target_modules=["attn", "fc"], rank_pattern={r"blocks\.1\.attn": 3}), weights


def test_attention_of_torch(tmp_path):
    model, weights = attention()
    model.save_pretrained(tmp_path)
    for read in (load_adapter(tmp_path), load_adapter(model)):
        assert_reads(read, expected(model))
        assert read["blocks.1.attn.out_proj"].r == read["blocks.1.attn"].r == 3
        for source in (weights, model):
            base = load_base(source)
            for module, update in read.items():
                key = f"{module}.{'in_proj_weight' if module.endswith('attn') else 'weight'}"
                np.testing.assert_array_equal(base.weight(update).factor().load(), weights[key])


def test_attention_of_torch_is_written_so_that_peft_loads_it(tmp_path):
    model, _ = attention()
    model.save_pretrained(tmp_path / "in")
    for source in (tmp_path / "in", model):
        conversion = convert(source, to="peft")
        out = tmp_path / f"out{type(source).__name__}"
        out.mkdir()
        for name, content in conversion.files.items():
            (out / name).write_bytes(content)
        loaded = peft.PeftModel.from_pretrained(Attention(), out)
        got, wanted = (peft.get_peft_model_state_dict(m) for m in (loaded, model))
        assert set(got) == set(wanted)
        assert all(torch.equal(got[key], wanted[key]) for key in wanted)


def test_attention_whose_pairs_differ_is_not_written():
    rng = np.random.default_rng(0)
    read = load_adapter(
        {
            "attn.lora_A": rng.normal(size=(2, 8)), "attn.lora_B": rng.normal(size=(24, 2)),
            "attn.out_proj.lora_A": rng.normal(size=(3, 8)), "attn.out_proj.lora_B": rng.normal(size=(8, 3)),
        },
        scale=1.0,
    )  # fmt: skip
    with pytest.raises(
        FormatError, match=r"in_proj and out_proj have different ranks or scales: r = 2 and 3"
    ):
        convert(read, to="peft")
