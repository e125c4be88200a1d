"""Adapters put onto their model: against PEFT, against the trainer's own losses; the statistics of differences."""

from __future__ import annotations

import copy
import json

import numpy as np
import pytest
import torch
from tiny_models import TEXTS, tiny

import subspace
from subspace.adapters import dora, load_adapter, load_base
from subspace.analysis import update_variants
from subspace.analysis.applied_updates import applied
from subspace.analysis.paired_rows import paired_rows
from subspace.analysis.update_variants import Variant, named_sources
from subspace.analysis.weight_changes import changes_of
from subspace.errors import FormatError, InconclusiveError, ValueRangeError
from subspace.training import IA3, Full, Job, LoRA, Recipe, train
from subspace.training.outcomes import Outcomes

pytest.importorskip("transformers")
pytestmark = pytest.mark.filterwarnings(r"ignore:::peft\..*")

IDS = torch.arange(20).view(2, 10)


@pytest.fixture(scope="session")
def text(tmp_path_factory):
    path = tmp_path_factory.mktemp("text") / "text.txt"
    path.write_text("\n".join(f"{n}. {line}" for n in range(30) for line in TEXTS), encoding="utf-8")
    return str(path)


@pytest.fixture(scope="session")
def labelled(tmp_path_factory):
    rows = [f"{n} {text}\t{n % 2}" for n in range(40) for text in TEXTS[: 1 + n % 2]]
    path = tmp_path_factory.mktemp("rows") / "rows.tsv"
    path.write_text("\n".join(["document\tlabel", *rows]) + "\n", encoding="utf-8")
    return str(path)


def _train(model, data, out, **given):
    recipe = Recipe(
        **{"steps": 6, "batch": 4, "length": 16, "lr": 1e-2, "dtype": "float32", **given.pop("recipe", {})}
    )
    job = Job(model=str(model), data=data, recipe=recipe, threads=1, accounts=False, **given)
    return train(job, out).record["held_out"]


@pytest.fixture(scope="session")
def trained(tmp_path_factory, text):
    """A LLaMA and two adapters of it."""
    folder = tmp_path_factory.mktemp("trained")
    model = tiny("llama", folder / "model")
    records = {
        name: _train(model, text, folder / name, method=LoRA(r=4, seed=seed))
        for seed, name in enumerate(("one", "other"))
    }
    return folder, records


def _peft(folder, kind, targets, **settings):
    """A saved adapter with random numbers in everything that it trains, and its outputs."""
    import peft
    import transformers

    base = transformers.AutoModelForCausalLM.from_pretrained(tiny(kind, folder / "model")).eval()
    plain = copy.deepcopy(base)
    torch.manual_seed(0)
    settings = dict(settings)
    kind = settings.pop("config", "LoraConfig")
    lora = {"r": 3, "lora_alpha": 5} if kind == "LoraConfig" else {}
    config = getattr(peft, kind)(target_modules=targets, task_type="CAUSAL_LM", **{**lora, **settings})
    model = peft.get_peft_model(base, config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.1 * torch.randn_like(parameter))
        model.save_pretrained(folder / "adapter")
        return plain, model.eval()(IDS).logits


@pytest.mark.parametrize("kind", ["Mixtral", "GptOss"])
def test_experts_that_share_a_parameter(kind):
    """Each expert has its own part of a pair; GPT-OSS keeps weights (d_in, d_out)."""
    import peft
    import transformers

    config = getattr(transformers, f"{kind}Config")(
        hidden_size=16, intermediate_size=12, num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=2,
        head_dim=8, vocab_size=37, pad_token_id=0, num_local_experts=4, num_experts_per_tok=2,
    )  # fmt: skip
    torch.manual_seed(0)
    model = getattr(transformers, f"{kind}ForCausalLM")(config).eval()
    plain = copy.deepcopy(model)
    experts = ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"]
    wrapped = peft.get_peft_model(model, peft.LoraConfig(r=2, target_modules=[], target_parameters=experts))
    with torch.no_grad():
        for name, parameter in wrapped.named_parameters():
            if "lora_" in name:
                parameter.normal_()
        theirs = wrapped.eval()(IDS).logits
        changes = changes_of(plain, load_base(plain), load_adapter(wrapped))
        with applied(plain, changes.of):
            ours = plain(IDS).logits
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
    assert len(changes.of) == 2


_SPLIT = {"length": 16, "held_out": 0.05}
_LINEAR, _CONV1D = ["q_proj", "down_proj"], ["c_attn", "c_fc"]


@pytest.mark.parametrize(
    ("kind", "targets", "settings"),
    [
        ("llama", _LINEAR, {"use_rslora": True}),
        ("llama", [*_LINEAR, "embed_tokens"], {}),
        ("llama", _LINEAR, {"use_dora": True}),
        ("llama", _LINEAR, {"modules_to_save": ["lm_head"]}),
        ("gpt2", _CONV1D, {"fan_in_fan_out": True}),
        ("gpt2", _CONV1D, {"fan_in_fan_out": True, "bias": "all"}),
        ("gpt2", _CONV1D, {"fan_in_fan_out": True, "lora_bias": True}),
        ("gpt2", _CONV1D, {"config": "IA3Config", "feedforward_modules": ["c_fc"], "fan_in_fan_out": True}),
        ("llama", _LINEAR, {"config": "IA3Config", "feedforward_modules": ["down_proj"]}),
        ("llama", ["q_proj", "v_proj"], {"config": "OFTConfig", "oft_block_size": 8}),
        ("llama", _LINEAR, {"config": "AdaLoraConfig", "init_r": 4, "total_step": 10}),
        ("llama", _LINEAR, {"config": "LoHaConfig", "r": 2, "alpha": 3}),
        ("llama", ["q_proj", "v_proj"], {"config": "VeraConfig", "r": 4}),
        # the output layer is tied to this table, and PEFT leaves it as it is
        ("gpt2", ["wte"], {}),
    ],
)
def test_the_outputs_are_those_of_peft_and_the_model_is_left_as_it_was(tmp_path, kind, targets, settings):
    model, theirs = _peft(tmp_path, kind, targets, **settings)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    weights = load_base(model)
    changes = changes_of(model, weights, load_adapter(tmp_path / "adapter", base=weights))
    with torch.no_grad():
        with applied(model, changes.of) as unused:
            ours = model(IDS).logits
        plain = model(IDS).logits
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)
    assert not torch.allclose(plain, theirs, atol=1e-3) and unused == []
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert changes.kept == (("lm_head.weight",) if "modules_to_save" in settings else changes.kept)


@pytest.mark.parametrize("format", ["kohya", "loralib"])
def test_any_format_is_put_onto_the_model_as_the_one_it_was_converted_from(tmp_path, trained, text, format):
    folder, _ = trained
    out = tmp_path / {"loralib": "a.pt"}.get(format, "a.safetensors")
    subspace.convert(folder / "one", to=format).save(out)
    scale = {"scale": 4.0} if format == "loralib" else {}
    found = [
        subspace.evaluate(folder / "model", each, text, **how)
        for each, how in ((folder / "one", _SPLIT), (out, {**_SPLIT, **scale}))
    ]
    np.testing.assert_allclose(found[1].modules[1].losses, found[0].modules[1].losses, rtol=1e-5)


def test_an_error_in_the_forward_pass_leaves_the_model_as_it_was(trained):
    import transformers

    folder, _ = trained
    model = transformers.AutoModelForCausalLM.from_pretrained(folder / "model")
    own = dict(model.named_parameters())
    weights = load_base(model)
    changes = changes_of(model, weights, load_adapter(folder / "one"))
    with pytest.raises(IndexError), applied(model, changes.of):
        model(torch.tensor([[10**6]]))
    assert all(own[name] is parameter for name, parameter in model.named_parameters())
    assert not model._forward_hooks and not any(m._forward_pre_hooks for m in model.modules())


def test_a_layer_that_its_parent_reads_is_changed_where_it_is_read():
    model = torch.nn.TransformerEncoderLayer(8, 2, 16, batch_first=True).eval()
    keys = ("self_attn.out_proj", "linear1")
    rng = np.random.default_rng(0)
    factors = {}
    for key in keys:
        n, m = model.get_submodule(key).weight.shape
        factors |= {
            f"{key}.lora_A": rng.standard_normal((2, m)).astype("f4"),
            f"{key}.lora_B": rng.standard_normal((n, 2)).astype("f4"),
        }
    merged = copy.deepcopy(model)
    adapter = load_adapter(factors, scale=0.5)
    with torch.no_grad():
        for key in keys:
            merged.get_submodule(key).weight += torch.from_numpy(adapter[key].delta_W()).float()
        x = torch.randn(1, 3, 8)
        with applied(model, changes_of(model, load_base(model), adapter).of) as unused:
            ours = model(x)
        torch.testing.assert_close(ours, merged(x), rtol=1e-5, atol=1e-6)
    assert unused == []


def test_what_is_not_called_is_named():
    model = torch.nn.ModuleDict({"used": torch.nn.Linear(3, 3), "idle": torch.nn.Linear(3, 3)})
    factors = {f"idle.lora_{part}": np.ones(shape, "f4") for part, shape in (("A", (1, 3)), ("B", (3, 1)))}
    with applied(model, changes_of(model, load_base(model), load_adapter(factors, scale=1.0)).of) as unused:
        model["used"](torch.ones(3))
    assert unused == ["idle.weight"]


@pytest.mark.parametrize(
    ("kind", "method", "targets"),
    [
        ("llama", LoRA(r=4), ()),
        ("gpt2", LoRA(r=2, groups=(True, False, True)), ("c_attn",)),
        ("gpt2", IA3(feedforward=("c_proj",)), ("c_attn", "mlp.c_proj")),
        ("llama", Full(), ()),
        ("t5", LoRA(r=4), ()),
    ],
)
def test_the_losses_are_the_trainers_own(tmp_path, text, kind, method, targets):
    record = _train(tiny(kind, tmp_path / "model"), text, tmp_path / "run", method=method, targets=targets)
    found = subspace.evaluate(updates=tmp_path / "run")
    for row, when in zip(found, ("before", "after"), strict=True):
        assert row.loss == pytest.approx(record[when]["loss"], rel=1e-5)
        assert row.bits_per_byte == pytest.approx(record[when]["bits_per_byte"], rel=1e-5)
        assert row.loss == pytest.approx(np.average(row.losses, weights=row.weights))
    assert found.data[0].held_out == pytest.approx(0.05) and found.model == str(tmp_path / "model")


@pytest.mark.parametrize("kind", ["bert", "gpt2"])
def test_a_classifier_comes_with_its_head(tmp_path, labelled, kind):
    record = _train(tiny(kind, tmp_path / "model"), labelled, tmp_path / "run", recipe={"held_out": 0.3})
    found = subspace.evaluate(updates={"a": tmp_path / "run"})
    for name, when in (("base", "before"), ("a", "after")):
        assert found[name].loss == pytest.approx(record[when]["loss"], rel=1e-5)
        assert found[name].accuracy == record[when]["accuracy"]
    assert any("classifier" in key or "score" in key for key in found.adapters[0].kept)
    assert any("started at random (seed 0): base is measured with that" in note for note in found.notes)
    assert "which are put onto the model too" in found.facts()[-1] and found.data[0].unit == "text"


def test_forgetting_is_measured_on_other_data_with_the_same_body(tmp_path, text, labelled):
    _train(tiny("gpt2", tmp_path / "model"), labelled, tmp_path / "run", recipe={"held_out": 0.3})
    found = subspace.evaluate(updates={"a": tmp_path / "run"}, data={"own": labelled, "base": text})
    assert [(row.update, row.data) for row in found] == [
        (update, data) for data in ("own", "base") for update in ("base", "a")
    ]
    # the run trained on one of the two
    assert [each.held_out for each in found.data] == [0.3, 1.0]
    assert [each.noun for each in found.data] == ["text", "window"]
    assert found["a", "base"].accuracy_difference is not None and found["a", "base"].macro_f1 is None
    assert any("no place for" in note and "score" in note for note in found.notes)
    assert found.headline().startswith("On own, a ")


def test_cut_and_merged_updates(trained, text):
    folder, records = trained
    model = str(folder / "model")
    found = subspace.evaluate(
        model,
        [folder / "one", folder / "other"],
        truncate=(2, 4),
        merge=("sum", "0.5*one + 0.5*other", {"one@r=2": 1.0}, "one + -1*one"),
        reference="one",
    )
    assert [row.update for row in found] == [
        "base", "one", "one@r=2", "one@r=4", "other", "other@r=2", "other@r=4",
        "sum", "0.5*one + 0.5*other", "1*one@r=2", "one + -1*one",
    ]  # fmt: skip
    assert found["one@r=4"].loss == pytest.approx(records["one"]["after"]["loss"], rel=1e-5)
    assert found["1*one@r=2"].loss == pytest.approx(found["one@r=2"].loss, rel=1e-6)
    assert found["one + -1*one"].loss == pytest.approx(found["base"].loss, rel=1e-6)
    assert found["one@r=4"].kept == pytest.approx(1, abs=1e-4) and 0 < found["one@r=2"].kept < 1.1
    assert found["one"].loss_difference is None and found["base"].loss_difference > 0
    # the sum of two updates is that of their matrices
    adapters = [load_adapter(folder / name) for name in ("one", "other")]
    summed = {module: adapters[0][module].delta_W() + adapters[1][module].delta_W() for module in adapters[0]}
    dense = {f"{module}.delta_W": np.asarray(matrix, "f4") for module, matrix in summed.items()}
    again = subspace.evaluate(model, {"dense": dense}, text, length=16, held_out=0.05)
    assert again["dense"].loss == pytest.approx(found["sum"].loss, rel=1e-5)


def test_a_model_in_memory_with_its_tokenizer(trained, text):
    import transformers

    folder, records = trained
    model = transformers.AutoModelForCausalLM.from_pretrained(folder / "model").train()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder / "model")
    rng = torch.random.get_rng_state()
    for given in (tokenizer, lambda text: tokenizer(text, add_special_tokens=False)["input_ids"]):
        found = subspace.evaluate(model, folder / "one", tokenizer=given)
        assert found["one"].loss == pytest.approx(records["one"]["after"]["loss"], rel=1e-5)
    assert model.training and torch.equal(rng, torch.random.get_rng_state())
    with pytest.raises(
        ValueRangeError, match="does not say how texts become ids: LlamaForCausalLM; give `tokenizer`"
    ):
        subspace.evaluate(model, folder / "one", text)


def test_modules_that_the_model_lacks_are_named(trained, text, monkeypatch):
    folder, _ = trained
    factors = {"A": np.ones((1, 32), "f4"), "B": np.ones((32, 1), "f4")}
    named = {
        f"model.layers.{n}.self_attn.q_proj.lora_{part}": factors[part] for n in range(3) for part in "AB"
    }
    message = r"lacks 1 of 3 modules of the adapter \(model\.layers\.2\.self_attn\.q_proj\)"
    with pytest.raises(FormatError, match=message):
        subspace.evaluate(folder / "model", named, text, scale=1.0)
    found = {
        key.replace("layers.2", "layers.1").replace("q_proj", "k_proj"): value for key, value in named.items()
    }
    elsewhere = {f"vision.{key}".replace("self_attn", "other"): value for key, value in found.items()}
    with pytest.raises(InconclusiveError, match="lacks 2 of 2 modules"):
        subspace.evaluate(folder / "model", elsewhere, text, scale=1.0)
    monkeypatch.setattr(
        update_variants, "truncate", None
    )  # nothing is cut first: ten thousand modules take a minute
    with pytest.raises(InconclusiveError, match="lacks 2 of 2 modules"):
        subspace.evaluate(folder / "model", elsewhere, text, scale=1.0, truncate=[1])
    with pytest.raises(InconclusiveError, match="The scale of delta_W is unknown"):
        subspace.evaluate(folder / "model", found, text)


def test_what_a_file_holds_in_full_and_the_model_has_no_place_for_is_named(trained, text):
    folder, _ = trained
    adapter = load_adapter(folder / "one")
    tensors = {key: adapter.tensors.read(key) for key in adapter.tensors.layout}
    tensors["score.weight"] = np.ones((2, 32), "f4")
    with pytest.raises(
        FormatError, match=r"no place for what the file holds besides its updates: score\.weight"
    ):
        subspace.evaluate(folder / "model", tensors, text, scale=1.0)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"reference": "two"}, "Nothing is called 'two'.*; there are base, one"),
        ({"merge": ["0.5*two"]}, "No adapter is called 'two'"),
        ({"merge": ["1.2.3*one"]}, "Cannot read the sum of adapters '1.2.3\\*one'"),
        ({"held_out": 0.7}, "Invalid `held_out` 0.7"),
        ({"most": 0}, "Invalid `most` 0"),
        ({"truncate": (2, 2)}, "Two things to measure have one name: one@r=2"),
    ],
)
def test_settings_that_cannot_be(trained, given, message):
    folder, _ = trained
    with pytest.raises(ValueRangeError, match=message):
        subspace.evaluate(folder / "model", {"one": folder / "one"}, **given)


def test_without_data_there_must_be_a_run(trained):
    folder, _ = trained
    with pytest.raises(ValueRangeError, match=r"No data to evaluate on, and no adapter has a run\.json"):
        subspace.evaluate(folder / "model")


def test_names_of_adapters():
    assert list(named_sources("runs/r8/")) == ["r8"]
    assert list(named_sources(["r8", "r8"])) == ["r8", "r8#2"]
    assert list(named_sources({"q.lora_A": np.ones(1)})) == ["adapter"]


def test_a_result_is_a_table_json_and_csv(trained):
    folder, _ = trained
    found = subspace.evaluate(updates=folder / "one", truncate=(1,))
    document = json.loads(found.to_json())
    assert document["schema"] == "subspace.evaluate/1" and [each["update"] for each in document["rows"]] == [
        "base", "one", "one@r=1",
    ]  # fmt: skip
    assert "losses" not in document["rows"][0] and len(found.document(losses=True)["rows"][0]["losses"]) > 1
    assert "macro_f1" not in found.columns() and "data" not in found.columns()
    assert "one" in found._repr_html_() and found.to_csv().startswith("update,data,kind,loss,")
    assert [row.update for row in found.selected(modules=["one*"], sort="loss")] in (
        ["one", "one@r=1"], ["one@r=1", "one"],
    )  # fmt: skip


def _outcomes(losses, weights=None):
    losses = np.asarray(losses, float)
    weights = np.ones(len(losses)) if weights is None else np.asarray(weights, float)
    return Outcomes(losses, weights, np.zeros(len(losses)))


def _row(first, second, **given):
    variants = [Variant("base", "base"), Variant("a", "adapter")]
    return paired_rows(variants, [first, second], data="", reference="base", **given)[1]


def test_pairs_take_out_what_makes_examples_hard():
    hard = np.random.default_rng(0).normal(3, 2, 200)
    row = _row(_outcomes(hard), _outcomes(hard - 0.1))
    assert (row.loss_difference, row.loss_low, row.loss_high) == pytest.approx((-0.1, -0.1, -0.1))
    assert row.clear and not _row(_outcomes(hard), _outcomes(hard)).clear


def test_examples_count_by_their_tokens():
    row = _row(_outcomes([1, 2], [1, 3]), _outcomes([1, 4], [1, 3]))
    assert row.loss == pytest.approx(13 / 4) and row.loss_difference == pytest.approx(6 / 4)


@pytest.mark.slow
@pytest.mark.parametrize("n", [20, 100])
def test_the_interval_covers_the_true_difference_and_equal_adapters_do_not_differ(n):
    rng, runs = np.random.default_rng(n), 600
    covered = clear = 0
    for seed in range(runs):
        weights = rng.integers(20, 200, n)
        hard, noise = rng.normal(3, 1, n), rng.gamma(2, 0.05, (2, n))
        first = _outcomes(hard + noise[0], weights)
        row = _row(first, _outcomes(hard + noise[1] - 0.02, weights), resamples=1000, seed=seed)
        covered += row.loss_low <= -0.02 <= row.loss_high
        clear += _row(first, _outcomes(hard + noise[1], weights), resamples=1000, seed=seed).clear
    # three standard errors of a share of 0.95 are 0.027
    assert covered / runs == pytest.approx(0.95, abs=0.03)
    assert clear / runs == pytest.approx(0.05, abs=0.03)


def test_macro_f1_is_the_mean_over_classes():
    labels, predicted = np.array([0, 0, 0, 1]), np.array([0, 0, 1, 1])
    found = Outcomes(np.ones(4), np.ones(4), (labels == predicted).astype(float), labels, predicted)
    row = _row(found, found)
    # F1 is 2 * 2 / (3 + 2) of the first class and 2 * 1 / (1 + 2) of the second
    assert row.macro_f1 == pytest.approx((4 / 5 + 2 / 3) / 2) and row.accuracy == 0.75
    assert row.macro_f1_difference == 0 and row.bits_per_byte is None


def test_one_weight_is_held_twice_at_a_time():
    model = torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.Linear(3, 3))
    own = [layer.weight for layer in model]
    factors = {
        f"{n}.lora_{part}": np.ones(s, "f4") for n in "01" for part, s in (("A", (1, 3)), ("B", (3, 1)))
    }
    seen = []
    with applied(model, changes_of(model, load_base(model), load_adapter(factors, scale=1.0)).of):
        for layer in model:
            layer.register_forward_pre_hook(
                lambda *_: seen.append([m.weight is w for m, w in zip(model, own, strict=True)])
            )
        model(torch.ones(3))
    assert seen == [[False, True], [True, False]]
    assert all(layer.weight is weight for layer, weight in zip(model, own, strict=True))


def test_magnitudes_of_a_renamed_dora_are_found(tmp_path):
    _peft(tmp_path, "llama", _LINEAR, use_dora=True)
    adapter = load_adapter(tmp_path / "adapter", rename={f"model.layers.{n}": f"h.{n}" for n in range(2)})
    assert len(adapter) == 4
    assert all(name.startswith("h.") and dora.magnitudes(each, adapter) for name, each in adapter.items())
